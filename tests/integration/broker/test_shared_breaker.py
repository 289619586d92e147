"""The login breaker over a real Redis-compatible server."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from services.broker import redis_scripts
from services.broker.breaker import ACCOUNT_ATTEMPTS, LocalCounters, SharedCounters
from services.broker.redis_scripts import RedisScripts
from services.runtime.clock import SystemClock
from tests.support.engines import Engine, redis
from tests.support.login_counters import RULES, attempt, grant


@pytest.fixture
def store() -> Iterator[Engine]:
    with redis() as engine:
        yield engine


@pytest.fixture
async def scripts(store: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisScripts]:
    # A store that is slow is one that is away: not here.
    monkeypatch.setattr(redis_scripts, "TIMEOUT", 30.0)
    client = RedisScripts(store.url)
    yield client
    await client.close()


def counters(scripts: RedisScripts) -> SharedCounters:
    return SharedCounters(scripts, LocalCounters(SystemClock()), time.time)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
async def test_shared_counters_keep_the_rules(
    scripts: RedisScripts, rule: Callable[[SharedCounters], Awaitable[None]]
) -> None:
    await rule(counters(scripts))


async def test_processes_see_one_count(scripts: RedisScripts) -> None:
    for _ in range(ACCOUNT_ATTEMPTS):
        await grant(counters(scripts), "bad")
    assert not (await counters(scripts).reserve("bad", "here", attempt())).granted


async def test_nothing_stays_for_ever_and_nothing_tells_an_address(scripts: RedisScripts, store: Engine) -> None:
    shared = counters(scripts)
    await shared.fail("iq:digest", "iq:here", await grant(shared, "iq:digest", "iq:here"))
    await shared.ban("iq:digest", "iq:here", await grant(shared, "iq:digest", "iq:here"), 10)
    count = "local n = 0 for _, k in ipairs(redis.call('KEYS', '*')) do if redis.call('TTL', k) < 0 then n = n + 1 end end return {n}"
    assert await scripts.run(count, [], []) == [0]


async def test_without_the_store_each_process_counts_by_itself(scripts: RedisScripts, store: Engine) -> None:
    store.kill()
    shared = counters(scripts)
    for _ in range(ACCOUNT_ATTEMPTS):
        await shared.fail("bad", "here", await grant(shared, "bad"))
    assert not (await shared.reserve("bad", "here", attempt())).granted
    await shared.succeed("good", "here", await grant(shared, "good"))


async def test_a_burst_of_logins_is_counted_where_all_processes_see_it(scripts: RedisScripts) -> None:
    answers = await asyncio.gather(*(scripts.run("return redis.call('INCR', KEYS[1])", ["n"], []) for _ in range(500)))
    assert len(answers) == 500
    assert await scripts.run("return {tonumber(redis.call('GET', KEYS[1]))}", ["n"], []) == [500]
