"""The breaker's rules, for whatever counts the attempts."""

import itertools
from collections.abc import Callable

from services.broker.breaker import ACCOUNT_ATTEMPTS, ADDRESS_ATTEMPTS, Counters

_ids = itertools.count()


def attempt() -> str:
    return f"attempt-{next(_ids)}"


async def grant(counters: Counters, account: str, address: str = "here") -> str:
    """Reserve an attempt that must be granted."""
    name = attempt()
    verdict = await counters.reserve(account, address, name)
    assert verdict.granted, verdict
    return name


async def an_account_gets_three_attempts_until_one_succeeds(counters: Counters) -> None:
    for _ in range(ACCOUNT_ATTEMPTS):
        await counters.fail("bad", "here", await grant(counters, "bad"))
    held = await counters.reserve("bad", "here", attempt())
    assert not held.granted
    assert not held.crowded
    assert 500 < held.retry_after <= 601
    for _ in range(10):
        await counters.succeed("good", "here", await grant(counters, "good"))


async def attempts_under_way_count(counters: Counters) -> None:
    for _ in range(ACCOUNT_ATTEMPTS):
        await grant(counters, "bad")
    assert not (await counters.reserve("bad", "here", attempt())).granted


async def a_success_forgives(counters: Counters) -> None:
    for _ in range(ACCOUNT_ATTEMPTS - 1):
        await counters.fail("user", "here", await grant(counters, "user"))
    await counters.succeed("user", "here", await grant(counters, "user"))
    for _ in range(ACCOUNT_ATTEMPTS):
        await counters.fail("user", "here", await grant(counters, "user"))


async def an_address_never_has_more_than_its_wrong_ones_in_a_row(counters: Counters) -> None:
    for n in range(ADDRESS_ATTEMPTS):
        await counters.fail(f"bad-{n}", "here", await grant(counters, f"bad-{n}"))
    held = await counters.reserve("another", "here", attempt())
    assert not held.granted
    assert not held.crowded
    await grant(counters, "another", "elsewhere")


async def a_crowd_waits_for_room(counters: Counters) -> None:
    running = [(f"user-{n}", await grant(counters, f"user-{n}")) for n in range(ADDRESS_ATTEMPTS)]
    crowded = await counters.reserve("next", "here", attempt())
    assert crowded.crowded
    assert not crowded.granted
    await counters.succeed(running[0][0], "here", running[0][1])
    await grant(counters, "next")


async def a_throttled_account_rests_alone_and_two_of_them_rest_the_address(counters: Counters) -> None:
    await counters.ban("one", "here", await grant(counters, "one"), 300)
    held = await counters.reserve("one", "here", attempt())
    assert not held.granted
    assert 290 <= held.retry_after <= 301
    await counters.ban("two", "here", await grant(counters, "two"), 300)
    held = await counters.reserve("three", "here", attempt())
    assert not held.granted
    assert 290 <= held.retry_after <= 301
    await grant(counters, "three", "elsewhere")


RULES: tuple[Callable[[Counters], object], ...] = (
    an_account_gets_three_attempts_until_one_succeeds,
    attempts_under_way_count,
    a_success_forgives,
    an_address_never_has_more_than_its_wrong_ones_in_a_row,
    a_crowd_waits_for_room,
    a_throttled_account_rests_alone_and_two_of_them_rest_the_address,
)
