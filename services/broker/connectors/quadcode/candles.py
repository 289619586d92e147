"""Live candles: one subscription per asset and timeframe, however many readers, with the holes filled from history."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from services.broker.connectors.quadcode.messages import CandleMessage
from services.broker.connectors.quadcode.parsing import parse_candle
from services.broker.domain.errors import BrokerError
from services.broker.domain.values import Candle
from services.broker.mailbox import Hub, Mailbox

FORMING: Final = "forming"
MAX_WAITING: Final = 1_000
"""Closed candles that are held back while a hole is filled; beyond it the hole stays."""

FetchCandles = Callable[[int, int, int, int], Awaitable[Sequence[Candle]]]
"""Reads candles of (active id, timeframe) that start in [from, before), unix seconds."""

_candle: Final = msgspec.json.Decoder(CandleMessage)


class CandleFeed:
    """The candles of one asset and timeframe on one connection.

    A candle closes when a push of a later one arrives: its last pushed state is then published as closed. After a hole
    (a lost connection, a lost push) everything from the last closed candle on is read from history first, and what
    arrives meanwhile is held back, so that readers see closed candles in order and each once.
    """

    __slots__ = ("_forming", "_last_closed", "_waiting", "active_id", "hub", "timeframe")

    def __init__(self, active_id: int, timeframe: int) -> None:
        self.active_id = active_id
        self.timeframe = timeframe
        self.hub: Hub[Candle] = Hub()
        self._forming: Candle | None = None
        self._last_closed: int | None = None
        """Start of the last candle that was published as closed."""
        self._waiting: list[Candle] | None = None
        """Closed candles held back while a hole is being filled; None if none is."""

    def take(self, message: CandleMessage) -> bool:
        """Take a push. True if there is a hole: call ``fill`` then."""
        candle = parse_candle(message, self.timeframe, closed=False)
        previous = self._forming
        if self._last_closed is not None and candle.open_time <= self._last_closed:
            return False
        if previous is not None and candle.open_time < previous.open_time:
            return False
        self._forming = candle
        if previous is not None and candle.open_time > previous.open_time:
            if candle.open_time > previous.close_time and self._waiting is None:
                # The candle before the hole may have gone on after its last push: history has its true end.
                self._hold_back_after(previous.open_time - self.timeframe)
                return True
            self._close(replace(previous, closed=True))
        if self._waiting is None:
            self.hub.publish(FORMING, candle)
        return False

    @property
    def has_hole(self) -> bool:
        """Whether ``fill`` has to be called."""
        return self._waiting is not None

    def hole_start(self) -> int:
        """Return the start of the first candle that is missing, unix seconds."""
        return 0 if self._last_closed is None else self._last_closed + self.timeframe

    def interrupt(self) -> None:
        """The connection was lost: if anything was seen, there is a hole from there on."""
        if self._waiting is None and self._forming is not None:
            # It may close unseen: history has its true end.
            self._last_closed = self._forming.open_time - self.timeframe
        self._forming = None
        if self._last_closed is not None:
            self._hold_back_after(self._last_closed)

    async def fill(self, fetch: FetchCandles, before: int) -> None:
        """Publish what history has after the last closed candle and then what was held back."""
        try:
            listed = await fetch(self.active_id, self.timeframe, self.hole_start(), before)
        except BrokerError:
            # Lost again: the next interrupt() begins at the same candle. Refused: the hole stays.
            listed = ()
        waiting, self._waiting = self._waiting or [], None
        for candle in listed:
            if candle.closed or (self._forming is not None and candle.open_time < self._forming.open_time):
                self._close(replace(candle, closed=True))
            elif self._forming is None:
                self._forming = candle
        for candle in waiting:
            self._close(candle)
        if self._forming is not None:
            self.hub.publish(FORMING, self._forming)

    def _hold_back_after(self, last_closed: int) -> None:
        self._last_closed = last_closed
        self._waiting = []

    def _close(self, candle: Candle) -> None:
        if self._last_closed is not None and candle.open_time <= self._last_closed:
            return
        if self._waiting is not None:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(candle)
            return
        self._last_closed = candle.open_time
        self.hub.publish(candle.open_time, candle)


class CandleFeeds:
    """All feeds of one connection."""

    __slots__ = ("_feeds",)

    def __init__(self) -> None:
        self._feeds: dict[tuple[int, int], CandleFeed] = {}

    def __iter__(self) -> Iterator[CandleFeed]:
        return iter(list(self._feeds.values()))

    def join(self, active_id: int, timeframe: int) -> tuple[CandleFeed, Mailbox[Candle], bool]:
        """Add a reader; the flag tells whether it is the first, so that the caller subscribes."""
        feed = self._feeds.get((active_id, timeframe))
        first = feed is None
        if feed is None:
            feed = self._feeds[active_id, timeframe] = CandleFeed(active_id, timeframe)
        return feed, feed.hub.join(), first

    def leave(self, feed: CandleFeed, mailbox: Mailbox[Candle]) -> bool:
        """Remove a reader; True if it was the last, so that the caller unsubscribes."""
        feed.hub.leave(mailbox)
        if len(feed.hub):
            return False
        return self._feeds.pop((feed.active_id, feed.timeframe), None) is not None

    def take(self, msg: msgspec.Raw) -> CandleFeed | None:
        """Take a push; return the feed if it has a hole to fill."""
        message = _candle.decode(msg)
        feed = self._feeds.get((message.active_id, message.size))
        return feed if feed is not None and feed.take(message) else None

    def close(self, error: BrokerError) -> None:
        """End all readers' streams."""
        for feed in self._feeds.values():
            feed.hub.close(error)
