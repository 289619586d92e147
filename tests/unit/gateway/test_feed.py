import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from gateway.bridge.feed import Feed
from gateway.bridge.frames import Close, Frame
from gateway.bridge.mailbox import Mailbox
from gateway.bridge.upstream import Upstream


class ScriptedUpstream:
    """Hands each stream that is opened the next queue; a test puts frames in whenever it likes."""

    def __init__(self) -> None:
        self.opened: list[int | None] = []
        self.streams: deque[asyncio.Queue[Frame]] = deque()

    def expect(self) -> asyncio.Queue[Frame]:
        """Prepare the next stream."""
        self.streams.append(asyncio.Queue())
        return self.streams[-1]

    async def follow(self, _session_id: str, last_seq: int | None) -> AsyncGenerator[Frame, None]:
        self.opened.append(last_seq)
        stream = self.streams.popleft()
        while True:
            yield await stream.get()


def event(seq: int) -> Frame:
    return Frame("log", seq, f"event {seq}")


def snapshot(seq: int) -> Frame:
    return Frame("snapshot", seq, f"snapshot {seq}")


async def settle() -> None:
    """Let every task run until it waits for something that only the test can bring."""
    for _ in range(50):
        await asyncio.sleep(0)


async def taken(mailbox: Mailbox, count: int) -> list[str | Close]:
    async with asyncio.timeout(5):
        return [await mailbox.take() for _ in range(count)]


class Rig:
    def __init__(self) -> None:
        self.upstream = ScriptedUpstream()
        self.live = self.upstream.expect()
        self.feed = Feed("s", cast("Upstream", self.upstream))
        self.tasks: list[asyncio.Task[None]] = []

    def subscribe(self, mailbox: Mailbox, last_seq: int | None) -> None:
        self.tasks.append(asyncio.create_task(self.feed.subscribe(mailbox, last_seq)))


@asynccontextmanager
async def running() -> AsyncIterator[Rig]:
    rig = Rig()
    rig.tasks.append(asyncio.create_task(rig.feed.run()))
    try:
        yield rig
    finally:
        for task in rig.tasks:
            task.cancel()
        await asyncio.gather(*rig.tasks, return_exceptions=True)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as rig:
        rig.live.put_nowait(snapshot(5))
        await settle()
        yield rig


async def test_replay_waits_for_a_slow_socket_instead_of_ending_it(rig: Rig) -> None:
    past = rig.upstream.expect()
    for seq in range(1, 101):
        past.put_nowait(event(seq))
    mailbox = Mailbox(4)
    rig.subscribe(mailbox, 0)
    await settle()
    assert not mailbox.ended.done()
    assert await taken(mailbox, 5) == [f"event {seq}" for seq in range(1, 6)]


async def test_socket_joins_the_live_events_exactly_where_its_replay_ends(rig: Rig) -> None:
    past = rig.upstream.expect()
    mailbox = Mailbox(20)
    rig.subscribe(mailbox, 3)
    await settle()
    rig.live.put_nowait(event(6))  # while it catches up
    await settle()
    for seq in (4, 5, 6):
        past.put_nowait(event(seq))
    await settle()
    rig.live.put_nowait(event(7))
    assert await taken(mailbox, 4) == ["event 4", "event 5", "event 6", "event 7"]
    assert rig.upstream.opened == [None, 3]


async def test_what_both_streams_bring_arrives_once(rig: Rig) -> None:
    past = rig.upstream.expect()
    mailbox = Mailbox(20)
    rig.subscribe(mailbox, 4)
    # Two in one read: the second is not asked for any more, the live stream brings it.
    past.put_nowait(event(5))
    past.put_nowait(event(6))
    await settle()
    for seq in (5, 6, 7):
        rig.live.put_nowait(event(seq))
    assert await taken(mailbox, 3) == ["event 5", "event 6", "event 7"]


async def test_gap_brings_its_snapshot_also_when_the_live_events_are_behind(rig: Rig) -> None:
    past = rig.upstream.expect()
    mailbox = Mailbox(20)
    rig.subscribe(mailbox, 6)
    past.put_nowait(Frame("gap", 9, "gap 9"))
    past.put_nowait(snapshot(9))
    await settle()
    rig.live.put_nowait(event(9))
    rig.live.put_nowait(event(10))
    assert await taken(mailbox, 3) == ["gap 9", "snapshot 9", "event 10"]


async def test_subscribing_again_takes_a_live_socket_back_first(rig: Rig) -> None:
    first, past = rig.upstream.expect(), rig.upstream.expect()
    first.put_nowait(snapshot(5))
    mailbox = Mailbox(20)
    rig.subscribe(mailbox, None)
    await settle()
    rig.subscribe(mailbox, 3)
    await settle()
    rig.live.put_nowait(event(6))
    await settle()
    for seq in (4, 5, 6):
        past.put_nowait(event(seq))
    assert await taken(mailbox, 3) == ["event 4", "event 5", "event 6"]


async def test_first_socket_shares_the_snapshot_of_the_live_stream() -> None:
    async with running() as rig:
        mailbox = Mailbox(20)
        rig.subscribe(mailbox, None)
        await settle()
        rig.live.put_nowait(snapshot(5))
        assert await taken(mailbox, 1) == ["snapshot 5"]
        assert rig.upstream.opened == [None]


async def test_replay_waits_until_now_is_known() -> None:
    async with running() as rig:
        mailbox = Mailbox(20)
        rig.subscribe(mailbox, 5)
        await settle()
        assert rig.upstream.opened == [None]
        rig.live.put_nowait(snapshot(5))
        await settle()
        rig.live.put_nowait(event(6))
        assert await taken(mailbox, 1) == ["event 6"]
        assert rig.upstream.opened == [None]
