"""What one brand offers at the moment: assets with their payouts, suspensions and schedules."""

from dataclasses import dataclass

from simulator.market.assets import ASSETS, Asset, OptionKind, closed_now, open_now
from simulator.market.prices import PriceHistory


@dataclass(slots=True)
class Listing:
    """An asset at a brand. Prices are the market's, the conditions are the brand's and may change."""

    asset: Asset
    history: PriceHistory
    commissions: dict[OptionKind, int]
    """Percent kept by the broker on a win: payout = 100 - commission. Only the kinds on offer are in it."""
    suspended: bool
    closed: bool

    def payout(self, kind: OptionKind) -> int:
        """Return the profit on a win in percent of the stake."""
        return 100 - self.commissions[kind]

    def schedule(self, now: float) -> list[tuple[int, int]]:
        """Return when it trades, as (from, to) in unix seconds."""
        return closed_now(now) if self.closed else open_now(now)


class Listings:
    """All listings of one brand. ``revision`` rises with every change, for those who cache what they made of it."""

    def __init__(self, histories: dict[int, PriceHistory]) -> None:
        self._histories = histories
        self.revision = 0
        self._by_id: dict[int, Listing] = {}
        self._by_ticker: dict[str, Listing] = {}
        self.reset()

    def all(self) -> list[Listing]:
        """Return every listing."""
        return list(self._by_id.values())

    def get(self, active_id: int) -> Listing | None:
        """Return the listing of an asset id."""
        return self._by_id.get(active_id)

    def by_ticker(self, ticker: str) -> Listing | None:
        """Return the listing of a ticker such as EURUSD-OTC."""
        return self._by_ticker.get(ticker)

    def reset(self) -> None:
        """Go back to the conditions at start."""
        listings = [
            Listing(
                asset,
                self._histories[asset.active_id],
                dict.fromkeys(asset.kinds, 100 - asset.payout),
                asset.suspended,
                asset.closed,
            )
            for asset in ASSETS
        ]
        self._by_id = {listing.asset.active_id: listing for listing in listings}
        self._by_ticker = {listing.asset.ticker: listing for listing in listings}
        self.revision += 1

    def changed(self) -> None:
        """Say that a listing's conditions were changed."""
        self.revision += 1
