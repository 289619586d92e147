"""The real engines for tests: PostgreSQL and Valkey from their wheels, described as ``make up`` describes them.

Each has its own folder and port and can be killed, wiped and started again.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from local.ports import PortBlock
from local.postgres import Cluster
from local.process import Process, has_ended, launched
from local.valkey import valkey
from tests.support.eventually import eventually


class Engine:
    """A server process that a test may kill, freeze, wipe and start again."""

    def __init__(self, process: Process, url: str, folder: Path) -> None:
        self.url = url
        self._process = process
        self._folder = folder
        self._running: subprocess.Popen[bytes] | None = None
        # The kernel ends a child with the thread that made it: this one lives as long as the engine.
        self._thread = ThreadPoolExecutor(1)

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._thread.submit(self._start).result()

    def _start(self) -> None:
        assert self._running is None
        if self._process.prepare is not None:
            _run(self._process.prepare)
        assert self._process.ready is not None
        probe = self._process.ready
        self._running = self._spawned()

        async def answers() -> bool:
            # Whatever it raises means "not yet".
            with suppress(Exception):
                await probe()
                return True
            if self._running is None or self._running.poll() is not None:
                # A killed PostgreSQL's children hold its shared memory for a moment; the supervisor starts it again, too.
                self._running = self._spawned()
            return False

        asyncio.run(eventually(answers, within=30))

    def _spawned(self) -> subprocess.Popen[bytes]:
        with (self._folder / f"{self._process.name}.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # our own command line
                launched(self._process.argv, self._process.user, signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._process.env},
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it and its children as ``kill -9`` does, and wait until none is left."""
        self._thread.submit(self._kill).result()

    def _kill(self) -> None:
        assert self._running is not None
        # A child of PostgreSQL outlives its server by a moment, and may answer in it; a stopped server makes no more.
        self._running.send_signal(signal.SIGSTOP)
        children = self._children()
        self._running.kill()
        self._running.wait()
        self._running = None
        _signal(children, signal.SIGKILL)

        async def all_gone() -> bool:
            return all(map(has_ended, children))

        asyncio.run(eventually(all_gone, within=30))

    def freeze_all(self) -> None:
        """Stop it and its children from running without ending them."""
        self._signal_all(signal.SIGSTOP)

    def thaw_all(self) -> None:
        """Let them run again."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        _signal([psutil.Process(self.pid), *self._children()], number)

    def _children(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def stop(self) -> None:
        """End it if it runs, for good."""
        if self._running is not None:
            self.kill()
        self._thread.shutdown()

    def wipe(self) -> None:
        """Remove what it has stored; only while it is dead."""
        assert self._running is None
        shutil.rmtree(self._folder / self._process.name)
        (self._folder / self._process.name).mkdir()


@contextmanager
def postgres() -> Iterator[Engine]:
    """Run a PostgreSQL of one's own with an empty database."""
    with _folder() as folder, PortBlock.claim() as ports:
        cluster = Cluster(folder / "postgres", ports.pick(), "test")
        yield from _running(Engine(cluster.process(), cluster.url, folder))


@contextmanager
def redis() -> Iterator[Engine]:
    """Run a Valkey of one's own."""
    with _folder() as folder, PortBlock.claim() as ports:
        (folder / "redis").mkdir()
        process, url = valkey(folder / "redis", ports.pick(), "test", folder)
        yield from _running(Engine(process, url, folder))


def _running(engine: Engine) -> Iterator[Engine]:
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    # Not pytest's own folder: that is closed to the user that PostgreSQL runs as when the tests run as root.
    folder = Path(tempfile.mkdtemp(prefix="tradebot-engines-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _run(action: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await action()

    asyncio.run(run())
