import asyncio

import pytest

from gateway.bridge.frames import Close, CloseCode, Frame
from gateway.bridge.mailbox import Mailbox


def event(seq: int) -> Frame:
    return Frame("log", seq, f"event {seq}")


def snapshot(seq: int) -> Frame:
    return Frame("snapshot", seq, f"snapshot {seq}")


def gap(to_seq: int) -> Frame:
    return Frame("gap", to_seq, f"gap {to_seq}")


def candle(price: int, key: str = "EURUSD-OTC 60") -> Frame:
    return Frame("candle", 0, f"candle {price}", key=key)


async def texts(mailbox: Mailbox) -> list[str | Close]:
    taken = []
    while True:
        try:
            async with asyncio.timeout(0):
                taken.append(await mailbox.take())
        except TimeoutError:
            return taken


async def test_events_come_out_in_order_and_none_twice() -> None:
    mailbox = Mailbox(10)
    for frame in (snapshot(2), event(2), event(3), event(3), snapshot(3), event(4)):
        mailbox.offer(frame)
    assert await texts(mailbox) == ["snapshot 2", "event 3", "event 4"]
    assert mailbox.cursor == 4


async def test_nothing_comes_before_the_first_snapshot() -> None:
    mailbox = Mailbox(10)
    for frame in (event(1), gap(1), snapshot(2)):
        mailbox.offer(frame)
    assert await texts(mailbox) == ["snapshot 2"]


async def test_an_answer_that_is_ready_before_the_first_snapshot_waits_for_it() -> None:
    mailbox = Mailbox(10)
    mailbox.say("pong")
    mailbox.restart(None)
    assert await texts(mailbox) == []
    mailbox.offer(snapshot(2))
    mailbox.say("heartbeat")
    assert await texts(mailbox) == ["snapshot 2", "pong", "heartbeat"]
    mailbox.restart(None)
    mailbox.say("pong")
    mailbox.restart(7)
    assert await texts(mailbox) == ["pong"]


async def test_gap_is_followed_by_its_snapshot_even_if_nothing_came_since() -> None:
    mailbox = Mailbox(10)
    mailbox.restart(3)
    for frame in (gap(7), snapshot(7), event(8)):
        mailbox.offer(frame)
    assert await texts(mailbox) == ["gap 7", "snapshot 7", "event 8"]


async def test_gap_that_the_socket_has_passed_is_left_out() -> None:
    mailbox = Mailbox(10)
    mailbox.restart(9)
    mailbox.offer(gap(7))
    assert await texts(mailbox) == []


async def test_waiting_candle_is_replaced_in_place_by_the_newer_one() -> None:
    mailbox = Mailbox(10)
    for frame in (snapshot(0), candle(1), event(1), candle(2), candle(7, "GBPUSD-OTC 60"), candle(3)):
        mailbox.offer(frame)
    assert await texts(mailbox) == ["snapshot 0", "candle 3", "event 1", "candle 7"]
    mailbox.offer(candle(4))
    assert await texts(mailbox) == ["candle 4"]


async def test_candles_alone_never_overflow() -> None:
    mailbox = Mailbox(2)
    for price in range(100):
        mailbox.offer(candle(price))
    assert not mailbox.ended.done()


async def test_socket_that_does_not_keep_up_is_ended() -> None:
    mailbox = Mailbox(3)
    mailbox.restart(0)
    for seq in range(1, 5):
        mailbox.offer(event(seq))
    assert mailbox.ended.result().code is CloseCode.CONSUMER_TOO_SLOW


async def test_close_of_a_frame_comes_after_everything_before_it() -> None:
    mailbox = Mailbox(10)
    close = Close(CloseCode.SESSION_EXPIRED, "SESSION_EXPIRED")
    mailbox.restart(0)
    mailbox.offer(event(1))
    mailbox.offer(Frame("session_closed", 2, "closed", close=close))
    assert await texts(mailbox) == ["event 1", "closed", close]
    assert not mailbox.ended.done()


async def test_first_reason_to_end_wins() -> None:
    mailbox = Mailbox(1)
    mailbox.end(Close(CloseCode.GOING_AWAY, "a"))
    mailbox.end(Close(CloseCode.INTERNAL, "b"))
    assert mailbox.ended.result().code is CloseCode.GOING_AWAY


async def test_room_waits_until_half_is_taken() -> None:
    mailbox = Mailbox(4)
    mailbox.restart(0)
    for seq in (1, 2, 3):
        mailbox.offer(event(seq))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await mailbox.room()
    await mailbox.take()
    async with asyncio.timeout(1):
        await mailbox.room()


async def test_restart_forgets_what_waits() -> None:
    mailbox = Mailbox(4)
    for frame in (snapshot(5), candle(1), event(6)):
        mailbox.offer(frame)
    mailbox.restart(2)
    mailbox.offer(event(3))
    mailbox.offer(candle(2))
    assert await texts(mailbox) == ["event 3", "candle 2"]
