"""Checks an order against what is on offer and writes the request that places it: the last word before the wire."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from services.broker.connectors.quadcode.assets import Listing
from services.broker.connectors.quadcode.messages import DigitalInstrument
from services.broker.connectors.quadcode.parsing import OPTION_TYPE_IDS
from services.broker.connectors.quadcode.protocol import Body, Call
from services.broker.domain.errors import (
    AssetClosedError,
    InsufficientFundsError,
    InvalidArgumentError,
    PayoutChangedError,
    PurchaseWindowClosedError,
)
from services.broker.domain.expiry import blitz_expiry, grid_expiry, listed_expiry
from services.broker.domain.values import Account, InstrumentType, NewOrder, Order, OrderState

SPOT: Final = "SPT"
"""The strike at the money."""
PAYOUT_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Ticket:
    """An order ready to be sent."""

    call: Call
    order: Order
    """As it is known if the answer is lost: SUBMITTED, with what was sent."""


def check_stake(order: NewOrder, listing: Listing, account: Account, broker_time: float) -> None:
    """Refuse what the broker would refuse, without asking it.

    Raises:
        AssetClosedError: Not open now.
        InvalidArgumentError: The stake is outside the asset's limits.
        InsufficientFundsError: The balance is below the stake.
    """
    if not listing.is_open(broker_time):
        raise AssetClosedError(order.asset)
    if not listing.min_amount <= order.amount <= listing.max_amount:
        raise InvalidArgumentError("amount", f"must be {listing.min_amount} to {listing.max_amount} for this asset")
    if order.amount > account.balance:
        raise InsufficientFundsError


def option_ticket(order: NewOrder, listing: Listing, account: Account, broker_time: float) -> Ticket:
    """Write a turbo, binary or blitz order.

    Raises:
        InvalidArgumentError: No such duration.
        PayoutChangedError: The payout is below what the caller accepts.
        PurchaseWindowClosedError: No expiry can be bought any more.
    """
    kind = listing.instrument_type
    if kind is InstrumentType.BLITZ:
        expiry = blitz_expiry(broker_time, order.duration, durations=listing.durations)
    else:
        expiry = grid_expiry(
            broker_time,
            order.duration,
            step=listing.durations[0],
            count=listing.count,
            deadtime=listing.deadtime,
        )
    _check_payout(order, listing.payout_rate)
    percent = listing.payout_percent
    body: dict[str, str | int | float] = {
        "user_balance_id": account.balance_id,
        "active_id": listing.active_id,
        "option_type_id": OPTION_TYPE_IDS[kind],
        "direction": order.direction.value,
        "expired": expiry,
        "price": float(order.amount),
        "refund_value": 0,
        "profit_percent": int(percent) if percent == int(percent) else percent,
    }
    if kind is InstrumentType.BLITZ:
        body["expiration_size"] = order.duration
    call = Call("binary-options.open-option", "2.0", dict(body))
    return Ticket(call, _submitted(order, account, listing.payout_rate, broker_time, expiry))


def choose_digital(
    instruments: list[DigitalInstrument], order: NewOrder, broker_time: float, lead: float = 0.0
) -> tuple[DigitalInstrument, str]:
    """Return the listed instrument nearest to the wanted expiry and the symbol of the wanted side, at the money.

    Args:
        instruments: What is on offer.
        order: What is wanted.
        broker_time: Now, unix seconds.
        lead: Seconds that will pass before the order can be sent.

    Raises:
        InvalidArgumentError: There is no period of that length.
        PurchaseWindowClosedError: None can be bought any more.
    """
    fitting = {i.expiration: i for i in instruments if i.period == order.duration}
    if not fitting:
        periods = sorted({i.period for i in instruments})
        raise InvalidArgumentError("duration", f"must be one of {', '.join(map(str, periods))} s for this asset")
    expiries = {expiration: instrument.deadtime for expiration, instrument in fitting.items()}
    instrument = fitting[listed_expiry(broker_time, order.duration, expiries=expiries, lead=lead)]
    for choice in instrument.data:
        if choice.strike == SPOT and choice.direction == order.direction.value:
            return instrument, choice.symbol
    raise PurchaseWindowClosedError


def digital_payout(ask: float) -> float:
    """Return the payout rate of a contract that costs ``ask`` and pays 100 on a win."""
    return round((100 - ask) / ask, 4)


def digital_ticket(
    order: NewOrder,
    listing: Listing,
    account: Account,
    broker_time: float,
    *,
    instrument: DigitalInstrument,
    symbol: str,
    payout_rate: float,
) -> Ticket:
    """Write a digital order.

    Raises:
        PayoutChangedError: The payout is below what the caller accepts.
    """
    _check_payout(order, payout_rate)
    body: Body = {
        "user_balance_id": account.balance_id,
        "instrument_id": symbol,
        "instrument_index": instrument.index,
        "asset_id": listing.active_id,
        "amount": format(order.amount, "f"),
    }
    call = Call("digital-options.place-digital-option", "3.0", body)
    return Ticket(call, _submitted(order, account, payout_rate, broker_time, instrument.expiration))


def _check_payout(order: NewOrder, payout_rate: float) -> None:
    if payout_rate < order.min_payout_rate - PAYOUT_TOLERANCE:
        raise PayoutChangedError(payout_rate)


def _submitted(order: NewOrder, account: Account, payout_rate: float, broker_time: float, expiry: int) -> Order:
    return Order(
        client_order_id=order.client_order_id,
        broker_order_id="",
        state=OrderState.SUBMITTED,
        account_type=account.account_type,
        balance_id=account.balance_id,
        asset=order.asset,
        instrument_type=order.instrument_type,
        direction=order.direction,
        amount=Decimal(order.amount),
        payout_rate=payout_rate,
        open_price=0.0,
        open_time=datetime.fromtimestamp(broker_time, UTC),
        expiry_time=datetime.fromtimestamp(expiry, UTC),
    )
