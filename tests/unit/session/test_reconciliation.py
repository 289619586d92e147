"""A trade is found by what the broker lists and declared absent only when nothing can turn up any more."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.session.domain.reconciliation import (
    ABSENT,
    ANSWER_DEADLINE,
    INTENT_LIFETIME,
    LIST_STALENESS,
    LISTS_APART,
    MARGIN,
    NOT_SENT,
    Absence,
    Absences,
    Action,
    Adopt,
    DeclareAbsent,
    LoseAnswer,
    MarkAmbiguous,
    Verdict,
    latest_acceptance,
    listing_start,
    overdue,
    reconcile,
    resolved_by,
)
from services.session.domain.trade import BrokerOrder, BrokerOrders, Trade, TradeState
from services.session.domain.values import (
    AccountType,
    Broker,
    Direction,
    InstrumentType,
    SessionKey,
    TradeId,
    TradeSource,
)

T0 = datetime(2026, 11, 24, 12, 0, 20, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
NOBODYS: Absences = {}


def a_trade(state: TradeState = TradeState.UNKNOWN, **changes: object) -> Trade:
    sent = state is not TradeState.INTENT
    trade = Trade(
        trade_id=TradeId("t-1"),
        session_key=SessionKey("s"),
        state=state,
        source=TradeSource.MANUAL,
        client_request_id="",
        broker=Broker.IQ,
        account_type=AccountType.PRACTICE,
        balance_id=7,
        asset="EURUSD-OTC",
        instrument_type=InstrumentType.TURBO,
        direction=Direction.CALL,
        amount=Decimal(10),
        currency="USD",
        duration=timedelta(minutes=1),
        create_time=T0,
        send_time=T0 if sent else None,
        send_before=T0 + 3 * SECOND if sent else None,
    )
    return replace(trade, **changes)  # type: ignore[arg-type]  # names and types are the caller's care


def an_order(**changes: object) -> BrokerOrder:
    order = BrokerOrder(
        broker_order_id="o-1",
        trade_id=None,
        account_type=AccountType.PRACTICE,
        balance_id=7,
        asset="EURUSD-OTC",
        instrument_type=InstrumentType.TURBO,
        direction=Direction.CALL,
        amount=Decimal("10.00"),
        payout_rate=0.87,
        open_price=1.1,
        open_time=T0 + SECOND,
        expiry_time=T0 + 40 * SECOND,
    )
    return replace(order, **changes)  # type: ignore[arg-type]  # names and types are the caller's care


def look(
    trades: list[Trade],
    orders: list[BrokerOrder],
    *,
    at: timedelta = 5 * SECOND,
    complete: bool = True,
    claimed: frozenset[str] = frozenset(),
    absences: Absences = NOBODYS,
    lead: timedelta = timedelta(0),
    took: timedelta = timedelta(milliseconds=200),
) -> Verdict:
    asked = T0 + at
    listed = BrokerOrders(tuple(orders), complete, asked + took / 2 + lead)
    return reconcile(trades, listed, claimed, asked=asked, answered=asked + took, absences=absences)


def actions(trades: list[Trade], orders: list[BrokerOrder], **how: object) -> list[Action]:
    return list(look(trades, orders, **how).actions)  # type: ignore[arg-type]  # passed through


def certain(trade: Trade) -> timedelta:
    """How long after T0 an absence may mean something."""
    return latest_acceptance(trade) + LIST_STALENESS + MARGIN - T0 + SECOND


def test_the_one_order_that_fits_is_adopted() -> None:
    order = an_order()
    others = [
        an_order(broker_order_id="o-2", direction=Direction.PUT),
        an_order(broker_order_id="o-3", amount=Decimal("10.01")),
        an_order(broker_order_id="o-4", asset="GBPUSD-OTC"),
        an_order(broker_order_id="o-5", instrument_type=InstrumentType.BINARY),
        an_order(broker_order_id="o-6", balance_id=8),
        an_order(broker_order_id="o-7", account_type=AccountType.REAL),
        an_order(broker_order_id="o-8", open_time=T0 - timedelta(minutes=5)),
        an_order(broker_order_id="o-9", open_time=T0 + timedelta(minutes=5), expiry_time=T0 + timedelta(minutes=6)),
        an_order(broker_order_id="o-10", expiry_time=T0 + timedelta(minutes=15)),
        an_order(broker_order_id="o-11", trade_id=TradeId("another")),
    ]
    assert actions([a_trade()], [*others, order]) == [Adopt(TradeId("t-1"), order)]


def test_an_order_that_another_trade_has_claimed_is_not_taken() -> None:
    assert actions([a_trade()], [an_order()], claimed=frozenset({"o-1"})) == []


def test_an_order_that_the_connector_remembers_needs_no_guess() -> None:
    mine = an_order(trade_id=TradeId("t-1"), open_time=T0 + timedelta(minutes=9))
    for state in (TradeState.SENDING, TradeState.UNKNOWN, TradeState.NOT_PLACED):
        assert actions([a_trade(state)], [mine, an_order(broker_order_id="o-2")]) == [Adopt(TradeId("t-1"), mine)]


def test_a_trade_that_is_being_sent_is_left_alone() -> None:
    trade = a_trade(TradeState.SENDING)
    assert actions([trade], [an_order()]) == []
    assert actions([trade], [], at=certain(trade)) == []


def test_absence_needs_two_complete_lists_in_a_row_after_everything_is_over() -> None:
    trade = a_trade()
    first = look([trade], [], at=certain(trade))
    assert first.actions == ()
    second = look([trade], [], at=certain(trade) + LISTS_APART, absences=first.absences)
    assert second.actions == (DeclareAbsent(trade.trade_id, ABSENT),)


def test_lists_that_come_too_early_prove_nothing() -> None:
    trade = a_trade()
    absences = NOBODYS
    at = timedelta(0)
    while at < certain(trade) - SECOND:
        verdict = look([trade], [], at=at, absences=absences)
        assert (verdict.actions, verdict.absences) == ((), {})
        absences = verdict.absences
        at += 3 * SECOND


def test_an_incomplete_list_begins_the_count_anew() -> None:
    trade = a_trade()
    first = look([trade], [], at=certain(trade))
    broken = look([trade], [], at=certain(trade) + 3 * SECOND, complete=False, absences=first.absences)
    third = look([trade], [], at=certain(trade) + 6 * SECOND, absences=broken.absences)
    assert third.actions == ()
    assert look([trade], [], at=certain(trade) + 9 * SECOND, absences=third.absences).actions


def test_two_lists_at_once_are_one() -> None:
    trade = a_trade()
    first = look([trade], [], at=certain(trade))
    again = look([trade], [], at=certain(trade) + SECOND, absences=first.absences)
    assert again.actions == ()
    assert again.absences == first.absences


def test_an_incomplete_list_still_shows_what_it_has() -> None:
    assert actions([a_trade()], [an_order()], complete=False) == [Adopt(TradeId("t-1"), an_order())]


def test_two_orders_that_fit_are_waited_out_and_then_left_to_a_person() -> None:
    trade = a_trade()
    orders = [an_order(), an_order(broker_order_id="o-2")]
    assert actions([trade], orders) == []
    assert actions([trade], orders, at=certain(trade), complete=False) == []
    assert actions([trade], orders, at=certain(trade)) == [MarkAmbiguous(trade.trade_id)]
    marked = replace(trade, ambiguous=True)
    assert actions([marked], orders, at=certain(trade)) == []
    assert actions([marked], orders, at=certain(trade), claimed=frozenset({"o-2"})) == [
        Adopt(trade.trade_id, orders[0])
    ]


def test_a_trade_declared_absent_is_adopted_late_but_not_while_an_equal_one_is_unresolved() -> None:
    absent = a_trade(TradeState.NOT_PLACED)
    assert actions([absent], [an_order()]) == [Adopt(absent.trade_id, an_order())]
    later = T0 + timedelta(minutes=4)
    newer = a_trade(trade_id=TradeId("t-2"), send_time=later, send_before=later + 3 * SECOND)
    assert actions([absent, newer], [an_order()], at=timedelta(minutes=4)) == []
    assert actions([absent], [], at=certain(absent)) == []


def test_one_order_is_never_given_to_two_trades() -> None:
    trades = [a_trade(TradeState.NOT_PLACED), a_trade(TradeState.NOT_PLACED, trade_id=TradeId("t-2"))]
    assert actions(trades, [an_order()]) == [Adopt(TradeId("t-1"), an_order())]


def test_an_open_trade_gets_its_result_from_the_list() -> None:
    trade = a_trade(TradeState.OPEN, broker_order_id="o-1")
    won = an_order(outcome=TradeState.WON, profit=Decimal("8.70"))
    claimed = frozenset({"o-1"})
    assert actions([trade], [won], claimed=claimed) == [Adopt(trade.trade_id, won)]
    assert actions([trade], [an_order()], claimed=claimed) == []
    assert actions([trade], [], at=timedelta(hours=1)) == []


@pytest.mark.parametrize("lead", [-30, -2, 0, 2, 30])
def test_a_clock_that_goes_wrong_by_half_a_minute_hides_no_order(lead: int) -> None:
    ours = an_order(open_time=T0 + SECOND + lead * SECOND, expiry_time=T0 + (40 + lead) * SECOND)
    assert actions([a_trade()], [ours], lead=lead * SECOND, took=10 * SECOND) == [Adopt(TradeId("t-1"), ours)]


def test_a_blitz_order_must_last_as_long_as_was_asked_for() -> None:
    trade = a_trade(instrument_type=InstrumentType.BLITZ, duration=5 * SECOND)
    fits = an_order(instrument_type=InstrumentType.BLITZ, expiry_time=T0 + 6 * SECOND)
    assert actions([trade], [fits]) == [Adopt(trade.trade_id, fits)]
    assert actions([trade], [replace(fits, expiry_time=T0 + 31 * SECOND)]) == []


@given(
    st.integers(0, 59),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_no_turbo_order_can_be_bought_after_its_latest_acceptance(second: int, minutes: int, late: int) -> None:
    """The broker sells full minutes that are more than 30 s away; the connector takes the nearest to what was asked."""
    sent = T0.replace(second=second) + late * SECOND
    marks = [sent.replace(second=0) + timedelta(minutes=number) for number in range(8)]
    on_sale = [mark for mark in marks if mark - sent > timedelta(seconds=30)]
    expiry = min(on_sale, key=lambda mark: abs(mark - sent - timedelta(minutes=minutes)))
    trade = a_trade(
        duration=timedelta(minutes=minutes),
        send_time=sent - late * SECOND,
        send_before=sent - late * SECOND + 3 * SECOND,
    )
    assert expiry <= latest_acceptance(trade)
    booked = an_order(open_time=sent, expiry_time=expiry)
    assert actions([trade], [booked], at=sent - T0 + SECOND) == [Adopt(trade.trade_id, booked)]


def test_an_intent_is_given_up_when_nobody_can_be_waiting_any_more() -> None:
    intent = a_trade(TradeState.INTENT)
    assert overdue([intent], T0 + INTENT_LIFETIME) == ()
    assert overdue([intent], T0 + INTENT_LIFETIME + SECOND) == (DeclareAbsent(intent.trade_id, NOT_SENT),)


def test_a_sender_that_is_silent_for_too_long_is_gone() -> None:
    sending = a_trade(TradeState.SENDING)
    assert sending.send_before is not None
    assert overdue([sending], sending.send_before + ANSWER_DEADLINE) == ()
    assert overdue([sending], sending.send_before + ANSWER_DEADLINE + SECOND) == (LoseAnswer(sending.trade_id),)


@pytest.mark.parametrize("state", sorted(set(TradeState) - {TradeState.INTENT, TradeState.SENDING}))
def test_no_other_trade_is_ever_overdue(state: TradeState) -> None:
    assert overdue([a_trade(state)], T0 + timedelta(days=1)) == ()


def test_lists_begin_before_the_oldest_trade_that_was_sent() -> None:
    assert listing_start([a_trade(TradeState.INTENT)], T0) is None
    start = listing_start([a_trade(), a_trade(send_time=T0 - timedelta(hours=1))], T0)
    assert start is not None
    assert start < T0 - timedelta(hours=1)


@pytest.mark.parametrize("kind", list(InstrumentType))
def test_every_unknown_trade_is_resolved_within_its_bound(kind: InstrumentType) -> None:
    trade = a_trade(instrument_type=kind, duration=timedelta(minutes=1))
    poll, absences, at = 3 * SECOND, NOBODYS, 0 * SECOND
    while T0 + at <= resolved_by(trade, poll):
        verdict = look([trade], [], at=at, absences=absences)
        if verdict.actions:
            assert verdict.actions == (DeclareAbsent(trade.trade_id, ABSENT),)
            return
        absences = verdict.absences
        at += poll
    pytest.fail("it was not resolved in time")


def test_an_ambiguous_trade_is_left_to_a_person_after_a_day() -> None:
    trade, other = a_trade(ambiguous=True), a_trade(trade_id=TradeId("t-2"), amount=Decimal(3), send_time=T0 + DAY)
    assert listing_start([trade], T0 + DAY) is not None
    assert listing_start([trade], T0 + DAY + SECOND) is None
    start = listing_start([trade, other], T0 + DAY + SECOND)
    assert start is not None
    assert start > T0 + timedelta(hours=23)
    # The list does not reach back any more, so that one of the two orders is missing from it proves nothing.
    assert actions([trade], [an_order()], at=DAY - 10 * SECOND) == [Adopt(trade.trade_id, an_order())]
    assert actions([trade], [an_order()], at=DAY + 10 * SECOND) == []
    assert actions([trade], [], at=DAY + 10 * SECOND, absences={trade.trade_id: Absence(9, T0)}) == []
