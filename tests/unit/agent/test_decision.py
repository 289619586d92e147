"""The threshold: trade if and only if the better direction beats break-even by more than the margin."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.agent.domain.decision import AbstainReason, Action, Opinion, Terms, abstain, decide
from services.agent.domain.errors import InvalidArgumentError

TERMS = Terms(timeframe=60, expiry=60, payout_rate=0.87)


@pytest.mark.parametrize(
    ("p_up", "margin", "action"),
    [
        (0.50, 0.0, Action.HOLD),
        (0.5347, 0.0, Action.HOLD),
        (0.5348, 0.0, Action.CALL),
        (0.4652, 0.0, Action.PUT),
        (0.4653, 0.0, Action.HOLD),
        (0.5390, 0.005, Action.HOLD),
        (0.5400, 0.005, Action.CALL),
        (1.0, 0.2, Action.CALL),
        (0.0, 0.2, Action.PUT),
    ],
)
def test_action_follows_from_probability_payout_and_margin(p_up: float, margin: float, action: Action) -> None:
    decision = decide(Opinion(p_up), TERMS, margin, 0)
    assert decision.action is action
    assert (decision.abstain_reason is AbstainReason.NO_EDGE) == (action is Action.HOLD)


@given(p_up=st.floats(0, 1), payout=st.floats(0.01, 10), margin=st.floats(0, 0.2))
@example(p_up=1 / 3, payout=0.5, margin=0.0)  # one step above break-even: the gain rounds to nothing
def test_no_trade_is_ever_made_at_an_expected_loss(p_up: float, payout: float, margin: float) -> None:
    decision = decide(Opinion(p_up), Terms(60, 60, payout), margin, 0)
    if decision.action is not Action.HOLD:
        assert decision.expected_value > 0.0


@given(p_up=st.floats(0, 1), margin=st.floats(0, 0.2))
def test_mirrored_opinion_gives_mirrored_action(p_up: float, margin: float) -> None:
    mirror = {Action.CALL: Action.PUT, Action.PUT: Action.CALL, Action.HOLD: Action.HOLD}
    # 1 - (1 - p) need not be p in floating point.
    p_up = 1.0 - (1.0 - p_up)
    assert (
        decide(Opinion(1.0 - p_up), TERMS, margin, 0).action is mirror[decide(Opinion(p_up), TERMS, margin, 0).action]
    )


def test_a_policy_chooses_itself() -> None:
    assert decide(Opinion(0.51, Action.CALL), TERMS, 0.0, 0).action is Action.CALL
    held = decide(Opinion(0.5, Action.HOLD), TERMS, 0.0, 0)
    assert (held.action, held.abstain_reason) == (Action.HOLD, AbstainReason.NO_EDGE)


def test_abstaining_claims_no_knowledge() -> None:
    decision = abstain(AbstainReason.BAD_INPUT, TERMS, 0.005, 7)
    assert (decision.action, decision.p_up, decision.bar_open_time) == (Action.HOLD, 0.5, 7)
    assert decision.expected_value == pytest.approx(-0.065)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeframe", 0),
        ("timeframe", 2_592_001),
        ("expiry", 4),
        ("expiry", 86_401),
        ("payout_rate", 0.0),
        ("payout_rate", math.nan),
        ("payout_rate", math.inf),
        ("payout_rate", -0.87),
        ("margin", -0.001),
        ("margin", 0.21),
        ("margin", math.nan),
    ],
)
def test_terms_out_of_range_name_the_field(field: str, value: float) -> None:
    sound = {"timeframe": 60, "expiry": 60, "payout_rate": 0.87, "margin": 0.0}
    with pytest.raises(InvalidArgumentError) as raised:
        Terms(**{**sound, field: value})  # type: ignore[arg-type]  # whole numbers where they belong
    assert raised.value.facts == {"field": field}
