"""Whatever goes wrong, at whatever point of an order's life: at most one order at the broker, and never a guess."""

import asyncio
from decimal import Decimal
from typing import Any, Final

import pytest

from services.broker.domain.errors import BrokerError
from services.broker.domain.ports import Connector
from services.broker.domain.values import ConnectionState, InstrumentType, Order, OrderState, Outcome
from tests.support.brokers import Watcher, World, a_world, an_order
from tests.support.eventually import eventually

USER: Final = "trader@example.com"
PLACE: Final = {InstrumentType.TURBO: "open-option", InstrumentType.DIGITAL: "place-digital-option"}
ORDER_PUSHES: Final = "position-changed"

# What goes wrong while the order is placed: the fault's fields.
PLACING: Final[dict[str, dict[str, Any]]] = {
    "nothing": {},
    "ack lost": {"kind": "lost", "on": "ack"},
    "ack late": {"kind": "late", "on": "ack", "seconds": 1.5},
    "ack twice": {"kind": "duplicate", "on": "ack"},
    "ack malformed": {"kind": "malformed", "on": "ack"},
    "ack after the answer": {"kind": "out_of_order", "on": "ack"},
    "answer lost": {"kind": "lost", "on": "reply"},
    "answer late": {"kind": "late", "on": "reply", "seconds": 0.3},
    "answer after our time-out": {"kind": "late", "on": "reply", "seconds": 1.5},
    "answer twice": {"kind": "duplicate", "on": "reply"},
    "answer malformed": {"kind": "malformed", "on": "reply"},
    "unknown frame first": {"kind": "unknown_frame", "on": "reply"},
    "request slow": {"kind": "latency", "seconds": 0.3},
    "request slower than our time-out": {"kind": "latency", "seconds": 1.5},
    "cut before booking": {"kind": "disconnect_before"},
    "cut after booking": {"kind": "disconnect_after"},
    "token expired": {"kind": "token_expired"},
    "payout changed": {"kind": "payout_changed"},
    "suspended": {"kind": "suspended"},
    "closed": {"kind": "closed"},
    "no money": {"kind": "no_money"},
    "too late": {"kind": "too_late"},
    "rejected by risks": {"kind": "rejected_by_risks"},
}
# What goes wrong while it is open and when it ends.
SETTLING: Final[dict[str, list[dict[str, Any]]]] = {
    "nothing": [],
    "position pushes lost": [{"kind": "lost", "on": "push", "name": ORDER_PUSHES}],
    "all pushes lost": [{"kind": "lost", "on": "push", "name": "*"}],
    "position pushes late": [{"kind": "late", "on": "push", "name": ORDER_PUSHES, "seconds": 1.0}],
    "position pushes twice": [{"kind": "duplicate", "on": "push", "name": ORDER_PUSHES}],
    "position pushes out of order": [{"kind": "out_of_order", "on": "push", "name": ORDER_PUSHES}],
    "position pushes malformed": [{"kind": "malformed", "on": "push", "name": ORDER_PUSHES}],
    "unknown frames": [{"kind": "unknown_frame", "on": "push", "name": "*"}],
    "outage": [{"kind": "outage", "lasts": 0.7}],
}


async def place(connector: Connector, kind: InstrumentType, duration: int) -> Order | BrokerError:
    try:
        return await connector.place_order(an_order("the-order", instrument_type=kind, duration=duration))
    except BrokerError as error:
        return error


IMPATIENT: Final = 1.0
"""Seconds for an answer that is not to come, or to come too late."""


async def check_answer(world: World, answer: Order | BrokerError) -> dict[str, Any] | None:
    """What place_order said must be what the broker's ledger says. Returns the booked order, if there is one."""
    sent = await world.ledger(USER)
    booked = [order for order in sent if order["booked_time"] is not None]
    assert len(sent) <= 1, "an order was sent twice"
    if isinstance(answer, BrokerError):
        assert booked == [], "an error claims that nothing was booked"
        return None
    if answer.state is OrderState.OPEN:
        assert [str(order["external_id"]) for order in booked] == [answer.broker_order_id]
    else:
        assert answer.state is OrderState.SUBMITTED
    return booked[0] if booked else None


@pytest.mark.parametrize("kind", list(PLACE), ids=str)
@pytest.mark.parametrize("fault", list(PLACING))
async def test_placing_says_the_truth_or_unknown(fault: str, kind: InstrumentType) -> None:
    async with a_world(order_timeout=IMPATIENT) as world:
        connector = await world.connected(USER)
        watcher = Watcher(connector)
        if PLACING[fault]:
            await world.fault(**{"email": USER, "name": PLACE[kind], "times": 1, **PLACING[fault]})

        answer = await place(connector, kind, 60)

        booked = await check_answer(world, answer)
        assert isinstance(await place(connector, kind, 60), type(answer)), "asked again it says the same"
        if booked is not None:
            # Whatever was lost, the pushes or the lists that follow name the order with our id.
            await world.settle(USER, "won")
            closed = await watcher.closed(str(booked["external_id"]))
            assert closed.client_order_id == "the-order"
            (settled,) = await world.ledger(USER)
            assert (closed.outcome, closed.profit) == (Outcome.WON, Decimal(str(settled["profit"])))
        assert len(await world.ledger(USER)) <= 1
        await watcher.stop()


# A turbo is settled early here, so its missing pushes would be made good only at its expiry: blitz shows that sooner.
CASES: Final = [
    (kind, fault)
    for kind in (InstrumentType.BLITZ, InstrumentType.TURBO)
    for fault in SETTLING
    if kind is InstrumentType.BLITZ or not ("lost" in fault or "malformed" in fault)
]


@pytest.mark.parametrize(("kind", "fault"), CASES, ids=str)
async def test_settling_tells_the_brokers_result(kind: InstrumentType, fault: str) -> None:
    async with a_world() as world:
        connector = await world.connected(USER)
        watcher = Watcher(connector)
        order = await connector.place_order(an_order(instrument_type=kind, duration=5 if kind == "blitz" else 60))
        for rule in SETTLING[fault]:
            await world.fault(**{"email": USER, **rule})
        if kind is InstrumentType.TURBO:
            await world.settle(USER, "lost")

        closed = await watcher.closed(order.broker_order_id, within=20)

        (booked,) = await world.ledger(USER)
        assert closed.outcome is Outcome(booked["outcome"])
        assert closed.profit == Decimal(str(booked["profit"]))
        ends = [o for o in watcher.orders() if o.state is OrderState.CLOSED]
        assert len({(o.broker_order_id, o.outcome, o.profit) for o in ends}) == 1
        await watcher.stop()


async def test_an_order_whose_answer_comes_late_is_named_by_an_event() -> None:
    async with a_world(order_timeout=IMPATIENT) as world:
        connector = await world.connected(USER)
        watcher = Watcher(connector)
        await world.fault("late", on="reply", name="open-option", seconds=3.0)
        await world.fault("lost", on="push", name=ORDER_PUSHES)
        answer = await connector.place_order(an_order("late"))
        assert answer.state is OrderState.SUBMITTED
        named = await watcher.seen(lambda order: order.client_order_id == "late")
        assert named.state is OrderState.OPEN
        assert named.broker_order_id == str((await world.ledger(USER))[0]["external_id"])
        await watcher.stop()


async def test_lost_orders_that_look_the_same_are_not_told_apart() -> None:
    async with a_world(order_timeout=IMPATIENT) as world:
        connector = await world.connected(USER)
        watcher = Watcher(connector)
        await world.fault("lost", on="reply", name="open-option")
        await world.fault("late", on="push", name=ORDER_PUSHES, seconds=3.0)
        await asyncio.gather(*(connector.place_order(an_order(f"twin-{n}")) for n in range(2)))

        async def both() -> bool:
            return len({order.broker_order_id for order in watcher.orders()}) == 2

        await eventually(both)
        assert {order.client_order_id for order in watcher.orders()} == {""}
        await watcher.stop()


async def test_a_digital_order_that_is_accepted_but_never_appears_is_unknown() -> None:
    async with a_world(order_timeout=IMPATIENT) as world:
        connector = await world.connected(USER)
        await world.fault("lost", on="push", name="*")
        order = await connector.place_order(an_order(instrument_type=InstrumentType.DIGITAL))
        assert order.state is OrderState.SUBMITTED


async def test_a_silent_broker_is_left_and_found_again() -> None:
    async with a_world(silence_limit=4.0) as world:
        connector = await world.connected(USER)
        watcher = Watcher(connector)
        fault = await world.fault("lost", on="push", name="timeSync")

        async def noticed() -> bool:
            return ConnectionState.RECONNECTING in watcher.events

        await eventually(noticed)
        assert await world.struck(fault) >= 1
        await world.no_faults()

        async def back() -> bool:
            return connector.state is ConnectionState.CONNECTED

        await eventually(back)
        await watcher.stop()


async def test_the_brokers_clock_decides_what_can_be_bought() -> None:
    async with a_world() as world:
        await world.fault("clock_skew", seconds=-20.0)
        connector = await world.connected(USER)
        order = await connector.place_order(an_order(instrument_type=InstrumentType.BLITZ, duration=60))
        listed = await connector.list_orders(order.open_time)
        (booked,) = await world.ledger(USER)
        assert abs((listed.broker_time.timestamp() + 20.0) - booked["received_time"]) < 10.0
