"""Wait for a condition instead of a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(probe: Callable[[], Awaitable[T]], *, within: float = 10.0, every: float = 0.02) -> T:
    """Poll until ``probe`` returns something true without raising AssertionError, and return that.

    Raises:
        AssertionError: It did not happen within ``within`` seconds; the last failure is its cause.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    last: AssertionError | None = None
    while True:
        try:
            value = await probe()
            if value:
                return value
        except AssertionError as error:
            last = error
        if loop.time() >= deadline:
            raise AssertionError(f"not within {within} s: {probe.__qualname__}") from last
        await asyncio.sleep(every)
