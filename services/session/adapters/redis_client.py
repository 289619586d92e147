"""The connection to Redis that every adapter of live state shares. Redis is never an authority: it may vanish at any time."""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

SOCKET_TIMEOUT: Final = 2.0
"""Seconds; a caller is held up for twice that at most when Redis is frozen: first for a connection."""

_CONNECTIONS: Final = 50
"""Two are held for good, by the reader of the streams and by the signals; a call holds one for about a millisecond."""

REDIS_AWAY: Final = (RedisError, OSError)
"""What a call raises when Redis is away, still loading, full, or talks nonsense."""

_log = structlog.get_logger(__name__)


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


def connect(url: str) -> Redis:
    """Return a client of a pool at ``redis://`` or ``unix://``; nothing is connected before the first call.

    The client's own retries are off: they repeat what may have been done already, and they make a call last longer than
    its timeout. A burst waits for a connection: the pool that refuses instead looks like a Redis that is away, to the
    heartbeat of the leases too.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=SOCKET_TIMEOUT,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=SOCKET_TIMEOUT,
        socket_connect_timeout=SOCKET_TIMEOUT,
        health_check_interval=15,
    )
    # The URL chose the class (TCP, TLS, Unix socket); ours goes on top of it.
    pool.connection_class = type("CancellableConnection", (_Cancellable, pool.connection_class), {})
    return Redis.from_pool(pool)


class Presence:
    """Says once that Redis went away, and once that it is back."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._here = True

    @property
    def is_away(self) -> bool:
        """Whether the last call failed."""
        return not self._here

    def here(self) -> None:
        """Note a call that worked."""
        if not self._here:
            _log.info("redis_back", what=self._what)
        self._here = True

    def away(self, error: Exception) -> None:
        """Note a call that failed."""
        if self._here:
            _log.warning("redis_away", what=self._what, error=type(error).__name__)
        self._here = False
