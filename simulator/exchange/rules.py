"""Which orders the platform takes: pure checks, each raising the refusal that the platform would answer."""

from decimal import Decimal
from typing import Final

from simulator.exchange import refusals
from simulator.exchange.listings import Listing
from simulator.exchange.orders import CENT
from simulator.market.assets import TERMS, OptionKind

MINIMUM: Final = Decimal(1)
MAXIMUM: Final = Decimal(20_000)
BEYOND: Final = Decimal(10) ** 12
"""More than any balance; what is larger counts as this."""
DAY: Final = 86_400


def check_amount(amount: Decimal) -> Decimal:
    """The stake is a number of cents and not below the minimum; returns it in cents."""
    if not amount.is_finite():
        raise refusals.invalid("amount", "Invalid amount.")
    if amount < MINIMUM:
        raise refusals.invalid("amount", f"The minimum investment amount is {MINIMUM}.")
    if amount > BEYOND:
        return BEYOND
    if amount != amount.quantize(CENT):
        raise refusals.invalid("amount", "Invalid amount.")
    return amount.quantize(CENT)


def check_maximum(amount: Decimal) -> None:
    """The stake is not above the maximum. Asked last: who has not the money is told that."""
    if amount > MAXIMUM:
        raise refusals.invalid("amount", f"The maximum investment amount is {MAXIMUM}.")


def check_open(listing: Listing | None, kind: OptionKind) -> Listing:
    """The asset is listed for this kind of option, not suspended, and within its schedule."""
    if listing is None or kind not in listing.commissions:
        raise refusals.not_available()
    if listing.suspended:
        raise refusals.suspended()
    if listing.closed:
        raise refusals.not_available()
    return listing


def check_expiry(kind: OptionKind, expiry: int, now: float) -> None:
    """A turbo or binary expiry is on the grid, on offer, and more than the deadtime ahead."""
    terms = TERMS[kind]
    step = terms.expirations[0]
    if expiry - now <= terms.deadtime:
        raise refusals.too_late()
    first = int((now + terms.deadtime) // step + 1) * step
    if expiry % step == 0 and expiry <= first + (terms.count - 1) * step:
        return
    if kind is OptionKind.BINARY and expiry in special_expiries(now):
        return
    raise refusals.invalid("expiry", "Invalid expiration time.")


def check_blitz(size: int | None) -> int:
    """A blitz option runs for one of the listed numbers of seconds."""
    if size not in TERMS[OptionKind.BLITZ].expirations:
        raise refusals.invalid("expiry", "Invalid expiration size.")
    return size


def check_payout(listing: Listing, kind: OptionKind, seen: int | None) -> None:
    """The payout that the client saw, if it said so, is the one there is."""
    if seen is not None and seen != listing.payout(kind):
        raise refusals.payout_changed(listing.asset.active_id, listing.commissions[kind], TERMS[kind].type_id)


def special_expiries(now: float) -> dict[int, str]:
    """Return the binary expiries beside the grid: the ends of today and of tomorrow, with their titles."""
    midnight = int(now) // DAY * DAY + DAY
    return {midnight: "front.End of day", midnight + DAY: "front.End of the next day"}
