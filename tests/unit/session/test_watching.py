"""The event stream: snapshot first, then every event once and in order; replay, gap, candles, end."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.session.domain.errors import SessionNotFoundError, UnavailableError
from services.session.domain.events import LogWritten, StoredEvent
from services.session.domain.values import SessionKey
from services.session.use_cases.watching import CandleFrame, Frame, Gap, Snapshot
from tests.support.session_world import World, a_manual_trade, running, settle


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as world:
        yield world


class Watcher:
    """A client that keeps what it gets."""

    def __init__(self, world: World, key: SessionKey, last_seq: int | None = None) -> None:
        self.frames: list[Frame] = []
        self.error: Exception | None = None
        self.task = asyncio.create_task(self._watch(world, key, last_seq))

    async def _watch(self, world: World, key: SessionKey, last_seq: int | None) -> None:
        try:
            async for frame in world.watching.watch(key, last_seq):
                self.frames.append(frame)
        except (SessionNotFoundError, UnavailableError) as error:
            self.error = error

    @property
    def seqs(self) -> list[int]:
        return [frame.seq for frame in self.frames if isinstance(frame, StoredEvent)]

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def _say(world: World, key: SessionKey, times: int) -> None:
    for number in range(times):
        await world.ledger.emit(key, LogWritten("info", str(number)))


async def test_a_snapshot_comes_first_and_every_later_event_once(world: World) -> None:
    key = await world.key()
    await _say(world, key, 3)
    watcher = Watcher(world, key)
    await settle()
    await _say(world, key, 3)
    await settle()
    first = watcher.frames[0]
    assert isinstance(first, Snapshot)
    assert (first.status.seq, watcher.seqs) == (3, [4, 5, 6])
    await watcher.leave()


async def test_the_snapshot_holds_the_open_trades(world: World) -> None:
    key = await world.key()
    trade = await world.sessions.place_trade(a_manual_trade(key))
    watcher = Watcher(world, key)
    await settle()
    first = watcher.frames[0]
    assert isinstance(first, Snapshot)
    assert [open_trade.trade_id for open_trade in first.status.open_trades] == [trade.trade_id]
    await watcher.leave()


async def test_resuming_replays_everything_after_the_last_seq_without_a_snapshot(world: World) -> None:
    key = await world.key()
    await _say(world, key, 5)
    watcher = Watcher(world, key, last_seq=2)
    await settle()
    await _say(world, key, 1)
    await settle()
    assert (watcher.seqs, len(watcher.frames)) == ([3, 4, 5, 6], 4)
    await watcher.leave()


async def test_a_log_that_does_not_reach_back_gives_a_gap_and_a_snapshot(world: World) -> None:
    key = await world.key()
    await _say(world, key, 9)
    world.ledger.forget_events(key, 5)
    watcher = Watcher(world, key, last_seq=2)
    await settle()
    await _say(world, key, 1)
    await settle()
    gap, snapshot = watcher.frames[:2]
    assert isinstance(gap, Gap)
    assert isinstance(snapshot, Snapshot)
    assert (gap.from_seq, gap.to_seq, snapshot.status.seq, watcher.seqs) == (3, 9, 9, [10])
    await watcher.leave()


async def test_a_last_seq_from_the_future_gives_a_snapshot(world: World) -> None:
    key = await world.key()
    await _say(world, key, 2)
    watcher = Watcher(world, key, last_seq=70)
    await settle()
    assert isinstance(watcher.frames[0], Snapshot)
    await _say(world, key, 1)
    await settle()
    assert watcher.seqs == [3]
    await watcher.leave()


async def test_several_watchers_all_get_every_event(world: World) -> None:
    key = await world.key()
    watchers = [Watcher(world, key) for _ in range(3)]
    await settle()
    await _say(world, key, 4)
    await settle()
    assert [watcher.seqs for watcher in watchers] == [[1, 2, 3, 4]] * 3
    for watcher in watchers:
        await watcher.leave()


async def test_nobody_sees_another_sessions_events(world: World) -> None:
    mine, other = await world.key("ann@example.com"), await world.key("bob@example.com")
    watcher = Watcher(world, mine)
    await settle()
    await _say(world, other, 4)
    await world.signals.publish_candle(other, b"candle")
    await settle()
    assert len(watcher.frames) == 1
    await watcher.leave()


async def test_candles_come_in_between(world: World) -> None:
    key = await world.key()
    watcher = Watcher(world, key)
    await settle()
    assert await world.signals.publish_candle(key, b"candle") == 1
    await settle()
    assert watcher.frames[1:] == [CandleFrame(b"candle")]
    await watcher.leave()


async def test_the_stream_ends_after_session_closed(world: World) -> None:
    key = await world.key()
    watcher = Watcher(world, key)
    await settle()
    await world.sessions.disconnect(key)
    await settle()
    assert watcher.task.done()
    assert watcher.error is None
    last = watcher.frames[-1]
    assert isinstance(last, StoredEvent)
    assert last.type == "session_closed"


async def test_a_replica_that_stops_ends_the_stream_so_that_the_client_resumes(world: World) -> None:
    key = await world.key()
    watcher = Watcher(world, key)
    await settle()
    await world.log.drain()
    await settle()
    assert isinstance(watcher.error, UnavailableError)


async def test_a_dead_session_cannot_be_watched(world: World) -> None:
    key = await world.key()
    await world.sessions.disconnect(key)
    watcher = Watcher(world, key)
    await settle()
    assert isinstance(watcher.error, SessionNotFoundError)


async def test_an_open_stream_keeps_the_session_alive(world: World) -> None:
    key = await world.key()
    watcher = Watcher(world, key)
    await world.pass_time(4000, step=10)
    assert not watcher.task.done()
    assert "session_expiring" not in world.ledger.types(key)
    await watcher.leave()
    await world.pass_time(3700, step=10)
    with pytest.raises(SessionNotFoundError):
        await world.sessions.live(key)


async def test_a_runner_that_moved_while_redis_was_away_is_told_again_that_somebody_watches(world: World) -> None:
    key = await world.key()
    watcher = Watcher(world, key)
    await settle()
    world.signals.tells_watchers = False
    world.leases.incarnation = "second"
    await world.pass_time(5)
    assert world.broker.watchers(key) == 0
    await world.pass_time(45)
    assert world.broker.watchers(key) == 1
    await watcher.leave()
