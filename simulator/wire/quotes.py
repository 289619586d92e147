"""Candles and quotes: history on request, and the shapes of live prices."""

import asyncio
import math
from decimal import Decimal
from typing import Any, Final

from simulator.market.prices import CANDLE_SIZES, HISTORY_START, MICRO, Candle, PriceHistory
from simulator.wire.bodies import GetCandles, WithAsset, moment
from simulator.wire.requests import BAD_REQUEST, Methods, Reply, Request

MOST_CANDLES: Final = 1000
DEFAULT_COUNT: Final = 100
VALIDATION_FAILED: Final = 4220
HALF_SPREAD: Final = 10e-6
"""Ask minus price, as a share of the price."""
NS: Final = 1_000_000_000


def candle_shape(active_id: int, candle: Candle, now: int) -> dict[str, Any]:
    """Shape a candle of the history; ``at`` is its last moment so far, in nanoseconds."""
    end = candle.start + candle.size
    return {
        "id": candle.number,
        "from": candle.start,
        "to": end,
        "at": min(end, now + 1) * NS,
        "open": candle.open / MICRO,
        "close": candle.close / MICRO,
        "min": candle.low / MICRO,
        "max": candle.high / MICRO,
        "volume": 0,
        "active_id": active_id,
        "size": candle.size,
    }


def ask_and_bid(price: int) -> tuple[float, float]:
    """Return the quoted sides around a price."""
    half = price * HALF_SPREAD
    return round(price + half) / MICRO, round(price - half) / MICRO


def live_candle(active_id: int, candle: Candle, at_ns: int, phase: str) -> dict[str, Any]:
    """Shape ``candle-generated``."""
    ask, bid = ask_and_bid(candle.close)
    return {
        "active_id": active_id,
        "size": candle.size,
        "id": candle.number,
        "from": candle.start,
        "to": candle.start + candle.size,
        "at": at_ns,
        "open": candle.open / MICRO,
        "close": candle.close / MICRO,
        "min": candle.low / MICRO,
        "max": candle.high / MICRO,
        "ask": ask,
        "bid": bid,
        "volume": 0,
        "phase": phase,
    }


def all_live_candles(active_id: int, history: PriceHistory, second: int, at_ns: int, phase: str) -> dict[str, Any]:
    """Shape ``candles-generated``: every size at once, the close being ``value``."""
    price = history.price(second)
    ask, bid = ask_and_bid(price)
    candles = {}
    for size in CANDLE_SIZES:
        candle = history.candle(size, second)
        candles[str(size)] = {
            "id": candle.number,
            "from": candle.start,
            "to": candle.start + size,
            "open": candle.open / MICRO,
            "min": candle.low / MICRO,
            "max": candle.high / MICRO,
            "volume": 0,
        }
    return {
        "active_id": active_id,
        "at": at_ns,
        "ask": ask,
        "bid": bid,
        "value": price / MICRO,
        "phase": phase,
        "candles": candles,
    }


def quote(active_id: int, price: int, at_ms: int, phase: str) -> dict[str, Any]:
    """Shape ``quote-generated``."""
    ask, bid = ask_and_bid(price)
    return {"active_id": active_id, "time": at_ms, "ask": ask, "bid": bid, "value": price / MICRO, "phase": phase}


async def get_candles(request: Request) -> Reply:
    """``get-candles``: at most 1000, ascending, the last one may be forming."""
    body = request.body(GetCandles)
    now = int(request.now)
    listing = request.platform.listings.get(body.active_id)
    faults: dict[str, list[str]] = {}
    if listing is None:
        faults["active_id"] = ["active not found"]
    if body.size not in CANDLE_SIZES:
        faults["size"] = ["invalid size"]
    if body.from_ is not None and body.from_ > now:
        faults["from"] = ["from must not be in the future"]
    if body.count is not None and not 1 <= body.count <= MOST_CANDLES:
        word = "less than or equal to 1000" if body.count > MOST_CANDLES else "greater than 0"
        faults["count"] = [f"must be {word}"]
    if listing is None or faults:
        return Reply("candles", faults, VALIDATION_FAILED)
    first, last = _wanted(body, now)
    if body.only_closed:
        last = min(last, (now + 1) // body.size - 1)
    first = max(first, -(-HISTORY_START // body.size))
    if last - first >= MOST_CANDLES:
        return Reply("candles", {"count": ["must be less than or equal to 1000"]}, VALIDATION_FAILED)
    history = listing.history
    if history.is_near(first * body.size):
        candles = history.candles(body.size, first, last, now)
    else:
        # Prices long ago have to be computed first: not on the loop that everybody waits for.
        candles = await asyncio.to_thread(history.candles, body.size, first, last, now)
    return Reply("candles", {"candles": [candle_shape(body.active_id, candle, now) for candle in candles]})


def _wanted(body: GetCandles, now: int) -> tuple[int, int]:
    """Return the first and last number of the candles that are asked for."""
    if body.from_id is not None and body.to_id is not None:
        return body.from_id, body.to_id
    end = Decimal(now) if body.to is None else moment(body.to)
    # A candle belongs to the answer if it began before ``to``; ``to`` on a border means the candle before.
    last = math.ceil(min(end, Decimal(now + 1)) / body.size) - 1
    if body.from_ is not None:
        first = int(moment(body.from_) // body.size)
        return (max(first, last - body.count + 1) if body.count else first), last
    return last - (body.count or DEFAULT_COUNT) + 1, last


async def get_first_candles(request: Request) -> Reply:
    """``get-first-candles``: the oldest candle of each size."""
    active_id = request.body(WithAsset).asset
    listing = request.platform.listings.get(active_id)
    if listing is None:
        return Reply("first-candles", {"message": "active not found"}, BAD_REQUEST)
    now = int(request.now)

    def oldest(history: PriceHistory) -> dict[str, Any]:
        by_size = {}
        for size in CANDLE_SIZES:
            number = -(-HISTORY_START // size)
            by_size[str(size)] = candle_shape(active_id, history.candles(size, number, number, now)[0], now)
        return by_size

    return Reply("first-candles", {"candles_by_size": await asyncio.to_thread(oldest, listing.history)})


METHODS: Final[Methods] = {"get-candles": get_candles, "get-first-candles": get_first_candles}
