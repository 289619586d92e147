"""The acceptance matrix: TC-4xx, settlement."""

import asyncio
from decimal import Decimal

import pytest

from services.broker.domain.errors import (
    NotSellableError,
    OrderNotFoundError,
)
from services.broker.domain.values import (
    AccountType,
    InstrumentType,
    OrderState,
    Outcome,
)
from tests.contract.connector.conftest import Bench
from tests.contract.connector.matrix import KINDS, USER, only
from tests.support.brokers import an_order


@pytest.mark.parametrize(("kind", "duration"), KINDS, ids=str)
@pytest.mark.parametrize("outcome", ["won", "lost", "tied"])
async def test_tc401_outcome_and_profit_are_the_brokers(
    bench: Bench, kind: InstrumentType, duration: int, outcome: str
) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    order = await connector.place_order(an_order(instrument_type=kind, duration=duration, amount="10"))
    await bench.world.settle(USER, outcome)

    closed = await watcher.closed(order.broker_order_id)

    booked = await only(bench)
    assert closed.outcome is Outcome(outcome)
    assert closed.profit == Decimal(str(booked["profit"]))
    assert closed.client_order_id == order.client_order_id
    assert closed.close_time is not None
    assert (await connector.get_account()).balance == Decimal(10_000) + closed.profit
    await watcher.stop()


async def test_tc402_blitz_settles_by_itself(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    order = await connector.place_order(an_order(instrument_type=InstrumentType.BLITZ, duration=5))
    closed = await watcher.closed(order.broker_order_id, within=15)
    booked = await only(bench)
    assert closed.outcome is Outcome(booked["outcome"])
    assert closed.profit == Decimal(str(booked["profit"]))
    await watcher.stop()


@pytest.mark.parametrize(("kind", "duration"), [(InstrumentType.TURBO, 120), (InstrumentType.DIGITAL, 300)])
async def test_tc403_sells_early(bench: Bench, kind: InstrumentType, duration: int) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    order = await connector.place_order(an_order(instrument_type=kind, duration=duration, amount="10"))
    await connector.sell_order(order.broker_order_id)
    closed = await watcher.closed(order.broker_order_id)
    assert closed.outcome is Outcome.SOLD
    assert closed.profit == Decimal(str((await only(bench))["profit"]))
    await watcher.stop()


async def test_tc404_what_cannot_be_sold_is_refused(bench: Bench) -> None:
    connector = await bench.connected()
    blitz = await connector.place_order(an_order(instrument_type=InstrumentType.BLITZ, duration=60))
    with pytest.raises(NotSellableError):
        await connector.sell_order(blitz.broker_order_id)
    with pytest.raises(OrderNotFoundError):
        await connector.sell_order("999")
    turbo = await connector.place_order(an_order())
    watcher = bench.watch(connector)
    await bench.world.settle(USER, "won")
    await watcher.closed(turbo.broker_order_id)
    with pytest.raises(NotSellableError):
        await connector.sell_order(turbo.broker_order_id)
    await watcher.stop()


async def test_tc405_lists_open_and_closed_orders_completely(bench: Bench) -> None:
    connector = await bench.connected()
    start = (await connector.place_order(an_order())).open_time
    await bench.world.settle(USER, "won")
    for kind, duration in KINDS:
        await connector.place_order(an_order(instrument_type=kind, duration=duration))

    listed = await connector.list_orders(start)

    assert listed.complete
    booked = {str(o["external_id"]): o for o in await bench.world.ledger(USER)}
    assert {o.broker_order_id for o in listed.orders} == set(booked)
    for order in listed.orders:
        assert order.client_order_id
        assert order.state is (
            OrderState.OPEN if booked[order.broker_order_id]["status"] == "open" else OrderState.CLOSED
        )


async def test_tc406_long_lists_are_read_to_their_end(bench: Bench) -> None:
    connector = await bench.connected()
    start = (await connector.place_order(an_order("first"))).open_time
    await asyncio.gather(*(connector.place_order(an_order(f"more-{n}")) for n in range(129)))
    assert len((await connector.list_orders(start)).orders) == 130
    await bench.world.settle(USER)
    listed = await connector.list_orders(start)
    assert listed.complete
    assert len({o.broker_order_id for o in listed.orders if o.state is OrderState.CLOSED}) == 130


async def test_tc407_other_balances_and_other_users_are_never_seen(bench: Bench) -> None:
    practice = await bench.connected(account_type=AccountType.PRACTICE)
    real = await bench.connected(account_type=AccountType.REAL)
    other = await bench.connected("trader-other@example.com")
    watchers = [bench.watch(connector) for connector in (practice, real, other)]
    order = await practice.place_order(an_order())
    await bench.world.settle(USER, "won")
    await watchers[0].closed(order.broker_order_id)
    assert watchers[1].orders() == watchers[2].orders() == []
    for connector in (real, other):
        assert (await connector.list_orders(order.open_time)).orders == ()
    for watcher in watchers:
        await watcher.stop()


async def test_tc408_a_second_connection_of_the_account_sees_the_order_without_our_id(bench: Bench) -> None:
    phone, desktop = await bench.connected(), await bench.connected()
    watcher = bench.watch(desktop)
    order = await phone.place_order(an_order())
    seen = await watcher.seen(lambda o: o.broker_order_id == order.broker_order_id)
    assert seen.client_order_id == ""
    await watcher.stop()
