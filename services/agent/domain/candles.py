"""What counts as a usable history: the rules for nonsense, gaps, ties, flat and old markets.

- A price must be finite and positive, high at least and low at most every other price of its candle, and open times
  must ascend by multiples of the timeframe; anything else is *bad input*.
- A missing candle is a *gap*: the move over it is not learnt from, and for ``RECENT_BARS`` bars no decision is made.
- An unchanged close is a return of 0. A market whose close has not moved for ``RECENT_BARS`` bars is *stale*.
- With the broker's clock given, a newest candle that is not the last closed one is *stale* too.
"""

import math
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from services.agent.domain.decision import AbstainReason, Terms

RECENT_BARS: Final = 60
"""Bars without a gap, and with at least one change of the close among them, that a decision needs."""

FloatArray = npt.NDArray[np.float64]


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One closed candle."""

    open_time: int
    """Unix seconds."""
    open: float
    high: float
    low: float
    close: float

    @property
    def plausible(self) -> bool:
        """Whether the prices are finite, positive and in order."""
        low, high = self.low, self.high
        # Comparisons with NaN are false; infinity is caught at the high.
        return 0.0 < low <= self.open <= high < math.inf and low <= self.close <= high


@dataclass(frozen=True, slots=True)
class Candles:
    """Closed candles as columns, oldest first."""

    open_time: npt.NDArray[np.int64]
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray

    def __len__(self) -> int:
        return len(self.open_time)

    @property
    def plausible(self) -> bool:
        """Whether all prices are finite, positive and in order."""
        low, high = self.low, self.high
        body_low, body_high = np.minimum(self.open, self.close), np.maximum(self.open, self.close)
        return bool(np.all((low > 0.0) & (low <= body_low) & (body_high <= high) & (high < np.inf)))


@dataclass(slots=True)
class Tape:
    """Where a history stands after its newest candle, and what the next candle means."""

    timeframe: int
    """Candle length in seconds."""
    open_time: int = 0
    """Of the newest candle; 0 before the first."""
    close: float = 0.0
    since_gap: int = 0
    """Candles since the last gap, the newest included."""
    since_change: int = 0
    """Returns of exactly 0 up to now."""

    def accepts(self, candle: Candle) -> bool:
        """Tell whether a candle may follow."""
        if not candle.plausible:
            return False
        if self.open_time == 0:
            return candle.open_time > 0
        step = candle.open_time - self.open_time
        return step > 0 and step % self.timeframe == 0

    def follow(self, candle: Candle) -> float | None:
        """Move on to an accepted candle and return the log return of its bar, or None after a gap."""
        step, before = candle.open_time - self.open_time, self.close
        first = self.open_time == 0
        self.open_time, self.close = candle.open_time, candle.close
        if first or step != self.timeframe:
            self.since_gap, self.since_change = 1, 0
            return None
        self.since_gap += 1
        self.since_change = self.since_change + 1 if candle.close == before else 0
        return math.log(candle.close / before)

    def objection(self, terms: Terms, bars: int, min_history: int) -> AbstainReason | None:
        """Return why no decision can be made now, or None.

        Args:
            terms: With the broker's clock, if there is one.
            bars: Returns that the features have taken in.
            min_history: Closed candles that the model demands.
        """
        if bars + 1 < min_history:
            return AbstainReason.INSUFFICIENT_HISTORY
        if self.since_gap < RECENT_BARS or self.since_change >= RECENT_BARS:
            return AbstainReason.STALE_OR_GAP
        # The last closed candle opened one to two timeframes ago.
        if terms.as_of_time is not None and terms.as_of_time >= self.open_time + 2 * self.timeframe:
            return AbstainReason.STALE_OR_GAP
        return None


@dataclass(frozen=True, slots=True)
class History:
    """A whole usable history."""

    returns: FloatArray
    """Log returns of the bars that follow their neighbour, oldest first."""
    starts: npt.NDArray[np.intp]
    """Positions of the returns before which there was a gap; ``len(returns)`` if the newest candle follows one."""
    tape: Tape


def read_history(candles: Candles, timeframe: int) -> History | None:
    """Return the history of the candles, or None if they are bad input."""
    count = len(candles)
    tape = Tape(timeframe)
    if count == 0:
        return History(np.empty(0), np.empty(0, dtype=np.intp), tape)
    steps = np.diff(candles.open_time)
    if not candles.plausible or candles.open_time[0] <= 0 or np.any(steps <= 0) or np.any(steps % timeframe):
        return None
    whole = steps == timeframe
    returns = np.log(candles.close[1:] / candles.close[:-1])
    # A gap at step i comes before the first whole step after it: as many returns are kept before as whole steps.
    starts = np.unique(np.cumsum(whole)[~whole])
    tape.open_time = int(candles.open_time[-1])
    tape.close = float(candles.close[-1])
    gaps = np.flatnonzero(~whole)
    first = int(gaps[-1]) + 1 if len(gaps) else 0
    tape.since_gap = count - first
    changed = np.flatnonzero(returns[first:])
    tape.since_change = count - 1 - first - (int(changed[-1]) + 1 if len(changed) else 0)
    return History(returns[whole], starts.astype(np.intp), tape)
