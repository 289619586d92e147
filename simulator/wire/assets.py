"""Methods about what can be traded: initialization data, digital underlyings and instruments, and odds and ends."""

from typing import Any, Final

from simulator.exchange.instruments import (
    expiries_on_offer,
    instrument_id,
    instrument_index,
    old_instrument_id,
)
from simulator.exchange.listings import Listing
from simulator.exchange.orders import Direction
from simulator.market.assets import TERMS, OptionKind
from simulator.market.prices import MICRO
from simulator.platform import Platform
from simulator.wire import frames
from simulator.wire.bodies import StrikeList, WithAsset, WithType, moment
from simulator.wire.init_data import PRECISION
from simulator.wire.requests import BAD_REQUEST, Methods, Reply, Request

BID_SHARE: Final = 0.88
"""Bid of a digital contract as a share of its ask."""


def get_initialization_data(request: Request) -> Reply:
    """``get-initialization-data``."""
    return Reply("initialization-data", request.platform.initialization_data.get(request.now))


# ---- digital ---------------------------------------------------------------------------------------------------


def underlyings(platform: Platform, now: float, *, skip_suspended: bool = False) -> dict[str, Any]:
    """Shape the list of assets that have digital options."""
    listed = []
    for listing in platform.listings.all():
        if OptionKind.DIGITAL not in listing.commissions or (skip_suspended and listing.suspended):
            continue
        asset = listing.asset
        listed.append(
            {
                "active_id": asset.active_id,
                "active_group_id": 1,
                "active_type": "forex",
                "underlying": asset.ticker,
                "name": asset.ticker,
                "localization_key": f"front.{asset.ticker}",
                "image": "",
                "precision": PRECISION,
                "start_time": 0,
                "regulation_mode": "all",
                "schedule": [{"open": opens, "close": closes} for opens, closes in listing.schedule(now)],
                "is_enabled": True,
                "is_suspended": listing.suspended,
            }
        )
    return {"type": "digital-option", "user_group_id": 191, "underlying": listed}


def digital_prices(listing: Listing) -> tuple[float, float]:
    """Return (ask, bid) of an at-the-money contract that pays 100: the ask is what makes the payout come true.

    It is rounded down, so that a client that computes the payout from it and cuts off the fraction gets it right.
    """
    ask = 10_000 * MICRO // (100 + listing.payout(OptionKind.DIGITAL)) / MICRO
    return ask, round(ask * BID_SHARE, 6)


def digital_instruments(listing: Listing, now: float) -> list[dict[str, Any]]:
    """Shape the instruments of an asset that can be bought now."""
    if OptionKind.DIGITAL not in listing.commissions or listing.suspended or listing.closed:
        return []
    asset, terms = listing.asset, TERMS[OptionKind.DIGITAL]
    price = listing.history.price(int(now)) / MICRO
    return [
        {
            "index": instrument_index(asset.active_id, expiry, period),
            "instrument_type": "digital-option",
            "asset_id": asset.active_id,
            "trading_group_id": "g",
            "expiration": expiry,
            "period": period,
            "quote": price,
            "volatility": 0.1,
            "generated_at": int(now),
            "deadtime": terms.deadtime,
            "buyback_deadtime": terms.buyback_deadtime,
            "data": [
                {"strike": "SPT", "symbol": instrument_id(asset.active_id, expiry, period, side), "direction": side}
                for side in Direction
            ],
        }
        for expiry, period in expiries_on_offer(now)
    ]


def digital_price_list(listing: Listing, expiry: int, period: int, now: float) -> dict[str, Any]:
    """Shape the prices of one instrument, as both price events have them."""
    asset = listing.asset
    ask, bid = digital_prices(listing)
    sides = {
        side.value: {"symbol": instrument_id(asset.active_id, expiry, period, side), "ask": ask, "bid": bid}
        for side in Direction
    }
    return {
        "instrument_index": instrument_index(asset.active_id, expiry, period),
        "instrument_type": "digital-option",
        "asset_id": asset.active_id,
        "expiration": expiry,
        "period": period,
        "quote_time": int(now * 1000),
        "prices": [{"strike": "SPT", **sides}],
    }


def old_digital_quotes(listing: Listing, expiry: int, period: int) -> dict[str, Any]:
    """Shape ``instrument-quotes-generated``."""
    ask, bid = digital_prices(listing)
    asset = listing.asset
    return {
        "active": asset.active_id,
        "kind": "digital-option",
        "expiration": {"period": period, "timestamp": expiry},
        "quotes": [
            {"price": {"ask": ask, "bid": bid}, "symbols": [old_instrument_id(asset.ticker, expiry, period, side)]}
            for side in Direction
        ],
    }


def get_underlying_list(request: Request) -> Reply:
    """``get-underlying-list``."""
    body = request.body(WithType)
    return Reply("underlying-list", underlyings(request.platform, request.now, skip_suspended=body.filter_suspended))


def get_instruments(request: Request) -> Reply:
    """``get-instruments``: digital ones of an asset, or the (empty) lists of kinds that are not traded here."""
    body = request.body(WithType)
    if body.asset_id is None:
        return Reply("instruments", {"type": body.type or "", "user_group_id": 1, "instruments": []})
    listing = request.platform.listings.get(body.asset_id)
    if listing is None:
        return Reply("instruments", {"instruments": [], "not_found": [body.asset_id]})
    return Reply("instruments", {"instruments": digital_instruments(listing, request.now), "not_found": []})


def get_strike_list(request: Request) -> Reply:
    """``get-strike-list``: only the strike at the money is traded."""
    body = request.body(StrikeList)
    listing = request.platform.listings.by_ticker(body.underlying)
    if listing is None:
        return Reply("strike-list", {"message": "invalid underlying"}, BAD_REQUEST)
    expiry = int(moment(body.expiration))
    if expiry >= 100_000_000_000:  # milliseconds, as the Python clients write it
        expiry //= 1000
    if not 0 <= expiry < 4_000_000_000:
        return Reply("strike-list", {"message": "invalid expiration"}, BAD_REQUEST)
    ids = {side.value: {"id": old_instrument_id(body.underlying, expiry, body.period, side)} for side in Direction}
    strike = {"value": request.platform.exchange.price_now(listing), **ids}
    return Reply(
        "strike-list",
        {
            "underlying": body.underlying,
            "type": "digital-option",
            "expiration": expiry,
            "period": body.period,
            "strike": [strike],
        },
    )


# ---- odds and ends ---------------------------------------------------------------------------------------------


def get_active(request: Request) -> Reply:
    """``get-active``."""
    listing = request.platform.listings.get(request.body(WithAsset).asset)
    if listing is None:
        return Reply("active", {"message": "active not found"}, BAD_REQUEST)
    asset = listing.asset
    msg = {
        "id": asset.active_id,
        "name": f"front.{asset.ticker}",
        "ticker": asset.ticker,
        "description": f"front.{asset.label}",
        "localization_key": f"front.{asset.ticker}",
        "precision": PRECISION,
        "type": "forex",
        "is_otc": asset.ticker.endswith("-OTC"),
    }
    return Reply("active", msg)


def get_financial_information(request: Request) -> Reply:
    """``get-financial-information``: a GraphQL-like call of which only the asset's name is answered."""
    variables = frames.decode_object(request.message.body).get("variables")
    active_id = variables.get("activeId") if isinstance(variables, dict) else None
    listing = request.platform.listings.get(active_id) if isinstance(active_id, int) else None
    name = "" if listing is None else listing.asset.label
    return Reply("financial-information", {"data": {"active": {"id": active_id, "name": name}}})


def get_currency(_request: Request) -> Reply:
    """``get-currency``: everything is in USD."""
    return Reply(
        "currency", {"id": 5, "name": "USD", "symbol": "$", "unit": 1_000_000, "mask": "$%s", "is_visible": True}
    )


def get_top_assets(request: Request) -> Reply:
    """``get-top-assets``."""
    return Reply(
        "top-assets", {"data": [{"active_id": listing.asset.active_id} for listing in request.platform.listings.all()]}
    )


def mood(active_id: int, instrument: str, second: int) -> dict[str, Any]:
    """Shape the traders' mood: invented, slowly changing, never far from even."""
    wave = (second // 10 * 2_654_435_761 + active_id) % 1000
    return {"instrument": instrument, "asset_id": active_id, "value": round(0.4 + wave / 5000, 4)}


def get_traders_mood(request: Request) -> Reply:
    """``get-traders-mood``."""
    body = request.body(WithAsset)
    return Reply(
        "traders-mood", mood(body.asset, body.instrument or body.instrument_type or "turbo-option", int(request.now))
    )


def get_features(_request: Request) -> Reply:
    """``features.get-features``."""
    feature = {
        "id": 1,
        "name": "client-sdk",
        "category": "client-sdk-js",
        "version": "1.0",
        "status": "enabled",
        "params": {},
    }
    return Reply("features", {"features": [feature]})


METHODS: Final[Methods] = {
    "get-initialization-data": get_initialization_data,
    "get-underlying-list": get_underlying_list,
    "get-instruments": get_instruments,
    "get-strike-list": get_strike_list,
    "get-active": get_active,
    "get-financial-information": get_financial_information,
    "get-currency": get_currency,
    "get-top-assets": get_top_assets,
    "get-traders-mood": get_traders_mood,
    "get-features": get_features,
}
