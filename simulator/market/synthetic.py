"""Synthetic prices: one of the known processes of ``markets`` at 5-second bars, with seconds in between.

A day is computed by itself. Its first and last price are drawn from the seed and the path between them is corrected by
a constant drift, so any day can be had without the days before it and prices stay near the base for ever. The drift is
below 1 % of a bar's volatility: nothing that could be found, let alone traded.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from markets.process import Process
from simulator.market.prices import DAY, MICRO, Prices

BAR: Final = 5
"""Seconds of a bar, the scale at which the process has its character."""
BARS: Final = DAY // BAR
PATHS: Final = 8
"""A day is this many paths of the process one after another: the processes are fast over many paths, slow over long ones."""
ANCHOR_SPREAD: Final = 0.004
"""Standard deviation of a day's first price around the base, as a log return."""


@dataclass(frozen=True, slots=True)
class SyntheticPrices:
    """Prices of one asset that follow a process."""

    process: Process
    base: float
    """Price around which the days begin."""
    bar_volatility: float
    """Log return of a 5-second bar for one unit of the process's return."""
    seed: tuple[int, ...]

    @property
    def volatility(self) -> float:
        """Standard deviation of a one-second move in millionths."""
        return self.base * MICRO * self.bar_volatility / math.sqrt(BAR)

    def day(self, day: int) -> Prices:
        """Return the prices of a day; see ``PriceSource``."""
        rng = np.random.default_rng((*self.seed, day, 0))
        returns = self.process.returns(rng, (PATHS, BARS // PATHS)).reshape(-1) * self.bar_volatility
        first, last = self._anchor(day), self._anchor(day + 1)
        returns += (last - first - returns.sum()) / BARS

        # Within a bar the price moves at seconds 1 to 4, a Brownian bridge to the bar's close; at second 0 it still is
        # the previous close. So the close of every 5-second candle is the process's close, the candle opens where the
        # last one closed, and an order taken in a candle's first second is priced at that close as well.
        moves = rng.standard_normal((BARS, BAR - 1)) * (self.bar_volatility / math.sqrt(BAR - 1))
        moves += ((returns - moves.sum(axis=1)) / (BAR - 1))[:, np.newaxis]
        steps = np.zeros((BARS, BAR))
        steps[:, 1:] = moves
        path = first + np.cumsum(steps.reshape(-1))
        return np.rint(self.base * MICRO * np.exp(path)).astype(np.int32)

    def _anchor(self, day: int) -> float:
        return float(np.random.default_rng((*self.seed, day, 1)).standard_normal()) * ANCHOR_SPREAD
