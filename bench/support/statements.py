"""The SQL of one trade, recorded from our own code and played again on bare asyncpg: the least that the ledger can cost."""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg

from services.runtime.clock import SystemClock
from services.runtime.secret import Secret
from services.session import codec
from services.session.adapters.ledger.database import (
    Connection,
    Database,
    PostgresDatabase,
    Row,
    nothing_to_reset,
)
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.adapters.vault import Vault
from services.session.domain.bot import ServiceLimits
from services.session.domain.events import BalanceChanged, StoredEvent
from services.session.domain.trade import BrokerOrder, Trade, TradeRequest, TradeState, order_of
from services.session.domain.values import (
    Account,
    AccountType,
    Broker,
    Direction,
    InstrumentType,
    SessionKey,
    TradeId,
    TradeSource,
    session_key,
)
from services.session.migrate import migrate
from services.session.ports import Credentials, Placed, SessionRecord
from services.session.use_cases.login import Logins
from services.session.use_cases.trading import TradeDesk
from tests.support.engines import postgres

CONNECTIONS = 20
"""As many as the session service's pool has."""

Statement = tuple[str, tuple[object, ...]]


@dataclass(slots=True)
class Script:
    """What one trade asks of the database, and the names in it that another trade has to replace."""

    steps: list[tuple[bool, list[Statement]]] = field(default_factory=list)
    """Whether it is a transaction, and its statements."""
    before_wire: int = 0
    """Steps that are done when the order may leave."""
    names: tuple[object, ...] = ()
    """Session, trade, order and balance of the recorded trade."""

    def trips(self, steps: int | None = None) -> int:
        """Round trips, BEGIN and COMMIT included."""
        return sum(len(statements) + 2 * transaction for transaction, statements in self.steps[:steps])

    def transactions(self) -> int:
        """Transactions that write."""
        return sum(transaction for transaction, _ in self.steps)


class _Recorder:
    """A ``Database`` that writes down what is asked of it."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self.script = Script()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        statements: list[Statement] = []
        async with self._database.transaction() as connection:
            yield _RecordedConnection(connection, statements)
        self.script.steps.append((True, statements))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        async with self.transaction() as connection:
            yield connection

    async def read(self, sql: str, *arguments: object) -> Sequence[Row]:
        self.script.steps.append((False, [(sql, arguments)]))
        return await self._database.read(sql, *arguments)


class _RecordedConnection:
    def __init__(self, connection: Connection, statements: list[Statement]) -> None:
        self._connection = connection
        self._statements = statements

    async def fetch(self, sql: str, *arguments: object) -> Sequence[Row]:
        self._statements.append((sql, arguments))
        return await self._connection.fetch(sql, *arguments)


class _AtOnce:
    """The least of a broker and of the signals: what the desk asks for is there."""

    def __init__(self, script: Script, account: Account) -> None:
        self._script = script
        self._account = account
        self.order: BrokerOrder

    async def connect(self, *_: object) -> tuple[Account, Secret]:
        return self._account, Secret("token")

    async def standing(self, *_: object) -> Account:
        return self._account

    async def place(self, trade: Trade) -> Placed:
        self._script.before_wire = len(self._script.steps)
        now = datetime.now(UTC)
        booked = order_of(trade, _order_id(), now, now + trade.duration)
        self.order = replace(booked, payout_rate=0.87, open_price=1.17)
        return Placed(self.order)


async def record(url: str) -> Script:
    """Place and settle one trade by the service's own code on a database; return what it asked for."""
    async with PostgresDatabase.at(url) as database:
        recorder = _Recorder(database)
        ledger = _ledger(recorder)
        session = await _session(ledger)
        recorder.script = Script()
        record = await ledger.session(session)
        if record is None:
            raise LookupError("the session that was just made is not there")
        broker: Any = _AtOnce(recorder.script, record.account)
        await _trade(ledger, broker, record)
        recorder.script.names = _names(record, broker.order.trade_id, broker.order.broker_order_id)
        return recorder.script


async def _trade(ledger: PostgresLedger, broker: Any, record: SessionRecord) -> None:
    desk = TradeDesk(
        ledger,
        broker,
        logins=Logins(ledger, broker),
        signals=broker,
        clock=SystemClock(),
        limits=ServiceLimits(),
        new_id=lambda: str(uuid.uuid4()),
    )
    key, epoch = record.session_key, record.epoch
    request = TradeRequest(
        session_key=key,
        source=TradeSource.MANUAL,
        asset="EURUSD-OTC",
        instrument_type=InstrumentType.BLITZ,
        direction=Direction.CALL,
        amount=Decimal(1),
        duration=timedelta(seconds=5),
    )
    await desk.place(record, request)
    await ledger.emit(key, BalanceChanged(Decimal(9_999), "USD"), epoch=epoch)
    ended = replace(broker.order, outcome=TradeState.WON, profit=Decimal("0.87"), close_price=1.18)
    await ledger.settled(key, replace(ended, close_time=ended.expiry_time), epoch=epoch)
    await ledger.emit(key, BalanceChanged(Decimal("10000.87"), "USD"), epoch=epoch)


class BareLedger:
    """Trades of a script on bare asyncpg, each session's one after the other."""

    def __init__(self, script: Script, pool: "asyncpg.Pool[asyncpg.Record]", sessions: Sequence[SessionRecord]) -> None:
        self._script = script
        self._pool = pool
        self._sessions = sessions
        self._seqs = [0] * len(sessions)

    async def trade(self, number: int) -> tuple[float, float]:
        """Play one trade of a session; returns the seconds until it may leave, and until all is written."""
        script = self._script
        record = self._sessions[number % len(self._sessions)]
        names = dict(zip(script.names, _names(record, TradeId(str(uuid.uuid4())), _order_id()), strict=True))
        began = time.perf_counter()
        wire = 0.0
        for position, (transaction, statements) in enumerate(script.steps):
            if position == script.before_wire:
                wire = time.perf_counter() - began
            async with self._pool.acquire() as connection:
                if not transaction:
                    await connection.fetch(statements[0][0], *self._replaced(number, statements[0][1], names))
                    continue
                async with connection.transaction():
                    for sql, arguments in statements:
                        await connection.fetch(sql, *self._replaced(number, arguments, names))
        return wire, time.perf_counter() - began

    def _replaced(self, number: int, arguments: Sequence[object], names: dict[object, object]) -> list[object]:
        changed: list[object] = []
        for argument in arguments:
            if isinstance(argument, list) and argument and isinstance(argument[0], int):
                # The numbers of events, which are unique in a session.
                number %= len(self._seqs)
                self._seqs[number] += len(argument)
                last = self._seqs[number]
                changed.append(list(range(last - len(argument) + 1, last + 1)))
            elif isinstance(argument, str | int):
                changed.append(names.get(argument, argument))
            else:
                changed.append(argument)
        return changed


@asynccontextmanager
async def bare_ledger(sessions: int) -> AsyncIterator[tuple[Script, BareLedger]]:
    """Run a PostgreSQL of its own, set up as the system's, with that many sessions, and record the script on it."""
    with postgres() as engine:
        await migrate(engine.url)
        script = await record(engine.url)
        async with PostgresDatabase.at(engine.url) as database:
            ledger = _ledger(database)
            records = [await ledger.session(await _session(ledger)) for _ in range(sessions)]
        async with asyncpg.create_pool(
            engine.url, min_size=CONNECTIONS, max_size=CONNECTIONS, reset=nothing_to_reset
        ) as pool:
            yield script, BareLedger(script, pool, [record for record in records if record is not None])


def _forget(_key: SessionKey, _event: StoredEvent, /) -> None:
    """Nobody listens."""


def _ledger(database: Database) -> PostgresLedger:
    return PostgresLedger(
        database,
        vault=Vault([bytes(32)]),
        clock=SystemClock(),
        encode=codec.encode_event,
        publish=_forget,
    )


async def _session(ledger: PostgresLedger) -> SessionKey:
    key = session_key(str(uuid.uuid4()))
    # No number that another argument could have: it is found by its value.
    balance_id = 10**15 + uuid.uuid4().int % 10**15
    account = Account(100_001, balance_id, AccountType.PRACTICE, Decimal(10_000), "USD")
    await ledger.create_session(
        key, Broker.IQ, account, Credentials(Secret("a@b.c"), Secret("secret"), Secret("token"))
    )
    return key


def _names(record: SessionRecord, trade_id: TradeId, order_id: str) -> tuple[object, ...]:
    return record.session_key, trade_id, order_id, record.account.balance_id


def _order_id() -> str:
    return str(10**14 + uuid.uuid4().int % 10**14)
