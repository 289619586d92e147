"""Initialization data: the big answer that says what can be traded as turbo, binary and blitz option."""

from typing import Any, Final

import msgspec

from simulator.exchange.listings import Listing, Listings
from simulator.exchange.rules import MAXIMUM, MINIMUM, special_expiries
from simulator.market.assets import TERMS, OptionKind
from simulator.market.prices import DAY
from simulator.wire import frames

OPTION_KINDS: Final = (OptionKind.TURBO, OptionKind.BINARY, OptionKind.BLITZ)
FILLER_FIRST_ID: Final = 900_000
PRECISION: Final = 6
"""Digits after the point of every price."""


class InitializationData:
    """Builds the big answer once a minute at most, and whenever a listing has changed."""

    def __init__(self, listings: Listings, padded_to: int) -> None:
        self._listings = listings
        self._padded_to = padded_to
        self._made_for: tuple[int, int] | None = None
        self._encoded = msgspec.Raw(b"")
        self._fillers_of: tuple[int, dict[OptionKind, dict[str, msgspec.Raw]]] | None = None

    def get(self, now: float) -> msgspec.Raw:
        """Return the object as ready JSON."""
        made_for = (int(now) // 60, self._listings.revision)
        if made_for != self._made_for:
            self._encoded = msgspec.Raw(frames.encode(self._build(now)))
            self._made_for = made_for
        return self._encoded

    def _build(self, now: float) -> dict[str, Any]:
        data: dict[str, Any] = {"currency": "USD", "is_buyback": 1, "groups": {"1": "front.forex"}}
        for kind in OPTION_KINDS:
            actives = {
                str(listing.asset.active_id): _active(listing, kind, now)
                for listing in self._listings.all()
                if kind in listing.commissions
            }
            data[kind.value] = {"list": [], "actives": actives}
        if self._padded_to > 0:
            self._pad(data, self._padded_to, now)
        return data

    def _pad(self, data: dict[str, Any], wanted: int, now: float) -> None:
        """Add assets that nobody can trade until the whole has about the wanted size."""
        model = self._listings.all()[0]
        missing = wanted - len(frames.encode(data))
        each = len(frames.encode(_active(model, OptionKind.TURBO, now))) + len('"900000":,')
        today = int(now) // DAY
        if self._fillers_of is None or self._fillers_of[0] != today:
            # Thousands of them, encoded once a day: their schedule is all that changes.
            self._fillers_of = today, _fillers(model, max(0, missing // each), now)
        for kind, actives in self._fillers_of[1].items():
            data[kind.value]["actives"] |= actives


def _fillers(model: Listing, count: int, now: float) -> dict[OptionKind, dict[str, msgspec.Raw]]:
    fillers: dict[OptionKind, dict[str, msgspec.Raw]] = {kind: {} for kind in OPTION_KINDS}
    for n in range(count):
        kind = OPTION_KINDS[n % len(OPTION_KINDS)]
        active_id, name = FILLER_FIRST_ID + n, f"FILLER{n}"
        names = {"id": active_id, "name": f"front.{name}", "ticker": name, "description": f"front.{name}"}
        shape = _active(model, kind, now) | names | {"enabled": False, "is_suspended": True}
        fillers[kind][str(active_id)] = msgspec.Raw(frames.encode(shape))
    return fillers


def _active(listing: Listing, kind: OptionKind, now: float) -> dict[str, Any]:
    asset, terms = listing.asset, TERMS[kind]
    step = terms.expirations[0]
    special = {}
    if kind is OptionKind.BINARY:
        special = {str(expiry): {"title": title, "enabled": True} for expiry, title in special_expiries(now).items()}
    return {
        "id": asset.active_id,
        "name": f"front.{asset.ticker}",
        "ticker": asset.ticker,
        "description": f"front.{asset.label}",
        "group_id": 1,
        "image": f"/storage/{asset.active_id}.png",
        "exchange": "front.exchange_x",
        "precision": PRECISION,
        "enabled": True,
        "is_suspended": listing.suspended,
        "minimal_bet": MINIMUM,
        "maximal_bet": MAXIMUM,
        "minmax": {"min": MINIMUM, "max": MAXIMUM},
        "sum": 1,
        "deadtime": terms.deadtime,
        "is_buyback": int(terms.buyback_deadtime is not None),
        "buyback_deadtime": terms.buyback_deadtime or 0,
        "rollover_enabled": False,
        "rollover_commission": 0,
        "start_time": 1_381_547_581,
        "provider": "feed",
        "top_traders_enabled": True,
        "schedule": listing.schedule(now),
        "option": {
            "profit": {"commission": listing.commissions[kind], "refund_min": 0, "refund_max": 0},
            "expiration_times": terms.expirations,
            "exp_time": step,
            "count": terms.count,
            "special": special,
            "start_time": int(now) // step * step,
        },
    }
