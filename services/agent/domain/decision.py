"""From a model's opinion and the terms on offer to an action, and the words for both.

What is made anew for every decision is a msgspec struct: as frozen as a dataclass, and several times cheaper to make.
"""

from enum import StrEnum

import msgspec

from services.agent.domain.errors import InvalidArgumentError


class Action(StrEnum):
    """What to do at the close of a candle."""

    HOLD = "HOLD"
    CALL = "CALL"
    PUT = "PUT"


class AbstainReason(StrEnum):
    """Why the action is HOLD."""

    NO_EDGE = "no_edge"
    INSUFFICIENT_HISTORY = "insufficient_history"
    STALE_OR_GAP = "stale_or_gap"
    BAD_INPUT = "bad_input"
    GATE_CLOSED = "gate_closed"
    """Said by the session service; the agent itself never does."""
    UNSUPPORTED_TERMS = "unsupported_terms"


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What is on offer and what is known of the time. Checked when made.

    Raises:
        InvalidArgumentError: A value is out of its range.
    """

    timeframe: int
    """Candle length in seconds."""
    expiry: int
    """Life of the option in seconds."""
    payout_rate: float
    """Profit on a win as a fraction of the stake."""
    margin: float | None = None
    """Extra probability demanded before a trade; None is the model's own."""
    as_of_time: int | None = None
    """The broker's clock in unix seconds; None skips the check for old candles."""

    def __post_init__(self) -> None:
        if not 1 <= self.timeframe <= 2_592_000:
            raise InvalidArgumentError("timeframe", "must be 1 to 2592000 seconds")
        if not 5 <= self.expiry <= 86_400:
            raise InvalidArgumentError("expiry", "must be 5 to 86400 seconds")
        # Written so that NaN fails.
        if not 0.0 < self.payout_rate <= 10.0:
            raise InvalidArgumentError("payout_rate", "must be over 0 and at most 10")
        if self.margin is not None and not 0.0 <= self.margin <= 0.2:
            raise InvalidArgumentError("margin", "must be 0 to 0.2")

    @property
    def break_even(self) -> float:
        """Hit rate at which a trade neither wins nor loses."""
        return 1.0 / (1.0 + self.payout_rate)


class Opinion(msgspec.Struct, frozen=True, gc=False):
    """What a model says about one bar."""

    p_up: float
    """Probability that the price is higher at expiry."""
    action: Action | None = None
    """The action of a policy that chooses itself; None leaves the choice to the terms."""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A model's answer for one bar under given terms."""

    action: Action
    abstain_reason: AbstainReason | None
    p_up: float
    break_even: float
    expected_value: float
    """Expected profit of the better direction as a fraction of the stake."""
    margin: float
    bar_open_time: int
    """Open time of the newest candle that was used; 0 if none."""


def decide(opinion: Opinion, terms: Terms, margin: float, bar_open_time: int) -> Decision:
    """Trade if and only if the better direction's probability exceeds the break-even rate by more than the margin.

    Nor is there a trade if the gain that is left is too small for a float to tell from none. A policy that chooses itself
    has its payout baked in: its action stands as it is.
    """
    confidence = max(opinion.p_up, 1.0 - opinion.p_up)
    expected_value = confidence * (1.0 + terms.payout_rate) - 1.0
    action = Action.CALL if opinion.p_up > 0.5 else Action.PUT
    if opinion.action is not None:
        action = opinion.action
    elif not (confidence > terms.break_even + margin and expected_value > 0.0):
        action = Action.HOLD
    return Decision(
        action=action,
        abstain_reason=AbstainReason.NO_EDGE if action is Action.HOLD else None,
        p_up=opinion.p_up,
        break_even=terms.break_even,
        expected_value=expected_value,
        margin=margin,
        bar_open_time=bar_open_time,
    )


def abstain(reason: AbstainReason, terms: Terms, margin: float, bar_open_time: int) -> Decision:
    """Hold without having looked: one half, and the loss that a blind trade would make."""
    return Decision(
        action=Action.HOLD,
        abstain_reason=reason,
        p_up=0.5,
        break_even=terms.break_even,
        expected_value=0.5 * (1.0 + terms.payout_rate) - 1.0,
        margin=margin,
        bar_open_time=bar_open_time,
    )
