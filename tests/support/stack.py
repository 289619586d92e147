"""The whole system as ``make up`` runs it, for end-to-end tests: own data folder, free ports, handles to break it."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.client import Gateway
from local.ports import PortBlock
from local.running import RunningSystem
from local.witness import Simulator
from tests.support.eventually import eventually


class Stack:
    """A running system."""

    def __init__(self, system: RunningSystem) -> None:
        self.system = system

    @property
    def facts(self) -> dict[str, Any]:
        """``run.json`` as it is now."""
        return self.system.facts

    def gateway(self) -> Gateway:
        """A client of the public API; use it in ``async with``."""
        return Gateway(self.facts["gateway"])

    def simulator(self) -> Simulator:
        """The witness; use it in ``async with``."""
        return Simulator(self.facts["simulator"]["control"])

    def kill(self, name: str) -> int:
        """Kill a process as ``kill -9`` does; return the pid it had."""
        pid: int = self.facts["pids"][name]
        os.kill(pid, signal.SIGKILL)
        return pid

    async def restarted(self, name: str, old_pid: int) -> None:
        """Wait until the supervisor has started a process anew."""

        async def another() -> bool:
            pid: int = self.facts["pids"].get(name, old_pid)
            return pid != old_pid

        await asyncio.wait_for(eventually(another, within=20), 25)


@contextmanager
def running_stack(env: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Run a system of one's own.

    The folder is short and directly under the system's folder for temporary files: pytest's own are closed to the user
    that PostgreSQL runs as when the tests run as root.
    """
    data = Path(tempfile.mkdtemp(prefix="tradebot-test-"))
    try:
        with PortBlock.claim() as ports, (data / "up.log").open("wb") as output:
            system = RunningSystem(data, ports.pick(), output=output, env=env)
            try:
                system.wait_until_ready()
                yield Stack(system)
            finally:
                system.stop()
    finally:
        shutil.rmtree(data, ignore_errors=True)
