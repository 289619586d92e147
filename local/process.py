"""One process of the system: what it is (``Process``) and its life under supervision (``Child``)."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from local.logs import open_log, tail
from local.probes import Probe

_LAUNCHER: Final = Path(__file__).with_name("launch.py")
_PROBE_EVERY: Final = 0.05
_KILL_WAIT: Final = 2.0


@dataclass(frozen=True, slots=True)
class User:
    """Who a process runs as, if not as we do."""

    uid: int
    gid: int
    search: bool
    """Whether it must pass through folders that are closed to it."""


@dataclass(frozen=True, slots=True)
class Process:
    """A program that belongs to the system."""

    name: str
    argv: tuple[str, ...]
    ready: Probe | None = None
    """Shows that it is ready; None for a program that runs once: it is ready when it has ended with status 0."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment."""
    needs: tuple[str, ...] = ()
    """What must be ready before it starts, and is stopped after it."""
    prepare: Callable[[], Awaitable[None]] | None = None
    """Runs before every start."""
    user: User | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within: float = 6.0
    """Seconds between the stop signal and SIGKILL."""
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends it when the supervisor dies without a word (Linux)."""
    ready_within: float = 60.0
    """Seconds it may take to become ready."""


class StartError(Exception):
    """A process did not become ready."""

    def __init__(self, name: str, why: str, log: Path) -> None:
        super().__init__(f"{name} {why}")
        self.name = name
        self.why = why
        """Words for people: how it ended."""
        self.log = log
        """Where it says more."""

    @property
    def log_tail(self) -> list[str]:
        """The last lines of its log."""
        return tail(self.log)


class Child:
    """A process that is started, watched and stopped by its owner."""

    def __init__(self, process: Process, log: Path, cwd: Path) -> None:
        self.process = process
        self.log = log
        self._cwd = cwd
        self._running: asyncio.subprocess.Process | None = None

    @property
    def name(self) -> str:
        """The process's name."""
        return self.process.name

    @property
    def pid(self) -> int | None:
        """The pid while it runs."""
        return self._running.pid if self._running is not None and self._running.returncode is None else None

    async def start(self, spawned: Callable[[], None]) -> None:
        """Start it and wait until it is ready.

        Args:
            spawned: Called as soon as there is a pid.

        Raises:
            StartError: It ended or was not ready in time; it does not run any more.
        """
        spec = self.process
        try:
            async with asyncio.timeout(spec.ready_within):
                if spec.prepare is not None:
                    await spec.prepare()
                await self._spawn()
                spawned()
                if spec.ready is None:
                    await self._finish()
                else:
                    await self._answer(spec.ready)
        except TimeoutError:
            await self.kill()
            raise StartError(self.name, f"was not ready within {spec.ready_within:.0f} s", self.log) from None

    async def wait(self) -> int:
        """Wait until it ends and return its status; see ``describe_exit``."""
        assert self._running is not None  # noqa: S101  # only called after start
        return await self._running.wait()

    async def stop(self) -> None:
        """End it: the stop signal, then SIGKILL. Does nothing if it does not run."""
        running = self._running
        if running is None or running.returncode is not None:
            return
        self._send(self.process.stop_signal)
        try:
            async with asyncio.timeout(self.process.stop_within):
                await running.wait()
        except TimeoutError:
            await self.kill()

    async def _spawn(self) -> None:
        spec = self.process
        with open_log(self.log) as output:
            self._running = await asyncio.create_subprocess_exec(
                *launched(spec.argv, spec.user, spec.death_signal),
                env={**os.environ, **spec.env},
                cwd=self._cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Its own session: the terminal's Ctrl-C reaches only the supervisor, which stops things in order.
                start_new_session=True,
            )

    async def _finish(self) -> None:
        assert self._running is not None  # noqa: S101  # just spawned
        status = await self._running.wait()
        if status != 0:
            raise StartError(self.name, describe_exit(status), self.log)

    async def _answer(self, probe: Probe) -> None:
        assert self._running is not None  # noqa: S101  # just spawned
        while True:
            if self._running.returncode is not None:
                raise StartError(self.name, describe_exit(self._running.returncode), self.log)
            # Whatever the probe raises means "not yet"; the deadline and the exit status above end the wait.
            with contextlib.suppress(Exception):
                await probe()
                return
            await asyncio.sleep(_PROBE_EVERY)

    async def kill(self) -> None:
        """End it at once. Does nothing if it does not run."""
        if self._running is None or self._running.returncode is not None:
            return
        self._send(signal.SIGKILL)
        # A process in uninterruptible sleep cannot be waited for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_WAIT):
                await self._running.wait()

    def _send(self, number: signal.Signals) -> None:
        assert self._running is not None  # noqa: S101  # checked by the callers
        with contextlib.suppress(ProcessLookupError):
            self._running.send_signal(number)


def launched(argv: tuple[str, ...], user: User | None, death_signal: signal.Signals) -> tuple[str, ...]:
    """Return the command line that becomes ``argv`` as that user, and gets ``death_signal`` when we die."""
    who = "-" if user is None else f"{user.uid}:{user.gid}" + (":search" if user.search else "")
    return (sys.executable, "-I", "-S", str(_LAUNCHER), str(int(death_signal)), str(os.getpid()), who, "--", *argv)


def has_ended(process: psutil.Process) -> bool:
    """Tell whether it runs no more: a zombie holds nothing, whenever its parent may notice."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def describe_exit(status: int) -> str:
    """Say in words how a process ended; a negative status is a signal."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
