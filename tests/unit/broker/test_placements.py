"""Which lost order a position is."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.broker.connectors.quadcode.placements import KEPT, Placement, Placements
from services.broker.connectors.quadcode.protocol import Call
from services.broker.connectors.quadcode.tickets import Ticket
from services.broker.domain.errors import NotSellableError
from services.broker.domain.values import AccountType, Direction, InstrumentType, NewOrder, Order, OrderState
from services.runtime.clock import SystemClock
from tests.support.brokers import an_order

NOW = SystemClock().now()


def sent_as(request: NewOrder) -> Order:
    return Order(
        client_order_id=request.client_order_id,
        broker_order_id="",
        state=OrderState.SUBMITTED,
        account_type=AccountType.PRACTICE,
        balance_id=4,
        asset=request.asset,
        instrument_type=request.instrument_type,
        direction=request.direction,
        amount=request.amount,
        payout_rate=0.87,
        open_price=0.0,
        open_time=NOW,
        expiry_time=NOW + timedelta(seconds=request.duration),
    )


def lost(placements: Placements, request: NewOrder) -> Placement:
    placement, is_new = placements.open(request, NOW)
    assert is_new
    placement.ticket = Ticket(Call("x", "1.0", {}), sent_as(request))
    placement.sent = True
    assert placement.lose()
    return placement


def position(request: NewOrder, **changes: Any) -> Order:
    booked = replace(sent_as(request), client_order_id="", broker_order_id="5", state=OrderState.OPEN)
    return replace(booked, **changes)


async def test_a_position_with_the_fingerprint_is_the_lost_order() -> None:
    placements, request = Placements(), an_order()
    placement = lost(placements, request)
    assert placements.match(position(request)) is placement
    assert placements.match(position(request, open_time=NOW - timedelta(seconds=1))) is placement, "clocks differ a bit"


@pytest.mark.parametrize(
    "change",
    [
        {"asset": "GBPUSD-OTC"},
        {"direction": Direction.PUT},
        {"instrument_type": InstrumentType.BINARY},
        {"amount": 2},
        {"balance_id": 1},
        {"expiry_time": NOW + timedelta(seconds=120)},
        {"open_time": NOW - timedelta(seconds=3)},
    ],
)
async def test_a_position_that_differs_in_anything_is_not(change: dict[str, Any]) -> None:
    placements, request = Placements(), an_order()
    lost(placements, request)
    assert placements.match(position(request, **change)) is None


async def test_a_blitz_order_is_known_by_its_length_not_by_its_end() -> None:
    placements = Placements()
    request = an_order(instrument_type=InstrumentType.BLITZ, duration=30)
    placement = lost(placements, request)
    later = NOW + timedelta(seconds=4)
    end = later + timedelta(seconds=30)
    assert placements.match(position(request, open_time=later, expiry_time=end)) is placement
    assert placements.match(position(request, open_time=later, expiry_time=later + timedelta(seconds=60))) is None
    much_later = NOW + timedelta(minutes=3)
    end = much_later + timedelta(seconds=30)
    assert placements.match(position(request, open_time=much_later, expiry_time=end)) is None, "somebody else's click"


async def test_two_lost_orders_that_look_the_same_match_nothing() -> None:
    placements, request = Placements(), an_order("one")
    lost(placements, request)
    lost(placements, replace(request, client_order_id="two"))
    assert placements.match(position(request)) is None


async def test_orders_that_are_not_lost_match_nothing() -> None:
    placements, request = Placements(), an_order()
    placement, _ = placements.open(request, NOW)
    placement.ticket = Ticket(Call("x", "1.0", {}), sent_as(request))
    assert placements.match(position(request)) is None, "still awaited"
    placement.resolve(position(request))
    assert not placement.lose()
    assert placements.match(position(request)) is None


async def test_the_first_word_to_the_callers_stands() -> None:
    placements, request = Placements(), an_order()
    placement = lost(placements, request)
    placement.fail(NotSellableError())
    assert placement.result.result().state is OrderState.SUBMITTED
    assert not placement.unresolved, "but it is no longer looked for"


async def test_ids_are_kept_as_long_as_a_repetition_could_be_sent() -> None:
    placements = Placements()
    for n in range(3 * KEPT):
        placement, _ = placements.open(an_order(f"old-{n}", send_within=-3_600), NOW)
        placement.fail(NotSellableError())
    assert len(list(placements)) == KEPT
    for n in range(3 * KEPT):
        placement, _ = placements.open(an_order(f"young-{n}", send_within=3_600), NOW)
        placement.fail(NotSellableError())
    assert len([p for p in placements if p.request.client_order_id.startswith("young")]) == 3 * KEPT
    assert not placements.open(an_order("young-0"), NOW)[1]
