"""An order and what becomes of it. One object is request, position and ledger entry in one."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Final, TypeVar

from simulator.market.assets import OptionKind

CENT: Final = Decimal("0.01")
FactT = TypeVar("FactT")


class Direction(StrEnum):
    """What the buyer of the option bets on."""

    CALL = "call"
    PUT = "put"


class OrderStatus(StrEnum):
    """Where an order is in its life."""

    REFUSED = "refused"
    """The broker said no; nothing was booked."""
    DROPPED = "dropped"
    """A fault lost the request before it was booked; the client was told nothing."""
    OPEN = "open"
    CLOSED = "closed"


class Outcome(StrEnum):
    """How a contract ended."""

    WON = "won"
    LOST = "lost"
    TIED = "tied"
    SOLD = "sold"

    @property
    def broker_word(self) -> str:
        """The outcome as the wire spells it; "loose" is the brokers' own spelling."""
        return {"won": "win", "lost": "loose", "tied": "equal", "sold": "sold"}[self.value]


@dataclass(slots=True)
class Order:
    """One order that the simulator was sent. Money is exact, prices are integer millionths, times unix seconds."""

    number: int
    """Counts all orders sent to the brand, from 1."""
    brand: str
    email: str
    user_id: int
    balance_id: int | None
    account_type: str | None
    """PRACTICE or REAL; None if the balance id was not one of the account's."""
    request_id: str
    active_id: int | None
    asset: str | None
    kind: OptionKind | None
    direction: Direction | None
    amount: Decimal | None
    requested_expiry: int | None
    """The expiry or, for blitz, nothing: as the client wrote it."""
    received: float
    status: OrderStatus
    reason: str | None = None
    """Why it was refused or dropped."""

    order_id: int | None = None
    """The broker's id: the option id, or the digital order id."""
    external_id: int | None = None
    """The option id, or the digital position id."""
    position_id: str | None = None
    """The portfolio's hash id."""
    instrument_id: str = ""
    payout: int = 0
    """Profit on a win in percent of the stake."""
    booked: float | None = None
    duration: int | None = None
    """Blitz: seconds from acceptance to expiry. Digital: the period."""
    expiry: int | None = None
    """Second whose price decides; the contract ends at ``settle_at``."""
    settle_at: float | None = None
    open_price: int | None = None
    forced: Outcome | None = None
    """Outcome that a fault rule or the control endpoint has ordered."""
    close_price: int | None = None
    closed: float | None = None
    outcome: Outcome | None = None
    credit: Decimal | None = None
    """What was paid back: stake and profit on a win."""
    balance_after: Decimal | None = None
    """Balance after the last booking of this order."""
    version: int = 0
    """Rises with every event of the position."""

    @property
    def win_credit(self) -> Decimal:
        """What a win pays back."""
        return gross_win(self.amount or Decimal(0), self.payout)


def known(fact: FactT | None) -> FactT:
    """Return a fact of an order that this kind or state of order always has.

    Raises:
        LookupError: It has not; the caller took one state for another.
    """
    if fact is None:
        raise LookupError("the order has no such fact in its state")
    return fact


def gross_win(amount: Decimal, payout: int) -> Decimal:
    """Return stake plus profit, to the cent."""
    return (amount * (100 + payout) / 100).quantize(CENT, ROUND_HALF_UP)


def outcome_of(direction: Direction, open_price: int, close_price: int) -> Outcome:
    """Compare with full precision: a call wins above the open price, a put below, and neither at it."""
    if close_price == open_price:
        return Outcome.TIED
    return Outcome.WON if (close_price > open_price) == (direction is Direction.CALL) else Outcome.LOST


def credit_of(outcome: Outcome, amount: Decimal, payout: int) -> Decimal:
    """Return what an expired contract pays back; a sold one is paid what it was sold for."""
    match outcome:
        case Outcome.WON:
            return gross_win(amount, payout)
        case Outcome.TIED:
            return amount
        case _:
            return Decimal(0)
