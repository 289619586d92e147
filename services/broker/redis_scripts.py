"""Runs Lua scripts in Redis (6.2 command set), each at most once."""

from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.broker.breaker import StoreUnavailableError

TIMEOUT = 1.0
"""Seconds per command, and to wait for a connection."""
_CONNECTIONS: Final = 20


class RedisScripts:
    """A Redis client that runs scripts and never repeats one by itself: a repeated count would be a wrong one."""

    def __init__(self, url: str) -> None:
        # A burst of logins waits for a connection; a pool that refuses instead would look like a Redis that is away.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Any = Redis.from_pool(pool)

    async def run(self, script: str, keys: list[str], args: list[str | int | float]) -> list[int]:
        """Run a script; see ``ScriptRunner``."""
        try:
            result = await self._redis.eval(script, len(keys), *keys, *args)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailableError from error
        return result if isinstance(result, list) else [int(result == 1)]

    async def close(self) -> None:
        """Close the client's connections."""
        await self._redis.aclose()
