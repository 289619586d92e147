"""Notices that the ``make`` we run under was told to end.

Ctrl-C in a terminal reaches make and us. A tool that sends SIGINT to make alone does not reach us: make only restores
the signal's default action and waits for us to end, which nobody told us to. That it no longer catches SIGINT is what
can be seen. Where there is no ``/proc`` nothing is noticed, as it would be without this.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Final

_LOOK_EVERY: Final = 0.5


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _catches_interrupts(pid: int) -> bool:
    return bool(int(_status(pid).get("SigCgt", "0"), 16) & 1 << (signal.SIGINT - 1))


async def make_was_told_to_end() -> None:
    """Return when our parent is a make that was interrupted or is gone; wait for ever under any other parent."""
    parent = os.getppid()
    if _status(parent).get("Name") not in ("make", "gmake") or not _catches_interrupts(parent):
        await asyncio.Event().wait()
    while os.getppid() == parent and _catches_interrupts(parent):  # noqa: ASYNC110  # nobody sets an event for this
        await asyncio.sleep(_LOOK_EVERY)
