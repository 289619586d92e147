"""What became of trades whose outcome is not known: decided from nothing but what the broker lists.

The broker has no idempotency key and its lists carry no tag of ours. So a trade is recognised by its fingerprint (balance,
asset, kind, direction, amount) and by when it was booked; the ledger lets only one trade of a fingerprint be unresolved at
a time, and an order be claimed once. That it is *absent* may be said only when the broker itself cannot accept it any
more and two complete lists, read after that and after the time for which lists may be stale, do not have it.

Everything here is pure. The runner reads the lists, calls ``reconcile``, and does what comes out in the ledger.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never

from services.session.domain.trade import BrokerOrder, BrokerOrders, Trade, TradeState
from services.session.domain.values import InstrumentType, TradeId

CLOCK_TOLERANCE: Final = timedelta(seconds=2)
"""Error of a broker's time stamps: they have full seconds, and its clock is read over the network."""

INTENT_LIFETIME: Final = timedelta(seconds=60)
"""Age at which an INTENT is given up: nobody waits that long before sending (the trade desk waits 3 s for an equal trade
and 10 s for the broker). Whoever still tries finds it gone and does not send."""

ANSWER_DEADLINE: Final = timedelta(seconds=30)
"""Time after ``send_before`` at which a SENDING belongs to nobody: a living sender hears from the broker service within
20 s or writes UNKNOWN itself."""

REQUEST_LIFETIME: Final = timedelta(seconds=60)
"""How long after ``send_before`` a blitz order may still be accepted. Blitz counts its duration from acceptance, so its
expiry is no fence. That a broker works off within this time what it has received is an assumption; longer delays are
what late adoption is for."""

LIST_STALENESS: Final = timedelta(seconds=15)
"""How far a broker's list may lag behind what it has booked."""

MARGIN: Final = timedelta(seconds=5)
"""On top of every bound that is known only roughly."""

LISTS_APART: Final = timedelta(seconds=2)
"""Two lists read within less than this may be one answer of a cache."""

LISTS_NEEDED: Final = 2
"""Complete lists in a row that must not have the order."""

CLOCKS_APART: Final = timedelta(minutes=2)
"""How far our clock may be ahead of the broker's, whose times the closed orders carry; only makes the list longer."""

AMBIGUOUS_SEARCHED: Final = timedelta(days=1)
"""How long an ambiguous trade may still become clear by itself, because another trade claims one of the orders."""

_CERTAIN: Final = LIST_STALENESS + MARGIN

# How much later than asked for an expiry on the broker's grid may be. Turbo: the first full minute that is over 30 s
# away. Binary: the first quarter hour that is over 5 minutes away. Digital: the longest period it is offered in.
_GRID: Final = {
    InstrumentType.TURBO: timedelta(seconds=90),
    InstrumentType.BINARY: timedelta(minutes=20),
    InstrumentType.DIGITAL: timedelta(minutes=15),
}

ABSENT: Final = "ORDER_NOT_FOUND"
"""Reason of a trade that the broker never booked."""

NOT_SENT: Final = "NOT_SENT"
"""Reason of a trade that never left this house."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Record the order for the trade, and its result if it has one (``Ledger.opened``)."""

    trade_id: TradeId
    order: BrokerOrder


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """The sender is gone: SENDING becomes UNKNOWN (``Ledger.lost_answer``)."""

    trade_id: TradeId


@dataclass(frozen=True, slots=True)
class DeclareAbsent:
    """It is proven that no order exists (``Ledger.never_placed``)."""

    trade_id: TradeId
    reason: str


@dataclass(frozen=True, slots=True)
class MarkAmbiguous:
    """More than one order could be it and none will drop out any more (``Ledger.mark_ambiguous``)."""

    trade_id: TradeId


Action = Adopt | LoseAnswer | DeclareAbsent | MarkAmbiguous


@dataclass(frozen=True, slots=True)
class Absence:
    """Complete lists in a row, all late enough, that did not have a trade's order."""

    lists: int
    last_asked: datetime


Absences = Mapping[TradeId, Absence]
"""What earlier lists have shown; the caller keeps it between two calls and loses it with the runner, no harm done."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do now, and what to remember for the next lists."""

    actions: tuple[Action, ...]
    absences: Absences


def overdue(trades: Iterable[Trade], now: datetime) -> tuple[Action, ...]:
    """Find trades that nobody is sending any more; needs no list.

    Leave out trades that this process itself is placing at the moment: it records their outcome.
    """
    actions: list[Action] = []
    for trade in trades:
        if trade.state is TradeState.INTENT and now > trade.create_time + INTENT_LIFETIME:
            actions.append(DeclareAbsent(trade.trade_id, NOT_SENT))
        elif trade.state is TradeState.SENDING and now > _sent(trade)[1] + ANSWER_DEADLINE:
            actions.append(LoseAnswer(trade.trade_id))
    return tuple(actions)


def left_to_a_person(trade: Trade, now: datetime) -> bool:
    """Whether lists are no longer searched for a trade that more than one order could be.

    It would make the lists longer every day, and a list too long to be read to its end proves nothing about any trade.
    """
    return trade.ambiguous and _sent(trade)[0] < now - AMBIGUOUS_SEARCHED


def listing_start(trades: Iterable[Trade], now: datetime) -> datetime | None:
    """Return from when on closed orders must be listed to find these trades; None if no list is needed."""
    sent = [trade.send_time for trade in trades if trade.send_time is not None and not left_to_a_person(trade, now)]
    return min(sent) - CLOCKS_APART if sent else None


def reconcile(
    trades: Sequence[Trade],
    listed: BrokerOrders,
    claimed: frozenset[str],
    *,
    asked: datetime,
    answered: datetime,
    absences: Absences,
) -> Verdict:
    """Decide what the broker's lists say about one session's trades.

    Args:
        trades: ``Ledger.unsettled``, read *before* the lists: a trade that was sent later must not seem absent.
        listed: The lists, with closed orders from ``listing_start`` on.
        claimed: ``Ledger.claimed_orders`` of the listed orders, read after them.
        asked: Our clock before the lists were asked for.
        answered: Our clock when they were there.
        absences: What the last call returned; empty at first.
    """
    by_id = {order.broker_order_id: order for order in listed.orders}
    by_trade = {order.trade_id: order for order in listed.orders if order.trade_id is not None}
    free = [order for order in listed.orders if order.broker_order_id not in claimed]
    unresolved = {_fingerprint(trade) for trade in trades if trade.state in {TradeState.SENDING, TradeState.UNKNOWN}}
    actions: list[Action] = []
    remembered: dict[TradeId, Absence] = {}
    for trade in trades:
        if trade.state is TradeState.OPEN:
            order = by_id.get(trade.broker_order_id)
            if order is not None and order.outcome is not None:
                actions.append(Adopt(trade.trade_id, order))
            continue
        if trade.state not in {TradeState.SENDING, TradeState.UNKNOWN, TradeState.NOT_PLACED}:
            continue
        order = by_trade.get(trade.trade_id)
        if order is not None and order.broker_order_id not in claimed:
            # The connector itself has seen the answer: no guess.
            actions.append(Adopt(trade.trade_id, order))
            continue
        if left_to_a_person(trade, asked):
            # The lists need not reach back to it: that one order of two is listed would prove nothing.
            continue
        if trade.state is TradeState.SENDING or (
            trade.state is TradeState.NOT_PLACED and _fingerprint(trade) in unresolved
        ):
            # The first is being sent right now. The second would take the order of a trade that was sent after it.
            continue
        lead = (listed.broker_time - answered, listed.broker_time - asked)
        candidates = [order for order in free if _could_be(trade, order, lead)]
        if len(candidates) == 1:
            actions.append(Adopt(trade.trade_id, candidates[0]))
            free.remove(candidates[0])
        elif trade.state is TradeState.UNKNOWN and listed.complete and asked > latest_acceptance(trade) + _CERTAIN:
            if candidates:
                if not trade.ambiguous:
                    actions.append(MarkAmbiguous(trade.trade_id))
                continue
            absence = _absent_again(absences.get(trade.trade_id), asked)
            if absence.lists >= LISTS_NEEDED:
                actions.append(DeclareAbsent(trade.trade_id, ABSENT))
            else:
                remembered[trade.trade_id] = absence
    return Verdict(tuple(actions), remembered)


def latest_acceptance(trade: Trade) -> datetime:
    """Return the time after which the broker cannot accept this order any more, whenever its request arrives.

    An expiry on a grid is fixed when the order is sent and cannot be bought once it is there; blitz has no such fence.
    """
    send_before = _sent(trade)[1]
    match trade.instrument_type:
        case InstrumentType.BLITZ:
            return send_before + REQUEST_LIFETIME
        case InstrumentType.TURBO | InstrumentType.BINARY | InstrumentType.DIGITAL:
            return send_before + trade.duration + _GRID[trade.instrument_type]
        case _:
            assert_never(trade.instrument_type)


def resolved_by(trade: Trade, poll: timedelta) -> datetime:
    """Return when an UNKNOWN trade is resolved at the latest if the broker's lists can be read every ``poll``."""
    return latest_acceptance(trade) + _CERTAIN + max(poll, LISTS_APART) * (LISTS_NEEDED + 1)


def _sent(trade: Trade) -> tuple[datetime, datetime]:
    if trade.send_time is None or trade.send_before is None:
        raise ValueError("a trade that was sent has its times")
    return trade.send_time, trade.send_before


def _fingerprint(trade: Trade | BrokerOrder) -> tuple[object, ...]:
    return (
        trade.account_type,
        trade.balance_id,
        trade.asset,
        trade.instrument_type,
        trade.direction,
        trade.amount,
    )


def _could_be(trade: Trade, order: BrokerOrder, lead: tuple[timedelta, timedelta]) -> bool:
    """Say whether an order could be the trade's.

    ``lead`` is by how much the broker's clock is at least and at most ahead of ours, as far as one reading tells. Where
    it is not believed to help, it only widens: to leave the right order out would be worse than to doubt.
    """
    if order.trade_id is not None or _fingerprint(order) != _fingerprint(trade):
        return False
    first = _sent(trade)[0] + min(lead[0], timedelta()) - CLOCK_TOLERANCE
    last = latest_acceptance(trade) + max(lead[1], timedelta()) + CLOCK_TOLERANCE
    if not first <= order.open_time <= last:
        return False
    life = order.expiry_time - order.open_time
    if trade.instrument_type is InstrumentType.BLITZ:
        return abs(life - trade.duration) <= CLOCK_TOLERANCE
    return life <= trade.duration + _GRID[trade.instrument_type] + CLOCK_TOLERANCE


def _absent_again(before: Absence | None, asked: datetime) -> Absence:
    if before is None:
        return Absence(1, asked)
    if asked - before.last_asked < LISTS_APART:
        return before
    return Absence(before.lists + 1, asked)
