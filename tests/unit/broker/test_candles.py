"""Live candles: closed once each, in order, and without holes."""

from collections.abc import Sequence

from services.broker.connectors.quadcode.candles import CandleFeed
from services.broker.connectors.quadcode.messages import CandleMessage
from services.broker.domain.errors import BrokerUnavailableError
from services.broker.domain.values import Candle

START = 1_795_489_200


def message(n: int, close: float = 1.0) -> CandleMessage:
    start = START + n * 60
    return CandleMessage(from_=start, open=1.0, close=close, min=0.5, max=2.0, active_id=76, size=60)


def listed(n: int, close: float, *, closed: bool = True) -> Candle:
    start = START + n * 60
    return Candle(start, start + 60, 1.0, 2.0, 0.5, close, 0.0, closed)


class Reader:
    """A feed and what a reader of it gets."""

    def __init__(self) -> None:
        self.feed = CandleFeed(76, 60)
        self._mailbox = self.feed.hub.join()

    async def closed(self) -> list[tuple[int, float]]:
        """Take what waits and return the closed ones, as (number, close)."""
        return [((c.open_time - START) // 60, c.close) for c in await self.all() if c.closed]

    async def all(self) -> list[Candle]:
        taken = []
        while self._mailbox._values:
            taken.append(await self._mailbox.get())
        return taken


def history(*candles: Candle) -> "Fetch":
    return Fetch(candles)


class Fetch:
    def __init__(self, candles: Sequence[Candle], error: Exception | None = None) -> None:
        self.candles, self.error = candles, error
        self.asked: list[tuple[int, int]] = []

    async def __call__(self, _active_id: int, _timeframe: int, start: int, before: int) -> Sequence[Candle]:
        self.asked.append((start, before))
        if self.error is not None:
            raise self.error
        return [c for c in self.candles if start <= c.open_time < before]


async def test_a_candle_closes_as_last_seen_when_a_later_one_comes() -> None:
    reader = Reader()
    for n, close in ((0, 1.1), (0, 1.2), (1, 1.3)):
        assert not reader.feed.take(message(n, close))
    candles = await reader.all()
    assert [(c.close, c.closed) for c in candles] == [(1.2, True), (1.3, False)], "states in between are conflated"


async def test_late_pushes_of_a_closed_candle_change_nothing() -> None:
    reader = Reader()
    for n, close in ((0, 1.1), (1, 1.2), (0, 9.9), (1, 1.3), (2, 1.4)):
        reader.feed.take(message(n, close))
    assert await reader.closed() == [(0, 1.1), (1, 1.3)]


async def test_no_closed_candle_is_lost_on_a_slow_reader() -> None:
    reader = Reader()
    for n in range(500):
        reader.feed.take(message(n, 1.0 + n / 1000))
    assert [n for n, _ in await reader.closed()] == list(range(499))


async def test_a_hole_between_pushes_is_filled_from_history_before_anything_later() -> None:
    reader = Reader()
    reader.feed.take(message(0, 1.1))
    assert reader.feed.take(message(3, 1.4)), "asks to be filled"
    assert not reader.feed.take(message(4, 1.5)), "but once"
    assert await reader.closed() == []
    fetch = history(listed(0, 1.15), listed(1, 1.2), listed(2, 1.3), listed(3, 1.45))
    await reader.feed.fill(fetch, START + 10 * 60)
    assert fetch.asked[0][0] == START, "the candle before the hole may have gone on unseen"
    assert await reader.closed() == [(0, 1.15), (1, 1.2), (2, 1.3), (3, 1.45)]


async def test_an_interruption_is_filled_from_the_candle_that_was_forming() -> None:
    reader = Reader()
    reader.feed.take(message(0, 1.1))
    reader.feed.take(message(1, 1.2))
    assert await reader.closed() == [(0, 1.1)]
    reader.feed.interrupt()
    assert reader.feed.has_hole
    reader.feed.take(message(4, 1.5))
    await reader.feed.fill(history(listed(1, 1.25), listed(2, 1.3), listed(3, 1.4)), START + 5 * 60)
    reader.feed.take(message(5, 1.6))
    assert await reader.closed() == [(1, 1.25), (2, 1.3), (3, 1.4), (4, 1.5)]


async def test_a_fill_that_fails_is_repeated_from_the_same_candle() -> None:
    reader = Reader()
    reader.feed.take(message(0))
    reader.feed.interrupt()
    await reader.feed.fill(Fetch((), BrokerUnavailableError()), START + 120)
    reader.feed.interrupt()
    assert reader.feed.hole_start() == START


async def test_a_second_interruption_before_the_fill_forgets_nothing() -> None:
    reader = Reader()
    reader.feed.take(message(0, 1.1))
    reader.feed.interrupt()
    reader.feed.take(message(2, 1.3))
    reader.feed.interrupt()
    await reader.feed.fill(history(listed(0, 1.1), listed(1, 1.2), listed(2, 1.35)), START + 300)
    assert await reader.closed() == [(0, 1.1), (1, 1.2), (2, 1.35)]


async def test_a_candle_that_history_lists_as_forming_closes_with_the_next_push() -> None:
    reader = Reader()
    reader.feed.take(message(0, 1.1))
    reader.feed.interrupt()
    await reader.feed.fill(history(listed(0, 1.15), listed(1, 1.2, closed=False)), START + 120)
    reader.feed.take(message(2, 1.3))
    assert await reader.closed() == [(0, 1.15), (1, 1.2)]


async def test_a_closed_market_leaves_a_hole_that_stays() -> None:
    reader = Reader()
    reader.feed.take(message(0, 1.1))
    reader.feed.take(message(50, 1.2))
    await reader.feed.fill(history(listed(0, 1.1)), START + 51 * 60)
    reader.feed.take(message(51, 1.3))
    assert await reader.closed() == [(0, 1.1), (50, 1.2)]


async def test_nothing_seen_means_nothing_missed() -> None:
    feed = CandleFeed(76, 60)
    feed.interrupt()
    assert not feed.has_hole
