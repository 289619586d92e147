"""Reads the broker's lists for one session's trades and does in the ledger what domain/reconciliation decides."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from services.runtime.clock import Clock
from services.session.domain.errors import ContradictionError
from services.session.domain.reconciliation import (
    Absences,
    Action,
    Adopt,
    DeclareAbsent,
    LoseAnswer,
    MarkAmbiguous,
    listing_start,
    overdue,
    reconcile,
)
from services.session.domain.trade import Trade, TradeState
from services.session.ports import BrokerGateway, Ledger, SessionRecord
from services.session.use_cases.trading import TradeDesk

SETTLEMENT_GRACE: Final = timedelta(seconds=5)
"""Time after its expiry in which a trade's result is expected to come by itself."""

_SOON: Final = 3.0
"""Seconds between two lists while a trade is unknown, or its result overdue."""
_LATER: Final = 60.0
"""Seconds between two lists while only a person, or a late adoption, can change anything."""


class Reconciler:
    """What one runner does about the trades of its session that are not settled."""

    def __init__(
        self, record: SessionRecord, *, ledger: Ledger, broker: BrokerGateway, desk: TradeDesk, clock: Clock
    ) -> None:
        self._key = record.session_key
        self._epoch = record.epoch
        self._ledger = ledger
        self._broker = broker
        self._desk = desk
        self._clock = clock
        self._absences: Absences = {}
        self._log = structlog.get_logger(__name__).bind(session=self._key[:8])

    async def run(self, *, thorough: bool) -> float | None:
        """Reconcile once.

        Args:
            thorough: Read the lists also if every trade seems well: something may have been missed.

        Returns:
            Seconds until it should be done again, None if nothing is unsettled.

        Raises:
            BrokerUnavailableError: The lists cannot be read now.
            StaleEpochError: Another process runs the session.
        """
        trades = await self._give_up()
        start = listing_start(trades, self._clock.now())
        if start is not None and (thorough or self._needs_lists(trades)):
            asked = self._clock.now()
            listed = await self._broker.orders(self._key, start)
            answered = self._clock.now()
            claimed = await self._ledger.claimed_orders(self._key, [order.broker_order_id for order in listed.orders])
            verdict = reconcile(trades, listed, claimed, asked=asked, answered=answered, absences=self._absences)
            self._absences = verdict.absences
            if verdict.actions:
                await self._do(verdict.actions)
                trades = await self._ledger.unsettled(self._key)
        return self._wait(trades)

    async def run_unconnected(self) -> float | None:
        """Do what needs no list while the broker cannot be asked; returns as ``run`` does.

        Raises:
            StaleEpochError: Another process runs the session.
        """
        trades = await self._give_up()
        being_sent = [trade for trade in trades if trade.state in {TradeState.INTENT, TradeState.SENDING}]
        return _SOON if being_sent else None

    async def _give_up(self) -> Sequence[Trade]:
        """Give up what nobody sends any more; returns what is unsettled then."""
        trades = await self._ledger.unsettled(self._key)
        given_up = overdue((t for t in trades if not self._desk.is_under_way(t.trade_id)), self._clock.now())
        if given_up:
            await self._do(given_up)
            trades = await self._ledger.unsettled(self._key)
        return trades

    def seconds_until_overdue(self, expiry_time: datetime) -> float:
        """Return after how many seconds the result of a trade that expires then is missing."""
        return max((expiry_time + SETTLEMENT_GRACE - self._clock.now()).total_seconds(), 0.0)

    def _needs_lists(self, trades: Sequence[Trade]) -> bool:
        return any(
            trade.state in {TradeState.UNKNOWN, TradeState.NOT_PLACED}
            or (trade.state is TradeState.OPEN and self._until_overdue(trade) <= 0.0)
            for trade in trades
        )

    def _wait(self, trades: Sequence[Trade]) -> float | None:
        return min((self._wait_for(trade) for trade in trades), default=None)

    def _wait_for(self, trade: Trade) -> float:
        match trade.state:
            case TradeState.OPEN:
                return self._until_overdue(trade) or _SOON
            case TradeState.NOT_PLACED:
                return _LATER
            case TradeState.UNKNOWN if trade.ambiguous:
                return _LATER
            case _:
                return _SOON

    def _until_overdue(self, trade: Trade) -> float:
        return 0.0 if trade.expiry_time is None else self.seconds_until_overdue(trade.expiry_time)

    async def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            log = self._log.bind(trade=action.trade_id)
            try:
                match action:
                    case Adopt(trade_id, order):
                        trade = await self._ledger.opened(trade_id, order, epoch=self._epoch)
                        log.info("trade_reconciled", state=trade.state.value)
                    case LoseAnswer(trade_id):
                        await self._ledger.lost_answer(trade_id, epoch=self._epoch)
                        log.warning("trade_sender_gone")
                    case DeclareAbsent(trade_id, reason):
                        await self._ledger.never_placed(trade_id, reason, epoch=self._epoch)
                        log.info("trade_never_placed", reason=reason)
                    case MarkAmbiguous(trade_id):
                        await self._ledger.mark_ambiguous(trade_id, epoch=self._epoch)
                        log.error("trade_ambiguous")
                    case _:
                        assert_never(action)
            except ContradictionError as error:
                log.error("trade_contradicts_ledger", detail=error.message)  # noqa: TRY400 - a finding, not a crash
