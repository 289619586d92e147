"""The ledger in memory, with the production's rules; it can be told to fail."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from services.runtime.secret import Secret
from services.session.codec import encode_event
from services.session.domain.bot import BotSettings, ServiceLimits, Usage, breach
from services.session.domain.errors import (
    BotAlreadyRunningError,
    BotNotRunningError,
    LimitReachedError,
    RequestIdReusedError,
    SessionNotFoundError,
    StaleEpochError,
    TradeNotFoundError,
    TradeUnresolvedError,
)
from services.session.domain.events import (
    BalanceChanged,
    BrokerConnectionChanged,
    Event,
    FaultHappened,
    SessionEnded,
    SessionStatus,
    SessionWillExpire,
    SignalMade,
    StatusUpdate,
    StoredEvent,
    Totals,
    TradeClosed,
    TradeOpened,
    TradeRejected,
    TradeUnknown,
)
from services.session.domain.evidence import Gate
from services.session.domain.shadow import GateKey, GateRecord, Shadow, ShadowState, gate_told, resolve
from services.session.domain.tally import Tally
from services.session.domain.trade import (
    ACTIVE,
    MOVES,
    SETTLED,
    BrokerOrder,
    Trade,
    TradeRequest,
    TradeState,
)
from services.session.domain.values import (
    Account,
    BotStatus,
    Broker,
    CloseReason,
    SessionKey,
    SessionState,
    TradeId,
)
from services.session.ports import (
    Credentials,
    SessionRecord,
    TradePage,
)
from tests.support.clocks import ManualClock


@dataclass(slots=True)
class _Row:
    record: SessionRecord
    credentials: Credentials | None
    tally: Tally
    events: list[Event] = field(default_factory=list)
    stored: list[StoredEvent] = field(default_factory=list)
    gates: dict[GateKey, GateRecord] = field(default_factory=dict)
    """The one that was used last comes last."""
    shadows: dict[tuple[str, datetime], tuple[Shadow, ShadowState]] = field(default_factory=dict)


class FakeLedger:
    """The Ledger port in memory. ``fail`` makes the next calls of a method raise before they do anything."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._rows: dict[SessionKey, _Row] = {}
        self._trades: dict[TradeId, Trade] = {}
        self._requests: dict[TradeId, TradeRequest] = {}
        self._failures: dict[str, list[Exception]] = defaultdict(list)
        self.appended = asyncio.Condition()

    # What tests look at

    def fail(self, method: str, *errors: Exception) -> None:
        self._failures[method].extend(errors)

    def events(self, key: SessionKey) -> list[Event]:
        return self._rows[key].events

    def types(self, key: SessionKey) -> list[str]:
        return [event.type for event in self._rows[key].events]

    def all_trades(self) -> list[Trade]:
        return list(self._trades.values())

    def keys(self) -> list[SessionKey]:
        return list(self._rows)

    # Inside

    def _reached(self, method: str) -> None:
        if self._failures[method]:
            raise self._failures[method].pop(0)

    def _row(self, key: SessionKey, epoch: int | None = None) -> _Row:
        row = self._rows.get(key)
        if row is None:
            raise SessionNotFoundError
        if epoch is not None and epoch != row.record.epoch:
            raise StaleEpochError
        return row

    def _active(self, key: SessionKey) -> _Row:
        row = self._row(key)
        if row.record.state is not SessionState.ACTIVE:
            raise SessionNotFoundError
        return row

    def _tell(self, row: _Row, event: Event) -> StoredEvent:
        seq = row.record.last_seq + 1
        row.record = replace(row.record, last_seq=seq)
        if isinstance(event, StatusUpdate):
            event = StatusUpdate(self._status(row))
        payload = encode_event(event, seq, self._clock.now(), row.record.account.account_type)
        row.events.append(event)
        row.stored.append(StoredEvent(seq, event.type, payload))
        return row.stored[-1]

    def _tell_status(self, row: _Row) -> None:
        self._tell(row, StatusUpdate(self._status(row)))

    def _status(self, row: _Row) -> SessionStatus:
        record = row.record
        open_trades = tuple(t for t in self._of(record.session_key) if t.state in ACTIVE)
        gate = self._gate_in_use(row)
        return SessionStatus(
            broker=record.broker,
            account_type=record.account.account_type,
            bot_status=record.bot_status,
            balance=record.account.balance,
            currency=record.account.currency,
            asset=record.asset,
            timeframe=record.timeframe,
            settings=record.settings,
            usage=row.tally.usage,
            totals=row.tally.totals,
            broker_connection=record.broker_connection,
            last_seen=record.last_seen,
            seq=record.last_seq,
            open_trades=open_trades,
            active_trades=len(open_trades),
            gate=gate.gate if gate else Gate(),
            gate_voided=gate.voided if gate else 0,
            gate_version=gate.key.model_version if gate else "",
        )

    def _gate_in_use(self, row: _Row) -> GateRecord | None:
        settings = row.record.settings
        if settings is None:
            return None
        terms = (settings.model, settings.asset, settings.timeframe, settings.duration)
        of_terms = [gate for gate in row.gates.values() if _terms(gate.key) == terms]
        return of_terms[-1] if of_terms else None

    def _of(self, key: SessionKey) -> list[Trade]:
        return [trade for trade in self._trades.values() if trade.session_key == key]

    def _move(self, row: _Row, trade: Trade, state: TradeState, **changes: Any) -> Trade:
        assert state in MOVES.get(trade.state, ()), f"{trade.state} -> {state}"
        after = replace(trade, state=state, **changes)
        of_run = self._requests[trade.trade_id].run_id == row.record.run_id and row.record.run_id is not None
        row.tally = row.tally.moved(trade, after, of_run=of_run, today=self._clock.now().date())
        self._trades[trade.trade_id] = after
        return after

    def _trade_row(self, trade_id: TradeId, epoch: int | None) -> tuple[_Row, Trade]:
        trade = self._trades.get(trade_id)
        if trade is None:
            raise TradeNotFoundError
        return self._row(trade.session_key, epoch), trade

    # The port

    async def create_session(
        self, key: SessionKey, broker: Broker, account: Account, credentials: Credentials
    ) -> SessionRecord:
        self._reached("create_session")
        defaults = BotSettings()
        record = SessionRecord(
            session_key=key,
            state=SessionState.ACTIVE,
            broker=broker,
            account=account,
            bot_status=BotStatus.STOPPED,
            settings=None,
            run_id=None,
            asset=defaults.asset,
            timeframe=defaults.timeframe,
            epoch=0,
            last_seen=self._clock.now(),
            last_seq=0,
        )
        self._rows[key] = _Row(record, credentials, Tally(Usage(), Totals(), self._clock.now().date()))
        return record

    async def session(self, key: SessionKey) -> SessionRecord | None:
        self._reached("session")
        return self._rows[key].record if key in self._rows else None

    async def credentials(self, key: SessionKey) -> Credentials | None:
        self._reached("credentials")
        return self._rows[key].credentials if key in self._rows else None

    async def store_broker_token(self, key: SessionKey, broker_token: Secret) -> None:
        row = self._rows[key]
        if row.credentials is not None:
            row.credentials = replace(row.credentials, broker_token=broker_token)

    async def status(self, key: SessionKey) -> SessionStatus | None:
        self._reached("status")
        return self._status(self._rows[key]) if key in self._rows else None

    async def touch(self, key: SessionKey, seen: datetime) -> None:
        row = self._rows[key]
        row.record = replace(row.record, last_seen=max(seen, row.record.last_seen), expiry_warned=False)

    async def close_session(self, key: SessionKey, reason: CloseReason) -> SessionRecord | None:
        row = self._row(key)
        if row.record.state is not SessionState.ACTIVE:
            return None
        self._tell(row, SessionEnded(reason))
        row.record = replace(row.record, state=SessionState.CLOSING, bot_status=BotStatus.STOPPED, close_reason=reason)
        return row.record

    async def finish_session(self, key: SessionKey, *, epoch: int) -> bool:
        row = self._row(key, epoch)
        if any(trade.state in ACTIVE for trade in self._of(key)):
            return False
        row.record = replace(row.record, state=SessionState.CLOSED)
        row.credentials = None
        return True

    async def sessions_to_run(self, limit: int) -> Sequence[SessionKey]:
        self._reached("sessions_to_run")
        return [key for key, row in self._rows.items() if row.record.state is not SessionState.CLOSED][:limit]

    async def begin_epoch(self, key: SessionKey) -> SessionRecord | None:
        self._reached("begin_epoch")
        row = self._rows.get(key)
        if row is None or row.record.state is SessionState.CLOSED:
            return None
        row.record = replace(row.record, epoch=row.record.epoch + 1)
        return row.record

    async def start_bot(self, key: SessionKey, settings: BotSettings, run_id: str) -> SessionRecord:
        row = self._active(key)
        if row.record.bot_status is not BotStatus.STOPPED:
            if row.record.settings != settings:
                raise BotAlreadyRunningError
            return row.record
        row.record = replace(
            row.record,
            bot_status=BotStatus.RUNNING,
            settings=settings,
            run_id=run_id,
            asset=settings.asset,
            timeframe=settings.timeframe,
        )
        row.tally = row.tally.new_run()
        self._tell_status(row)
        return row.record

    async def set_bot_status(self, key: SessionKey, status: BotStatus, *, run_id: str | None = None) -> SessionRecord:
        row = self._active(key)
        record = row.record
        if record.bot_status is status or (run_id is not None and run_id != record.run_id):
            return record
        if record.bot_status is BotStatus.STOPPED:
            raise BotNotRunningError
        row.record = replace(record, bot_status=status)
        self._tell_status(row)
        return row.record

    async def set_timeframe(self, key: SessionKey, timeframe: int) -> SessionRecord:
        row = self._active(key)
        row.record = replace(row.record, timeframe=timeframe)
        self._tell_status(row)
        return row.record

    async def reserve(
        self, request: TradeRequest, trade_id: TradeId, limits: ServiceLimits, *, epoch: int | None
    ) -> tuple[Trade, bool]:
        self._reached("reserve")
        row = self._row(request.session_key, epoch)
        record = self._active(request.session_key).record
        for known_id, known in self._requests.items():
            same_key = (known.session_key, known.source, known.idempotency_key) == (
                request.session_key,
                request.source,
                request.idempotency_key,
            )
            if request.idempotency_key is not None and same_key:
                if known != request:
                    raise RequestIdReusedError
                return self._trades[known_id], False
        if request.run_id is not None and (
            record.bot_status is not BotStatus.RUNNING or record.run_id != request.run_id
        ):
            raise StaleEpochError
        found = breach(
            request.amount,
            bot_run=request.run_id is not None,
            settings=record.settings,
            usage=row.tally.usage,
            service=limits,
        )
        if found is not None:
            raise LimitReachedError(found.limit, found.value, found.used)
        trade = Trade(
            trade_id=trade_id,
            session_key=request.session_key,
            state=TradeState.INTENT,
            source=request.source,
            client_request_id=request.idempotency_key or "" if request.run_id is None else "",
            broker=record.broker,
            account_type=record.account.account_type,
            balance_id=record.account.balance_id,
            asset=request.asset,
            instrument_type=request.instrument_type,
            direction=request.direction,
            amount=request.amount,
            currency=record.account.currency,
            duration=request.duration,
            create_time=self._clock.now(),
            min_payout=request.min_payout,
            model=request.model,
            model_version=request.model_version,
            model_sha256=request.model_sha256,
        )
        self._trades[trade_id] = trade
        self._requests[trade_id] = request
        row.tally = row.tally.reserved(trade, of_run=request.run_id is not None)
        return trade, True

    async def begin_send(self, trade_id: TradeId, send_before: datetime, *, epoch: int | None) -> Trade:
        self._reached("begin_send")
        row, trade = self._trade_row(trade_id, epoch)
        if trade.state is not TradeState.INTENT or row.record.state is not SessionState.ACTIVE:
            raise StaleEpochError
        for other in self._trades.values():
            if other.state in {TradeState.SENDING, TradeState.UNKNOWN} and _print(other) == _print(trade):
                raise TradeUnresolvedError(other.trade_id)
        return self._move(row, trade, TradeState.SENDING, send_time=self._clock.now(), send_before=send_before)

    async def opened(self, trade_id: TradeId, order: BrokerOrder, *, epoch: int | None) -> Trade:
        self._reached("opened")
        row, trade = self._trade_row(trade_id, epoch)
        return self._settle(row, self._open(row, trade, order), order)

    def _open(self, row: _Row, trade: Trade, order: BrokerOrder) -> Trade:
        if trade.broker_order_id:
            return trade
        trade = self._move(
            row,
            trade,
            TradeState.OPEN,
            broker_order_id=order.broker_order_id,
            payout_rate=order.payout_rate,
            entry_price=order.open_price,
            open_time=order.open_time,
            expiry_time=order.expiry_time,
        )
        self._tell(row, TradeOpened(trade))
        return trade

    def _settle(self, row: _Row, trade: Trade, order: BrokerOrder) -> Trade:
        if order.outcome is None or trade.state in SETTLED:
            return trade
        trade = self._move(
            row, trade, order.outcome, profit=order.profit, close_time=order.close_time or self._clock.now()
        )
        self._tell(row, TradeClosed(trade))
        return trade

    async def refused(self, trade_id: TradeId, reason: str, *, epoch: int | None) -> Trade:
        self._reached("refused")
        row, trade = self._trade_row(trade_id, epoch)
        trade = self._move(row, trade, TradeState.REJECTED, reason=reason)
        self._tell(row, TradeRejected(trade))
        return trade

    async def lost_answer(self, trade_id: TradeId, *, epoch: int | None) -> Trade:
        self._reached("lost_answer")
        row, trade = self._trade_row(trade_id, epoch)
        if trade.state is TradeState.SENDING:
            trade = self._move(row, trade, TradeState.UNKNOWN)
            self._tell(row, TradeUnknown(trade))
        return trade

    async def never_placed(self, trade_id: TradeId, reason: str, *, epoch: int) -> Trade:
        row, trade = self._trade_row(trade_id, epoch)
        if trade.state in {TradeState.INTENT, TradeState.UNKNOWN}:
            trade = self._move(row, trade, TradeState.NOT_PLACED, reason=reason)
            self._tell(row, TradeRejected(trade))
        return trade

    async def mark_ambiguous(self, trade_id: TradeId, *, epoch: int) -> Trade:
        row, trade = self._trade_row(trade_id, epoch)
        if not trade.ambiguous:
            trade = self._trades[trade_id] = replace(trade, ambiguous=True)
            self._tell(row, FaultHappened("TRADE_UNRESOLVED", "ambiguous"))
            row.record = replace(row.record, bot_status=BotStatus.STOPPED)
        return trade

    async def settled(self, key: SessionKey, order: BrokerOrder, *, epoch: int) -> Trade | None:
        row = self._row(key, epoch)
        for trade in self._of(key):
            if order.broker_order_id == trade.broker_order_id or order.trade_id == trade.trade_id:
                return self._settle(row, self._open(row, trade, order), order)
        return None

    async def trade(self, key: SessionKey, trade_id: TradeId) -> Trade | None:
        trade = self._trades.get(trade_id)
        return trade if trade is not None and trade.session_key == key else None

    async def trades(
        self, key: SessionKey, *, limit: int, page_token: str = "", status: str | None = None
    ) -> TradePage:
        found = [trade for trade in reversed(self._of(key)) if status is None or trade.state.status == status]
        start = int(page_token or 0)
        more = str(start + limit) if len(found) > start + limit else ""
        return TradePage(tuple(found[start : start + limit]), more)

    async def unsettled(self, key: SessionKey) -> Sequence[Trade]:
        self._reached("unsettled")
        return [t for t in self._of(key) if t.state in ACTIVE or t.state is TradeState.NOT_PLACED]

    async def claimed_orders(self, key: SessionKey, broker_order_ids: Sequence[str]) -> frozenset[str]:
        return frozenset(t.broker_order_id for t in self._trades.values()) & frozenset(broker_order_ids)

    async def use_gate(self, key: SessionKey, gate: GateKey, *, epoch: int) -> GateRecord:
        self._reached("use_gate")
        row = self._row(key, epoch)
        before = self._gate_in_use(row)
        used = row.gates.pop(gate, GateRecord(gate))
        row.gates[gate] = used
        if before is not None and before.gate.opened is not used.gate.opened:
            self._tell(row, gate_told(used))
        return used

    async def pending_shadows(self, key: SessionKey, gate: GateKey) -> Sequence[Shadow]:
        self._reached("pending_shadows")
        return [
            shadow
            for shadow, state in self._rows[key].shadows.values()
            if state is ShadowState.PENDING and _terms(shadow.key) == _terms(gate)
        ]

    async def tell_signal(
        self, key: SessionKey, signal: SignalMade, shadow: Shadow, *, epoch: int
    ) -> ShadowState | None:
        self._reached("tell_signal")
        row = self._row(key, epoch)
        if row.record.state is not SessionState.ACTIVE:
            return None
        self._tell(row, signal)
        if (shadow.key.model, shadow.close_time) in row.shadows:
            return None
        runs = any(
            state is ShadowState.PENDING and other.key == shadow.key and other.expiry_time > shadow.close_time
            for other, state in row.shadows.values()
        )
        state = ShadowState.OVERLAPPING if runs else ShadowState.PENDING
        row.shadows[shadow.key.model, shadow.close_time] = shadow, state
        return state

    async def enter_shadow(self, key: SessionKey, shadow: Shadow, price: float, *, epoch: int) -> None:
        self._reached("enter_shadow")
        row = self._row(key, epoch)
        name = (shadow.key.model, shadow.close_time)
        known, state = row.shadows[name]
        if state is ShadowState.PENDING and known.entry_price is None:
            row.shadows[name] = replace(known, entry_price=price), state

    async def resolve_shadow(
        self, key: SessionKey, shadow: Shadow, exit_price: float | None, *, epoch: int
    ) -> GateRecord:
        self._reached("resolve_shadow")
        row = self._row(key, epoch)
        name = (shadow.key.model, shadow.close_time)
        known, state = row.shadows[name]
        if state is not ShadowState.PENDING:
            return row.gates[shadow.key]
        state, row.gates[shadow.key], told = resolve(row.gates[shadow.key], known, exit_price)
        row.shadows[name] = known, state
        if told is not None:
            self._tell(row, told)
            self._tell_status(row)
        return row.gates[shadow.key]

    # For tests

    def shadow_states(self, key: SessionKey) -> list[ShadowState]:
        """How every decision of a session stands, oldest first."""
        return [state for _, state in self._rows[key].shadows.values()]

    async def emit(self, key: SessionKey, event: Event, *, epoch: int | None = None) -> StoredEvent | None:
        self._reached("emit")
        row = self._row(key, epoch)
        if row.record.state is not SessionState.ACTIVE:
            return None
        match event:
            case BalanceChanged(balance, currency):
                account = replace(row.record.account, balance=balance, currency=currency)
                row.record = replace(row.record, account=account)
            case BrokerConnectionChanged(state):
                row.record = replace(row.record, broker_connection=state)
            case SessionWillExpire():
                row.record = replace(row.record, expiry_warned=True)
            case _:
                pass
        return self._tell(row, event)

    async def events_after(self, key: SessionKey, seq: int, limit: int) -> Sequence[StoredEvent]:
        return [event for event in self._rows[key].stored if event.seq > seq][:limit]

    async def prune_events(self, before: datetime) -> int:
        return 0

    def forget_events(self, key: SessionKey, up_to: int) -> None:
        """Lose the log's beginning, as retention does."""
        row = self._rows[key]
        row.stored = [event for event in row.stored if event.seq > up_to]


def _terms(key: GateKey) -> tuple[object, ...]:
    return key.model, key.asset, key.timeframe, key.duration


def _print(trade: Trade) -> tuple[object, ...]:
    return (trade.balance_id, trade.asset, trade.instrument_type, trade.direction, trade.amount)
