"""Leases in Redis: one heartbeat per replica, one key per session that names its holder."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from services.runtime.clock import Clock
from services.session.adapters.presence import REDIS_AWAY, Presence
from services.session.domain.errors import UnavailableError
from services.session.domain.values import SessionKey

_log = structlog.get_logger(__name__)

_CERTAIN: Final = 0.8
"""Part of the time-to-live for which a renewed heartbeat is relied on; the rest covers clocks that run unlike."""

_HEARTBEAT: Final = "replica:"
_LEASE: Final = "lease:"
_LOOKED: Final = "looked:"
"""Begins the key that says that a replica has looked for sessions within the time-to-live."""
_REPLICAS: Final = "replicas"
"""Set of the names of replicas, living or lately dead."""

# Both run on one node's keys; holders' heartbeats are named inside, which a Redis Cluster would not allow.
_ACQUIRE: Final = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and redis.call('EXISTS', ARGV[2] .. holder) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisLeases:
    """The ``Leases`` port.

    A lease has no time-to-live of its own: it counts while its holder's heartbeat lives. An incarnation that could not
    renew its heartbeat in time is over, and the replica goes on under a new name: whatever it held is lost, even if
    nobody has taken it.

    Args:
        redis: Where.
        clock: Its monotonic time judges the heartbeat, never the duration of a call.
        new_id: Makes incarnation names that never repeat.
        ttl: Seconds after which a silent replica's sessions are free.
    """

    def __init__(self, redis: Redis, *, clock: Clock, new_id: Callable[[], str], ttl: float = 5.0) -> None:
        self._redis = redis
        self._clock = clock
        self._new_id = new_id
        self._ttl = ttl
        self._milliseconds = int(ttl * 1000)
        self._incarnation = new_id()
        self._begun = False
        self._resigned = False
        self._held_until = float("-inf")
        self._looked_at = clock.monotonic()
        self._behind_since = float("inf")
        self._acquire = redis.register_script(_ACQUIRE)
        self._release = redis.register_script(_RELEASE)
        self._presence = Presence("leases")

    @property
    def incarnation(self) -> str:
        """Name this replica's unbroken life."""
        return self._incarnation

    def held_until(self) -> float:
        """Return the monotonic time until which this incarnation's leases are certainly its own."""
        return self._held_until

    async def run(self) -> None:
        """Keep this replica's heartbeat until cancelled, then end it, so that others need not wait."""
        try:
            while not self._resigned:
                await self._beat()
                await self._clock.sleep(self._ttl / 3 if self._is_alive() else min(self._ttl / 3, 0.5))
        finally:
            await self.resign()

    async def resign(self) -> None:
        """Give up everything at once and for good; without Redis others have to wait for the time-to-live."""
        self._resigned = True
        self._held_until = float("-inf")
        with suppress(*REDIS_AWAY):
            await self._redis.delete(_HEARTBEAT + self._incarnation)

    async def acquire(self, key: SessionKey) -> bool:
        """Take the session if nobody living holds it; True if it is ours now or was already.

        Raises:
            UnavailableError: Redis is away.
        """
        mine = self._incarnation
        if not self._is_alive():
            return False
        try:
            taken = await self._acquire(keys=[_LEASE + key, _HEARTBEAT + mine], args=[mine, _HEARTBEAT])
        except REDIS_AWAY as error:
            raise UnavailableError("The live state") from error
        # The answer may have come so late that this incarnation is over.
        return taken == 1 and mine == self._incarnation and self._is_alive()

    async def release(self, key: SessionKey) -> None:
        """Give the session up if it is ours.

        Raises:
            UnavailableError: Redis is away.
        """
        try:
            await self._release(keys=[_LEASE + key], args=[self._incarnation])
        except REDIS_AWAY as error:
            raise UnavailableError("The live state") from error

    async def unheld(self, keys: Sequence[SessionKey]) -> Sequence[SessionKey]:
        """Return those that no other living replica holds, in the given order.

        Raises:
            UnavailableError: Redis is away.
        """
        if not keys:
            return ()
        try:
            holders: list[Any] = await self._redis.mget([_LEASE + key for key in keys])
            names = sorted({holder for holder in holders if holder is not None} - {self._incarnation.encode()})
            beats = await self._redis.mget([_HEARTBEAT.encode() + name for name in names]) if names else []
        except REDIS_AWAY as error:
            raise UnavailableError("The live state") from error
        living = {name for name, beat in zip(names, beats, strict=True) if beat is not None}
        return [key for key, holder in zip(keys, holders, strict=True) if holder not in living]

    async def looked(self) -> Collection[str]:
        """Note that this replica has just looked for sessions; return the incarnations of all living ones that did lately.

        Raises:
            UnavailableError: Redis is away.
        """
        mine = self._incarnation
        self._looked_at = self._clock.monotonic()
        if self._is_alive():
            try:
                await self._redis.set(_LOOKED + mine, b"1", px=self._milliseconds)
                await self._redis.sadd(_REPLICAS, mine)
            except REDIS_AWAY as error:
                raise UnavailableError("The live state") from error
        return await self._looking()

    async def left_behind(self) -> bool:
        """Return whether another replica has been looking for the time-to-live while this one has not; ask each second.

        Raises:
            UnavailableError: Redis is away.
        """
        others = await self._looking() - {self._incarnation}
        now = self._clock.monotonic()
        if not others or now - self._looked_at < self._ttl:
            self._behind_since = float("inf")
            return False
        self._behind_since = min(self._behind_since, now)
        return now - self._behind_since >= self._ttl

    async def let_go(self) -> None:
        """Lose every lease at once and go on under a new name."""
        await self._begin_anew("let go")

    async def _looking(self) -> set[str]:
        try:
            known: Collection[Any] = await self._redis.smembers(_REPLICAS)
            names: list[str] = sorted(name.decode() for name in known)
            marks = [prefix + name for prefix in (_HEARTBEAT, _LOOKED) for name in names]
            found: list[Any] = await self._redis.mget(marks) if marks else []
            living = {name for name, beat in zip(names, found[: len(names)], strict=True) if beat is not None}
            if dead := set(names) - living:
                # A name never lives again. One that was only slow to begin enters itself at its next look.
                await self._redis.srem(_REPLICAS, *dead)
        except REDIS_AWAY as error:
            raise UnavailableError("The live state") from error
        return living & {name for name, look in zip(names, found[len(names) :], strict=True) if look is not None}

    def _is_alive(self) -> bool:
        return self._clock.monotonic() < self._held_until

    async def _beat(self) -> None:
        """Renew the heartbeat; begin a new incarnation if the old one has lapsed or Redis has forgotten it."""
        if self._begun and not self._is_alive():
            await self._begin_anew("late")
        # Measured before the call: Redis counts from when it hears of it, which is later.
        asked = self._clock.monotonic()
        mine = self._incarnation
        heartbeat = _HEARTBEAT + mine
        try:
            if self._begun:
                # Only prolonged, never made again: a heartbeat that was gone may have cost us leases already.
                alive = bool(await self._redis.pexpire(heartbeat, self._milliseconds))
            else:
                alive = bool(await self._redis.set(heartbeat, b"1", px=self._milliseconds, nx=True))
        except REDIS_AWAY as error:
            self._presence.away(error)
            return
        self._presence.here()
        if self._resigned or mine != self._incarnation:
            return
        if alive:
            self._begun = True
            self._held_until = asked + self._ttl * _CERTAIN
        else:
            await self._begin_anew("forgotten")

    async def _begin_anew(self, why: str) -> None:
        old = self._incarnation
        # In this order and without a pause between: nobody may see the old name with a time that is still to come.
        self._held_until = float("-inf")
        self._incarnation = self._new_id()
        self._begun = False
        _log.warning("leases_lost", why=why)
        # Others need not wait for the rest of the time-to-live.
        with suppress(*REDIS_AWAY):
            await self._redis.delete(_HEARTBEAT + old)
