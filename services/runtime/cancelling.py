"""What a loop that outlives errors owes whoever cancels it, and how to end one that forgets."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

_PATIENCE: Final = 5.0
"""Seconds for a task to end before it is cancelled again."""


def end_if_cancelled(error: BaseException | None = None) -> None:
    """Raise CancelledError if the current task was cancelled although another exception came out.

    A task group, and a context manager that fails while it is left, let the other exception win. A loop that catches it
    and goes on would never end, and whoever ended it would wait for ever. Not for tasks whose cancellation was taken
    back (``asyncio.timeout`` does that): theirs do not count.

    Args:
        error: What was caught.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


async def end_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their end; again after a while, for a library on the way may lose a cancellation.

    Args:
        tasks: Whatever they raise stays in them.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_PATIENCE)
