"""When a session was last used: exact in Redis, to the minute in the ledger."""

from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog
from redis.asyncio import Redis

from services.runtime.clock import Clock
from services.session.adapters.presence import REDIS_AWAY, Presence
from services.session.domain.errors import UnavailableError
from services.session.domain.values import SessionKey

_log = structlog.get_logger(__name__)

_DURABLE_AFTER: Final = timedelta(minutes=1)
_KEPT: Final = timedelta(days=1)
"""Longer than any idle timeout; by then the ledger's minute is exact enough."""


class DurableActivity(Protocol):
    """What this needs of the ledger."""

    async def touch(self, key: SessionKey, seen: datetime) -> None:
        """Record activity."""
        ...


class RedisActivity:
    """The ``Activity`` port. Without Redis it is right to the minute, by the ledger alone."""

    def __init__(self, redis: Redis, ledger: DurableActivity, *, clock: Clock) -> None:
        self._redis = redis
        self._ledger = ledger
        self._clock = clock
        self._presence = Presence("activity")

    async def touch(self, key: SessionKey, *, durable_last_seen: datetime) -> None:
        """Record activity now; passes it on to the ledger when what the ledger knows is a minute old."""
        now = self._clock.now()
        if now - durable_last_seen >= _DURABLE_AFTER:
            try:
                await self._ledger.touch(key, now)
            except UnavailableError:
                # The next call of the session does it.
                _log.warning("activity_not_recorded", session=key[:8])
        try:
            await self._redis.set(_name(key), int(now.timestamp() * 1000), ex=_KEPT)
        except REDIS_AWAY as error:
            self._presence.away(error)
        else:
            self._presence.here()

    async def last_seen(self, key: SessionKey, *, durable_last_seen: datetime) -> datetime:
        """Return the last activity, at least what the ledger knows."""
        try:
            milliseconds = await self._redis.get(_name(key))
        except REDIS_AWAY as error:
            self._presence.away(error)
            return durable_last_seen
        self._presence.here()
        if milliseconds is None:
            return durable_last_seen
        return max(datetime.fromtimestamp(int(milliseconds) / 1000, UTC), durable_last_seen)


def _name(key: SessionKey) -> str:
    return f"activity:{key}"
