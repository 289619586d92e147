"""Why the platform refuses an order, with the number and the text it says so in.

The texts are what clients classify by. Numbers marked "not seen" were never captured; the text with them was.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818  # a refusal is an answer of the platform, not an error of ours
    """An order was not accepted; nothing was booked."""

    reason: str
    """Our short word, for the ledger."""
    status: int
    text: str
    result: dict[str, Any] | None = None


def payout_changed(active_id: int, commission: int, option_type: int) -> Refusal:
    """The client asked for another payout than the asset has now (captured)."""
    actual = {"active_id": active_id, "commission": commission, "option_type": option_type}
    text = "The option has not been purchased because of the profit rate change."
    return Refusal("payout_changed", 4117, text, {"actual_commission": actual})


def suspended() -> Refusal:
    """Trading in the asset is suspended (captured)."""
    return Refusal("suspended", 4119, "Cannot purchase an option (active is suspended)")


def no_money() -> Refusal:
    """The balance is below the stake (text captured, number not seen)."""
    return Refusal("no_money", 4112, "Insufficient funds for this transaction.")


def too_late() -> Refusal:
    """Within the deadtime, or after the expiry (text captured, number not seen)."""
    return Refusal("too_late", 4104, "Time for purchasing options is over, please try again later.")


def not_available() -> Refusal:
    """No such asset or kind, or it is closed (text captured, number not seen)."""
    return Refusal("closed", 4103, "Cannot purchase an option (the asset is not available at the moment).")


def rejected_by_risks() -> Refusal:
    """The broker's risk control said no (text captured, number not seen)."""
    return Refusal("rejected_by_risks", 4120, "active_suspended: rejected by risks")


def invalid_instrument() -> Refusal:
    """The digital instrument does not exist or has passed (captured)."""
    return Refusal("invalid_instrument", 5000, "invalid instrument")


def invalid(field: str, text: str) -> Refusal:
    """A field of the order makes no sense (number and text not seen)."""
    return Refusal(f"invalid_{field}", 4000, text)
