"""One write transaction on one session: its locked row, what changes in it, and the events that tell of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from services.runtime.clock import Clock
from services.session.adapters.ledger import sql
from services.session.adapters.ledger.database import Connection, Database, Row
from services.session.adapters.ledger.rows import (
    gate_from_row,
    session_from_row,
    settings_to_json,
    status_of,
    tally_from_row,
    trade_from_row,
)
from services.session.domain.errors import ContradictionError, SessionNotFoundError, StaleEpochError, TradeNotFoundError
from services.session.domain.events import Event, SessionStatus, StatusUpdate, StoredEvent
from services.session.domain.shadow import GateRecord
from services.session.domain.trade import MOVES, Trade
from services.session.domain.values import AccountType, BotStatus, SessionKey, SessionState, TradeId
from services.session.ports import SessionRecord

Encode = Callable[[Event, int, datetime, AccountType], bytes]
"""Serializes an event with its seq, time and account type as a tradebot.session.v1.Event without its session_id."""


class Publish(Protocol):
    """Takes an event after its commit, without waiting and without failing."""

    def __call__(self, key: SessionKey, event: StoredEvent, /) -> None:
        """Hand the event to the live tail."""
        ...


async def gate_in_use(connection: Connection, record: SessionRecord) -> GateRecord | None:
    """Return the gate of the bot's current or last run; None before its model's first answer."""
    settings = record.settings
    if settings is None:
        return None
    seconds = int(settings.duration.total_seconds())
    rows = await connection.fetch(
        sql.GATE_IN_USE, record.session_key, settings.model, settings.asset, settings.timeframe, seconds
    )
    return gate_from_row(rows[0]) if rows else None


class SessionWork:
    """A session's locked row as it will be written. Made by ``Works`` only."""

    def __init__(self, connection: Connection, row: Row, now: datetime, encode: Encode) -> None:
        self.connection = connection
        self.now = now
        self.record: SessionRecord = session_from_row(row)
        self.tally = tally_from_row(row, now.astimezone(UTC).date())
        self.close_time: datetime | None = row["close_time"]
        self.events: list[StoredEvent] = []
        self._encode = encode
        self._as_read = self._columns()

    @property
    def active(self) -> bool:
        """Whether the session is ACTIVE."""
        return self.record.state is SessionState.ACTIVE

    def change(self, **fields: Any) -> None:
        """Change fields of the record."""
        self.record = replace(self.record, **fields)

    def require_active(self) -> None:
        """Raise SessionNotFoundError unless the session is ACTIVE."""
        if not self.active:
            raise SessionNotFoundError

    def is_current_run(self, run_id: str | None) -> bool:
        """Say whether that is the session's current or last bot run."""
        return run_id is not None and run_id == self.record.run_id

    def require_run(self, run_id: str | None) -> None:
        """Raise StaleEpochError for a bot's trade whose run is over or paused."""
        if run_id is None:
            return
        if self.record.bot_status is not BotStatus.RUNNING or run_id != self.record.run_id:
            raise StaleEpochError

    def tell(self, event: Event) -> None:
        """Append an event; after a session's end there is nobody to tell."""
        if not self.active:
            return
        seq = self.record.last_seq + 1
        self.change(last_seq=seq)
        payload = self._encode(event, seq, self.now, self.record.account.account_type)
        self.events.append(StoredEvent(seq, event.type, payload))

    async def tell_status(self) -> None:
        """Append a StatusUpdate with the session as it now is."""
        if self.active:
            status = await self.status()
            self.tell(StatusUpdate(replace(status, seq=status.seq + 1)))

    async def status(self) -> SessionStatus:
        """Return the session as it now is."""
        rows = await self.connection.fetch(sql.ACTIVE_TRADES, self.record.session_key)
        gate = await gate_in_use(self.connection, self.record)
        return status_of(self.record, self.tally, tuple(trade_from_row(row) for row in rows), gate)

    async def trade_row(self, trade_id: TradeId) -> Row:
        """Return a trade's row; TradeNotFoundError if the session has no such trade."""
        rows = await self.connection.fetch(sql.TRADE, self.record.session_key, trade_id)
        if not rows:
            raise TradeNotFoundError
        return rows[0]

    async def move(self, before: Trade, after: Trade, run_id: str | None) -> Trade:
        """Write a trade's move and count it.

        Raises:
            ContradictionError: A trade cannot move so.
            UniqueViolationError: An equal order is unresolved, or the broker's order is claimed.
        """
        if after.state is not before.state and after.state not in MOVES.get(before.state, frozenset()):
            raise ContradictionError(f"A trade that is {before.state.value} cannot become {after.state.value}")
        moved = await self.connection.fetch(
            sql.MOVE_TRADE,
            before.trade_id,
            before.state.value,
            after.state.value,
            after.ambiguous,
            after.send_time,
            after.send_before,
            after.broker_order_id or None,
            after.payout_rate,
            after.entry_price,
            after.close_price,
            after.profit,
            after.open_time,
            after.expiry_time,
            after.close_time,
            after.reason,
            self.now,
        )
        if not moved:
            # Cannot be while the session's row is locked: somebody wrote past this module.
            raise ContradictionError(f"The trade is not {before.state.value} any more")
        self.tally = self.tally.moved(
            before, after, of_run=self.is_current_run(run_id), today=self.now.astimezone(UTC).date()
        )
        return after

    async def write(self) -> None:
        """Write the row if it changed, and the events, which change it."""
        columns = self._columns()
        if not self.events:
            if columns != self._as_read:
                await self.connection.fetch(sql.STORE_SESSION, self.record.session_key, *columns)
        else:
            await self.connection.fetch(
                sql.STORE_SESSION_WITH_EVENTS,
                self.record.session_key,
                *columns,
                self.now,
                [event.seq for event in self.events],
                [event.type for event in self.events],
                [event.payload for event in self.events],
            )

    def _columns(self) -> tuple[object, ...]:
        record, usage, totals = self.record, self.tally.usage, self.tally.totals
        return (
            record.state.value,
            record.bot_status.value,
            None if record.settings is None else settings_to_json(record.settings),
            record.run_id,
            record.asset,
            record.timeframe,
            record.account.balance,
            record.account.currency,
            record.broker_connection.value,
            record.expiry_warned,
            None if record.close_reason is None else record.close_reason.value,
            self.close_time,
            record.last_seq,
            totals.wins,
            totals.losses,
            totals.ties,
            totals.sold,
            totals.total_trades,
            totals.profit,
            totals.staked,
            totals.payout_sum,
            usage.open_trades,
            usage.exposure,
            self.tally.day,
            usage.daily_profit,
            usage.run_trades,
            usage.run_profit,
            usage.run_exposure,
            usage.consecutive_losses,
        )


class Works:
    """Opens write transactions."""

    def __init__(self, database: Database, clock: Clock, encode: Encode, publish: Publish) -> None:
        self._database = database
        self._clock = clock
        self._encode = encode
        self._publish = publish

    @asynccontextmanager
    async def on_session(self, key: SessionKey, epoch: int | None = None) -> AsyncIterator[SessionWork]:
        """Lock a session; what the block changed is committed at its end, then its events are published.

        Raises:
            SessionNotFoundError: There is none, in no state.
            StaleEpochError: ``epoch`` is not its current one.
        """
        async with self._on(sql.LOCK_SESSION, key, SessionNotFoundError(), epoch) as work:
            yield work

    @asynccontextmanager
    async def on_trade(
        self, trade_id: TradeId, epoch: int | None
    ) -> AsyncIterator[tuple[SessionWork, Trade, str | None]]:
        """Lock a trade's session; gives the trade and the bot run it belongs to as well.

        Raises:
            TradeNotFoundError: There is none.
            StaleEpochError: ``epoch`` is not its session's current one.
        """
        async with self._on(sql.LOCK_SESSION_OF_TRADE, trade_id, TradeNotFoundError(), epoch) as work:
            row = await work.trade_row(trade_id)
            yield work, trade_from_row(row), row["run_id"]

    @asynccontextmanager
    async def _on(self, lock: str, name: str, missing: Exception, epoch: int | None) -> AsyncIterator[SessionWork]:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(lock, name)
            if not rows:
                raise missing
            # The time is read under the lock: the session's events carry times in the order of their seq.
            work = SessionWork(connection, rows[0], self._clock.now(), self._encode)
            if epoch is not None and epoch != work.record.epoch:
                raise StaleEpochError
            yield work
            await work.write()
        for event in work.events:
            self._publish(work.record.session_key, event)
