"""Redis and the signals of a simulated world: the commands that the production leases use, forgetful and unreliable."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeVar, cast

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from services.session.adapters import leases
from services.session.domain.values import SessionKey
from tests.faults.simulation.faults import Fate
from tests.faults.simulation.loop import SimLoop

T = TypeVar("T")


class SimRedis:
    """Keys with a time-to-live, and the two scripts of the leases."""

    def __init__(self, loop: SimLoop, fate: Fate) -> None:
        self._loop = loop
        self._fate = fate
        self._keys: dict[str, tuple[bytes, float]] = {}
        self._sets: dict[str, set[bytes]] = {}

    def client(self) -> redis.asyncio.Redis:
        """Return it as the leases take it."""
        return cast("redis.asyncio.Redis", self)

    def wipe(self) -> None:
        """Forget everything."""
        self._keys.clear()
        self._sets.clear()

    def register_script(self, text: str) -> Callable[..., Awaitable[int]]:
        scripts: dict[str, Callable[..., int]] = {leases._ACQUIRE: self._acquire, leases._RELEASE: self._release}

        async def run(keys: Sequence[str], args: Sequence[str]) -> int:
            return await self._do(lambda: scripts[text](*keys, *args))

        return run

    async def set(self, name: str, value: bytes, *, px: int, nx: bool = False) -> bool:
        def act() -> bool:
            if nx and self._get(name) is not None:
                return False
            self._keys[name] = (value, self._loop.time() + px / 1000)
            return True

        return await self._do(act)

    async def pexpire(self, name: str, milliseconds: int) -> int:
        def act() -> int:
            value = self._get(name)
            if value is None:
                return 0
            self._keys[name] = (value, self._loop.time() + milliseconds / 1000)
            return 1

        return await self._do(act)

    async def delete(self, name: str) -> int:
        return await self._do(lambda: int(self._keys.pop(name, None) is not None))

    async def sadd(self, name: str, member: str) -> int:
        def act() -> int:
            self._sets.setdefault(name, set()).add(member.encode())
            return 1

        return await self._do(act)

    async def smembers(self, name: str) -> Collection[bytes]:
        return await self._do(lambda: set(self._sets.get(name, ())))

    async def srem(self, name: str, *members: str) -> int:
        def act() -> int:
            self._sets.get(name, set()).difference_update(member.encode() for member in members)
            return len(members)

        return await self._do(act)

    async def mget(self, names: Sequence[str | bytes]) -> list[bytes | None]:
        plain = [name.decode() if isinstance(name, bytes) else name for name in names]
        return await self._do(lambda: [self._get(name) for name in plain])

    def _get(self, name: str) -> bytes | None:
        value, until = self._keys.get(name, (None, 0.0))
        return value if self._loop.time() < until else None

    def _acquire(self, lease: str, heartbeat: str, mine: str, prefix: str) -> int:
        if self._get(heartbeat) is None:
            return 0
        holder = self._get(lease)
        if holder is not None and holder.decode() != mine and self._get(prefix + holder.decode()) is not None:
            return 0
        self._keys[lease] = (mine.encode(), float("inf"))
        return 1

    def _release(self, lease: str, mine: str) -> int:
        if self._get(lease) != mine.encode():
            return 0
        del self._keys[lease]
        return 1

    async def _do(self, act: Callable[[], T]) -> T:
        await asyncio.sleep(self._fate.pause(0.0001, 0.002))
        failing = self._fate.strikes(self._fate.faults.failing_leases)
        if failing and self._fate.strikes(0.5):
            raise RedisConnectionError
        answer = act()
        await asyncio.sleep(self._fate.pause(0.0001, 0.002))
        if failing:
            raise RedisConnectionError
        return answer


class SimSignals:
    """The ``Signals`` of one process; what one says the others hear, mostly."""

    def __init__(self, fate: Fate, everybody: list["SimSignals"]) -> None:
        self._fate = fate
        self._everybody = everybody
        self._queues: list[asyncio.Queue[SessionKey]] = []
        everybody.append(self)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def wake(self, key: SessionKey) -> None:
        for signals in self._everybody:
            for queue in signals._queues:
                if not self._fate.strikes(self._fate.faults.lost_signals):
                    queue.put_nowait(key)

    @asynccontextmanager
    async def woken(self) -> AsyncIterator[AsyncIterator[SessionKey]]:
        queue: asyncio.Queue[SessionKey] = asyncio.Queue()
        self._queues.append(queue)

        async def keys() -> AsyncIterator[SessionKey]:
            while True:
                yield await queue.get()

        yield keys()

    async def publish_candle(self, key: SessionKey, payload: bytes) -> int:
        return 0

    async def is_watched(self, key: SessionKey) -> bool:
        return False

    @asynccontextmanager
    async def candles(self, key: SessionKey) -> AsyncIterator[AsyncIterator[bytes]]:
        raise NotImplementedError
        yield


class SimActivity:
    """Nobody is ever idle here."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    async def touch(self, key: SessionKey, *, durable_last_seen: datetime) -> None:
        return

    async def last_seen(self, key: SessionKey, *, durable_last_seen: datetime) -> datetime:
        return self._now()
