"""What a connection knows of the market: assets and payouts, candles listed and live, digital instruments."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final

import msgspec
import structlog

from services.broker.connectors.quadcode.assets import AssetTable, AssetTables, TableKey, parse_assets
from services.broker.connectors.quadcode.candles import CandleFeed, CandleFeeds
from services.broker.connectors.quadcode.link import Link, RequestRefusedError
from services.broker.connectors.quadcode.messages import (
    UNREADABLE,
    CandleMessage,
    CandlesReply,
    CommissionChanged,
    DigitalInstrument,
    DigitalPrices,
    InstrumentsReply,
)
from services.broker.connectors.quadcode.parsing import ParseError, parse_history
from services.broker.connectors.quadcode.protocol import Call, Json, Subscription
from services.broker.connectors.quadcode.tickets import SPOT, digital_payout
from services.broker.domain.errors import (
    AssetClosedError,
    BrokerError,
    BrokerUnavailableError,
    InvalidArgumentError,
    NotConnectedError,
)
from services.broker.domain.values import Asset, Candle, Direction, InstrumentType

TIMEFRAMES: Final = frozenset(
    (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 604_800, 2_592_000)
)
"""Candle lengths that the broker has, seconds."""
CANDLE_PAGE: Final = 1_000
MAX_HOLE: Final = 4_000
"""Missed candles of a stream that are filled in; after more the reader has to begin anew."""
MAX_HOLES: Final = 5
"""Holes in a listing that are asked for."""
TABLE_TIME: Final = 20.0
"""Seconds that a caller waits for the assets at most, others' loads included."""
PAYOUTS: Final = tuple(
    Subscription("commission-changed", "1.0", (("instrument_type", kind),))
    for kind in ("turbo-option", "binary-option", "blitz-option")
)

_commission: Final = msgspec.json.Decoder(CommissionChanged)
_candles: Final = msgspec.json.Decoder(CandlesReply)
_instruments: Final = msgspec.json.Decoder(InstrumentsReply)
_digital_prices: Final = msgspec.json.Decoder(DigitalPrices)
_log = structlog.get_logger(__name__)


class Market:
    """The market as one connection sees it.

    Args:
        link: The way to the broker.
        tables: The process's asset tables.
        digital_patience: Seconds to wait for the first price of a digital instrument.
    """

    def __init__(self, link: Link, tables: AssetTables, digital_patience: float) -> None:
        self._link = link
        self._tables = tables
        self._digital_patience = digital_patience
        self._key: TableKey | None = None
        self._feeds = CandleFeeds()
        self._digital_prices: dict[int, asyncio.Future[DigitalPrices]] = {}
        self._closed: BrokerError | None = None
        link.handle("candle-generated", self._on_candle)
        link.handle("commission-changed", self._on_commission)
        link.handle("digital-option-client-price-generated", self._on_digital_prices)

    def set_group(self, key: TableKey) -> None:
        """Tell which assets and payouts this user sees. Must happen before anything else."""
        self._key = key

    def interrupted(self) -> None:
        """The connection was lost."""
        self._resign()
        for feed in self._feeds:
            feed.interrupt()

    def resume(self) -> None:
        """The connection is back: fill the holes of the live streams."""
        for feed in self._feeds:
            if feed.has_hole:
                self._link.spawn(self._fill(feed))

    def close(self, error: BrokerError) -> None:
        """End all streams."""
        self._closed = error
        self._resign()
        self._feeds.close(error)

    async def list_assets(self) -> Sequence[Asset]:
        """Return every asset with payouts as they are now."""
        return (await self.table()).assets(self._link.broker_time().timestamp())

    async def list_candles(self, asset: str, timeframe: int, count: int, end_time: int | None) -> Sequence[Candle]:
        """Return up to ``count`` candles that start before ``end_time``; see ``Connector.list_candles``."""
        active_id = (await self.table()).active_id(asset)
        _check_timeframe(timeframe)
        before = end_time if end_time is not None else int(self._link.broker_time().timestamp()) + 1
        found: dict[int, CandleMessage] = {}
        while len(found) < count:
            wanted = min(CANDLE_PAGE, count - len(found))
            page = await self._candle_page(active_id, timeframe, {"to": before, "count": wanted})
            fresh = {m.from_: m for m in page if m.from_ < before and m.from_ not in found}
            if not fresh:
                break
            found |= fresh
            before = min(fresh)
        await self._fill_holes(active_id, timeframe, found)
        candles = self._parse_candles(found.values(), timeframe)
        return candles[-count:]

    async def watch_candles(self, asset: str, timeframe: int) -> AsyncIterator[Candle]:
        """Stream the candle in progress and each candle once more when it closes."""
        active_id = (await self.table()).active_id(asset)
        _check_timeframe(timeframe)
        subscription = Subscription("candle-generated", "1.0", (("active_id", active_id), ("size", timeframe)))
        feed, mailbox, first = self._feeds.join(active_id, timeframe)
        try:
            if self._closed is not None:
                mailbox.close(self._closed)
            if first:
                await self._subscribe(subscription)
            while True:
                yield await mailbox.get()
        finally:
            if self._feeds.leave(feed, mailbox):
                await self._link.unsubscribe(subscription)

    def _on_candle(self, msg: msgspec.Raw) -> None:
        feed = self._feeds.take(msg)
        if feed is not None:
            self._link.spawn(self._fill(feed))

    async def _fill(self, feed: CandleFeed) -> None:
        before = int(self._link.broker_time().timestamp()) + 1
        if (before - feed.hole_start()) // feed.timeframe > MAX_HOLE:
            feed.hub.close(BrokerUnavailableError("too many candles were missed: open the stream again"))
            return
        await feed.fill(self._candles_between, before)

    async def _candles_between(self, active_id: int, timeframe: int, start: int, before: int) -> list[Candle]:
        found: dict[int, CandleMessage] = {}
        step = CANDLE_PAGE * timeframe
        for begin in range(start, before, step):
            body: dict[str, Json] = {"from": begin, "to": min(begin + step, before)}
            page = await self._candle_page(active_id, timeframe, body)
            found |= {m.from_: m for m in page if start <= m.from_ < before}
        return self._parse_candles(found.values(), timeframe)

    async def _fill_holes(self, active_id: int, timeframe: int, found: dict[int, CandleMessage]) -> None:
        """Ask once for candles that are missing by their numbers. A closed market leaves none, and stays a hole."""
        ordered = [found[start] for start in sorted(found)]
        holes = [(a.id + 1, b.id - 1) for a, b in pairwise(ordered) if a.id and b.id - a.id > 1]
        for first, last in holes[:MAX_HOLES]:
            body: dict[str, Json] = {"from_id": first, "to_id": min(last, first + CANDLE_PAGE - 1)}
            page = await self._candle_page(active_id, timeframe, body)
            found |= {m.from_: m for m in page}

    async def _candle_page(self, active_id: int, timeframe: int, span: dict[str, Json]) -> list[CandleMessage]:
        body: dict[str, Json] = {"active_id": active_id, "size": timeframe, "split_normalization": True, **span}
        try:
            return _candles.decode(await self._link.call(Call("quotes-history.get-candles", "2.0", body))).candles
        except (RequestRefusedError, *UNREADABLE) as error:
            raise BrokerUnavailableError("the broker does not give these candles") from error

    def _parse_candles(self, messages: Iterable[CandleMessage], timeframe: int) -> list[Candle]:
        try:
            return parse_history(messages, timeframe, self._link.broker_time().timestamp())
        except ParseError as error:
            raise BrokerUnavailableError("the broker's candles cannot be read") from error

    # -- assets ----------------------------------------------------------------------------------------------------

    async def table(self) -> AssetTable:
        """Return the assets and payouts; this connection keeps its group's payouts live if no other does.

        Raises:
            BrokerUnavailableError: They are not known and could not be read.
        """
        if self._key is None:
            raise NotConnectedError
        try:
            async with asyncio.timeout(TABLE_TIME):
                table = await self._tables.get(self._key, self._load_assets, self._link.spawn)
        except TimeoutError:
            raise BrokerUnavailableError("the broker does not list its assets in time") from None
        if self._link.is_open and self._tables.become_keeper(self._key, self):
            for subscription in PAYOUTS:
                await self._subscribe(subscription)
        return table

    def _resign(self) -> None:
        if self._key is not None and self._tables.resign(self._key, self):
            for subscription in PAYOUTS:
                self._link.forget(subscription)

    async def _load_assets(self) -> AssetTable:
        try:
            options = await self._link.call(Call("binary-options.get-initialization-data", "3.0", {}))
            try:
                call = Call("digital-option-instruments.get-underlying-list", "3.0", {"filter_suspended": False})
                underlyings = await self._link.call(call)
            except RequestRefusedError:
                # Some accounts have no digital options.
                underlyings = None
            # Several MB: between the entries the loop gets its turn.
            return await asyncio.to_thread(parse_assets, options, underlyings)
        except (RequestRefusedError, *UNREADABLE) as error:
            raise BrokerUnavailableError("the broker does not list its assets") from error

    def asset_name(self, active_id: int) -> str | None:
        """Return an asset's name, None if it is not known (yet)."""
        table = self._known_table()
        return None if table is None else table.name(active_id)

    def learn_payout(self, asset: str, instrument_type: InstrumentType, payout_rate: float) -> None:
        """Take over a payout that the broker named in a refusal."""
        table = self._known_table()
        if table is not None:
            with suppress(AssetClosedError):
                table.set_payout(table.active_id(asset), instrument_type, payout_rate * 100)

    def _on_commission(self, msg: msgspec.Raw) -> None:
        table = self._known_table()
        if table is not None:
            table.take_commission(_commission.decode(msg))

    def _known_table(self) -> AssetTable | None:
        return None if self._key is None else self._tables.peek(self._key)

    async def _subscribe(self, subscription: Subscription) -> None:
        try:
            await self._link.subscribe(subscription)
        except RequestRefusedError as error:
            raise BrokerUnavailableError("the broker refuses the subscription") from error

    async def digital_instruments(self, active_id: int) -> list[DigitalInstrument]:
        """Return the digital options on offer on an asset."""
        call = Call(
            "digital-option-instruments.get-instruments",
            "3.0",
            {"instrument_type": "digital-option", "asset_id": active_id},
        )
        try:
            return _instruments.decode(await self._link.call(call)).instruments
        except (RequestRefusedError, *UNREADABLE) as error:
            raise BrokerUnavailableError("the broker does not list digital options") from error

    async def digital_payout(self, active_id: int, index: int, direction: Direction) -> float | None:
        """Wait for an instrument's first price, and for no more of them; None if none comes in time."""
        subscription = Subscription(
            "trading-settings.digital-option-client-price-generated",
            "1.0",
            (("instrument_type", "digital-option"), ("asset_id", active_id), ("instrument_index", index)),
        )
        prices = self._digital_prices.setdefault(index, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(self._digital_patience):
                await self._subscribe(subscription)
                told = await asyncio.shield(prices)
            for level in told.prices:
                ask = (level.call if direction is Direction.CALL else level.put).ask
                if level.strike == SPOT and ask is not None and 0 < ask < 100:
                    return digital_payout(ask)
        except TimeoutError:
            _log.info("digital_price_missing")
        finally:
            self._digital_prices.pop(index, None)
            await self._link.unsubscribe(subscription)
        return None

    def _on_digital_prices(self, msg: msgspec.Raw) -> None:
        prices = _digital_prices.decode(msg)
        waiting = self._digital_prices.get(prices.instrument_index)
        if waiting is not None and not waiting.done():
            waiting.set_result(prices)


def _check_timeframe(timeframe: int) -> None:
    if timeframe not in TIMEFRAMES:
        raise InvalidArgumentError("timeframe", "must be one of the broker's candle lengths")
