"""The data folder: who uses it, what lies where, and the secrets that are made once."""

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class FolderInUseError(Exception):
    """Another running system has the folder."""


class ForeignFolderError(Exception):
    """The folder's sessions belong to other brokers: their credentials must never be offered to these."""


class DataFolder:
    """One running system's state; held by a lock while it runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        """The folder."""
        self.logs = self.root / "logs"
        self.keys = self.root / "keys"
        self.postgres = self.root / "postgres"
        self.redis = self.root / "redis"
        self.simulator = self.root / "simulator"
        self.run = self.root / "run"
        """What lives only while the system runs: rendered configuration, addresses, pids."""
        self.run_file = self.root / "run.json"
        self._lock = -1

    def __enter__(self) -> Self:
        """Make the folder and take it.

        Raises:
            FolderInUseError: Another system runs on it.
            OSError: It cannot be made or written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        # Passable, not readable: PostgreSQL runs as another user when we are root.
        self.root.chmod(0o711)
        self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise FolderInUseError(str(self.root)) from error
        for folder in (self.logs, self.keys, self.redis, self.simulator, self.run):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o700)
        self.run_file.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.run_file.unlink(missing_ok=True)
        # Never removed: whoever waits for it would lock a file that nobody else sees.
        os.close(self._lock)

    def belong_to(self, brokers: str) -> None:
        """Bind the folder to the kind of brokers its sessions log in at; it stays bound for good.

        Raises:
            ForeignFolderError: It is bound to the other kind.
        """
        # A folder of before this was written down has sessions at the simulator.
        is_old = (self.keys / "kek").exists()
        bound = self._once("brokers", lambda: b"simulator" if is_old else brokers.encode()).read_text()
        if bound != brokers:
            raise ForeignFolderError(bound)

    def publish(self, facts: Mapping[str, Any]) -> None:
        """Write ``run.json`` in one step; only we may read it, it holds the engines' passwords."""
        write_private(self.run_file, json.dumps(facts, indent=2) + "\n")

    def password(self, name: str) -> str:
        """Return a generated password that stays the same for the folder's life."""
        return self._once(name, lambda: secrets.token_hex(24).encode()).read_text()

    def encryption_key(self) -> Path:
        """Return the file of the 32-byte key that the users' broker credentials are sealed with."""
        return self._once("kek", lambda: secrets.token_bytes(32))

    def signing_key(self) -> Path:
        """Return the PEM file of the Ed25519 key that access tokens are signed with."""

        def generate() -> bytes:
            return Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )

        return self._once("jwt.pem", generate)

    def _once(self, name: str, generate: Callable[[], bytes]) -> Path:
        path = self.keys / name
        if not path.exists():
            write_private(path, generate(), mode=0o400)
        return path


def is_in_use(root: Path) -> bool:
    """Return whether a system runs on a data folder; a run file alone may be left over from one that was killed."""
    try:
        lock = os.open(root / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def read_run_file(root: Path) -> dict[str, Any] | None:
    """Return the content of a data folder's ``run.json``, or None if there is none."""
    try:
        facts: dict[str, Any] = json.loads((root / "run.json").read_text())
    except (OSError, ValueError):
        return None
    return facts


def write_private(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Write a file that only we may read, in one step: readers see the old content or the new, never half."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)
