"""Nudges and candle frames between replicas: Redis Pub/Sub, one connection a process, latest wins."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from services.runtime.clock import Clock
from services.session.adapters.presence import REDIS_AWAY, Presence
from services.session.domain.values import SessionKey

_WAKE: Final = "wake"
_CANDLES: Final = "candles:"
_POLL: Final = 1.0
_AWAY_PAUSE: Final = 0.5


class _Woken:
    """Sessions that were woken and not handled yet, each once."""

    def __init__(self) -> None:
        self._keys: dict[SessionKey, None] = {}
        self._filled = asyncio.Event()

    def add(self, key: SessionKey) -> None:
        self._keys[key] = None
        self._filled.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionKey:
        await self._filled.wait()
        key = next(iter(self._keys))
        del self._keys[key]
        if not self._keys:
            self._filled.clear()
        return key


class _Latest:
    """The newest payload that was not taken yet."""

    def __init__(self) -> None:
        self._payload = b""
        self._filled = asyncio.Event()

    def put(self, payload: bytes) -> None:
        self._payload = payload
        self._filled.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await self._filled.wait()
        self._filled.clear()
        return self._payload


class RedisSignals:
    """The ``Signals`` port. Survives the loss of Redis; what was said meanwhile is lost, as the port allows.

    Args:
        redis: Where.
        clock: Time.
        name: This process's own; two never share one.
    """

    def __init__(self, redis: Redis, *, clock: Clock, name: str) -> None:
        self._redis = redis
        self._clock = clock
        self._woken: set[_Woken] = set()
        self._candles: dict[SessionKey, set[_Latest]] = defaultdict(set)
        self._nudge = f"nudge:{name}"
        self._receiving = Presence("signals, receiving")
        self._sending = Presence("signals, sending")

    async def run(self) -> None:
        """Receive for everybody in this process until cancelled."""
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await self._receive(pubsub)
            except REDIS_AWAY as error:
                self._receiving.away(error)
            await self._clock.sleep(_AWAY_PAUSE)

    async def wake(self, key: SessionKey) -> None:
        """Tell the session's runner to look at its desired state now. Never fails."""
        # Here at once, even without Redis; the echo from Redis costs one more look.
        for listener in self._woken:
            listener.add(key)
        await self._send(_WAKE, key.encode())

    @asynccontextmanager
    async def woken(self) -> AsyncIterator[AsyncIterator[SessionKey]]:
        """Iterate over the sessions that were woken anywhere."""
        listener = _Woken()
        self._woken.add(listener)
        try:
            yield listener
        finally:
            self._woken.discard(listener)

    async def publish_candle(self, key: SessionKey, payload: bytes) -> int:
        """Hand a serialized candle Event to whoever watches; returns how many replicas have a watcher. Never fails."""
        return await self._send(_CANDLES + key, payload)

    async def is_watched(self, key: SessionKey) -> bool:
        """Return whether anybody anywhere iterates over the session's candle Events. Never fails: without Redis, nobody."""
        try:
            ((_, watchers),) = await self._redis.pubsub_numsub(_CANDLES + key)
        except REDIS_AWAY as error:
            self._sending.away(error)
            return False
        self._sending.here()
        return int(watchers) > 0

    @asynccontextmanager
    async def candles(self, key: SessionKey) -> AsyncIterator[AsyncIterator[bytes]]:
        """Iterate over candle Events; a slow reader gets the newest only."""
        watcher = _Latest()
        self._candles[key].add(watcher)
        try:
            if len(self._candles[key]) == 1:
                await self._send(self._nudge, b"")
            yield watcher
        finally:
            self._candles[key].discard(watcher)
            if not self._candles[key]:
                del self._candles[key]
                await self._send(self._nudge, b"")

    async def _send(self, channel: str, payload: bytes) -> int:
        try:
            receivers = await self._redis.publish(channel, payload)
        except REDIS_AWAY as error:
            self._sending.away(error)
            return 0
        self._sending.here()
        return int(receivers)

    async def _receive(self, pubsub: PubSub) -> None:
        """Follow the channels that somebody here wants; a nudge says that these changed."""
        await pubsub.subscribe(_WAKE, self._nudge)
        subscribed: set[SessionKey] = set()
        while True:
            wanted = set(self._candles)
            if more := wanted - subscribed:
                await pubsub.subscribe(*(_CANDLES + key for key in more))
            if less := subscribed - wanted:
                await pubsub.unsubscribe(*(_CANDLES + key for key in less))
            subscribed = wanted
            message = await pubsub.get_message(timeout=_POLL)
            self._receiving.here()
            if message is not None:
                self._deliver(message["channel"].decode(), message["data"])

    def _deliver(self, channel: str, payload: bytes) -> None:
        if channel == _WAKE:
            for listener in self._woken:
                listener.add(SessionKey(payload.decode()))
        elif channel.startswith(_CANDLES):
            for watcher in self._candles.get(SessionKey(channel.removeprefix(_CANDLES)), ()):
                watcher.put(payload)
