"""The counters equal what one would count from the trades themselves, whatever they went through."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from services.session.domain.bot import Usage
from services.session.domain.events import Totals
from services.session.domain.tally import Tally
from services.session.domain.trade import ACTIVE, MOVES, SETTLED, Trade, TradeState
from services.session.domain.values import (
    AccountType,
    Broker,
    Direction,
    InstrumentType,
    SessionKey,
    TradeId,
    TradeSource,
)

DAY = date(2026, 11, 24)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FRESH = Tally(Usage(), Totals(), DAY)


def a_trade(amount: str = "10.00", **changes: object) -> Trade:
    trade = Trade(
        trade_id=TradeId("t"),
        session_key=SessionKey("s"),
        state=TradeState.INTENT,
        source=TradeSource.BOT,
        client_request_id="",
        broker=Broker.IQ,
        account_type=AccountType.PRACTICE,
        balance_id=1,
        asset="EURUSD-OTC",
        instrument_type=InstrumentType.TURBO,
        direction=Direction.CALL,
        amount=Decimal(amount),
        currency="USD",
        duration=timedelta(minutes=1),
        create_time=NOON,
    )
    return replace(trade, **changes)  # type: ignore[arg-type]  # names and types are the caller's care


def moved(trade: Trade, state: TradeState, profit: Decimal, close_time: datetime) -> Trade:
    if state in SETTLED:
        return replace(trade, state=state, profit=profit, close_time=close_time, payout_rate=0.87)
    return replace(trade, state=state)


def settle(tally: Tally, profit: str, close_time: datetime = NOON, today: date = DAY, *, of_run: bool = True) -> Tally:
    money = Decimal(profit)
    state = TradeState.WON if money > 0 else TradeState.LOST if money < 0 else TradeState.TIED
    before = a_trade(state=TradeState.OPEN)
    tally = tally.reserved(before, of_run=of_run)
    return tally.moved(before, moved(before, state, money, close_time), of_run=of_run, today=today)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Trade, bool, list[Trade]]]:
    """Some trades, whether they are the run's, and every state each was in."""
    made = []
    for _ in range(draw(st.integers(1, 6))):
        trade = a_trade(draw(st.decimals("0.01", "999.99", places=2).map(str)))
        states = [trade]
        for _ in range(draw(st.integers(0, 6))):
            following = sorted(MOVES.get(states[-1].state, ()))
            if not following:
                break
            profit = draw(st.decimals("-500", "500", places=2))
            states.append(moved(states[-1], draw(st.sampled_from(following)), profit, NOON))
        made.append((trade, draw(st.booleans()), states))
    return made


@given(histories(), st.randoms())
def test_counters_equal_a_recount_in_any_order(
    history: list[tuple[Trade, bool, list[Trade]]],
    random: object,
) -> None:
    tally = FRESH
    steps = [(number, step) for number, (_, _, states) in enumerate(history) for step in range(len(states))]
    random.shuffle(steps)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    places = [0] * len(history)
    for number, _ in steps:
        trade, of_run, states = history[number]
        place = places[number]
        if place == 0:
            tally = tally.reserved(trade, of_run=of_run)
        else:
            tally = tally.moved(states[place - 1], states[place], of_run=of_run, today=DAY)
        places[number] += 1
    last = [(states[-1], of_run, states) for _, of_run, states in history]
    active = [trade for trade, _, _ in last if trade.state in ACTIVE]
    settled = [trade for trade, _, _ in last if trade.state in SETTLED]
    never = {TradeState.REJECTED, TradeState.NOT_PLACED}
    assert tally.usage.exposure == sum((trade.amount for trade in active), Decimal(0))
    assert tally.usage.open_trades == len(active)
    assert tally.usage.run_exposure == sum((t.amount for t, run, _ in last if run and t.state in ACTIVE), Decimal(0))
    assert tally.usage.run_trades == sum(run and trade.state not in never for trade, run, _ in last)
    assert tally.usage.daily_profit == tally.totals.profit == sum((trade.profit for trade in settled), Decimal(0))
    assert tally.usage.run_profit == sum((t.profit for t, run, _ in last if run and t.state in SETTLED), Decimal(0))
    opened = sum(sum(state.state is TradeState.OPEN for state in states) for _, _, states in last)
    assert tally.totals.total_trades == opened
    counted = (tally.totals.wins, tally.totals.losses, tally.totals.ties, tally.totals.sold)
    of_state = [sum(trade.state is state for trade in settled) for state in sorted(SETTLED)]
    assert sorted(counted) == sorted(of_state)


def test_a_streak_of_losses_ends_with_a_win_and_not_with_a_tie() -> None:
    tally = FRESH
    streaks = []
    for profit in ("-1", "-1", "0", "-1", "0.87", "-1"):
        tally = settle(tally, profit)
        streaks.append(tally.usage.consecutive_losses)
    assert streaks == [1, 2, 2, 3, 0, 1]


def test_manual_trades_count_for_the_day_and_not_for_the_run() -> None:
    tally = settle(FRESH, "-10", of_run=False)
    assert (tally.usage.daily_profit, tally.usage.run_profit, tally.usage.consecutive_losses) == (
        Decimal(-10),
        Decimal(0),
        0,
    )


def test_a_broker_whose_clock_runs_ahead_cannot_begin_a_day() -> None:
    tally = settle(FRESH, "-10", close_time=NOON + timedelta(days=400))
    assert (tally.day, tally.usage.daily_profit) == (DAY, Decimal(-10))


def test_yesterdays_result_counts_for_yesterday() -> None:
    tally = settle(settle(FRESH, "-10"), "-3", close_time=NOON - timedelta(days=1))
    assert (tally.usage.daily_profit, tally.totals.profit) == (Decimal(-10), Decimal(-13))


def test_the_first_result_of_a_day_begins_it() -> None:
    tomorrow = DAY + timedelta(days=1)
    tally = settle(settle(FRESH, "-10"), "-3", close_time=NOON + timedelta(days=1), today=tomorrow)
    assert (tally.day, tally.usage.daily_profit) == (tomorrow, Decimal(-3))


def test_an_early_sale_counts_with_its_profit_and_its_stake() -> None:
    """Profit per stake is one over the other: what is in the first is in the second."""
    before = a_trade(state=TradeState.OPEN)
    sold = moved(before, TradeState.SOLD, Decimal("-4.00"), NOON)
    totals = FRESH.moved(before, sold, of_run=True, today=DAY).totals
    assert (totals.sold, totals.profit, totals.staked) == (1, Decimal("-4.00"), Decimal("10.00"))
