"""Reads the broker's lists of open and closed positions."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
import structlog

from services.broker.connectors.quadcode.link import Link, RequestRefusedError
from services.broker.connectors.quadcode.messages import UNREADABLE, Position, PositionsReply
from services.broker.connectors.quadcode.parsing import WIRE_INSTRUMENTS, ParseError
from services.broker.connectors.quadcode.protocol import Call, Json
from services.broker.domain.errors import BrokerUnavailableError
from services.broker.domain.values import Account, Order

PAGE: Final = 100
MAX_PAGES: Final = 50
ALL_KINDS: Final[list[Json]] = list(WIRE_INSTRUMENTS.values())

TakePosition = Callable[[Position], Order | None]
"""Takes what a position tells over; None if it is not an order of ours. Raises ``ParseError``."""

_position: Final = msgspec.json.Decoder(Position)
_positions: Final = msgspec.json.Decoder(PositionsReply)
_log = structlog.get_logger(__name__)


async def read_open(link: Link, account: Account, take: TakePosition) -> tuple[list[Order], bool]:
    """Return the open orders, and whether the list was read to its end and understood.

    Raises:
        BrokerUnavailableError: The broker did not give a list.
    """
    orders: dict[str, Order] = {}
    complete, seen = True, 0
    for _ in range(MAX_PAGES):
        reply = await _page(
            link,
            Call(
                "portfolio.get-positions",
                "4.0",
                {
                    "instrument_types": ALL_KINDS,
                    "user_balance_id": account.balance_id,
                    "limit": PAGE,
                    "offset": seen,
                },
            ),
        )
        understood = _take_all(reply, take, orders)
        complete = complete and understood
        seen += len(reply.positions)
        if _is_last(reply):
            # A list that got shorter between two pages has passed an entry over.
            return list(orders.values()), complete and (reply.total is None or seen >= reply.total)
    return list(orders.values()), False


async def read_closed(link: Link, account: Account, since: datetime, take: TakePosition) -> tuple[list[Order], bool]:
    """Return the orders closed since a time, and whether the list was read to that time and understood.

    Raises:
        BrokerUnavailableError: The broker did not give a list.
    """
    orders: dict[str, Order] = {}
    complete, seen = True, 0
    for _ in range(MAX_PAGES):
        body: dict[str, Json] = {
            "instrument_types": ALL_KINDS,
            "user_id": account.user_id,
            "limit": PAGE,
            "offset": seen,
        }
        reply = await _page(link, Call("portfolio.get-history-positions", "2.0", body))
        before = len(orders)
        understood = _take_all(reply, take, orders)
        complete = complete and understood
        seen += len(reply.positions)
        # Newest first: once a page ends with an older one there is nothing more to find.
        page = list(orders.values())[before:]
        past = bool(page) and page[-1].close_time is not None and page[-1].close_time < since
        if _is_last(reply) or past:
            recent = [order for order in orders.values() if order.close_time is None or order.close_time >= since]
            return recent, complete
    return list(orders.values()), False


async def read_one(link: Link, account: Account, order: Order, take: TakePosition) -> None:
    """Take over what the history has on one order.

    Raises:
        BrokerUnavailableError: The broker did not give a list.
    """
    body: dict[str, Json] = {
        "instrument_types": [WIRE_INSTRUMENTS[order.instrument_type]],
        "user_id": account.user_id,
        "external_id": int(order.broker_order_id),
        "limit": 1,
        "offset": 0,
    }
    _take_all(await _page(link, Call("portfolio.get-history-positions", "2.0", body)), take, {})


async def _page(link: Link, call: Call) -> PositionsReply:
    try:
        return _positions.decode(await link.call(call))
    except RequestRefusedError as error:
        _log.warning("broker_refused", method=call.method, status=error.status, text=error.text)
        raise BrokerUnavailableError("the broker refuses to list orders") from error
    except UNREADABLE as error:
        raise BrokerUnavailableError("the broker's list of orders cannot be read") from error


def _take_all(reply: PositionsReply, take: TakePosition, orders: dict[str, Order]) -> bool:
    """Take all entries of a page; False if one of them could not be understood."""
    understood = True
    for raw in reply.positions:
        try:
            order = take(_position.decode(raw))
        except (*UNREADABLE, ParseError):
            _log.warning("unreadable_position")
            understood = False
            continue
        if order is not None:
            orders[order.broker_order_id] = order
    return understood


def _is_last(reply: PositionsReply) -> bool:
    # The broker may cap the page below what was asked for, and says so.
    return len(reply.positions) < min(PAGE, reply.limit or PAGE)
