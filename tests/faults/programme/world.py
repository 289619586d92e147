"""The real system under faults: every process of ``make up`` with two session replicas, and proxies on its money paths."""

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psutil

from local.folder import DataFolder
from local.ports import PortBlock
from local.process import Process, launched
from local.settings import CHECKOUT, LocalSettings
from local.supervisor import Supervisor
from local.system import System, describe
from tests.faults.programme.ledger_wire import LedgerGate, Observer
from tests.faults.programme.order_wire import OrderGate, OrderWatch
from tests.faults.programme.proxy import Proxy
from tests.support.eventually import eventually

LEASE: Final = 3.0
"""Seconds; shorter than the default, so that more takeovers fit into a run."""
MAX_OPEN_TRADES: Final = 10
"""Of one session; low enough to be reached while answers are missing."""
REPLICAS: Final = ("session", "session-2")
_LONGEST_DELAY: Final = 0.5
"""Seconds; here processes die again and again without being broken."""
_BRANDS: Final = ("iq", "exnova")
_LIMIT_FILES: Final = """
import resource, sys
for pid in map(int, sys.argv[2:]):
    try:
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (int(sys.argv[1] or hard), hard))
    except ProcessLookupError:
        pass
    except PermissionError:
        # A server that is being started again, and was forked without the limit that is lifted.
        if sys.argv[1]:
            raise
"""
_READY_WITHIN: Final = 90.0


class Progress:
    """Hears of every start and death from the supervisor."""

    def __init__(self) -> None:
        self.up: dict[str, asyncio.Event] = {}
        self.deaths: dict[str, int] = {}

    def starting(self, name: str) -> None:
        self.up[name] = asyncio.Event()

    def ready(self, name: str, seconds: float, *, again: bool) -> None:
        self.up[name].set()

    def died(self, name: str, how: str, delay: float, log_tail: Sequence[str]) -> None:
        self.up[name].clear()
        self.deaths[name] = self.deaths.get(name, 0) + 1

    def stopping(self, name: str) -> None:
        pass


class World:
    """A running system, with handles to break it."""

    def __init__(self, system: System, folder: DataFolder, chance: random.Random) -> None:
        self.system = system
        self.folder = folder
        self.chance = chance
        self.observer = Observer()
        self.orders = OrderWatch()
        self.ledgers: dict[str, Proxy] = {}
        """The way of each session replica to PostgreSQL."""
        self.brokers: dict[str, Proxy] = {}
        """The broker service's way to each brand."""
        self.progress = Progress()
        self.wipe_redis = False
        """Whether the next start of Valkey finds an empty folder."""
        self._supervisor: Supervisor

    @property
    def addresses(self) -> Mapping[str, Any]:
        """Where everything is, straight, without the proxies."""
        return self.system.addresses

    def pid(self, name: str) -> int | None:
        """Return a process's pid while it runs."""
        return self._supervisor.pids.get(name)

    def send(self, name: str, number: signal.Signals) -> bool:
        """Send a process a signal; False if it does not run."""
        pid = self.pid(name)
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    async def limit_files(self, name: str, size: int | None) -> None:
        """Let no process of a server write beyond ``size`` bytes of any file; None lifts it.

        Done as the server's own user: even root may lack the capability to limit another user's process.
        """
        pid = self.pid(name)
        if pid is None:
            return
        family = [pid]
        with suppress(psutil.NoSuchProcess):
            family += [child.pid for child in psutil.Process(pid).children(recursive=True)]
        user = next(process.user for process in self.system.processes if process.name == name)
        if user is not None:
            # Our interpreter may be where that user may not look.
            user = replace(user, search=True)
        command = (sys.executable, "-I", "-S", "-c", _LIMIT_FILES, str(size or ""), *map(str, family))
        limiter = await asyncio.create_subprocess_exec(*launched(command, user, signal.SIGKILL))
        assert await limiter.wait() == 0

    async def ready(self, *names: str, within: float = 40.0) -> None:
        """Wait until these processes answer, all if none is named.

        Raises:
            TimeoutError: One does not come back.
        """
        async with asyncio.timeout(within):
            for name in names or tuple(process.name for process in self.system.processes):
                await self.progress.up[name].wait()

    async def back(self, name: str, deaths: int) -> None:
        """Wait until a process has died once more than ``deaths`` times and the next one answers."""

        async def died() -> bool:
            return self.progress.deaths.get(name, 0) > deaths

        await eventually(died, within=40, every=0.01)
        await self.ready(name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all processes behind their proxies; stop them in order at the end."""
        async with AsyncExitStack() as stack:
            postgres = urlsplit(self.addresses["postgres"])
            assert postgres.port is not None
            for replica in REPLICAS:
                gate = _ledger_gate(replica, self.observer)
                self.ledgers[replica] = await stack.enter_async_context(Proxy(postgres.port, self.chance, gate))
            for brand in _BRANDS:
                port = urlsplit(self.addresses["simulator"][brand]["ws"]).port
                self.brokers[brand] = await stack.enter_async_context(
                    Proxy(port, self.chance, lambda connection: OrderGate(connection, self.orders))
                )
            self._supervisor = Supervisor(
                [self._rewired(process) for process in self.system.processes],
                logs=self.folder.logs,
                cwd=CHECKOUT,
                reporter=self.progress,
                on_spawn=lambda pids: None,
                longest_delay=_LONGEST_DELAY,
            )
            stop, started = asyncio.Event(), asyncio.Event()
            running = asyncio.create_task(self._supervisor.run(stop, started.set))
            try:
                starting = asyncio.create_task(started.wait())
                await asyncio.wait({running, starting}, timeout=_READY_WITHIN, return_when=asyncio.FIRST_COMPLETED)
                starting.cancel()
                if running.done():
                    running.result()
                assert started.is_set()
                yield
            finally:
                stop.set()
                await running

    def _rewired(self, process: Process) -> Process:
        if process.name in REPLICAS:
            url = urlsplit(process.env["SESSION_POSTGRES_URL"])
            place = url.netloc.rpartition(":")[0] + f":{self.ledgers[process.name].port}"
            env = {
                "SESSION_POSTGRES_URL": urlunsplit(url._replace(netloc=place)),
                "SESSION_LEASE_TTL": str(LEASE),
                "SESSION_MAX_OPEN_TRADES": str(MAX_OPEN_TRADES),
            }
            return replace(process, env={**process.env, **env})
        if process.name == "broker":
            env = {
                f"BROKER_{brand.upper()}_WS_URL": f"ws://127.0.0.1:{proxy.port}/echo/websocket"
                for brand, proxy in self.brokers.items()
            }
            return replace(process, env={**process.env, **env})
        if process.name == "redis":
            return replace(process, prepare=self._prepare_redis)
        return process

    async def _prepare_redis(self) -> None:
        if self.wipe_redis:
            self.wipe_redis = False
            shutil.rmtree(self.folder.redis)
            self.folder.redis.mkdir(mode=0o700)


def _ledger_gate(replica: str, observer: Observer) -> Any:
    return lambda connection: LedgerGate(connection, replica, observer)


@asynccontextmanager
async def running_world(chance: random.Random, keep: Path | None = None) -> AsyncIterator[World]:
    """Run a system of one's own on a folder of its own, which is removed at the end unless ``keep`` names one."""
    # Not pytest's folder: PostgreSQL runs as another user when we are root.
    data = keep or Path(tempfile.mkdtemp(prefix="tradebot-faults-"))
    try:
        with PortBlock.claim() as ports, DataFolder(data) as folder:
            settings = LocalSettings(port=ports.pick(), data=data, session_replicas=len(REPLICAS))
            world = World(describe(settings, folder, ports), folder, chance)
            async with world.running():
                yield world
    finally:
        if keep is None:
            shutil.rmtree(data, ignore_errors=True)
