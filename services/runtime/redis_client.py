"""The connection to Redis that every service uses. Redis is never an authority: it may vanish at any time."""

import asyncio
from collections.abc import Iterable
from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

_CONNECTIONS: Final = 50
"""The session service holds two for good, for its streams and its signals; a call holds one for about a millisecond."""


class _Cancellable(AbstractConnection):
    """Keeps a cancellation that arrives while a command is written.

    redis-py writes inside ``asyncio.wait_for``, which before Python 3.12 drops a cancellation that arrives together with
    the end of the writing: a loop around Redis calls would then run on for ever.
    """

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        await super().send_packed_command(command, check_health)
        if task is not None and task.cancelling() > before:
            # The answer will not be read: the next user of the connection must not get it.
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError


def connect(url: str, timeout: float = 2.0) -> Redis:
    """Return a client of a pool at ``redis://`` or ``unix://``; nothing is connected before the first call.

    The client's own retries are off: they repeat what may have been done already, and they make a call last longer than
    its timeout. A burst waits for a connection: the pool that refuses instead looks like a Redis that is away, to the
    heartbeat of the leases too.

    Args:
        url: Where.
        timeout: Seconds for an answer, and to wait for a connection: a frozen Redis holds a caller up for both.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=timeout,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        health_check_interval=15,
    )
    # The URL chose the class (TCP, TLS, Unix socket); ours goes on top of it.
    pool.connection_class = type("CancellableConnection", (_Cancellable, pool.connection_class), {})
    return Redis.from_pool(pool)
