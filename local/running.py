"""Runs ``make up``'s own program as a child: an own system for the demo and for the tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from local.folder import read_run_file
from local.process import launched
from local.settings import CHECKOUT

_STOP_WITHIN: Final = 20.0
_POLL: Final = 0.05


class SystemEndedError(Exception):
    """The system ended before it was ready."""


class RunningSystem:
    """A system of our own on its own data folder."""

    def __init__(
        self, data: Path, port: int, *, output: IO[Any] | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start it; see ``ready`` for when it answers.

        Args:
            data: Its data folder.
            port: The gateway's port.
            output: Where it says what it does; None for our own stderr.
            env: More of the environment that ``make up`` reads.
        """
        self.data = data
        # It must not outlive us, even if we are killed.
        self._process = subprocess.Popen(  # noqa: S603  # our own program
            launched((sys.executable, "-m", "local.up"), None, signal.SIGTERM),
            env={**os.environ, "TRADEBOT_DATA": str(data), "TRADEBOT_PORT": str(port), **(env or {})},
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The supervisor's pid."""
        return self._process.pid

    @property
    def facts(self) -> dict[str, Any]:
        """The content of its ``run.json`` now; it changes when a process is restarted."""
        facts = read_run_file(self.data)
        if facts is None:
            raise SystemEndedError("the system is not running")
        return facts

    def is_ready(self) -> bool:
        """Return whether everything answered once.

        Raises:
            SystemEndedError: It ended instead.
        """
        if self._process.poll() is not None:
            raise SystemEndedError(
                f"the system ended with status {self._process.returncode}; its logs are in {self.data / 'logs'}"
            )
        return read_run_file(self.data) is not None

    def wait_until_ready(self, within: float = 90.0) -> None:
        """Block until it is ready.

        Raises:
            SystemEndedError: It ended, or took longer.
        """
        deadline = time.monotonic() + within
        while not self.is_ready():
            if time.monotonic() > deadline:
                self.kill()
                raise SystemEndedError(f"the system was not ready within {within:.0f} s")
            time.sleep(_POLL)

    def stop(self) -> int:
        """Stop it in order and return its exit status; a system that has ended already keeps its status."""
        self._process.terminate()
        try:
            return self._process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the supervisor as kill -9 does."""
        self._process.kill()
        self._process.wait()
