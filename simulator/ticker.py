"""The market's heartbeat: once a second, one task tells every socket the time and the prices it asked for."""

import asyncio
from collections.abc import Sequence
from typing import Final

from simulator.exchange.instruments import expiries_on_offer, instrument_index, nearest_expiries
from simulator.exchange.listings import Listing
from simulator.market.prices import CANDLE_SIZES
from simulator.platform import Platform
from simulator.wire import assets, frames, hub, legacy, portfolio, quotes
from simulator.wire.frames import websocket_frame

HEARTBEAT_EVERY: Final = 5
"""Seconds between heartbeats; nobody has to answer them."""
MS: Final = 1000
NS: Final = 1_000_000_000


class Ticker:
    """Pushes time and prices. What goes to many is made once."""

    def __init__(self, platforms: Sequence[Platform]) -> None:
        self._platforms = platforms
        self._shared = platforms[0].shared

    async def run(self) -> None:
        """Tick at every whole second until cancelled."""
        clock = self._shared.clock
        second = int(clock())
        while True:
            # After a stall the seconds in between are left out: nobody wants old ticks.
            second = max(second + 1, int(clock()))
            await asyncio.sleep(max(0.0, second - clock()))
            self.tick(second)

    def tick(self, second: int) -> None:
        """Send everything that is due in a second."""
        now = self._shared.clock()
        for platform in self._platforms:
            if platform.shared.faults.is_out(platform.brand.name):
                platform.cut_sockets()
                continue
            self._tell_time(platform, second, now)
            self._tell_positions(platform, now)
            for topic, listeners in list(platform.hub.topics.items()):
                listing = platform.listings.get(topic[1])
                if listing is None:
                    continue
                for name, payload in _market_event(topic, listing, second, now):
                    frame = websocket_frame(payload)
                    for connection in tuple(listeners):
                        connection.push(name, frame, payload)

    def _tell_time(self, platform: Platform, second: int, now: float) -> None:
        faults, brand = platform.shared.faults, platform.brand.name
        payload = time_sync(now)
        frame = websocket_frame(payload)
        beat = frames.bare("heartbeat", int(now * MS)) if second % HEARTBEAT_EVERY == 0 else None
        beat_frame = b"" if beat is None else websocket_frame(beat)
        for connection in tuple(platform.hub.connections):
            if faults.has_state():
                if connection.email and faults.is_out(brand, connection.email):
                    connection.cut()
                    continue
                payload = time_sync(now + faults.clock_skew(brand, connection.email))
                frame = websocket_frame(payload)
            connection.push("timeSync", frame, payload)
            if beat is not None and connection.account is not None:
                connection.push("heartbeat", beat_frame, beat)

    def _tell_positions(self, platform: Platform, now: float) -> None:
        for connection in tuple(platform.hub.connections):
            if connection.watched_until <= now or connection.account is None:
                continue
            payload = portfolio.positions_state(
                platform, connection.account.user_id, connection.watched_positions, connection.watched_until
            )
            if payload is not None:
                connection.push("positions-state", websocket_frame(payload), payload)


def time_sync(now: float) -> bytes:
    """Spell ``timeSync``: the server's clock in unix milliseconds."""
    return frames.bare("timeSync", int(now * MS))


def _market_event(topic: hub.Topic, listing: Listing, second: int, now: float) -> list[tuple[str, bytes]]:
    """Spell what a topic's listeners are to hear this second."""
    name, active_id, size = topic
    history = listing.history
    phase = "C" if listing.closed else "T"
    at_ns = max(int(now * NS), second * NS)
    match name:
        case hub.CANDLE:
            if size not in CANDLE_SIZES:
                return []
            msg = quotes.live_candle(active_id, history.candle(size, second), at_ns, phase)
            return [(name, frames.push("quotes", name, msg))]
        case hub.ALL_CANDLES:
            msg = quotes.all_live_candles(active_id, history, second, at_ns, phase)
            return [(name, frames.push("quotes", name, msg))]
        case hub.QUOTE:
            msg = quotes.quote(active_id, history.price(second), at_ns // 1_000_000, phase)
            return [(name, frames.push("quotes", name, msg))]
        case hub.CHART:
            msg = legacy.chart_data(active_id, listing.asset.ticker, history.price(second), second)
            return [(name, frames.bare(name, msg))]
        case hub.MOOD:
            return [(name, frames.push("traders-mood", name, assets.mood(active_id, "turbo-option", second)))]
        case hub.INSTRUMENT:
            service = "digital-option-instruments"
            return [(name, frames.push(service, name, msg)) for msg in assets.digital_instruments(listing, now)]
        case _:
            return _digital_prices(topic, listing, now)


def _digital_prices(topic: hub.Topic, listing: Listing, now: float) -> list[tuple[str, bytes]]:
    name, active_id, size = topic
    out: list[tuple[str, bytes]] = []
    if not assets.digital_instruments(listing, now):
        return out
    if name == hub.OLD_DIGITAL_QUOTE:
        # Its listeners have one place for each period, so they are told of the nearest expiry only.
        return [
            (name, frames.push("price-splitter", name, assets.old_digital_quotes(listing, expiry, period)))
            for expiry, period in nearest_expiries(now)
            if size in (0, period)
        ]
    for expiry, period in expiries_on_offer(now):
        prices = assets.digital_price_list(listing, expiry, period, now)
        if name == hub.SPLIT_PRICE:
            out.append((name, frames.push("price-splitter", name, prices)))
        elif size in (0, instrument_index(active_id, expiry, period)):
            out.append((name, frames.push("trading-settings", name, prices)))
    return out
