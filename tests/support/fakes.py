"""Fakes of the session's own ports: in memory, on a manual clock, faithful where a rule depends on it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from services.runtime.secret import Secret
from services.session.domain.bot import BotSettings
from services.session.domain.errors import (
    BrokerUnavailableError,
    InvalidCredentialsError,
    ModelNotFoundError,
    NotConnectedError,
    UnavailableError,
)
from services.session.domain.events import (
    SessionEnded,
    StoredEvent,
)
from services.session.domain.model import ModelVersion
from services.session.domain.trade import (
    BrokerOrder,
    BrokerOrders,
    Trade,
    TradeState,
    order_of,
)
from services.session.domain.values import (
    Account,
    AccountType,
    Asset,
    Broker,
    BrokerConnection,
    Candle,
    InstrumentType,
    SessionKey,
)
from services.session.ports import (
    AccountEvent,
    AnswerLost,
    Credentials,
    Decision,
    Placed,
    TwoFactor,
)
from tests.support.clocks import ManualClock
from tests.support.fake_ledger import FakeLedger


class FakeLeases:
    """Leases that are all ours, until a test takes them away."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.until = float("inf")
        self.held: set[SessionKey] = set()
        self.elsewhere: set[SessionKey] = set()
        self.behind = False
        """Whether other replicas look for sessions and this one does not."""
        self.incarnation = "first"

    async def run(self) -> None:
        await asyncio.Event().wait()

    def held_until(self) -> float:
        return self.until

    async def unheld(self, keys: Sequence[SessionKey]) -> Sequence[SessionKey]:
        return [key for key in keys if key not in self.elsewhere]

    async def looked(self) -> Collection[str]:
        return [self.incarnation]

    async def left_behind(self) -> bool:
        return self.behind

    async def let_go(self) -> None:
        self.held.clear()
        self.incarnation += "'"

    async def resign(self) -> None:
        self.held.clear()
        self.until = float("-inf")

    async def acquire(self, key: SessionKey) -> bool:
        if key in self.elsewhere:
            return False
        self.held.add(key)
        return True

    async def release(self, key: SessionKey) -> None:
        self.held.discard(key)


class FakeActivity:
    """Activity that lives in memory and reaches the ledger as the port says."""

    def __init__(self, ledger: FakeLedger, clock: ManualClock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._seen: dict[SessionKey, datetime] = {}

    async def touch(self, key: SessionKey, *, durable_last_seen: datetime) -> None:
        now = self._seen[key] = self._clock.now()
        if now - durable_last_seen >= timedelta(minutes=1):
            await self._ledger.touch(key, now)

    async def last_seen(self, key: SessionKey, *, durable_last_seen: datetime) -> datetime:
        return max(durable_last_seen, self._seen.get(key, durable_last_seen))


class FakeSignals:
    """Wakes that arrive at once, and candles for whoever listens."""

    def __init__(self) -> None:
        self.wakes: list[SessionKey] = []
        self.on_wake: Callable[[SessionKey], None] | None = None
        self.tells_watchers = True
        """Whether anybody learns who watches, as nobody does while Redis is away."""
        self._listeners: dict[SessionKey, list[asyncio.Queue[bytes]]] = defaultdict(list)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def wake(self, key: SessionKey) -> None:
        self.wakes.append(key)
        if self.on_wake is not None:
            self.on_wake(key)

    @asynccontextmanager
    async def woken(self) -> AsyncIterator[AsyncIterator[SessionKey]]:
        queue: asyncio.Queue[SessionKey] = asyncio.Queue()
        self.on_wake = queue.put_nowait

        async def keys() -> AsyncIterator[SessionKey]:
            while True:
                yield await queue.get()

        yield keys()

    async def publish_candle(self, key: SessionKey, payload: bytes) -> int:
        for queue in self._listeners[key]:
            queue.put_nowait(payload)
        return len(self._listeners[key])

    async def is_watched(self, key: SessionKey) -> bool:
        return self.tells_watchers and bool(self._listeners[key])

    @asynccontextmanager
    async def candles(self, key: SessionKey) -> AsyncIterator[AsyncIterator[bytes]]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._listeners[key].append(queue)

        async def payloads() -> AsyncIterator[bytes]:
            while True:
                yield await queue.get()

        try:
            yield payloads()
        finally:
            self._listeners[key].remove(queue)


class FakeEventLog:
    """Follows the fake ledger's events by looking at them again and again."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self._drained = False

    @asynccontextmanager
    async def subscribe(self, key: SessionKey, after_seq: int) -> AsyncIterator[AsyncIterator[StoredEvent]]:
        async def events() -> AsyncIterator[StoredEvent]:
            seq = after_seq
            while not self._drained:
                for event in await self._ledger.events_after(key, seq, 100):
                    seq = event.seq
                    yield event
                    if event.type == SessionEnded.type:
                        return
                await asyncio.sleep(0)

        yield events()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def drain(self) -> None:
        self._drained = True


class FakeTokens:
    """Tokens that say what they were made of."""

    def issue(self, session_id: str, subject: str, lifetime: timedelta) -> Secret:
        return Secret(f"{subject}|{session_id}|{int(lifetime.total_seconds())}")


Answer = Callable[[Trade], Awaitable[Placed | AnswerLost]]


class FakeBroker:
    """A broker with one balance per account type and user; what it was sent is in ``sent``."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.password = "secret"
        self.sent: list[Trade] = []
        self.logins: list[tuple[SessionKey, AccountType]] = []
        self.log_outs: list[SessionKey] = []
        self.balances: dict[SessionKey, Account] = {}
        self.connected: set[SessionKey] = set()
        self.refuse_login: Exception | None = None
        self.away = False
        self.answer: Answer = self.books
        self.listed: list[BrokerOrder] = []
        self.payout = 0.87
        self._feeds: dict[SessionKey, list[asyncio.Queue[AccountEvent | Exception]]] = defaultdict(list)
        self._candles: dict[SessionKey, list[asyncio.Queue[tuple[Candle, bool] | Exception]]] = defaultdict(list)
        self.history: list[tuple[Candle, bool]] = []

    # What tests do

    async def books(self, trade: Trade) -> Placed | AnswerLost:
        order = self.order_of(trade)
        self.listed.append(order)
        return Placed(order)

    def answers_after(self, gate: asyncio.Event) -> None:
        """Book every order, but only once the gate is open."""

        async def slow(trade: Trade) -> Placed | AnswerLost:
            await gate.wait()
            return await self.books(trade)

        self.answer = slow

    def order_of(self, trade: Trade, **changes: Any) -> BrokerOrder:
        now = self._clock.now()
        order = order_of(trade, str(len(self.sent) + 1000), now, now + trade.duration)
        return replace(order, **{"payout_rate": self.payout, "open_price": 1.1, **changes})

    def happens(self, key: SessionKey, event: AccountEvent | Exception) -> None:
        """Let something happen to the account; an exception cuts the stream."""
        for queue in self._feeds[key]:
            queue.put_nowait(event)

    def settles(self, key: SessionKey, order: BrokerOrder, outcome: TradeState, profit: str) -> None:
        order = replace(order, outcome=outcome, profit=Decimal(profit), close_time=self._clock.now())
        self.listed = [order if known.broker_order_id == order.broker_order_id else known for known in self.listed]
        self.happens(key, order)

    def quotes(self, key: SessionKey, candle: Candle | Exception, *, closed: bool = True) -> None:
        for queue in self._candles[key]:
            queue.put_nowait(candle if isinstance(candle, Exception) else (candle, closed))

    def watchers(self, key: SessionKey) -> int:
        return len(self._candles[key])

    def loses(self, key: SessionKey) -> None:
        """Forget the connection, as a restart of the broker service does."""
        self.connected.discard(key)
        self.happens(key, NotConnectedError())
        self.quotes(key, NotConnectedError())

    # The port

    def _reached(self, key: SessionKey | None = None) -> None:
        if self.away:
            raise BrokerUnavailableError
        if key is not None and key not in self.connected:
            raise NotConnectedError

    async def standing(self, key: SessionKey, broker: Broker, account_type: AccountType) -> Account:
        self._reached(key)
        return self.balances[key]

    async def connect(
        self,
        key: SessionKey,
        broker: Broker,
        account_type: AccountType,
        credentials: Credentials,
        two_factor: TwoFactor | None = None,
    ) -> tuple[Account, Secret]:
        self._reached()
        if key not in self.connected:
            if self.refuse_login is not None:
                raise self.refuse_login
            if credentials.password.reveal() != self.password:
                raise InvalidCredentialsError
            self.logins.append((key, account_type))
            self.connected.add(key)
        user = int.from_bytes(credentials.email.reveal().encode()[:6])
        account = self.balances.setdefault(
            key, Account(user, user * 10 + (account_type is AccountType.REAL), account_type, Decimal(10_000), "USD")
        )
        return account, Secret(f"ssid-{len(self.logins)}")

    async def disconnect(self, key: SessionKey, *, log_out: bool) -> None:
        self._reached()
        self.connected.discard(key)
        if log_out:
            self.log_outs.append(key)

    async def account(self, key: SessionKey) -> Account:
        self._reached(key)
        return self.balances[key]

    async def assets(self, key: SessionKey) -> Sequence[Asset]:
        self._reached(key)
        kinds = (InstrumentType.TURBO, InstrumentType.BLITZ)
        return [
            Asset(
                asset="EURUSD-OTC",
                name="EUR/USD OTC",
                instrument_types=kinds,
                open=True,
                payout_rate=self.payout,
                min_amount=Decimal(1),
                max_amount=Decimal(20_000),
                payout_rates=tuple((kind, self.payout) for kind in kinds),
            )
        ]

    async def candles(self, key: SessionKey, asset: str, timeframe: int, count: int) -> Sequence[tuple[Candle, bool]]:
        self._reached(key)
        return self.history[-count:]

    @asynccontextmanager
    async def watch_candles(
        self, key: SessionKey, asset: str, timeframe: int
    ) -> AsyncIterator[AsyncIterator[tuple[Candle, bool]]]:
        self._reached(key)
        queue: asyncio.Queue[tuple[Candle, bool] | Exception] = asyncio.Queue()
        self._candles[key].append(queue)
        try:
            yield _drain(queue)
        finally:
            self._candles[key].remove(queue)

    @asynccontextmanager
    async def watch_account(self, key: SessionKey) -> AsyncIterator[AsyncIterator[AccountEvent]]:
        self._reached(key)
        queue: asyncio.Queue[AccountEvent | Exception] = asyncio.Queue()
        queue.put_nowait(BrokerConnection.CONNECTED)
        queue.put_nowait(self.balances[key])
        self._feeds[key].append(queue)
        try:
            yield _drain(queue)
        finally:
            self._feeds[key].remove(queue)

    async def place(self, trade: Trade) -> Placed | AnswerLost:
        self._reached(trade.session_key)
        self.sent.append(trade)
        return await self.answer(trade)

    async def sell(self, key: SessionKey, broker_order_id: str) -> BrokerOrder:
        self._reached(key)
        order = next(order for order in self.listed if order.broker_order_id == broker_order_id)
        return replace(order, outcome=TradeState.SOLD, profit=Decimal("-0.50"), close_time=self._clock.now())

    async def orders(self, key: SessionKey, closed_since: datetime) -> BrokerOrders:
        self._reached(key)
        return BrokerOrders(tuple(self.listed), complete=True, broker_time=self._clock.now())


async def _drain(queue: "asyncio.Queue[Any]") -> AsyncIterator[Any]:
    while True:
        item = await queue.get()
        if isinstance(item, Exception):
            raise item
        yield item


class FakeAgent:
    """Decides what a test has put down, HOLD otherwise."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.away = False
        self.versions = [ModelVersion("edge", "1", is_default=True, card="# edge")]
        self.opened = 0
        self.seen: list[Candle] = []

    @asynccontextmanager
    async def decide_on(
        self, settings: BotSettings, payout_rate: float, history: Sequence[Candle]
    ) -> AsyncIterator["FakeAgent"]:
        self._reached()
        self.opened += 1
        yield self

    def _reached(self) -> None:
        if self.away:
            raise UnavailableError("The agent")

    async def next(self, candle: Candle, payout_rate: float) -> Decision:
        self._reached()
        self.seen.append(candle)
        return self.decisions.pop(0) if self.decisions else a_decision("HOLD")

    async def models(self) -> Sequence[ModelVersion]:
        self._reached()
        return self.versions

    async def model(self, name: str, version: str = "") -> ModelVersion:
        self._reached()
        for known in self.versions:
            if (name == known.name or (not name and known.is_default)) and version in {"", known.version}:
                return known
        raise ModelNotFoundError

    async def min_history(self, model: str) -> int:
        self._reached()
        return 10


def a_decision(action: str, p_up: float = 0.6) -> Decision:
    return Decision(
        action=action,  # type: ignore[arg-type]  # a test writes one of the words
        reason="no_edge" if action == "HOLD" else "",
        p_up=p_up if action == "CALL" else 1 - p_up,
        break_even=0.535,
        expected_value=0.12,
        model="edge",
        model_version="1",
        model_sha256="0" * 64,
    )


def a_candle(close_time: datetime, timeframe: int = 60, price: float = 1.1) -> Candle:
    return Candle(close_time - timedelta(seconds=timeframe), close_time, price, price, price, price)


def a_new_id() -> str:
    return str(uuid4())


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]  # the parts of a date
