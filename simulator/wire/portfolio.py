"""Methods about open positions and history."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from simulator.exchange.orders import Order, OrderStatus
from simulator.market.assets import OptionKind
from simulator.platform import Platform
from simulator.wire import events, frames
from simulator.wire.bodies import GetOptions, GetPositions, SubscribePositions, WithOrder, WithPosition, read_id
from simulator.wire.requests import ACK_ONLY, BAD_REQUEST, Methods, Reply, Request

NESTED_OPEN: Final = 4
NESTED_HISTORY: Final = 2
"""Versions of the requests from which ``raw_event`` is nested."""
STATE_LIFE: Final = 60
"""Seconds for which ``subscribe-positions`` lasts."""
MOST: Final = 1000


def _kinds(body: GetPositions) -> set[str]:
    """Return the instrument types that are asked for; empty means all."""
    kinds = set(body.instrument_types or ())
    if body.instrument_type:
        kinds.add(body.instrument_type)
    return kinds


def _page(orders: Iterable[Order], body: GetPositions) -> tuple[list[Order], int, int]:
    """Return the page that is asked for, the number of all, and the limit."""
    found = list(orders)
    limit = body.limit if 0 < body.limit <= MOST else MOST
    offset = max(0, body.offset)
    return found[offset : offset + limit], len(found), limit


def _matching(request: Request, body: GetPositions, status: OrderStatus) -> Iterable[Order]:
    kinds = _kinds(body)
    for order in reversed(request.platform.exchange.of_user(request.account.user_id)):
        if order.status is not status or order.kind is None:
            continue
        if kinds and order.kind.instrument_type not in kinds:
            continue
        if body.user_balance_id and order.balance_id != body.user_balance_id:
            continue
        if body.external_id and order.external_id != body.external_id:
            continue
        yield order


def get_positions(request: Request) -> Reply:
    """``get-positions``: what is open."""
    body = request.body(GetPositions)
    page, total, limit = _page(_matching(request, body, OrderStatus.OPEN), body)
    nested = request.message.major >= NESTED_OPEN
    exchange, now = request.platform.exchange, request.now
    shaped = [events.position(order, exchange, now, nested=nested) for order in page]
    return Reply("positions", {"positions": shaped, "total": total, "limit": limit})


def get_history_positions(request: Request) -> Reply:
    """``get-history-positions``: what has ended, newest first."""
    body = request.body(GetPositions)
    start, end = _seconds(body.start), _seconds(body.end)
    ended = sorted(_matching(request, body, OrderStatus.CLOSED), key=lambda order: order.closed or 0.0, reverse=True)
    within = [o for o in ended if (not start or (o.closed or 0.0) >= start) and (not end or (o.closed or 0.0) <= end)]
    page, total, limit = _page(within, body)
    nested = request.message.major >= NESTED_HISTORY
    exchange, now = request.platform.exchange, request.now
    shaped = [events.position(order, exchange, now, nested=nested) for order in page]
    return Reply("history-positions", {"positions": shaped, "total": total, "limit": limit})


def get_position(request: Request) -> Reply:
    """``get-position``: one digital position."""
    wanted = read_id(request.body(WithPosition).position_id)
    exchange = request.platform.exchange
    order = None if wanted is None else exchange.find(request.account.user_id, wanted)
    if order is None:
        return Reply("position", {"message": "position not found"}, BAD_REQUEST)
    shape = events.position(order, exchange, request.now, nested=False)
    raw = shape.pop("raw_event")
    return Reply("position", {"position": shape | raw | {"id": order.external_id}})


def get_position_history(request: Request) -> Reply:
    """``get-position-history``: the old name, and its answer has an old name too."""
    history = get_history_positions(request)
    return Reply("position-history", history.msg)


def get_order(request: Request) -> Reply:
    """``get-order``: one digital order."""
    wanted = request.body(WithOrder).order_id
    for order in request.platform.exchange.of_user(request.account.user_id):
        if order.order_id == wanted and order.kind is OptionKind.DIGITAL:
            return Reply("order", events.order_changed(order, nested=False))
    return Reply("order", {"message": "order not found"}, BAD_REQUEST)


def get_orders(_request: Request) -> Reply:
    """``portfolio.get-orders``: there are no deferred orders; clients read either key."""
    return Reply("orders", {"items": [], "orders": []})


def get_options(request: Request) -> Reply:
    """``get-options``: options in the shape of the old site."""
    body = request.body(GetOptions)
    return Reply("options", options_of(request.platform, request.account.user_id, body))


def options_of(platform: Platform, user_id: int, body: GetOptions) -> dict[str, Any]:
    """Shape the open and closed options of a user, newest first; here ``win_amount`` is what was paid back."""
    kinds = set((body.instrument_type or "").split(",")) - {""}
    mine = [
        order
        for order in reversed(platform.exchange.of_user(user_id))
        if order.kind is not None
        and order.kind is not OptionKind.DIGITAL
        and (not kinds or order.kind.value in kinds or order.kind.instrument_type in kinds)
        and (not body.user_balance_id or order.balance_id == body.user_balance_id)
    ]

    def shape(order: Order) -> dict[str, Any]:
        closed = order.status is OrderStatus.CLOSED
        whole = events.socket_option(order, platform.shared.clock())
        return whole | {
            "id": [order.order_id],
            "amount": order.amount,
            "win_amount": order.credit if closed else Decimal(0),
            "instrument_type": order.kind,
            "direction": order.direction,
        }

    limit = body.limit if 0 < body.limit <= MOST else MOST
    return {
        "open_options": [shape(o) for o in mine if o.status is OrderStatus.OPEN][:limit],
        "closed_options": [shape(o) for o in mine if o.status is OrderStatus.CLOSED][:limit],
    }


def subscribe_positions(request: Request) -> None:
    """``portfolio.subscribe-positions``: acknowledged; the states follow each second until it lapses."""
    ids = request.body(SubscribePositions).ids
    request.connection.watched_positions = frozenset(ids)
    request.connection.watched_until = request.now + STATE_LIFE
    return ACK_ONLY


def positions_state(platform: Platform, user_id: int, ids: frozenset[str], until: float) -> bytes | None:
    """Spell ``positions-state`` for those of the positions that are open; None if none is."""
    now = platform.shared.clock()
    mine = [o for o in platform.exchange.of_user(user_id) if o.status is OrderStatus.OPEN and o.position_id in ids]
    if not mine:
        return None
    states = [events.position_state(order, platform.exchange, now) for order in mine]
    msg = {"positions": states, "expires_in": max(0, int(until - now)), "subscription_id": 1, "user_id": user_id}
    return frames.push("portfolio", "positions-state", msg)


METHODS: Final[Methods] = {
    "get-positions": get_positions,
    "get-history-positions": get_history_positions,
    "get-position-history": get_position_history,
    "get-order": get_order,
    "get-position": get_position,
    "get-orders": get_orders,
    "get-options": get_options,
    "subscribe-positions": subscribe_positions,
}


def _seconds(moment: Decimal | None) -> float:
    """Return unix seconds of a moment in seconds or, as some clients write it, milliseconds; 0 for none."""
    value = float(moment or 0)
    return value / 1000 if value > 1e11 else value
