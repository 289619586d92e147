"""A seeded event loop: simulated time, processes that interleave at random and can be killed or frozen at any await.

Within a process callbacks keep the order asyncio promises; between processes the seed decides. Time jumps to the next
timer when nobody has anything to do. A killed process runs nothing any more, no ``finally`` either, as under ``kill -9``.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_CURRENT: ContextVar["Process | None"] = ContextVar("simulated_process", default=None)


class Process:
    """A simulated process: whatever is started in it belongs to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.ready: deque[asyncio.Handle] = deque()
        # Kept for ever: a task that is forgotten would run its cleanup when it is collected.
        self.tasks: list[asyncio.Task[Any]] = []
        self.at_death: list[Callable[[], None]] = []

    def kill(self) -> None:
        """End it here and now."""
        self.alive = False
        self.ready.clear()
        for callback in self.at_death:
            callback()


def current_process() -> Process | None:
    """Return the process that runs, None outside of all."""
    return _CURRENT.get()


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on where it lies in memory."""

    def __init__(self, coro: Any, *, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class StuckError(Exception):
    """Nothing is left that could ever happen."""


class SimLoop(asyncio.BaseEventLoop):
    """The loop. Everything random is drawn from ``rng``."""

    # BaseEventLoop's own, which it fills.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self._now = 0.0
        self._outside = Process("outside")
        self._queues: list[Process] = [self._outside]
        self._dead: list[Process] = []
        self._count = 0
        self.set_task_factory(self._new_task)
        self.failures: list[BaseException] = []
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        return self._now

    def process(self, name: str) -> Process:
        """Make a process."""
        process = Process(name)
        self._queues.append(process)
        return process

    def start(self, process: Process, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in a process."""
        token = _CURRENT.set(process)
        try:
            return self.create_task(work)
        finally:
            _CURRENT.reset(token)

    def outside(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine outside of all processes, whoever asks."""
        return self.start(self._outside, work)

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop a process for a while, as SIGSTOP does; time goes on for the others."""
        process.frozen = True

        def thaw() -> None:
            process.frozen = False

        self.call_at(self._now + seconds, thaw, context=Context())

    def _new_task(self, loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        self._count += 1
        task = SimTask(coro, loop=loop, number=self._count, **options)
        process = _CURRENT.get()
        if process is not None and process is not self._outside:
            process.tasks.append(task)
        return task

    def _failed(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.failures.append(error if isinstance(error, BaseException) else RuntimeError(context["message"]))

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector here."""

    def _run_once(self) -> None:
        """Run one callback of a process that the seed chooses."""
        self._sort()
        while True:
            while self._scheduled and (self._scheduled[0].cancelled() or self._scheduled[0].when() <= self._now):
                timer = heapq.heappop(self._scheduled)
                timer._scheduled = False  # type: ignore[attr-defined]  # as BaseEventLoop does
                self._ready.append(timer)
            self._sort()
            runnable = [process for process in self._queues if process.ready and not process.frozen]
            if runnable:
                break
            if not self._scheduled:
                raise StuckError(f"nothing is left to do at {self._now:.3f} s")
            self._now = max(self._now, self._scheduled[0].when())
        process = runnable[0] if len(runnable) == 1 else self.rng.choice(runnable)
        handle = process.ready.popleft()
        if not handle.cancelled():
            handle._run()

    def _sort(self) -> None:
        """Give what is ready to its process; what belongs to a dead one is dropped."""
        while self._ready:
            handle = self._ready.popleft()
            if handle.cancelled():
                continue
            context: Context = handle._context  # type: ignore[attr-defined]  # where a handle keeps it
            process = context.get(_CURRENT) or self._outside
            if process.alive:
                process.ready.append(handle)
        if not all(process.alive for process in self._queues):
            self._dead += [process for process in self._queues if not process.alive]
            self._queues = [process for process in self._queues if process.alive]
