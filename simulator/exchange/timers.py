"""One heap of due times for a whole simulator, with a single timer of the event loop behind it."""

import asyncio
import heapq
import itertools
from collections.abc import Callable


class Timers:
    """Calls things at wall-clock times. Needs a running event loop from the first call on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._handle: asyncio.TimerHandle | None = None

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call once the clock has reached ``when`` (unix seconds); calls of the same time keep their order."""
        heapq.heappush(self._heap, (when, next(self._count), call))
        if self._heap[0][0] == when:
            self._arm()

    def close(self) -> None:
        """Forget everything."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        delay = max(0.0, self._heap[0][0] - self._clock())
        self._handle = asyncio.get_running_loop().call_later(delay, self._run)

    def _run(self) -> None:
        self._handle = None
        try:
            while self._heap and self._heap[0][0] <= self._clock():
                heapq.heappop(self._heap)[2]()
        finally:
            if self._heap:
                self._arm()
