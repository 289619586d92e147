"""One living holder per session; a broken hold is lost for good."""

import asyncio
import itertools

import pytest
from redis.asyncio import Redis

from services.runtime.clock import Clock, SystemClock
from services.runtime.redis_client import connect
from services.session.adapters.leases import RedisLeases
from services.session.domain.errors import UnavailableError
from services.session.domain.values import SessionKey
from tests.support.engines import Engine
from tests.support.eventually import eventually
from tests.support.ledgers import a_key
from tests.support.running import running

_names = itertools.count()


class JumpingClock(SystemClock):
    """Monotonic time that only a test moves, in one jump, as it looks to a process that was frozen."""

    def __init__(self) -> None:
        self._time = 0.0
        self._jumped = asyncio.Event()

    def monotonic(self) -> float:
        return self._time

    def jump(self, seconds: float) -> None:
        self._time += seconds
        self._jumped.set()
        self._jumped = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        due = self._time + seconds
        while self._time < due:
            await self._jumped.wait()


def leases(redis: Redis, ttl: float = 60.0, clock: Clock | None = None) -> RedisLeases:
    return RedisLeases(redis, clock=clock or SystemClock(), new_id=lambda: f"r{next(_names)}", ttl=ttl)


def alive(replica: RedisLeases) -> bool:
    return replica.held_until() > SystemClock().monotonic()


async def until_alive(replica: RedisLeases) -> None:
    async def probe() -> bool:
        return alive(replica)

    await eventually(probe)


async def until_taken(replica: RedisLeases, key: SessionKey, within: float = 10) -> None:
    async def probe() -> bool:
        return await replica.acquire(key)

    await eventually(probe, within=within)


async def test_a_session_has_one_holder_and_goes_free_when_it_is_released(live: Redis) -> None:
    one, other = leases(live), leases(live)
    key = a_key()
    async with running(one, other):
        await until_alive(one)
        await until_alive(other)
        assert await one.unheld([key]) == [key]
        assert await one.acquire(key)
        assert await one.acquire(key)
        assert not await other.acquire(key)
        assert await other.unheld([key]) == []
        assert await one.unheld([key]) == [key]  # taken by a call whose answer was lost, it would never run otherwise
        await other.release(key)  # not theirs
        assert not await other.acquire(key)
        await one.release(key)
        assert await other.acquire(key)


async def test_before_its_first_heartbeat_a_replica_holds_nothing(live: Redis) -> None:
    replica = leases(live)
    assert replica.held_until() == float("-inf")
    assert not await replica.acquire(a_key())


async def test_a_replica_that_stops_frees_its_sessions_at_once(live: Redis) -> None:
    one, other = leases(live, ttl=60), leases(live, ttl=60)
    key = a_key()
    async with running(other):
        await until_alive(other)
        async with running(one):
            await until_alive(one)
            assert await one.acquire(key)
        assert await other.acquire(key)


async def test_a_replica_that_dies_frees_its_sessions_after_the_time_to_live(live: Redis) -> None:
    dead, other = leases(live, clock=JumpingClock()), leases(live)
    key = a_key()
    async with running(dead, other):  # the dead one's clock stands still: it never renews
        await until_alive(other)
        await until_taken(dead, key)
        assert not await other.acquire(key)
        heartbeat = f"replica:{dead.incarnation}"
        assert 0 < await live.pttl(heartbeat) <= 60_000
        await live.pexpire(heartbeat, 10)
        await until_taken(other, key)


async def test_a_replica_that_froze_comes_back_under_another_name_even_if_nobody_took_over(live: Redis) -> None:
    clock = JumpingClock()
    replica = leases(live, ttl=30, clock=clock)
    key = a_key()
    async with running(replica):
        await until_taken(replica, key)
        before = replica.incarnation
        clock.jump(60)  # its renewal was due after ten seconds; Redis still has the heartbeat

        async def renewed() -> bool:
            return replica.incarnation != before and replica.held_until() > clock.monotonic()

        await eventually(renewed)
        assert await replica.acquire(key)


async def test_a_wiped_redis_ends_the_incarnation(live: Redis) -> None:
    one, other = leases(live, ttl=1.0), leases(live, ttl=1.0)
    key = a_key()
    async with running(one, other):
        await until_taken(one, key)
        before = one.incarnation
        await live.flushall()

        async def renamed() -> bool:
            return one.incarnation != before

        await eventually(renamed)
        await until_taken(other, key)  # once it, too, has noticed and begun anew


async def test_without_redis_the_hold_runs_out_and_nothing_can_be_taken(own_redis: Engine) -> None:
    async with connect(own_redis.url) as client:
        replica = leases(client, ttl=0.6)
        async with running(replica):
            await until_alive(replica)
            before = replica.incarnation
            own_redis.kill()

            async def over() -> bool:
                return not alive(replica)

            await eventually(over)
            own_redis.start()
            await until_taken(replica, a_key())
            assert replica.incarnation != before


async def test_a_call_without_redis_says_so(own_redis: Engine) -> None:
    async with connect(own_redis.url) as client:
        replica = leases(client, ttl=30)
        async with running(replica):
            await until_alive(replica)
            own_redis.kill()
            for call in (replica.acquire(a_key()), replica.release(a_key()), replica.unheld([a_key()])):
                with pytest.raises(UnavailableError):
                    await call


async def test_each_replica_sees_which_replicas_look_for_sessions(live: Redis) -> None:
    one, other = leases(live), leases(live)
    assert await one.looked() == set()
    async with running(one):
        await until_alive(one)
        async with running(other):
            await until_alive(other)
            assert await one.looked() == {one.incarnation}
            await other.looked()
            assert await one.looked() == {one.incarnation, other.incarnation}
            mark = f"looked:{other.incarnation}"
            assert 0 < await live.pttl(mark) <= 60_000
            await live.delete(mark)  # as when that time is over: the other lives on and does not look
            assert await one.looked() == {one.incarnation}
            assert alive(other)
            await other.looked()
            assert await one.looked() == {one.incarnation, other.incarnation}
        assert await one.looked() == {one.incarnation}
        assert await live.scard("replicas") == 1


async def test_a_replica_is_left_behind_when_another_one_has_been_looking_for_a_while_and_it_has_not(
    live: Redis,
) -> None:
    clock = JumpingClock()
    one, other = leases(live, clock=clock), leases(live)
    async with running(one, other):
        await until_alive(other)
        await one.looked()
        clock.jump(600)
        assert not await one.left_behind()  # nobody looks: it is the same for all
        await other.looked()
        assert not await one.left_behind()  # that is over, and this one has not had its turn yet
        clock.jump(59)
        assert not await one.left_behind()
        clock.jump(1)
        assert await one.left_behind()
        assert not await other.left_behind()
        await live.delete(f"looked:{other.incarnation}")  # as when its time is over
        assert not await one.left_behind()
        await other.looked()
        assert not await one.left_behind()
        clock.jump(60)
        assert await one.left_behind()
        await one.looked()
        assert not await one.left_behind()


async def test_a_replica_that_lets_go_frees_everything_at_once_and_goes_on_under_another_name(live: Redis) -> None:
    one, other = leases(live), leases(live)
    keys = [a_key(), a_key()]
    async with running(one, other):
        await until_alive(one)
        await until_alive(other)
        for key in keys:
            assert await one.acquire(key)
        before = one.incarnation
        await one.let_go()
        assert one.incarnation != before
        assert not alive(one)
        assert list(await other.unheld(keys)) == keys
        assert await other.acquire(keys[0])


async def test_a_wiped_redis_forgets_who_looked_until_they_look_again(live: Redis) -> None:
    replica = leases(live, ttl=1.0)
    async with running(replica):
        await until_alive(replica)

        async def seen() -> bool:
            return await replica.looked() == {replica.incarnation}

        await eventually(seen)
        await live.flushall()
        await eventually(seen)


async def test_a_replica_that_resigns_frees_everything_at_once_and_holds_nothing_again(live: Redis) -> None:
    one, other = leases(live, ttl=60), leases(live, ttl=60)
    key = a_key()
    async with running(other):
        await until_alive(other)
        running_one = asyncio.create_task(one.run())
        await until_alive(one)
        assert await one.acquire(key)
        await one.looked()
        await one.resign()
        assert one.held_until() == float("-inf")
        assert await other.unheld([key]) == [key]
        assert await other.looked() == {other.incarnation}
        assert not await one.acquire(key)
        assert await other.acquire(key)
        running_one.cancel()
        await asyncio.wait({running_one})
