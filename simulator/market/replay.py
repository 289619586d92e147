"""Real EUR/USD replayed: recorded hourly bars bridged down to seconds.

Only the hours are real. Within an hour the path is a Brownian bridge through open, high, low and close, folded into
the hour's range; it is a pure function of the seed and the hour. Whatever a model finds below the hour is the bridge's.
"""

import gzip
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

import numpy as np
import numpy.typing as npt

from simulator.market.prices import Prices

HOUR: Final = 3600
RECORDED_UNIT: Final = 10
"""Millionths in the recording's unit of price (1e-5)."""
RANGE_OF_WALK: Final = 1.67
"""Expected range of a Brownian motion over its standard deviation at the end (Parkinson 1980)."""


@dataclass(frozen=True, slots=True)
class HourBar:
    """Open, high, low and close of an hour in millionths."""

    open: int
    high: int
    low: int
    close: int


def recorded_hours() -> tuple[HourBar, ...]:
    """Read the recording that is part of the package."""
    packed = resources.files("simulator.data").joinpath("eurusd_1h_2017.csv.gz").read_bytes()
    lines = gzip.decompress(packed).decode("ascii").splitlines()[1:]
    return tuple(HourBar(*(int(field) * RECORDED_UNIT for field in line.split(",")[1:])) for line in lines)


class ReplayedPrices:
    """Prices that replay recorded hours one after another, from the beginning again after the last one."""

    def __init__(self, hours: Sequence[HourBar], seed: tuple[int, ...]) -> None:
        self._hours = hours
        self._seed = seed
        self._shift = int(np.random.default_rng(seed).integers(len(hours)))
        typical = statistics.median(bar.high - bar.low for bar in hours)
        self._volatility: float = typical / RANGE_OF_WALK / math.sqrt(HOUR)

    @property
    def volatility(self) -> float:
        """Standard deviation of a one-second move in millionths, of a middling hour."""
        return self._volatility

    def day(self, day: int) -> Prices:
        """Return the prices of a day; see ``PriceSource``."""
        return np.concatenate([self._hour(hour) for hour in range(day * 24, (day + 1) * 24)])

    def _hour(self, hour: int) -> Prices:
        bar = self._hours[(hour + self._shift) % len(self._hours)]
        span = bar.high - bar.low
        if span == 0:
            return np.full(HOUR, bar.open, dtype=np.int32)
        rng = np.random.default_rng((*self._seed, hour))
        early, late = sorted(rng.choice(np.arange(1, HOUR - 1), size=2, replace=False))
        # A rising hour usually has its low first; which comes first is not recorded.
        low_first = rng.random() < (0.7 if bar.close >= bar.open else 0.3)
        nodes = np.array([0, early, late, HOUR - 1])
        values = np.array(
            [bar.open, *((bar.low, bar.high) if low_first else (bar.high, bar.low)), bar.close], dtype=float
        )
        walk = np.cumsum(rng.standard_normal(HOUR)) * (span / RANGE_OF_WALK / math.sqrt(HOUR))
        seconds = np.arange(HOUR)
        path = np.interp(seconds, nodes, values) + walk - np.interp(seconds, nodes, walk[nodes])
        return np.rint(_fold(path, bar.low, span)).astype(np.int32)


def _fold(path: npt.NDArray[np.float64], low: int, span: int) -> npt.NDArray[np.float64]:
    """Reflect a path at the borders of ``[low, low + span]``; what lies inside stays as it is."""
    folded: npt.NDArray[np.float64] = low + span - np.abs(np.mod(path - low, 2 * span) - span)
    return folded
