"""Runs Lua scripts in Redis (6.2 command set), each at most once."""

from typing import Any

from redis.exceptions import RedisError

from services.broker.breaker import StoreUnavailableError
from services.runtime.redis_client import connect

TIMEOUT = 1.0
"""Seconds per command, and to wait for a connection."""


class RedisScripts:
    """A Redis client that runs scripts and never repeats one by itself: a repeated count would be a wrong one."""

    def __init__(self, url: str) -> None:
        self._redis: Any = connect(url, TIMEOUT)

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
