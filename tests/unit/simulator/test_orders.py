"""Settlement arithmetic and the words for outcomes."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.exchange.exchange import _price_for
from simulator.exchange.orders import Direction, Outcome, credit_of, gross_win, outcome_of

stakes = st.decimals(min_value=1, max_value=20_000, places=2)
prices = st.integers(min_value=1, max_value=2_000_000_000)


@given(stake=stakes, payout=st.integers(min_value=1, max_value=100))
def test_credit_is_exact_to_the_cent(stake: Decimal, payout: int) -> None:
    won = credit_of(Outcome.WON, stake, payout)
    assert won == won.quantize(Decimal("0.01"))
    assert abs(won - stake * (100 + payout) / 100) <= Decimal("0.005")
    assert credit_of(Outcome.TIED, stake, payout) == stake
    assert credit_of(Outcome.LOST, stake, payout) == 0


def test_win_of_one_and_a_half_pays_two_eighty_one() -> None:
    assert gross_win(Decimal("1.5"), 87) == Decimal("2.81")


@given(direction=st.sampled_from(Direction), opened=prices, closed=prices)
def test_call_and_put_on_the_same_prices_end_in_opposite_ways(direction: Direction, opened: int, closed: int) -> None:
    outcome = outcome_of(direction, opened, closed)
    other = Direction.PUT if direction is Direction.CALL else Direction.CALL
    opposite = {Outcome.WON: Outcome.LOST, Outcome.LOST: Outcome.WON, Outcome.TIED: Outcome.TIED}
    assert outcome_of(other, opened, closed) is opposite[outcome]
    assert (outcome is Outcome.TIED) == (opened == closed)


def test_call_wins_above_the_open_price_by_a_single_millionth() -> None:
    assert outcome_of(Direction.CALL, 1_175_283, 1_175_284) is Outcome.WON


@given(
    outcome=st.sampled_from([Outcome.WON, Outcome.LOST, Outcome.TIED]),
    direction=st.sampled_from(Direction),
    opened=prices,
)
def test_price_of_a_forced_outcome_agrees_with_it(outcome: Outcome, direction: Direction, opened: int) -> None:
    assert outcome_of(direction, opened, _price_for(outcome, direction, opened)) is outcome


@pytest.mark.parametrize(("outcome", "word"), [("won", "win"), ("lost", "loose"), ("tied", "equal"), ("sold", "sold")])
def test_outcomes_have_the_broker_s_spelling(outcome: str, word: str) -> None:
    assert Outcome(outcome).broker_word == word
