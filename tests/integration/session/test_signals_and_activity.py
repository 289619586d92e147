"""Nudges, candles and activity: quick with Redis, harmless without it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from services.runtime.clock import SystemClock
from services.runtime.redis_client import connect
from services.session.adapters.activity import RedisActivity
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.adapters.signals import RedisSignals
from services.session.domain.values import SessionKey
from tests.support.engines import Engine
from tests.support.eventually import eventually
from tests.support.ledgers import a_key, a_session
from tests.support.running import running


def signals(redis: Redis, name: str) -> RedisSignals:
    return RedisSignals(redis, clock=SystemClock(), name=name)


async def hears(sender: RedisSignals, keys: AsyncIterator[SessionKey], key: SessionKey) -> None:
    """Wake until it is heard: the receiver may not have subscribed yet."""

    async def listen() -> None:
        async for heard in keys:
            if heard == key:
                return

    listener = asyncio.create_task(listen())

    async def heard() -> bool:
        await sender.wake(key)
        return listener.done()

    await eventually(heard)
    await listener


async def test_a_wake_up_is_heard_here_and_in_another_process(live: Redis) -> None:
    here, there = signals(live, "here"), signals(live, "there")
    async with running(here, there), here.woken() as mine, there.woken() as theirs:
        await hears(here, mine, a_key())
        await hears(here, theirs, a_key())


async def test_a_slow_listener_hears_each_session_once(live: Redis) -> None:
    here = signals(live, "here")
    keys = [a_key(), a_key()]
    async with here.woken() as heard:
        for _ in range(1000):
            for key in keys:
                await here.wake(key)
        assert [await anext(heard), await anext(heard)] == keys


async def test_candles_reach_their_watchers_only_and_the_latest_wins(live: Redis) -> None:
    here, there = signals(live, "here"), signals(live, "there")
    key, other = a_key(), a_key()
    async with running(here, there), there.candles(key) as candles, there.candles(other) as others:

        async def watched() -> bool:
            return await here.publish_candle(key, b"1") == 1

        assert not await here.is_watched(a_key())
        await eventually(watched)
        assert await here.is_watched(key)
        await here.publish_candle(key, b"2")

        async def latest() -> bool:
            return await anext(candles) == b"2"

        await eventually(latest)
        await here.publish_candle(other, b"3")
        assert await anext(others) == b"3"

    async def unwatched() -> bool:
        return await here.publish_candle(key, b"4") == 0

    async with running(here, there):
        await eventually(unwatched)


async def test_signals_survive_a_restart_of_redis(own_redis: Engine) -> None:
    async with connect(own_redis.url) as client:
        here, there = signals(client, "here"), signals(client, "there")
        async with running(here, there), there.woken() as heard:
            await hears(here, heard, a_key())
            own_redis.kill()
            await here.wake(a_key())
            assert await here.publish_candle(a_key(), b"1") == 0
            assert not await here.is_watched(a_key())
            own_redis.start()
            await hears(here, heard, a_key())


async def test_activity_is_exact_with_redis_and_goes_to_the_ledger_once_a_minute(
    live: Redis, ledger: PostgresLedger
) -> None:
    activity = RedisActivity(live, ledger, clock=SystemClock())
    key = await a_session(ledger)
    created = await ledger.session(key)
    assert created is not None
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    await activity.touch(key, durable_last_seen=created.last_seen)
    assert await activity.last_seen(key, durable_last_seen=created.last_seen) >= before
    unchanged = await ledger.session(key)
    assert unchanged is not None
    assert unchanged.last_seen == created.last_seen
    await activity.touch(key, durable_last_seen=created.last_seen - timedelta(seconds=61))
    passed_on = await ledger.session(key)
    assert passed_on is not None
    assert passed_on.last_seen > created.last_seen
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await activity.last_seen(key, durable_last_seen=later) == later


async def test_without_redis_activity_is_what_the_ledger_knows(own_redis: Engine, ledger: PostgresLedger) -> None:
    async with connect(own_redis.url) as client:
        activity = RedisActivity(client, ledger, clock=SystemClock())
        key = await a_session(ledger)
        own_redis.kill()
        old = datetime.now(UTC) - timedelta(minutes=2)
        await activity.touch(key, durable_last_seen=old)
        assert await activity.last_seen(key, durable_last_seen=old) == old
        record = await ledger.session(key)
        assert record is not None
        assert record.last_seen > old


async def test_a_burst_of_candles_is_no_reason_to_think_that_redis_is_away(redis_server: Engine) -> None:
    """As at the end of a second, when every session's candle closes at once."""
    async with connect(redis_server.url, timeout=30) as live, running(signals(live, "here")):
        heard = await asyncio.gather(*(live.publish("somewhere", b"a candle") for _ in range(500)))
    assert len(heard) == 500
