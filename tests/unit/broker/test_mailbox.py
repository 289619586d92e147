"""The bounded queue between the broker's pushes and a slow reader."""

import asyncio

import pytest

from services.broker.domain.errors import BrokerUnavailableError, NotConnectedError
from services.broker.mailbox import Hub, Mailbox


async def test_the_newest_value_of_a_key_wins_and_goes_to_the_back() -> None:
    mailbox: Mailbox[int] = Mailbox()
    for key, value in (("a", 1), ("b", 2), ("a", 3)):
        mailbox.put(key, value)
    assert [await mailbox.get(), await mailbox.get()] == [2, 3]


async def test_a_reader_waits_for_the_next_value() -> None:
    mailbox: Mailbox[int] = Mailbox()
    reading = asyncio.ensure_future(mailbox.get())
    await asyncio.sleep(0)
    mailbox.put("a", 1)
    assert await reading == 1


async def test_what_waits_is_read_before_the_end() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.put("a", 1)
    mailbox.close(NotConnectedError())
    mailbox.put("b", 2)
    assert await mailbox.get() == 1
    with pytest.raises(NotConnectedError):
        await mailbox.get()


async def test_the_first_reason_of_the_end_stands() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.close(NotConnectedError())
    mailbox.close(BrokerUnavailableError())
    with pytest.raises(NotConnectedError):
        await mailbox.get()


async def test_a_reader_that_is_too_slow_is_cut_off_not_silently_short() -> None:
    mailbox: Mailbox[int] = Mailbox(limit=3)
    for n in range(5):
        mailbox.put(n, n)
    with pytest.raises(BrokerUnavailableError):
        await mailbox.get()


async def test_a_cancelled_reader_loses_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox()
    reading = asyncio.ensure_future(mailbox.get())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    mailbox.put("a", 1)
    assert await mailbox.get() == 1


async def test_a_hub_reaches_all_readers_until_they_leave() -> None:
    hub: Hub[int] = Hub()
    one, two = hub.join(), hub.join()
    hub.publish("a", 1)
    hub.leave(one)
    hub.publish("b", 2)
    assert await one.get() == 1
    assert [await two.get(), await two.get()] == [1, 2]
    assert len(hub) == 1
