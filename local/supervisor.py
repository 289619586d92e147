"""Keeps a set of processes running: starts them by need, restarts what dies, stops them in reverse order."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from local.logs import begin_anew, shorten
from local.process import Child, Process, StartError, describe_exit

_START_ATTEMPTS: Final = 3
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 10.0
_HEALTHY_AFTER: Final = 30.0
"""Seconds after which a process is forgiven its earlier deaths."""
_LOG_CHECK_EVERY: Final = 30.0
_STOP_WITHIN: Final = 12.0
"""Seconds for the ordered stop of everything; what runs then is killed. The promise to tools is 15."""


class Reporter(Protocol):
    """Who is told what happens."""

    def starting(self, name: str) -> None:
        """Tell that a process is being started for the first time."""
        ...

    def ready(self, name: str, seconds: float, *, again: bool) -> None:
        """Tell that a process is ready; ``again`` after a restart."""
        ...

    def died(self, name: str, how: str, delay: float, log_tail: Sequence[str]) -> None:
        """Tell that a process died and is restarted after ``delay`` seconds; the tail is empty for a first death."""
        ...

    def stopping(self, name: str) -> None:
        """Tell that a process is being stopped."""
        ...


class Supervisor:
    """Runs processes until it is told to stop."""

    def __init__(
        self,
        processes: Sequence[Process],
        *,
        logs: Path,
        cwd: Path,
        reporter: Reporter,
        on_spawn: Callable[[Mapping[str, int]], None],
        longest_delay: float = _LONGEST_DELAY,
    ) -> None:
        """Take a set of processes.

        Args:
            processes: Their needs must name others of the set and form no circle.
            logs: Folder of the log files.
            cwd: Working directory of every process.
            reporter: Told what happens.
            on_spawn: Called with all pids whenever they have changed by a start.
            longest_delay: Seconds that the back-off of a process that dies again and again grows to.

        Raises:
            ValueError: A need is unknown or circular.
        """
        self._order = _in_order_of_need(processes)
        self._children = {process.name: Child(process, logs / f"{process.name}.log", cwd) for process in self._order}
        self._ready = {process.name: asyncio.Event() for process in self._order}
        self._reporter = reporter
        self._on_spawn = on_spawn
        self._longest_delay = longest_delay
        self._stopping = asyncio.Event()

    @property
    def pids(self) -> dict[str, int]:
        """The pids of what runs now."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None]) -> None:
        """Start everything, call ``on_ready`` once, keep it running until ``stop``, then stop it in reverse order.

        Raises:
            StartError: A process did not become ready when first started. Nothing runs any more.
        """
        for child in self._children.values():
            begin_anew(child.log)
        try:
            async with asyncio.TaskGroup() as tasks:
                tended = [tasks.create_task(self._keep(child)) for child in self._children.values()]
                tended += [tasks.create_task(self._announce(on_ready)), tasks.create_task(self._watch_logs())]
                try:
                    await stop.wait()
                finally:
                    self._stopping.set()
                    for task in tended:
                        task.cancel()
                    # Nobody starts anything from here on.
                    await asyncio.wait(tended)
                    await self._stop_in_order()
        except* StartError as group:
            raise group.exceptions[0] from None

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        for ready in self._ready.values():
            await ready.wait()
        on_ready()

    async def _keep(self, child: Child) -> None:
        for need in child.process.needs:
            await self._ready[need].wait()
        self._reporter.starting(child.name)
        deaths = 0
        ready = self._ready[child.name]
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                await child.start(spawned=lambda: self._on_spawn(self.pids))
                self._reporter.ready(child.name, time.monotonic() - began, again=ready.is_set())
                ready.set()
                if child.process.ready is None:
                    return
                status = await child.wait()
                if self._stopping.is_set():
                    return
                how = describe_exit(status)
                if status == 0:
                    # Somebody told it to end, and it did: a restart, no failure.
                    deaths = 0
            except StartError as error:
                if not ready.is_set() and deaths + 1 >= _START_ATTEMPTS:
                    raise
                how = error.why
            if time.monotonic() - began > _HEALTHY_AFTER:
                deaths = 0
            deaths += 1
            delay = min(_FIRST_DELAY * 2 ** (deaths - 1), self._longest_delay)
            log_tail = StartError(child.name, how, child.log).log_tail if deaths > 1 else ()
            self._reporter.died(child.name, how, delay, log_tail)
            await asyncio.sleep(delay)

    async def _watch_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOG_CHECK_EVERY)
            for child in self._children.values():
                await asyncio.to_thread(shorten, child.log)

    async def _stop_in_order(self) -> None:
        """Stop each process as soon as nothing that needs it runs any more."""
        stopped = {name: asyncio.Event() for name in self._children}

        async def stop(child: Child) -> None:
            for other in self._order:
                if child.name in other.needs:
                    await stopped[other.name].wait()
            if child.pid is not None:
                self._reporter.stopping(child.name)
                await child.stop()
            stopped[child.name].set()

        try:
            async with asyncio.timeout(_STOP_WITHIN), asyncio.TaskGroup() as tasks:
                for child in self._children.values():
                    tasks.create_task(stop(child))
        except TimeoutError:
            async with asyncio.TaskGroup() as tasks:
                for child in self._children.values():
                    tasks.create_task(child.kill())


def _in_order_of_need(processes: Sequence[Process]) -> list[Process]:
    left = list(processes)
    order: list[Process] = []
    done: set[str] = set()
    while left:
        free = [process for process in left if done.issuperset(process.needs)]
        if not free:
            raise ValueError(f"unknown or circular needs: {', '.join(process.name for process in left)}")
        order += free
        done.update(process.name for process in free)
        left = [process for process in left if process.name not in done]
    return order
