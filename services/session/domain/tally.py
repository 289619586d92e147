"""What a session's trades add up to, move by move: the arithmetic behind limits and statistics."""

from dataclasses import dataclass, replace
from datetime import UTC, date
from decimal import Decimal

from services.session.domain.bot import Usage
from services.session.domain.events import Totals
from services.session.domain.trade import ACTIVE, SETTLED, Trade, TradeState

_NEVER_BOOKED = frozenset({TradeState.REJECTED, TradeState.NOT_PLACED})


@dataclass(frozen=True, slots=True)
class Tally:
    """The counters of a session."""

    usage: Usage
    totals: Totals
    day: date
    """The UTC day that ``usage.daily_profit`` belongs to."""

    def reserved(self, trade: Trade, *, of_run: bool) -> "Tally":
        """Count a new INTENT; ``of_run`` says that the current bot run asked for it."""
        return replace(self, usage=_expose(self.usage, trade.amount, 1, of_run=of_run, trades=1))

    def moved(self, before: Trade, after: Trade, *, of_run: bool, today: date) -> "Tally":
        """Count a move from one state to another; ``today`` is our clock's UTC day."""
        usage, totals, day = self.usage, self.totals, self.day
        active = (after.state in ACTIVE) - (before.state in ACTIVE)
        booked_or_may_be = (before.state in _NEVER_BOOKED) - (after.state in _NEVER_BOOKED)
        if active or booked_or_may_be:
            usage = _expose(usage, after.amount, active, of_run=of_run, trades=booked_or_may_be)
        if after.state is TradeState.OPEN and before.state is not TradeState.OPEN:
            totals = replace(totals, total_trades=totals.total_trades + 1)
        if after.state in SETTLED and before.state not in SETTLED:
            totals = _settle(totals, after)
            usage, day = _count_day(usage, day, after, today)
            if of_run:
                usage = _count_run(usage, after.profit)
        return Tally(usage, totals, day)

    def new_run(self) -> "Tally":
        """Begin a run: what earlier runs did counts for the session and the day only."""
        usage = replace(self.usage, run_trades=0, run_profit=Decimal(0), run_exposure=Decimal(0), consecutive_losses=0)
        return replace(self, usage=usage)


def _expose(usage: Usage, amount: Decimal, sign: int, *, of_run: bool, trades: int) -> Usage:
    usage = replace(usage, exposure=usage.exposure + sign * amount, open_trades=usage.open_trades + sign)
    if of_run:
        usage = replace(usage, run_exposure=usage.run_exposure + sign * amount, run_trades=usage.run_trades + trades)
    return usage


def _settle(totals: Totals, trade: Trade) -> Totals:
    decided = trade.state in {TradeState.WON, TradeState.LOST}
    return replace(
        totals,
        wins=totals.wins + (trade.state is TradeState.WON),
        losses=totals.losses + (trade.state is TradeState.LOST),
        ties=totals.ties + (trade.state is TradeState.TIED),
        sold=totals.sold + (trade.state is TradeState.SOLD),
        profit=totals.profit + trade.profit,
        staked=totals.staked + trade.amount,
        payout_sum=totals.payout_sum + (trade.payout_rate if decided else 0.0),
    )


def _count_day(usage: Usage, day: date, trade: Trade, today: date) -> tuple[Usage, date]:
    """Count a result for the UTC day it happened on; one of an earlier day than the newest counts for no limit any more."""
    assert trade.close_time is not None  # noqa: S101  # every settled trade has one
    # A broker's clock that runs ahead must not begin a day that ours has not reached.
    happened = min(trade.close_time.astimezone(UTC).date(), today)
    if happened > day:
        return replace(usage, daily_profit=trade.profit), happened
    if happened == day:
        return replace(usage, daily_profit=usage.daily_profit + trade.profit), day
    return usage, day


def _count_run(usage: Usage, profit: Decimal) -> Usage:
    """Count a result for the run. A loss is whatever cost money; a tie neither adds to a streak nor ends it."""
    losses = usage.consecutive_losses + 1 if profit < 0 else 0 if profit > 0 else usage.consecutive_losses
    return replace(usage, run_profit=usage.run_profit + profit, consecutive_losses=losses)
