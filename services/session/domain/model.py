"""The models that bots can trade with, as their users see them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class ModelState(StrEnum):
    """What a version does."""

    ACTIVE = "active"
    """Decides for bots that name the model."""
    SHADOW = "shadow"
    """Decides beside the active one for the record."""
    IDLE = "idle"
    """Loaded, and decides nothing."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of one model."""

    name: str
    version: str = ""
    state: ModelState = ModelState.ACTIVE
    pinned: bool = False
    """Active because the operator chose it, not because it is the newest."""
    is_default: bool = False
    sha256: str = ""
    features_version: str = ""
    min_payout_rate: float = 0.0
    max_payout_rate: float = 0.0
    """The payout rates it was validated for, fractions."""
    expiry_bars: int = 0
    """Life of the option it was made for, in candles; 0 if the agent does not say."""
    min_history: int = 0
    """Closed candles below which it holds."""
    margin: float = 0.0
    description: str = ""
    card: str = ""
    """Markdown; empty in lists."""
    create_time: datetime | None = None

    def suits(self, duration: timedelta, timeframe: int) -> bool:
        """Tell whether it was made for options of that length on candles of so many seconds."""
        return self.expiry_bars == 0 or duration == self.expiry_bars * timedelta(seconds=timeframe)
