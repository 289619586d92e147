"""What a loop that outlives errors owes whoever cancels it."""

import asyncio


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
