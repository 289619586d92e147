"""The live tail of the event log: Redis Streams between replicas, fan-out in memory, the ledger for whatever is missing.

After its commit an event goes to the readers in this process at once, and by a Redis stream ``events:<key>`` under the id
``<seq>-0`` to those in others. Redis may be wiped, trimmed or away, an event may be published late, twice or never: about
once a second the ledger is asked where the logs of watched sessions end, and every reader fills from there what has not come
by the next time, or at once while Redis is away.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol, Self

from redis.asyncio import Redis

from services.runtime.cancelling import end_if_cancelled
from services.runtime.clock import Clock
from services.session.adapters.event_feed import Feed
from services.session.adapters.presence import REDIS_AWAY, Presence
from services.session.domain.errors import UnavailableError
from services.session.domain.events import SessionEnded, StoredEvent
from services.session.domain.values import SessionKey

_STREAM: Final = "events:"
_STREAM_LENGTH: Final = 1000
_STREAM_LIFE: Final = 3600
"""Seconds after its last event at which a stream vanishes; the ledger has it all."""
_OUTBOX: Final = 10_000
"""Events that wait for Redis at most; the oldest go first, readers elsewhere find them in the ledger."""
_BATCH: Final = 200
_BLOCK: Final = 1000
"""Milliseconds that one read of the streams waits; less than the socket's timeout."""
_AWAY_PAUSE: Final = 0.5
_LEDGER_PAUSE: Final = 0.5
_CHECK_EVERY: Final = 1.0
_CHECK_AT_ONCE: Final = 2000
_DRAIN_TIME: Final = 1.0
# A read names every watched stream, so it costs in proportion to their number. Between two reads this much time per
# stream passes: the cost per second stays the same, and at 5,000 streams an event comes 50 ms later.
_PAUSE_PER_STREAM: Final = 0.000_01


class LogEnd(Protocol):
    """Where a log ends."""

    @property
    def last_seq(self) -> int:
        """Seq of its last event."""
        ...

    @property
    def ended(self) -> bool:
        """No event will follow."""
        ...


class EventSource(Protocol):
    """What this needs of the ledger."""

    async def events_after(self, key: SessionKey, seq: int, limit: int) -> Sequence[StoredEvent]:
        """Return up to ``limit`` events after ``seq``, ascending, without holes."""
        ...

    async def log_ends(self, keys: Sequence[SessionKey]) -> Mapping[SessionKey, LogEnd]:
        """Return where logs end."""
        ...


Missing = Callable[[SessionKey, int], Awaitable[Sequence[StoredEvent]]]
"""Reads what follows a seq from the ledger, as often as it takes; nothing if that is not there any more."""


class _Reader:
    """One subscriber's place in a log. It may be cancelled at any await and goes on where it was."""

    def __init__(self, key: SessionKey, feed: Feed, place: int, missing: Missing) -> None:
        self._key = key
        self._feed = feed
        self._place = place
        self._missing = missing
        self._read: deque[StoredEvent] = deque()
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoredEvent:
        while not self._over and not self._feed.drained:
            changed = self._feed.changed
            if not self._read and self._place < self._feed.latest:
                found = self._feed.get(self._place + 1)
                self._read.extend([found] if found is not None else await self._missing(self._key, self._place))
            if self._read:
                event = self._read.popleft()
                self._place = event.seq
                self._over = event.type == SessionEnded.type
                return event
            if self._feed.ended:
                break
            await changed.wait()
        raise StopAsyncIteration


class RedisEventLog:
    """The ``EventLog`` port, and the ledger's ``publish``.

    Args:
        redis: The way to other replicas.
        source: The ledger.
        clock: Time.
        name: This process's own; two never share one.
    """

    def __init__(self, redis: Redis, source: EventSource, *, clock: Clock, name: str) -> None:
        self._redis = redis
        self._source = source
        self._clock = clock
        self._feeds: dict[SessionKey, Feed] = {}
        self._outbox: deque[tuple[SessionKey, StoredEvent]] = deque(maxlen=_OUTBOX)
        self._filled = asyncio.Event()
        self._watched = asyncio.Event()
        self._drained = False
        self._wake_stream = f"wake:{name}"
        self._wake_id = "0-0"
        self._writing = Presence("event streams, writing")
        self._reading = Presence("event streams, reading")

    def publish(self, key: SessionKey, event: StoredEvent, /) -> None:
        """Take a committed event: to the readers here now, to those elsewhere soon."""
        if (feed := self._feeds.get(key)) is not None:
            feed.add(event)
        self._outbox.append((key, event))
        self._filled.set()

    async def run(self) -> None:
        """Publish and read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write())
            tasks.create_task(self._read())
            tasks.create_task(self._check())

    async def drain(self) -> None:
        """End every subscription and publish what is left."""
        self._drained = True
        for feed in self._feeds.values():
            feed.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_TIME):
                while self._outbox:
                    await self._write_batch()

    @asynccontextmanager
    async def subscribe(self, key: SessionKey, after_seq: int) -> AsyncIterator[AsyncIterator[StoredEvent]]:
        """Iterate over the events after ``after_seq``, in order, without holes or repeats, then live.

        Raises:
            UnavailableError: The ledger is away now; a subscription that stands survives its absence.
        """
        feed = self._feeds.setdefault(key, Feed())
        feed.drained = self._drained
        feed.readers += 1
        try:
            # What happened before anybody here listened.
            self._learn(await self._source.log_ends([key]))
            if feed.readers == 1:
                await self._wake_reader()
            yield _Reader(key, feed, after_seq, self._missing)
        finally:
            feed.readers -= 1
            if not feed.readers:
                del self._feeds[key]

    async def _missing(self, key: SessionKey, place: int) -> Sequence[StoredEvent]:
        """Read from the ledger, however long it takes."""
        while True:
            try:
                return await self._source.events_after(key, place, _BATCH)
            except UnavailableError as error:
                end_if_cancelled(error)
                await self._clock.sleep(_LEDGER_PAUSE)
                if self._drained:
                    return ()

    async def _check(self) -> None:
        """Ask the ledger where the watched logs end: what was never published comes to light here."""
        before: Mapping[SessionKey, LogEnd] = {}
        while True:
            await self._clock.sleep(_CHECK_EVERY)
            keys = list(self._feeds)
            ends: dict[SessionKey, LogEnd] = {}
            for start in range(0, len(keys), _CHECK_AT_ONCE):
                with suppress(UnavailableError):
                    ends |= await self._source.log_ends(keys[start : start + _CHECK_AT_ONCE])
            # What was committed just now is on its way by the stream. Every reader that is told of it would ask the ledger,
            # the busiest sessions' all at once. What was there a look ago should have come by now.
            self._learn(ends if self._reading.is_away else before)
            before = ends

    def _learn(self, ends: Mapping[SessionKey, LogEnd]) -> None:
        for key, end in ends.items():
            if (feed := self._feeds.get(key)) is not None:
                feed.learn(end.last_seq, ended=end.ended)

    async def _write(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._outbox:
                await self._write_batch()

    async def _write_batch(self) -> None:
        """Publish some events, each at most once: what fails is left to the readers' look at the ledger."""
        batch = [self._outbox.popleft() for _ in range(min(_BATCH, len(self._outbox)))]
        pipeline = self._redis.pipeline(transaction=False)
        for key, event in batch:
            fields: dict[Any, Any] = {"type": event.type, "payload": event.payload}
            pipeline.xadd(_STREAM + key, fields, id=f"{event.seq}-0", maxlen=_STREAM_LENGTH, approximate=True)
        for key in {key for key, _ in batch}:
            pipeline.expire(_STREAM + key, _STREAM_LIFE)
        try:
            # An id that is not above the stream's last one is refused: the event is there, or a later one overtook it.
            await pipeline.execute(raise_on_error=False)
        except REDIS_AWAY as error:
            self._writing.away(error)
        else:
            self._writing.here()

    async def _read(self) -> None:
        while True:
            if not self._feeds:
                self._watched.clear()
                await self._watched.wait()
            streams: dict[Any, Any] = {_STREAM + key: f"{feed.latest}-0" for key, feed in self._feeds.items()}
            streams[self._wake_stream] = self._wake_id
            try:
                answer: Any = await self._redis.xread(streams, _BATCH, _BLOCK)
            except REDIS_AWAY as error:
                self._reading.away(error)
                await self._clock.sleep(_AWAY_PAUSE)
                continue
            self._reading.here()
            for stream, entries in answer:
                self._take(stream.decode(), entries)
            await self._clock.sleep(_PAUSE_PER_STREAM * len(streams))

    def _take(self, stream: str, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> None:
        if stream == self._wake_stream:
            self._wake_id = entries[-1][0].decode()
            return
        feed = self._feeds.get(SessionKey(stream.removeprefix(_STREAM)))
        if feed is None:
            return
        for entry_id, fields in entries:
            seq = int(entry_id.partition(b"-")[0])
            feed.add(StoredEvent(seq, fields[b"type"].decode(), fields[b"payload"]))

    async def _wake_reader(self) -> None:
        """Let the reader begin anew with the streams as they now are."""
        self._watched.set()
        with suppress(*REDIS_AWAY):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.xadd(self._wake_stream, {"": ""}, maxlen=1, approximate=False)
            pipeline.expire(self._wake_stream, _STREAM_LIFE)
            await pipeline.execute()
