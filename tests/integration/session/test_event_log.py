"""Every reader gets every event once and in order, whatever Redis does."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from services.runtime.clock import SystemClock
from services.runtime.redis_client import connect
from services.session.adapters.event_log import RedisEventLog
from services.session.adapters.ledger.database import PostgresDatabase
from services.session.adapters.ledger.events import EventReader, LogEnd
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.domain.events import LogWritten, StoredEvent
from services.session.domain.values import CloseReason, SessionKey
from tests.support.engines import Engine
from tests.support.eventually import eventually
from tests.support.ledgers import a_ledger, a_session
from tests.support.running import running


def event(number: int) -> LogWritten:
    return LogWritten("info", str(number))


def a_log(redis: Redis, database: PostgresDatabase, name: str) -> RedisEventLog:
    return RedisEventLog(redis, EventReader(database), clock=SystemClock(), name=name)


class SeesNoEnds(EventReader):
    """A ledger that never tells where a log ends: whatever comes has come by the stream."""

    async def log_ends(self, keys: Sequence[SessionKey]) -> Mapping[SessionKey, LogEnd]:
        return {}


async def take(events: AsyncIterator[StoredEvent], count: int, within: float = 10) -> list[int]:
    async with asyncio.timeout(within):
        return [(await anext(events)).seq for _ in range(count)]


async def rest(events: AsyncIterator[StoredEvent], within: float = 10) -> list[int]:
    async with asyncio.timeout(within):
        return [event.seq async for event in events]


async def emit(ledger: PostgresLedger, key: SessionKey, count: int) -> None:
    for number in range(count):
        await ledger.emit(key, event(number))


async def test_readers_here_and_in_another_process_get_all_from_where_they_were(
    live: Redis, database: PostgresDatabase
) -> None:
    here, there = a_log(live, database, "here"), a_log(live, database, "there")
    ledger = a_ledger(database, publish=here.publish)
    key = await a_session(ledger)
    await emit(ledger, key, 10)
    async with running(here, there), here.subscribe(key, 0) as first, there.subscribe(key, 4) as second:
        await emit(ledger, key, 10)
        await ledger.close_session(key, CloseReason.DISCONNECTED)
        assert await rest(first) == list(range(1, 22))
        assert await rest(second) == list(range(5, 22))


async def test_an_event_reaches_another_process_without_the_ledger(live: Redis, database: PostgresDatabase) -> None:
    here = a_log(live, database, "here")
    there = RedisEventLog(live, SeesNoEnds(database), clock=SystemClock(), name="there")
    ledger = a_ledger(database, publish=here.publish)
    key, other = await a_session(ledger), await a_session(ledger)
    async with running(here, there), there.subscribe(other, 0), there.subscribe(key, 0) as events:
        await emit(ledger, key, 1)
        assert await take(events, 1) == [1]


async def test_a_publication_that_was_lost_comes_from_the_ledger_within_about_a_second(
    live: Redis, database: PostgresDatabase
) -> None:
    log = a_log(live, database, "here")
    silent = a_ledger(database)  # its process dies between commit and publication
    key = await a_session(silent)
    async with running(log), log.subscribe(key, 0) as events:
        await emit(silent, key, 3)
        assert await take(events, 3, within=20) == [1, 2, 3]


async def test_publications_out_of_order_or_twice_are_put_right(live: Redis, database: PostgresDatabase) -> None:
    log = a_log(live, database, "here")
    ledger = a_ledger(database)
    key = await a_session(ledger)
    async with running(log), log.subscribe(key, 0) as events:
        await emit(ledger, key, 6)
        stored = await ledger.events_after(key, 0, 10)
        for number in (2, 2, 1, 5, 0, 5):
            log.publish(key, stored[number])
        assert await take(events, 6) == [1, 2, 3, 4, 5, 6]
        assert [found.seq for found in stored] == [1, 2, 3, 4, 5, 6]


async def test_a_slow_reader_loses_nothing(live: Redis, database: PostgresDatabase) -> None:
    log = a_log(live, database, "here")
    ledger = a_ledger(database, publish=log.publish)
    key = await a_session(ledger)
    async with running(log), log.subscribe(key, 0) as events:
        await emit(ledger, key, 600)  # more than is kept in memory
        assert await take(events, 600) == list(range(1, 601))


async def test_sessions_never_see_each_others_events(live: Redis, database: PostgresDatabase) -> None:
    here, there = a_log(live, database, "here"), a_log(live, database, "there")
    ledger = a_ledger(database, publish=here.publish)
    keys = [await a_session(ledger) for _ in range(5)]
    async with running(here, there), AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(there.subscribe(key, 0)) for key in keys]
        for number, key in enumerate(keys):
            await emit(ledger, key, number + 1)
            await ledger.close_session(key, CloseReason.EXPIRED)
        for number, (key, reader) in enumerate(zip(keys, readers, strict=True)):
            payloads = [found.payload async for found in reader]
            assert payloads == [found.payload for found in await ledger.events_after(key, 0, 100)]
            assert len(payloads) == number + 2


async def test_a_subscription_to_a_session_that_has_ended_ends(live: Redis, database: PostgresDatabase) -> None:
    log = a_log(live, database, "here")
    ledger = a_ledger(database, publish=log.publish)
    key = await a_session(ledger)
    await ledger.close_session(key, CloseReason.EXPIRED)
    async with running(log):
        async with log.subscribe(key, 0) as events:
            assert await rest(events) == [1]
        async with log.subscribe(key, 1) as events:
            assert await rest(events) == []


async def test_a_drain_ends_every_subscription_and_new_ones(live: Redis, database: PostgresDatabase) -> None:
    log = a_log(live, database, "here")
    ledger = a_ledger(database, publish=log.publish)
    key = await a_session(ledger)
    async with running(log), log.subscribe(key, 0) as events:
        waiting = asyncio.create_task(rest(events))
        await emit(ledger, key, 1)
        await log.drain()
        assert await waiting in ([], [1])
        async with log.subscribe(key, 0) as late:
            assert await rest(late) == []
    assert await live.xlen(f"events:{key}") == 1


async def test_a_pruned_log_begins_later(live: Redis, database: PostgresDatabase) -> None:
    log = a_log(live, database, "here")
    ledger = a_ledger(database)
    key = await a_session(ledger)
    await emit(ledger, key, 5)
    async with database.transaction() as connection:
        await connection.fetch("DELETE FROM events WHERE session_key = $1 AND seq <= 3", key)
    async with running(log), log.subscribe(key, 0) as events:
        assert await take(events, 2) == [4, 5]


async def test_events_of_sessions_closed_long_ago_are_pruned_and_no_others(
    ledger: PostgresLedger, database: PostgresDatabase
) -> None:
    open_key, closed, closing = [await a_session(ledger) for _ in range(3)]
    for key in (open_key, closed, closing):
        await emit(ledger, key, 2)
    await ledger.close_session(closed, CloseReason.EXPIRED)
    await ledger.close_session(closing, CloseReason.EXPIRED)
    record = await ledger.begin_epoch(closed)
    assert record is not None
    assert await ledger.finish_session(closed, epoch=record.epoch)
    assert await ledger.prune_events(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert await ledger.prune_events(datetime.now(UTC) + timedelta(seconds=1)) == 3
    assert await ledger.prune_events(datetime.now(UTC) + timedelta(seconds=1)) == 0
    assert [len(await ledger.events_after(key, 0, 9)) for key in (open_key, closed, closing)] == [2, 0, 3]


@pytest.mark.parametrize("wipe", [False, True])
async def test_redis_is_killed_again_and_again_while_readers_read(
    own_redis: Engine, database: PostgresDatabase, wipe: bool
) -> None:
    count = 300
    async with connect(own_redis.url) as client:
        here, there = a_log(client, database, "here"), a_log(client, database, "there")
        ledger = a_ledger(database, publish=here.publish)
        key = await a_session(ledger)

        written = 0

        async def write() -> None:
            nonlocal written
            for number in range(count):
                await ledger.emit(key, event(number))
                written += 1
            await ledger.close_session(key, CloseReason.EXPIRED)

        async def have_written(events: int) -> None:
            async def enough() -> bool:
                return written >= events

            await eventually(enough, every=0.001)

        async def read(log: RedisEventLog, after: int) -> Sequence[int]:
            """Read like a client that loses its connection now and then."""
            seen: list[int] = []
            while not seen or seen[-1] != count + 1:
                async with log.subscribe(key, seen[-1] if seen else after) as events:
                    seen += await take(events, min(37, count + 1 - (seen[-1] if seen else after)), within=60)
            return seen

        async def harm() -> None:
            for strike in range(4):
                await have_written(60 * strike + 30)
                own_redis.kill()
                if wipe:
                    own_redis.wipe()
                await have_written(60 * strike + 60)
                await asyncio.to_thread(own_redis.start)

        async with running(here, there):
            readers = [asyncio.create_task(read(log, after)) for log in (here, there) for after in (0, 0, 5)]
            await asyncio.gather(write(), harm())
            seen = await asyncio.gather(*readers)
        for number, found in enumerate(seen):
            assert list(found) == list(range((0, 0, 5)[number % 3] + 1, count + 2))
