"""Two replicas on one Redis: the sessions spread over both, each runs once, and none moves without need."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import cast

from redis.asyncio import Redis

from services.runtime.clock import SystemClock
from services.session.adapters.leases import RedisLeases
from services.session.domain.errors import UnavailableError
from services.session.domain.values import SessionKey
from services.session.ports import Ledger
from services.session.use_cases.ownership import Ownership
from services.session.use_cases.runner import SessionRunner
from services.session.use_cases.sharing import FairShare
from tests.support.eventually import eventually
from tests.support.fakes import FakeSignals
from tests.support.running import running

KEYS = [SessionKey(f"session-{number}") for number in range(9)]
_names = itertools.count()


class Sessions:
    """The sessions that there are; stands for the ledger, of which only the list is asked."""

    def __init__(self) -> None:
        self.away = False

    async def sessions_to_run(self, limit: int) -> list[SessionKey]:
        if self.away:
            raise UnavailableError("The ledger")
        return KEYS


class Replica:
    """One ownership whose runners only say that they run."""

    def __init__(
        self, redis: Redis, starts: Counter[SessionKey], staying: Iterable[SessionKey] = (), ttl: float = 60
    ) -> None:
        clock = SystemClock()
        self.running: Counter[SessionKey] = Counter()
        self.ledger = Sessions()
        self._starts = starts
        self.staying = set(staying)
        self.ownership = Ownership(
            ledger=cast("Ledger", self.ledger),
            leases=RedisLeases(redis, clock=clock, new_id=lambda: f"sharing-{next(_names)}", ttl=ttl),
            signals=FakeSignals(),
            clock=clock,
            new_runner=lambda key, _: cast("SessionRunner", _Runner(key, self)),
            share=FairShare(0.3),
            jitter=lambda: 0.5,
            scan_interval=0.05,
            scan_limit=100,
        )

    def began(self, key: SessionKey) -> None:
        self.running[key] += 1
        self._starts[key] += 1

    def ended(self, key: SessionKey) -> None:
        self.running[key] -= 1

    @property
    def keys(self) -> set[SessionKey]:
        return {key for key, count in self.running.items() if count}


class _Runner:
    def __init__(self, key: SessionKey, replica: Replica) -> None:
        self._key = key
        self._replica = replica

    @property
    def may_move(self) -> bool:
        return self._key not in self._replica.staying

    async def run(self) -> None:
        self._replica.began(self._key)
        try:
            await asyncio.Event().wait()
        finally:
            self._replica.ended(self._key)

    def tick(self, now: float) -> None:
        pass


@asynccontextmanager
async def lived(replica: Replica) -> AsyncIterator[None]:
    async with running(replica.ownership):
        try:
            yield
        finally:
            await replica.ownership.stop()
            await replica.ownership.release()


def shared_out(one: Replica, other: Replica) -> bool:
    return sorted((len(one.keys), len(other.keys))) == [4, 5]


async def until(condition: Callable[[], bool]) -> None:
    async def probe() -> bool:
        return condition()

    await eventually(probe)


async def test_a_replica_that_comes_later_gets_its_share_and_a_replica_that_leaves_gives_all_back(live: Redis) -> None:
    starts: Counter[SessionKey] = Counter()
    one, other = Replica(live, starts), Replica(live, starts)
    async with lived(one):
        await until(lambda: len(one.keys) == len(KEYS))
        async with lived(other):
            await until(lambda: (len(one.keys), len(other.keys)) == (5, 4))
            assert not one.keys & other.keys
            # Four moved, once each; those that stayed were not touched.
            assert sorted(starts.values()) == [1] * 5 + [2] * 4
        await until(lambda: len(one.keys) == len(KEYS))


async def test_a_session_that_may_not_move_stays(live: Redis) -> None:
    starts: Counter[SessionKey] = Counter()
    one = Replica(live, starts, staying=KEYS[:7])
    other = Replica(live, starts)
    async with lived(one):
        await until(lambda: len(one.keys) == len(KEYS))
        async with lived(other):
            await until(lambda: other.keys == set(KEYS[7:]))
            assert one.keys == set(KEYS[:7])


async def test_a_replica_that_alone_cannot_reach_the_ledger_leaves_its_sessions_to_the_other(live: Redis) -> None:
    starts: Counter[SessionKey] = Counter()
    one, other = Replica(live, starts, ttl=3), Replica(live, starts, ttl=3)
    async with lived(one), lived(other):
        await until(lambda: shared_out(one, other))
        one.ledger.away = True
        await until(lambda: len(other.keys) == len(KEYS))
        await until(lambda: not one.keys)
        assert one.ownership.is_cut_off
        assert not other.ownership.is_cut_off
        one.ledger.away = False
        await until(lambda: not one.ownership.is_cut_off)
        await until(lambda: len(one.keys) >= 4)
        assert not one.keys & other.keys
