"""Prices at every whole second, and the candles made of them.

A price is an integer number of millionths. The price of second ``s`` holds from ``s`` until ``s + 1``; it is the tick
that candles, live quotes, entries and settlements all read, so they agree by construction.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

DAY: Final = 86_400
MICRO: Final = 1_000_000
"""Units of price in 1.0."""
HISTORY_START: Final = 1_704_067_200
"""2024-01-01 UTC: no candle is older than this second."""
CANDLE_SIZES: Final = (
    1,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    14400,
    28800,
    43200,
    86400,
    604800,
    2592000,
)
"""Sizes of candles in seconds, as the platform has them."""

Prices = npt.NDArray[np.int32]


class PriceSource(Protocol):
    """A pure function from a second to a price, computed a day at a time."""

    @property
    def volatility(self) -> float:
        """Typical standard deviation of the price's move in one second, in millionths of a unit."""
        ...

    def day(self, day: int) -> Prices:
        """Return the 86,400 prices of a UTC day (days since the epoch), the same for every call."""
        ...


@dataclass(frozen=True, slots=True)
class Candle:
    """Open, high, low and close of the ticks in ``[start, start + size)`` that have happened."""

    size: int
    start: int
    open: int
    high: int
    low: int
    close: int

    @property
    def number(self) -> int:
        """Consecutive number of the candle among those of its size."""
        return self.start // self.size


class PriceHistory:
    """Random access to one asset's prices. Safe to use from a worker thread beside the event loop."""

    def __init__(self, source: PriceSource, *, days_kept: int = 8) -> None:
        self._source = source
        self._days_kept = days_kept
        self._days: OrderedDict[int, Prices] = OrderedDict()
        self._summaries: dict[int, tuple[int, int, int, int]] = {}
        self._lock = threading.Lock()

    @property
    def volatility(self) -> float:
        """Typical standard deviation of a one-second move, in millionths."""
        return self._source.volatility

    def price(self, second: int) -> int:
        """Return the price at a second."""
        day, offset = divmod(second, DAY)
        return int(self._day(day)[offset])

    def is_near(self, second: int) -> bool:
        """Tell whether prices since ``second`` can be had without generating more than a few days."""
        newest = max(self._days, default=None)
        return newest is not None and second // DAY > newest - self._days_kept

    def candle(self, size: int, second: int) -> Candle:
        """Return the candle of ``size`` that is forming at ``second``, made of the ticks up to and with ``second``."""
        start = second - second % size
        return self._summarise(size, start, second + 1)

    def candles(self, size: int, first: int, last: int, now: int) -> list[Candle]:
        """Return the candles numbered ``first`` to ``last``, ascending, of the ticks up to and with second ``now``.

        Numbers before the history's start or after ``now`` are left out.
        """
        first = max(first, -(-HISTORY_START // size))
        last = min(last, now // size)
        if first > last:
            return []
        if size > DAY:
            return [self._summarise(size, n * size, min((n + 1) * size, now + 1)) for n in range(first, last + 1)]
        out: list[Candle] = []
        whole_until = min((last + 1) * size, (now + 1) // size * size)
        start = first * size
        while start < whole_until:
            day, offset = divmod(start, DAY)
            stop = min(whole_until, (day + 1) * DAY)
            blocks = self._day(day)[offset : offset + stop - start].reshape(-1, size)
            columns = zip(
                range(start, stop, size),
                blocks[:, 0].tolist(),
                blocks.max(axis=1).tolist(),
                blocks.min(axis=1).tolist(),
                blocks[:, -1].tolist(),
                strict=True,
            )
            out.extend(Candle(size, *column) for column in columns)
            start = stop
        if start <= last * size:  # the one that is still forming
            out.append(self._summarise(size, start, now + 1))
        return out

    def _summarise(self, size: int, start: int, stop: int) -> Candle:
        """Make one candle of the ticks in ``[start, stop)``, which may span days."""
        opened: int | None = None
        high, low, close = 0, 0, 0
        while start < stop:
            day, offset = divmod(start, DAY)
            end = min(stop, (day + 1) * DAY)
            if end - start == DAY:
                summary = self._summary(day)
            else:
                ticks = self._day(day)[offset : offset + end - start]
                summary = (int(ticks[0]), int(ticks.max()), int(ticks.min()), int(ticks[-1]))
            if opened is None:
                opened, high, low, close = summary
                began = start
            else:
                high, low, close = max(high, summary[1]), min(low, summary[2]), summary[3]
            start = end
        if opened is None:
            raise ValueError("a candle needs at least one tick")
        return Candle(size, began, opened, high, low, close)

    def _summary(self, day: int) -> tuple[int, int, int, int]:
        found = self._summaries.get(day)
        if found is None:
            ticks = self._day(day)
            found = int(ticks[0]), int(ticks.max()), int(ticks.min()), int(ticks[-1])
            self._summaries[day] = found
        return found

    def _day(self, day: int) -> Prices:
        with self._lock:
            found = self._days.get(day)
            if found is None:
                found = self._days[day] = self._source.day(day)
                if len(self._days) > self._days_kept:
                    # The newest days are what live quotes and settlements read: drop the oldest, not the least used.
                    del self._days[min(self._days)]
            return found
