"""The login breaker within one process."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from services.broker.breaker import ADDRESS_ATTEMPTS, LOGIN_TIME, ROOM_WAIT, WINDOW, Breaker, LocalCounters
from services.broker.domain.errors import LoginThrottledError
from services.broker.domain.values import Broker
from tests.support.clocks import ManualClock
from tests.support.login_counters import RULES, grant


def breaker(clock: ManualClock) -> Breaker:
    ids = itertools.count()
    return Breaker(LocalCounters(clock), "here", clock, lambda: str(next(ids)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
async def test_local_counters_keep_the_rules(rule: Callable[[LocalCounters], Awaitable[None]]) -> None:
    await rule(LocalCounters(ManualClock()))


async def test_failures_are_forgotten_after_the_window() -> None:
    clock = ManualClock()
    counters = LocalCounters(clock)
    for _ in range(3):
        await counters.fail("bad", "here", await grant(counters, "bad"))
    await clock.advance(WINDOW + 1)
    await grant(counters, "bad")


async def test_a_login_that_nobody_reports_back_makes_room_after_a_while() -> None:
    clock = ManualClock()
    counters = LocalCounters(clock)
    for n in range(ADDRESS_ATTEMPTS):
        await grant(counters, f"user-{n}")
    await clock.advance(LOGIN_TIME + 1)
    await grant(counters, "next")


async def test_spelling_the_address_differently_is_the_same_account() -> None:
    guard = breaker(ManualClock())
    for email in ("Bad@example.com", "bad@example.com ", "BAD@EXAMPLE.COM"):
        await (await guard.acquire(Broker.IQ, email)).refused()
    with pytest.raises(LoginThrottledError):
        await guard.acquire(Broker.IQ, "bad@example.com")
    await guard.acquire(Broker.EXNOVA, "bad@example.com")


async def test_who_finds_no_room_waits_a_moment_and_then_is_told() -> None:
    clock = ManualClock()
    guard = breaker(clock)
    permits = [await guard.acquire(Broker.IQ, f"user-{n}@example.com") for n in range(ADDRESS_ATTEMPTS)]
    waiting = asyncio.create_task(guard.acquire(Broker.IQ, "next@example.com"))
    await asyncio.sleep(0)
    await clock.advance(1.0)
    assert not waiting.done()
    await permits[0].succeeded()
    await clock.advance(1.0)
    await waiting
    late = asyncio.create_task(guard.acquire(Broker.IQ, "late@example.com"))
    await asyncio.sleep(0)
    await clock.advance(ROOM_WAIT + 1)
    with pytest.raises(LoginThrottledError):
        await late
