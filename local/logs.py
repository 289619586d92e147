"""The log file of each process: appended to by the process itself, kept small by us."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 32 * 1024 * 1024
_TAIL_BYTES = 16 * 1024


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[int]:
    """Open a log for a process to append to; the descriptor is closed on our side afterwards."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def backup_of(path: Path) -> Path:
    """Return where the older part of a log is kept."""
    return path.with_name(path.name + ".1")


def begin_anew(path: Path) -> None:
    """Set the log of the previous run aside, if there is one."""
    if path.exists() and path.stat().st_size > 0:
        path.replace(backup_of(path))


def shorten(path: Path, max_bytes: int = MAX_BYTES) -> bool:
    """Set the content of a log that grew over the limit aside; return whether it did.

    The process keeps its descriptor: it appends, so after the truncation it goes on at the start. Lines written between
    the copy and the truncation are lost.
    """
    if not path.exists() or path.stat().st_size <= max_bytes:
        return False
    shutil.copyfile(path, backup_of(path))
    os.truncate(path, 0)
    return True


def tail(path: Path, lines: int = 15) -> list[str]:
    """Return the last lines of a log."""
    try:
        with path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _TAIL_BYTES))
            return log.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
