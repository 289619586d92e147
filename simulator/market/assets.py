"""What can be traded: the assets, the kinds of option on them, and the market each one follows."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from markets.catalogue import standard_markets
from simulator.market.prices import DAY, PriceHistory, PriceSource
from simulator.market.replay import ReplayedPrices, recorded_hours
from simulator.market.synthetic import SyntheticPrices

REPLAY: Final = "replay"
"""Name of the market that replays the recorded EUR/USD hours; all other names are those of ``markets``."""
BAR_VOLATILITY: Final = 1e-4
"""Log return of a 5-second bar for one unit of a synthetic process: about 1.3 % a day."""


class OptionKind(StrEnum):
    """Kinds of option contract."""

    TURBO = "turbo"
    BINARY = "binary"
    BLITZ = "blitz"
    DIGITAL = "digital"

    @property
    def instrument_type(self) -> str:
        """The kind as position messages spell it."""
        return f"{self.value}-option"


@dataclass(frozen=True, slots=True)
class KindTerms:
    """Terms that are the same for every asset."""

    type_id: int
    """``option_type_id`` on the wire."""
    expirations: tuple[int, ...]
    """Grid step (turbo, binary), lengths (blitz) or periods (digital), in seconds."""
    count: int
    """Number of grid steps that are on offer."""
    deadtime: int
    """Seconds before the expiry in which it can no longer be bought."""
    buyback_deadtime: int | None
    """Seconds before the expiry in which it can no longer be sold; None if it can never be."""


TERMS: Final[Mapping[OptionKind, KindTerms]] = {
    OptionKind.BINARY: KindTerms(1, (900,), 50, 300, 15),
    OptionKind.TURBO: KindTerms(3, (60,), 5, 30, 15),
    OptionKind.BLITZ: KindTerms(12, (5, 10, 15, 30, 45, 60, 120, 180, 300), 1, 0, None),
    OptionKind.DIGITAL: KindTerms(7, (60, 300, 900), 1, 30, 10),
}
ALL_KINDS: Final = tuple(OptionKind)


@dataclass(frozen=True, slots=True)
class Asset:
    """One underlying. ``ticker`` is its name for clients, without a dot."""

    active_id: int
    ticker: str
    market: str
    base: float
    """Price around which a synthetic market stays."""
    payout: int = 87
    """Profit on a win in percent of the stake, at start."""
    kinds: tuple[OptionKind, ...] = ALL_KINDS
    suspended: bool = False
    """Listed, but trading is suspended."""
    closed: bool = False
    """Listed, but its schedule never covers the present."""

    @property
    def label(self) -> str:
        """Name for people, as EUR/USD-OTC."""
        return f"{self.ticker[:3]}/{self.ticker[3:]}"


ASSETS: Final = (
    Asset(76, "EURUSD-OTC", REPLAY, 1.17),
    Asset(85, "USDJPY-OTC", "ou_rw", 151.0),
    Asset(86, "AUDCAD-OTC", "ar_mom", 0.91),
    Asset(80, "NZDUSD-OTC", "regime", 0.59),
    Asset(79, "EURJPY-OTC", "ar_rev", 163.0),
    Asset(77, "EURGBP-OTC", "msar", 0.86, payout=85),
    Asset(81, "GBPUSD-OTC", "rw", 1.27),
    Asset(84, "GBPJPY-OTC", "garch", 191.0, payout=80),
    Asset(1380, "USDZAR-OTC", "rw", 18.1, payout=82, kinds=(OptionKind.TURBO, OptionKind.BINARY)),
    Asset(78, "USDCHF-OTC", "rw", 0.88, closed=True),
    Asset(1381, "USDSGD-OTC", "rw", 1.34, suspended=True),
    # The plain pairs are "suspended" for options at the brokers since late 2024.
    Asset(1, "EURUSD", "rw", 1.17, suspended=True),
    # More of the brokers' round-the-clock pairs, on markets that hold nothing to earn.
    *(
        Asset(active_id, f"{pair}-OTC", "garch" if active_id % 3 == 0 else "rw", base, payout=80 + active_id % 9)
        for active_id, pair, base in (
            (1382, "USDHKD", 7.78),
            (1383, "USDINR", 84.2),
            (2111, "AUDUSD", 0.65),
            (2112, "USDCAD", 1.40),
            (2113, "AUDJPY", 98.5),
            (2114, "GBPCAD", 1.77),
            (2115, "GBPCHF", 1.12),
            (2116, "GBPAUD", 1.94),
            (2117, "EURCAD", 1.47),
            (2118, "CHFJPY", 172.0),
            (2119, "CADCHF", 0.63),
            (2120, "EURAUD", 1.62),
            (2121, "USDNOK", 11.1),
            (2122, "EURNZD", 1.79),
            (2123, "USDSEK", 11.0),
            (2124, "USDTRY", 34.5),
            (2129, "AUDCHF", 0.58),
            (2130, "AUDNZD", 1.11),
            (2131, "EURCHF", 0.93),
            (2132, "GBPNZD", 2.15),
            (2136, "CADJPY", 108.0),
            (2137, "NZDCAD", 0.82),
            (2138, "NZDJPY", 89.0),
        )
    ),
)


def open_now(now: float) -> list[tuple[int, int]]:
    """Return a round-the-clock schedule from yesterday to a week ahead, as (from, to) in unix seconds."""
    today = int(now) // DAY * DAY
    return [(today + n * DAY, today + (n + 1) * DAY) for n in range(-1, 8)]


def closed_now(now: float) -> list[tuple[int, int]]:
    """Return a schedule that opens tomorrow, whatever day it is."""
    return open_now(now)[2:]


def build_histories(
    seed: int, eurusd_market: str, asset_markets: Mapping[str, str] = MappingProxyType({})
) -> dict[int, PriceHistory]:
    """Return the price history of every asset by its id.

    Args:
        seed: Two simulators with the same seed have the same prices at the same time.
        eurusd_market: What EURUSD-OTC follows: ``replay`` or the name of one of the standard markets.
        asset_markets: What other assets follow instead of their own markets, by ticker.

    Raises:
        ValueError: If there is no market or no asset of that name.
    """
    processes = standard_markets()
    for market in (eurusd_market, *asset_markets.values()):
        if market != REPLAY and market not in processes:
            raise ValueError(f"no market named {market!r}: choose replay or one of {', '.join(processes)}")
    if unknown := asset_markets.keys() - {asset.ticker for asset in ASSETS}:
        raise ValueError(f"no asset named {', '.join(sorted(unknown))}")

    def source(asset: Asset) -> PriceSource:
        market = asset_markets.get(asset.ticker, eurusd_market if asset.market == REPLAY else asset.market)
        if market == REPLAY:
            return ReplayedPrices(recorded_hours(), (seed, asset.active_id))
        return SyntheticPrices(processes[market], asset.base, BAR_VOLATILITY, (seed, asset.active_id))

    return {asset.active_id: PriceHistory(source(asset)) for asset in ASSETS}
