"""What the platform says of an order: the shapes of option and position events."""

from decimal import Decimal
from typing import Any, Final

from simulator.exchange.accounts import PRACTICE
from simulator.exchange.exchange import Exchange
from simulator.exchange.instruments import instrument_index
from simulator.exchange.orders import Direction, Order, OrderStatus, Outcome
from simulator.market.assets import TERMS, OptionKind
from simulator.market.prices import MICRO

PLATFORM_ID: Final = 9
CURRENCY: Final = "USD"
NONE: Final = Decimal(0)


def price(millionths: int | None) -> float:
    """Return a price as the wire has it."""
    return (millionths or 0) / MICRO


def balance_type(order: Order) -> int:
    """Return the type id of the balance that an order was booked on."""
    return PRACTICE if order.account_type == "PRACTICE" else 1


def option_reply(order: Order) -> dict[str, Any]:
    """Shape the answer to ``open-option``."""
    return {
        "user_id": order.user_id,
        "id": order.order_id,
        "refund_value": 0,
        "price": order.amount,
        "exp": order.expiry,
        "created": int(order.booked or 0),
        "created_millisecond": _ms(order.booked),
        "time_rate": int(order.booked or 0),
        "type": order.kind,
        "act": order.active_id,
        "direction": order.direction,
        "exp_value": order.open_price,
        "value": price(order.open_price),
        "profit_income": 100 + order.payout,
        "profit_return": 0,
        "robot_id": None,
        "client_platform_id": PLATFORM_ID,
    }


def option_opened(order: Order) -> dict[str, Any]:
    """Shape ``option-opened``."""
    return {
        "option_id": order.order_id,
        "user_id": order.user_id,
        "balance_id": order.balance_id,
        "balance_type_id": balance_type(order),
        "active_id": order.active_id,
        "active": order.asset,
        "amount": order.amount,
        "enrolled_amount": order.amount,
        "currency": CURRENCY,
        "direction": order.direction,
        "value": price(order.open_price),
        "option_type": order.kind,
        "option_type_id": _type_id(order),
        "open_time": int(order.booked or 0),
        "open_time_millisecond": _ms(order.booked),
        "expiration_time": order.expiry,
        "profit_percent": 100 + order.payout,
        "profit_amount": 0,
        "is_demo": balance_type(order) == PRACTICE,
        "platform_id": PLATFORM_ID,
    }


def option_closed(order: Order) -> dict[str, Any]:
    """Shape ``option-closed``; ``profit_amount`` is everything that was paid back."""
    return {
        "option_id": order.order_id,
        "result": _word(order),
        "amount": order.amount,
        "enrolled_amount": order.amount,
        "profit_amount": order.credit,
        "win_enrolled_amount": order.credit,
        "value": price(order.open_price),
        "expiration_value": price(order.close_price),
        "actual_expire": int(order.closed or 0),
        "expiration_time": order.expiry,
        "open_time": int(order.booked or 0),
        "active_id": order.active_id,
        "balance_id": order.balance_id,
        "user_id": order.user_id,
        "direction": order.direction,
        "option_type": order.kind,
        "option_type_id": _type_id(order),
        "profit_percent": 100 + order.payout,
        "currency": CURRENCY,
    }


def socket_option(order: Order, now: float) -> dict[str, Any]:
    """Shape ``socket-option-opened``, ``socket-option-closed`` and ``listInfoData``; ``win_amount`` is what a win would pay."""
    closed = order.status is OrderStatus.CLOSED
    kind = order.kind or OptionKind.TURBO
    return {
        "id": order.order_id,
        "win": _word(order) if closed else "equal",
        "sum": order.amount,
        "win_amount": order.win_credit,
        "loose_amount": 0,
        "profit_amount": order.credit if closed else 0,
        "amount": int((order.amount or NONE) * MICRO),
        "value": price(order.open_price),
        "exp_value": order.close_price if closed else order.open_price,
        "active_id": order.active_id,
        "active": order.asset,
        "dir": order.direction,
        "created": int(order.booked or 0),
        "expired": order.expiry,
        "type_name": kind,
        "type": f"front.{kind.value[:2].upper()}",
        "option_type_id": _type_id(order),
        "profit": 0,
        "profit_income": 100 + order.payout,
        "profit_return": 0,
        "refund": 0,
        "game_state": int(closed),
        "rate_finished": closed,
        "is_demo": balance_type(order) == PRACTICE,
        "currency": CURRENCY,
        "currency_char": "$",
        "now": int(now),
        "user_id": order.user_id,
        "user_balance_id": order.balance_id,
        "client_platform_id": PLATFORM_ID,
        "site_id": 1,
        "re_track": None,
        "params": None,
    }


def position(order: Order, exchange: Exchange, now: float, *, nested: bool) -> dict[str, Any]:
    """Shape a position, open or closed.

    Args:
        order: The order whose position it is.
        exchange: Says what an open position is worth.
        now: Unix seconds.
        nested: Newer versions of the messages put ``raw_event`` under the name of its kind, older ones have it flat.
    """
    digital = order.kind is OptionKind.DIGITAL
    kind = order.kind or OptionKind.TURBO
    raw = _digital_raw(order) if digital else _option_raw(order)
    raw_name = "digital_options_position_changed1" if digital else "binary_options_option_changed1"
    shape: dict[str, Any] = {
        "version": order.version,
        "id": order.position_id,
        "external_id": order.external_id,
        "user_id": order.user_id,
        "user_balance_id": order.balance_id,
        "platform_id": PLATFORM_ID,
        "active_id": order.active_id,
        "instrument_id": order.instrument_id if digital else str(order.active_id),
        "source": "digital-options" if digital else "binary-options",
        "instrument_type": kind.instrument_type,
        "status": order.status,
        "open_time": _ms(order.booked),
        "open_quote": price(order.open_price),
        "invest": order.amount,
        "invest_enrolled": order.amount,
        "swap": 0,
    }
    amount = order.amount or NONE
    if order.status is OrderStatus.CLOSED:
        pnl = (order.credit or NONE) - amount
        shape |= {
            "close_quote": price(order.close_price),
            "close_reason": _close_reason(order),
            "close_time": _ms(order.closed),
            "close_profit": order.credit,
            "close_profit_enrolled": order.credit,
            "pnl": pnl,
            "pnl_realized": pnl,
            "pnl_net": pnl,
        }
    else:
        value = exchange.sale_value(order)
        listing = None if order.active_id is None else exchange.listings.get(order.active_id)
        shape |= {
            "expected_profit": order.win_credit,
            "sell_profit": value,
            "current_price": price(None if listing is None else exchange.price_now(listing)),
            "quote_timestamp": int(now) * 1000,
            "pnl": value - amount,
            "pnl_net": value - amount,
        }
    shape["raw_event"] = {raw_name: raw} if nested else raw
    return shape


def position_state(order: Order, exchange: Exchange, now: float) -> dict[str, Any]:
    """Shape an open position as ``positions-state`` lists it."""
    whole = position(order, exchange, now, nested=False)
    names = (
        "id",
        "instrument_type",
        "sell_profit",
        "current_price",
        "quote_timestamp",
        "pnl",
        "pnl_net",
        "expected_profit",
    )
    return {name: whole.get(name) for name in names} | {
        "margin": order.amount,
        "open_price": price(order.open_price),
        "currency_conversion": 1,
    }


def order_changed(order: Order, *, nested: bool) -> dict[str, Any]:
    """Shape ``order-changed`` of a digital order."""
    raw: dict[str, Any] = {"id": order.order_id, "status": "filled" if order.booked else "rejected"}
    return {
        "id": order.order_id,
        "instrument_type": OptionKind.DIGITAL.instrument_type,
        "kind": "market",
        "position_id": order.external_id if order.booked else None,
        "status": raw["status"],
        "user_id": order.user_id,
        "user_balance_id": order.balance_id,
        "source": "digital-options",
        "raw_event": {"digital_options_order_changed1": raw} if nested else raw,
    }


def _option_raw(order: Order) -> dict[str, Any]:
    closed = order.status is OrderStatus.CLOSED
    raw: dict[str, Any] = {
        "option_id": order.order_id,
        "index": order.number * 2 + int(closed),
        "result": _word(order) if closed else "opened",
        "amount": order.amount,
        "enrolled_amount": order.amount,
        "profit_amount": order.credit if closed else 0,
        "win_enrolled_amount": order.credit if closed else 0,
        "value": price(order.open_price),
        "direction": order.direction,
        "open_time": int(order.booked or 0),
        "open_time_millisecond": _ms(order.booked),
        "expiration_time": order.expiry,
        "expiration_size": order.duration or TERMS[order.kind or OptionKind.TURBO].expirations[0],
        "option_type": order.kind,
        "option_type_id": _type_id(order),
        "active_id": order.active_id,
        "balance_id": order.balance_id,
        "user_id": order.user_id,
        "profit_percent": 100 + order.payout,
        "user_balance_type": balance_type(order),
        "currency": CURRENCY,
        "platform_id": PLATFORM_ID,
    }
    if closed:
        raw |= {"expiration_value": price(order.close_price), "actual_expire": int(order.closed or 0)}
    return raw


def _digital_raw(order: Order) -> dict[str, Any]:
    closed = order.status is OrderStatus.CLOSED
    direction = order.direction or Direction.CALL
    contract: dict[str, Any] = {
        "id": order.external_id,
        "order_ids": [order.order_id],
        "status": order.status,
        "user_id": order.user_id,
        "user_balance_id": order.balance_id,
        "user_balance_type": balance_type(order),
        "platform_id": PLATFORM_ID,
        "type": "long",
        "buy_amount": order.amount,
        "buy_amount_enrolled": order.amount,
        "sell_amount": order.credit if closed else 0,
        "sell_amount_enrolled": order.credit if closed else 0,
        "count": order.win_credit / 100,
        "currency": CURRENCY,
        "currency_rate": 1,
        "currency_unit": 1,
        "instrument_id": order.instrument_id,
        "instrument_type": OptionKind.DIGITAL.instrument_type,
        "instrument_dir": direction,
        "instrument_active_id": order.active_id,
        "instrument_underlying": order.asset,
        "instrument_expiration": (order.expiry or 0) * 1000,
        "instrument_period": order.duration,
        "instrument_strike": price(order.open_price),
        "instrument_strike_value": order.open_price,
        "instrument_index": instrument_index(order.active_id or 0, order.requested_expiry or 0, order.duration or 60),
        "open_underlying_price": price(order.open_price),
        "open_time": int(order.booked or 0),
        "create_at": _ms(order.booked),
        "pnl_realized": digital_realised(order),
        "extra_data": {
            "spot_option": True,
            "lower_instrument_id": order.instrument_id,
            "upper_instrument_id": order.instrument_id,
            "lower_instrument_strike": order.open_price,
            "upper_instrument_strike": order.open_price,
            "version": "1.0",
        },
    }
    if closed:
        contract |= {
            "close_reason": _close_reason(order),
            "close_underlying_price": price(order.close_price),
            "close_time": int(order.closed or 0),
            "close_at": _ms(order.closed),
            "update_at": _ms(order.closed),
        }
    return contract


def digital_realised(order: Order) -> Decimal:
    """Return ``pnl_realized`` of a digital position: everything paid back at expiry, the net result of a sale."""
    if order.outcome is Outcome.SOLD:
        return (order.credit or NONE) - (order.amount or NONE)
    return order.credit or NONE


def _close_reason(order: Order) -> str:
    if order.kind is not OptionKind.DIGITAL:
        return _word(order)
    return "default" if order.outcome is Outcome.SOLD else "expired"


def _word(order: Order) -> str:
    return "" if order.outcome is None else order.outcome.broker_word


def _type_id(order: Order) -> int:
    return TERMS[order.kind or OptionKind.TURBO].type_id


def _ms(seconds: float | None) -> int:
    return round((seconds or 0.0) * 1000)
