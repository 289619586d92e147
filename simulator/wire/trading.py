"""Methods that place and end orders."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from simulator.exchange import refusals
from simulator.exchange.exchange import Intervention, NewOrder
from simulator.exchange.orders import Direction, Order
from simulator.exchange.refusals import Refusal
from simulator.faults import FaultKind, Point
from simulator.market.assets import TERMS, OptionKind
from simulator.platform import Platform
from simulator.wire import events
from simulator.wire.bodies import LAST_MOMENT, OpenOption, PlaceDigital, SellOptions, WithPosition, read_id
from simulator.wire.requests import BAD_REQUEST, Methods, Reply, Request

KIND_OF_TYPE_ID: Final = {TERMS[kind].type_id: kind for kind in (OptionKind.BINARY, OptionKind.TURBO, OptionKind.BLITZ)}
CHECKS_PAYOUT: Final = 2
"""Version of ``open-option`` from which the payout that the client saw is compared."""
_REFUSALS: Final = {
    FaultKind.SUSPENDED: refusals.suspended,
    FaultKind.CLOSED: refusals.not_available,
    FaultKind.NO_MONEY: refusals.no_money,
    FaultKind.TOO_LATE: refusals.too_late,
    FaultKind.REJECTED_BY_RISKS: refusals.rejected_by_risks,
}


def intervention_for(platform: Platform, new: NewOrder, method: str) -> Intervention:
    """Ask the fault script what is to become of an order."""
    refusal: Refusal | None = None
    forced, settle_after = None, None
    for rule, delay in platform.shared.faults.strike(Point.ORDER, platform.brand.name, new.account.email, method):
        if rule.kind is FaultKind.FORCED_OUTCOME:
            forced = rule.outcome
        elif rule.kind is FaultKind.EARLY_SETTLEMENT:
            settle_after = delay
        elif rule.kind is FaultKind.PAYOUT_CHANGED:
            refusal = _payout_changed(platform, new, rule.commission)
        else:
            refusal = _REFUSALS[rule.kind]()
    return Intervention(refusal=refusal, forced=forced, settle_after=settle_after)


def _payout_changed(platform: Platform, new: NewOrder, commission: int | None) -> Refusal:
    kind = new.kind or OptionKind.TURBO
    listing = platform.listings.get(new.active_id or 0)
    if commission is None:
        commission = (13 if listing is None else listing.commissions.get(kind, 13)) + 1
    return refusals.payout_changed(new.active_id or 0, commission, TERMS[kind].type_id)


def option_from(request: Request) -> NewOrder:
    """Read ``open-option``."""
    body = request.body(OpenOption)
    kind = KIND_OF_TYPE_ID.get(body.option_type_id)
    blitz = kind is OptionKind.BLITZ
    return NewOrder(
        account=request.account,
        request_id=request.request_id,
        received=request.received,
        balance_id=body.user_balance_id,
        kind=kind,
        direction=read_direction(body.direction),
        amount=body.price,
        active_id=body.active_id,
        expiry=None if blitz else whole_second(body.expired),
        size=body.expiration_size if blitz else None,
        payout_seen=body.profit_percent if request.message.major >= CHECKS_PAYOUT else None,
    )


def read_direction(word: str) -> Direction | None:
    """Return the direction, in whatever case it is written; None if it is none."""
    try:
        return Direction(word.lower())
    except ValueError:
        return None


def whole_second(time: Decimal) -> int | None:
    """Return a time as whole seconds; None if it is not one."""
    return int(time) if time.is_finite() and abs(time) < LAST_MOMENT and time == time.to_integral_value() else None


def open_option(request: Request) -> Reply:
    """``binary-options.open-option``."""
    platform, new = request.platform, option_from(request)
    try:
        order = platform.exchange.place(new, intervention_for(platform, new, request.message.method))
    except Refusal as refusal:
        return Reply("option", {"message": refusal.text, "result": refusal.result or {}}, refusal.status)
    return Reply("option", events.option_reply(order), after=lambda: platform.exchange.announce(order))


def digital_from(request: Request) -> NewOrder:
    """Read ``place-digital-option``."""
    body = request.body(PlaceDigital)
    return NewOrder(
        account=request.account,
        request_id=request.request_id,
        received=request.received,
        balance_id=body.user_balance_id,
        kind=OptionKind.DIGITAL,
        direction=None,
        amount=body.amount,
        instrument_id=body.instrument_id,
    )


def place_digital_option(request: Request) -> Reply:
    """``digital-options.place-digital-option``: answered with an order id even if there is no money for it."""
    platform, new = request.platform, digital_from(request)
    try:
        order = platform.exchange.place(new, intervention_for(platform, new, request.message.method))
    except Refusal as refusal:
        return Reply("digital-option-placed", {"message": refusal.text}, refusal.status)
    return Reply("digital-option-placed", {"id": order.order_id}, after=lambda: platform.exchange.announce(order))


ORDERS: Final[Mapping[str, Callable[[Request], NewOrder]]] = {
    "open-option": option_from,
    "place-digital-option": digital_from,
}
"""Methods that place orders, and how each is read."""


def sell_options(request: Request) -> Reply:
    """``sell-options``: one option or several; fails as a whole if the first cannot be sold."""
    wanted = request.body(SellOptions).options_ids
    sold: list[dict[str, Any]] = []
    for option_id in [wanted] if isinstance(wanted, int) else wanted:
        try:
            credit = _sell(request, option_id)
        except Refusal as refusal:
            if not sold:
                return Reply("sold-options", {"message": refusal.text}, refusal.status)
            break
        sold.append({"id": option_id, "sold_amount": credit})
    return Reply("sold-options", {"isSuccessful": True, "message": [], "result": sold})


def close_position(request: Request) -> Reply:
    """``digital-options.close-position`` and ``close-position-batch``."""
    closed: list[int] = []
    for position_id in request.body(WithPosition).wanted:
        number = read_id(position_id)
        if number is None:
            return Reply("position-closed", {"message": "position not found"}, BAD_REQUEST)
        try:
            _sell(request, number)
        except Refusal as refusal:
            return Reply("position-closed", {"message": refusal.text}, refusal.status)
        closed.append(number)
    return Reply("position-closed", {"id": closed[0] if len(closed) == 1 else closed})


def _sell(request: Request, external_id: int) -> Decimal:
    order: Order | None = request.platform.exchange.find(request.account.user_id, external_id)
    if order is None:
        raise refusals.invalid("sale", "The position is not found.")
    return request.platform.exchange.sell(order)


METHODS: Final[Methods] = {
    "open-option": open_option,
    "place-digital-option": place_digital_option,
    "sell-options": sell_options,
    "close-position": close_position,
    "close-position-batch": close_position,
}
