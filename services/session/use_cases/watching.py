"""A session's event stream: snapshot or replay first, then every event once and in order, candles in between."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.runtime.clock import Clock
from services.session.domain.errors import SessionNotFoundError, UnavailableError
from services.session.domain.events import SessionEnded, SessionStatus, StoredEvent
from services.session.domain.values import AccountType, SessionKey, SessionState
from services.session.ports import Activity, EventLog, Ledger, Signals

_TOUCH_EVERY: Final = 20.0
"""Seconds between two touches of a session that is watched."""
_DURABLE: Final = timedelta(minutes=1)
"""Age at which Activity passes a touch on to the ledger."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state, up to its seq."""

    status: SessionStatus


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that the log no longer has; a snapshot follows."""

    from_seq: int
    to_seq: int
    account_type: AccountType


@dataclass(frozen=True, slots=True)
class CandleFrame:
    """A serialized candle Event."""

    payload: bytes


Frame = Snapshot | Gap | StoredEvent | CandleFrame


class Watching:
    """Streams events to whoever knows the session."""

    def __init__(self, ledger: Ledger, activity: Activity, log: EventLog, signals: Signals, clock: Clock) -> None:
        self._ledger = ledger
        self._activity = activity
        self._log = log
        self._signals = signals
        self._clock = clock

    async def watch(self, key: SessionKey, last_seq: int | None) -> AsyncGenerator[Frame, None]:
        """Iterate over the session's frames until it is closed.

        Without ``last_seq``, or with one the session has not reached, the first frame is a snapshot; with it everything
        after it comes first, or a gap and a snapshot if the log does not reach back. An open stream is activity.

        Raises:
            SessionNotFoundError: The session is not ACTIVE.
            UnavailableError: The replica stops, or what it reads from is away: resume with the last seq.
        """
        record = await self._ledger.session(key)
        if record is None or record.state is not SessionState.ACTIVE:
            raise SessionNotFoundError
        touched = await self._touch(key, record.last_seen)
        # The runner sends candles only while somebody watches; this tells it.
        await self._signals.wake(key)
        if last_seq is None or last_seq > record.last_seq:
            snapshot = await self._snapshot(key)
            yield snapshot
            seq = snapshot.status.seq
        else:
            seq = last_seq
        while True:
            has_gap = False
            async with aclosing(self._follow(key, seq, touched)) as frames:
                async for frame in frames:
                    if not isinstance(frame, StoredEvent):
                        yield frame
                        continue
                    has_gap = frame.seq > seq + 1
                    if has_gap:
                        break
                    seq = frame.seq
                    yield frame
                    if frame.type == SessionEnded.type:
                        return
            if not has_gap:
                raise UnavailableError("The event stream")
            # Whatever happened since then is in the snapshot, so the gap reaches up to it.
            snapshot = await self._snapshot(key)
            yield Gap(seq + 1, snapshot.status.seq, snapshot.status.account_type)
            yield snapshot
            seq = snapshot.status.seq

    async def _snapshot(self, key: SessionKey) -> Snapshot:
        status = await self._ledger.status(key)
        if status is None:
            raise SessionNotFoundError
        return Snapshot(status)

    async def _touch(self, key: SessionKey, durable: datetime) -> datetime:
        """Touch, and return what the ledger then knows of the last activity."""
        await self._activity.touch(key, durable_last_seen=durable)
        now = self._clock.now()
        return now if now - durable >= _DURABLE else durable

    async def _follow(self, key: SessionKey, after_seq: int, touched: datetime) -> AsyncGenerator[Frame, None]:
        """Merge events and candles; touch the session now and then."""
        async with self._log.subscribe(key, after_seq) as events, self._signals.candles(key) as candles:
            waiting: dict[
                asyncio.Task[StoredEvent | bytes | None], AsyncIterator[StoredEvent] | AsyncIterator[bytes]
            ] = {}
            for source in (events, candles):
                waiting[asyncio.create_task(_next(source))] = source
            quiet = False
            tick = asyncio.create_task(self._clock.sleep(_TOUCH_EVERY))
            try:
                while True:
                    done, _ = await asyncio.wait({*waiting, tick}, return_when=asyncio.FIRST_COMPLETED)
                    if tick in done:
                        touched = await self._touch(key, touched)
                        if quiet:
                            # No candle for a while: the session may have moved to a runner that never heard of us.
                            await self._signals.wake(key)
                        quiet = True
                        tick = asyncio.create_task(self._clock.sleep(_TOUCH_EVERY))
                    for task in list(waiting):
                        if task not in done:
                            continue
                        source = waiting.pop(task)
                        item = task.result()
                        if item is None:
                            if source is events:
                                return
                            continue
                        waiting[asyncio.create_task(_next(source))] = source
                        if isinstance(item, bytes):
                            quiet = False
                            yield CandleFrame(item)
                        else:
                            yield item
            finally:
                for task in (*waiting, tick):
                    task.cancel()
                await asyncio.gather(*waiting, tick, return_exceptions=True)


async def _next(source: AsyncIterator[StoredEvent] | AsyncIterator[bytes]) -> StoredEvent | bytes | None:
    return await anext(source, None)
