"""Shadow decisions: what a model said, priced like the option and followed to its end whether it was traded or not."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from services.session.domain.events import LogWritten
from services.session.domain.evidence import Gate, GateMode, shadow_profit
from services.session.domain.values import Direction


class ShadowState(StrEnum):
    """Where a shadow decision stands. It leaves PENDING once."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"
    TIED = "tied"
    VOID = "void"
    """A price is missing. Which one never depends on how it ended."""
    OVERLAPPING = "overlapping"
    """Made while an earlier one of the same gate ran: the same move of the price, bet on twice. Kept, not counted."""


@dataclass(frozen=True, slots=True)
class GateKey:
    """Whose evidence it is: one version of a model on the terms it trades on. An edge elsewhere proves nothing here."""

    model: str
    model_version: str
    asset: str
    timeframe: int
    """Candle length, seconds."""
    duration: timedelta


@dataclass(frozen=True, slots=True)
class GateRecord:
    """A gate and what did not count for it."""

    key: GateKey
    gate: Gate = field(default_factory=Gate)
    voided: int = 0

    def words(self) -> str:
        """Say it in one line."""
        return self.gate.words()

    def lets_through(self, mode: GateMode) -> bool:
        """Tell whether a signal may become an order."""
        return self.gate.lets_through(mode)


@dataclass(frozen=True, slots=True)
class Shadow:
    """A decision that is not resolved yet."""

    key: GateKey
    close_time: datetime
    """End of the candle it was made on; with the model's name it is the decision's identity in its session."""
    direction: Direction
    payout_rate: float
    """On offer when it was made, over 0."""
    entry_price: float | None = None
    """First price seen after it was made, never the close it was made on; None until then."""

    @property
    def expiry_time(self) -> datetime:
        """When the option would end: with the last candle of its life."""
        return self.close_time + self.key.duration


def resolve(
    record: GateRecord, shadow: Shadow, exit_price: float | None
) -> tuple[ShadowState, GateRecord, LogWritten | None]:
    """Count a decision once its price at expiry is known.

    Args:
        record: The gate so far.
        shadow: The decision.
        exit_price: None if there is none.

    Returns:
        How it ended, the gate after it, and what to tell if the gate opened or closed.
    """
    if shadow.entry_price is None or exit_price is None:
        return ShadowState.VOID, GateRecord(record.key, record.gate, record.voided + 1), None
    profit = shadow_profit(shadow.direction, shadow.entry_price, exit_price, shadow.payout_rate)
    after = GateRecord(record.key, record.gate.after(profit, shadow.payout_rate), record.voided)
    if profit == 0.0:
        return ShadowState.TIED, after, None
    told = None if after.gate.opened is record.gate.opened else gate_told(after)
    return ShadowState.WON if profit > 0.0 else ShadowState.LOST, after, told


def gate_told(record: GateRecord) -> LogWritten:
    """Return what the user is told of a gate that opened or closed."""
    state = "open" if record.gate.opened else "closed"
    key = record.key
    return LogWritten(
        "info" if record.gate.opened else "warning",
        f"The evidence gate of {key.model} {key.model_version} on {key.asset} is {state}: {record.words()}",
    )
