"""The one way to the broker for every order, a user's or a bot's: reserve, mark as being sent, send once, record."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final, TypeVar, assert_never

import structlog

from services.runtime.cancelling import end_all, end_if_cancelled
from services.runtime.clock import Clock
from services.runtime.errors import ServiceError
from services.session.domain.bot import ServiceLimits
from services.session.domain.errors import (
    BrokerUnavailableError,
    NotConnectedError,
    TradeRefusedError,
    TradeUnresolvedError,
    UnavailableError,
)
from services.session.domain.trade import BrokerOrder, Trade, TradeRequest, TradeState
from services.session.domain.values import SessionKey, TradeId
from services.session.ports import AnswerLost, BrokerGateway, Ledger, Placed, SessionRecord, Signals
from services.session.use_cases.login import Logins

_log = structlog.get_logger(__name__)

_EQUAL_PATIENCE: Final = 3.0
"""Seconds to wait for an equal trade that is just being sent."""
_EQUAL_POLL: Final = 0.1
_BROKER_PATIENCE: Final = 3.0
"""Seconds to wait for the broker service before an order is refused unsent."""
_BROKER_POLL: Final = 0.2
_RECORD_BACKOFF: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to record what the broker said; the last one repeats."""
_RECORD_TRIES: Final = 20
"""Attempts at a record that the ledger does not take although it answers."""

_T = TypeVar("_T")


def always() -> bool:
    """Let a manual trade pass: it needs no lease."""
    return True


class TradeDesk:
    """Places trades. Work that may have reached the broker belongs to the desk, not to the caller who may hang up.

    Args:
        ledger: Where every move is recorded before it has an effect.
        broker: Where orders go.
        logins: Makes the broker connection stand before anything is marked as being sent.
        signals: Wakes the session's runner when a trade needs reconciling.
        clock: Time.
        limits: The operator's limits.
        new_id: Makes trade ids.
        send_window: Seconds an order may take to get onto the wire.
        patience: Seconds a caller waits for the outcome.
    """

    def __init__(
        self,
        ledger: Ledger,
        broker: BrokerGateway,
        *,
        logins: Logins,
        signals: Signals,
        clock: Clock,
        limits: ServiceLimits,
        new_id: Callable[[], str],
        send_window: float = 5.0,
        patience: float = 20.0,
    ) -> None:
        self._ledger = ledger
        self._broker = broker
        self._logins = logins
        self._signals = signals
        self._clock = clock
        self._limits = limits
        self._new_id = new_id
        self._send_window = send_window
        self._patience = patience
        self._under_way: dict[TradeId, tuple[SessionKey, asyncio.Task[Trade]]] = {}
        self._closed = False

    def is_under_way(self, trade_id: TradeId) -> bool:
        """Tell whether this process is placing that trade now and will record its outcome itself."""
        return trade_id in self._under_way

    def is_placing(self, key: SessionKey) -> bool:
        """Tell whether this process is placing any trade of that session now."""
        return any(owner == key for owner, _ in self._under_way.values())

    async def place(
        self,
        record: SessionRecord,
        request: TradeRequest,
        *,
        epoch: int | None = None,
        may_send: Callable[[], bool] = always,
    ) -> Trade:
        """Place a trade and return it open, or unknown, or, if its key is known, as the first one stands.

        Args:
            record: The session that trades.
            request: What to trade.
            epoch: The runner's, for a bot's trade.
            may_send: Asked right before the order leaves; False means that this process lost the right.

        Raises:
            TradeRefusedError, LimitReachedError, RequestIdReusedError, TradeUnresolvedError: Nothing was booked.
            BrokerUnavailableError, StaleEpochError, UnavailableError: Nothing was sent.
            SessionNotFoundError: The session is not ACTIVE.
        """
        if self._closed:
            raise UnavailableError("Trading")
        trade_id = TradeId(self._new_id())
        # From here on the caller may hang up: an order that is half-way needs its end.
        task = asyncio.create_task(self._place(record, request, trade_id, epoch, may_send))
        self._under_way[trade_id] = record.session_key, task
        task.add_done_callback(lambda done: self._forget(trade_id, done))
        return await self._outcome(record, trade_id, task)

    async def close(self, record: SessionRecord, trade: Trade) -> Trade:
        """Sell an open trade back to the broker and return it as it then stands.

        Raises:
            NotSellableError: The broker does not buy it.
            BrokerUnavailableError: The answer was lost or nothing was sent.
        """
        order = await self._logins.read(record, lambda: self._broker.sell(record.session_key, trade.broker_order_id))
        if order.outcome is None:
            return trade
        return await self._ledger.opened(trade.trade_id, order, epoch=None)

    async def drain(self, patience: float) -> None:
        """Refuse new trades and let those under way come to their recorded end."""
        self._closed = True
        if tasks := [task for _, task in self._under_way.values()]:
            _, late = await asyncio.wait(tasks, timeout=patience)
            # What is not recorded is SENDING in the ledger, and found there by whoever runs the session next.
            await end_all(late)

    def _forget(self, trade_id: TradeId, done: asyncio.Task[Trade]) -> None:
        del self._under_way[trade_id]
        if not done.cancelled() and (error := done.exception()) and not isinstance(error, ServiceError):
            _log.error("trade_failed", trade=trade_id, exc_info=error)

    async def _outcome(self, record: SessionRecord, trade_id: TradeId, task: asyncio.Task[Trade]) -> Trade:
        """Wait for the task, but not longer than a caller should: then the trade is told as it stands."""
        done, _ = await asyncio.wait({task}, timeout=self._patience)
        if done:
            return task.result()
        trade = await self._ledger.trade(record.session_key, trade_id)
        if trade is None:
            raise UnavailableError("The ledger")
        return trade

    async def _place(
        self,
        record: SessionRecord,
        request: TradeRequest,
        trade_id: TradeId,
        epoch: int | None,
        may_send: Callable[[], bool],
    ) -> Trade:
        trade, is_new = await self._ledger.reserve(request, trade_id, self._limits, epoch=epoch)
        if not is_new:
            return await self._first(record, trade)
        try:
            await self._stand_in_time(record, epoch)
            trade = await self._begin_send(trade, epoch)
        except ServiceError as error:
            # Nobody but this task could have sent it, whoever runs the session by now. If that cannot be written, the
            # session's runner finds it.
            with suppress(ServiceError):
                await self._ledger.refused(trade.trade_id, error.reason, epoch=None)
            raise
        return await self._send(record, trade, may_send)

    async def _first(self, record: SessionRecord, trade: Trade) -> Trade:
        """Return the trade a key belongs to, after its outcome if it is being placed here."""
        if trade.trade_id in self._under_way:
            _, task = self._under_way[trade.trade_id]
            await asyncio.wait({task})
            return await self._ledger.trade(record.session_key, trade.trade_id) or trade
        return trade

    async def _stand_in_time(self, record: SessionRecord, epoch: int | None) -> None:
        """Make the connection stand; a bot's order, which is about a candle, waits no longer than it is worth."""
        try:
            async with asyncio.timeout(None if epoch is None else _BROKER_PATIENCE):
                await self._stand(record)
        except TimeoutError as error:
            raise BrokerUnavailableError from error

    async def _stand(self, record: SessionRecord) -> None:
        """Make the broker connection stand before anything is marked; a restart of the broker service is sat out."""
        give_up = self._clock.monotonic() + _BROKER_PATIENCE
        while True:
            try:
                await self._logins.stand(record)
            except BrokerUnavailableError:
                if self._clock.monotonic() >= give_up:
                    raise
            else:
                return
            await self._clock.sleep(_BROKER_POLL)

    async def _begin_send(self, trade: Trade, epoch: int | None) -> Trade:
        give_up = self._clock.monotonic() + _EQUAL_PATIENCE
        while True:
            try:
                send_before = self._clock.now() + timedelta(seconds=self._send_window)
                return await self._ledger.begin_send(trade.trade_id, send_before, epoch=epoch)
            except TradeUnresolvedError as error:
                equal = await self._ledger.trade(trade.session_key, TradeId(str(error.facts["trade_id"])))
                unknown = equal is not None and equal.state is TradeState.UNKNOWN
                if unknown or self._clock.monotonic() >= give_up:
                    raise
            await self._clock.sleep(_EQUAL_POLL)

    async def _send(self, record: SessionRecord, trade: Trade, may_send: Callable[[], bool]) -> Trade:
        """Send a trade that this task alone marked as SENDING, and record what became of it."""
        log = _log.bind(session=trade.session_key[:8], trade=trade.trade_id)
        if not may_send() or trade.send_before is None or self._clock.now() >= trade.send_before:
            await self._record(trade, lambda: self._ledger.refused(trade.trade_id, "UNAVAILABLE", epoch=None))
            log.warning("trade_not_sent")
            raise UnavailableError("Trading")
        try:
            answer = await self._ask(record, trade, may_send)
        except (TradeRefusedError, BrokerUnavailableError) as error:
            reason = error.reason
            await self._record(trade, lambda: self._ledger.refused(trade.trade_id, reason, epoch=None))
            log.info("trade_refused", reason=reason)
            raise
        except Exception:
            # Nothing that is not proof may end in anything but "unknown".
            log.exception("trade_answer_unreadable")
            answer = AnswerLost()
        match answer:
            case Placed(order):
                log.info("trade_placed")
                return await self._opened(trade, order)
            case AnswerLost():
                log.warning("trade_answer_lost")
                trade = await self._record(trade, lambda: self._ledger.lost_answer(trade.trade_id, epoch=None))
                await self._signals.wake(trade.session_key)
                return trade
            case _:
                assert_never(answer)

    async def _ask(self, record: SessionRecord, trade: Trade, may_send: Callable[[], bool]) -> Placed | AnswerLost:
        """Have the order placed; a broker service that holds no connection has sent nothing, and is asked once more."""
        try:
            return await self._broker.place(trade)
        except NotConnectedError:
            # It was replaced between the last look at the connection and the order.
            try:
                await self._stand(record)
            except ServiceError as error:
                # Whatever keeps the connection away: nothing was sent.
                raise BrokerUnavailableError from error
            if not may_send():
                raise
            return await self._broker.place(trade)

    async def _opened(self, trade: Trade, order: BrokerOrder) -> Trade:
        return await self._record(trade, lambda: self._ledger.opened(trade.trade_id, order, epoch=None))

    async def _record(self, trade: Trade, write: Callable[[], Awaitable[_T]]) -> _T:
        """Write what the broker said, again and again: it is the truth whoever runs the session by now.

        If the process ends first, the trade is still SENDING and the session's next runner reconciles it.
        """
        attempt = 0
        while True:
            try:
                return await write()
            except ServiceError as error:
                if not isinstance(error, UnavailableError):
                    _log.exception("trade_outcome_refused_by_ledger", trade=trade.trade_id)
                    raise
            except Exception as error:
                # No outage, those are UnavailableError: a record that the ledger can never hold, or a mistake of ours.
                if attempt + 1 >= _RECORD_TRIES:
                    _log.exception("trade_outcome_not_recorded", trade=trade.trade_id)
                    raise
                _log.warning("trade_not_recorded_yet", trade=trade.trade_id, error=type(error).__name__)
            end_if_cancelled()
            await self._clock.sleep(_RECORD_BACKOFF[min(attempt, len(_RECORD_BACKOFF) - 1)])
            attempt += 1
