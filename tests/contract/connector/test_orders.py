"""The acceptance matrix: TC-3xx, orders."""

import asyncio
from decimal import Decimal

import pytest

from services.broker.domain.errors import (
    AccountMismatchError,
    AssetClosedError,
    BrokerUnavailableError,
    InsufficientFundsError,
    InvalidArgumentError,
    OrderRejectedError,
    PayoutChangedError,
    PurchaseWindowClosedError,
    SendDeadlinePassedError,
)
from services.broker.domain.values import (
    AccountType,
    ConnectionState,
    Direction,
    InstrumentType,
    OrderState,
)
from tests.contract.connector.conftest import Bench
from tests.contract.connector.matrix import KINDS, USER, only
from tests.support.brokers import EURUSD, an_order
from tests.support.eventually import eventually


@pytest.mark.parametrize(("kind", "duration"), KINDS, ids=str)
@pytest.mark.parametrize("direction", list(Direction), ids=str)
async def test_tc301_places_every_kind(bench: Bench, kind: InstrumentType, duration: int, direction: Direction) -> None:
    connector = await bench.connected()
    wanted = an_order(instrument_type=kind, duration=duration, direction=direction, amount="12.34")

    order = await connector.place_order(wanted)

    booked = await only(bench)
    assert order.state is OrderState.OPEN
    assert order.client_order_id == wanted.client_order_id
    assert order.broker_order_id == str(booked["external_id"])
    assert (booked["asset"], booked["instrument_type"], booked["direction"]) == (EURUSD, kind, direction)
    assert Decimal(str(booked["amount"])) == order.amount == Decimal("12.34")
    assert booked["balance_id"] == order.balance_id == connector.account.balance_id
    assert booked["account_type"] == order.account_type == AccountType.PRACTICE
    assert order.expiry_time.timestamp() == booked["expiry"]
    assert order.payout_rate == pytest.approx(0.87, abs=0.01)
    assert order.open_price == pytest.approx(booked["open_price"])


async def test_tc302_real_money_only_when_asked_for(bench: Bench) -> None:
    connector = await bench.connected(account_type=AccountType.REAL)
    with pytest.raises(AccountMismatchError):
        await connector.place_order(an_order(account_type=AccountType.PRACTICE))
    order = await connector.place_order(an_order(account_type=AccountType.REAL))
    assert (await only(bench))["account_type"] == order.account_type == AccountType.REAL


async def test_tc303_same_id_again_returns_the_first_order_and_sends_nothing(bench: Bench) -> None:
    connector = await bench.connected()
    first = await connector.place_order(an_order("same"))
    assert await connector.place_order(an_order("same", amount="500")) == first
    await only(bench)


async def test_tc304_same_id_at_once_shares_one_send(bench: Bench) -> None:
    connector = await bench.connected()
    wanted = an_order("same")
    orders = await asyncio.gather(*(connector.place_order(wanted) for _ in range(20)))
    assert len({order.broker_order_id for order in orders}) == 1
    await only(bench)


@pytest.mark.parametrize(("kind", "duration"), KINDS, ids=str)
async def test_tc305_insufficient_funds(bench: Bench, kind: InstrumentType, duration: int) -> None:
    connector = await bench.connected()
    await bench.world.set_balance(USER, "5", bench.broker)
    with pytest.raises(InsufficientFundsError):
        await connector.place_order(an_order(instrument_type=kind, duration=duration, amount="6"))


@pytest.mark.parametrize(("kind", "duration"), KINDS, ids=str)
async def test_tc306_insufficient_funds_by_the_brokers_word(bench: Bench, kind: InstrumentType, duration: int) -> None:
    connector = await bench.connected()
    await bench.world.fault("no_money", email=USER)
    with pytest.raises(InsufficientFundsError):
        await connector.place_order(an_order(instrument_type=kind, duration=duration))


@pytest.mark.parametrize("asset", ["NOSUCH", "USDCHF-OTC", "EURUSD"])
async def test_tc307_closed_assets_are_refused_without_asking_the_broker(bench: Bench, asset: str) -> None:
    connector = await bench.connected()
    with pytest.raises(AssetClosedError):
        await connector.place_order(an_order(asset=asset))
    assert await bench.world.ledger(USER) == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("suspended", AssetClosedError),
        ("closed", AssetClosedError),
        ("too_late", PurchaseWindowClosedError),
        ("payout_changed", PayoutChangedError),
        ("rejected_by_risks", OrderRejectedError),
    ],
)
async def test_tc308_refusals_of_the_broker_are_told_apart(bench: Bench, fault: str, error: type[Exception]) -> None:
    connector = await bench.connected()
    await bench.world.fault(fault, email=USER)
    with pytest.raises(error):
        await connector.place_order(an_order())
    assert all(order["booked_time"] is None for order in await bench.world.ledger(USER))


@pytest.mark.parametrize(("kind", "duration"), KINDS, ids=str)
async def test_tc309_payout_floor_is_kept(bench: Bench, kind: InstrumentType, duration: int) -> None:
    connector = await bench.connected()
    with pytest.raises(PayoutChangedError) as refused:
        await connector.place_order(an_order(instrument_type=kind, duration=duration, min_payout_rate=0.95))
    assert refused.value.payout_rate == pytest.approx(0.87, abs=0.02)
    assert await bench.world.ledger(USER) == []
    await connector.place_order(an_order(instrument_type=kind, duration=duration, min_payout_rate=0.8))


async def test_tc310_the_payout_that_was_refused_with_is_offered_next(bench: Bench) -> None:
    connector = await bench.connected()
    await bench.world.fault("payout_changed", email=USER, commission=20, times=1)
    with pytest.raises(PayoutChangedError) as refused:
        await connector.place_order(an_order())
    assert refused.value.payout_rate == pytest.approx(0.80)
    (asset,) = [a for a in await connector.list_assets() if a.asset == EURUSD]
    rates = {i.instrument_type: i.payout_rate for i in asset.instruments}
    assert rates[InstrumentType.TURBO] == pytest.approx(0.80)


async def test_tc311_nothing_is_sent_after_its_time(bench: Bench) -> None:
    connector = await bench.connected()
    with pytest.raises(SendDeadlinePassedError):
        await connector.place_order(an_order(send_within=-0.001))
    assert await bench.world.ledger(USER) == []


@pytest.mark.parametrize(
    ("kind", "duration", "amount"),
    [
        (InstrumentType.TURBO, 600, "1"),
        (InstrumentType.TURBO, 45, "1"),
        (InstrumentType.BLITZ, 7, "1"),
        (InstrumentType.DIGITAL, 120, "1"),
        (InstrumentType.TURBO, 60, "0.5"),
        (InstrumentType.TURBO, 60, "20001"),
    ],
)
async def test_tc312_impossible_orders_are_refused_without_asking(
    bench: Bench, kind: InstrumentType, duration: int, amount: str
) -> None:
    connector = await bench.connected()
    await bench.world.set_balance(USER, "100000", bench.broker)
    with pytest.raises(InvalidArgumentError):
        await connector.place_order(an_order(instrument_type=kind, duration=duration, amount=amount))
    assert await bench.world.ledger(USER) == []


async def test_tc313_a_lost_answer_is_submitted_with_what_was_sent(bench: Bench) -> None:
    connector = await bench.connected()
    await bench.world.fault("lost", on="reply", name="open-option", email=USER)
    await bench.world.fault("lost", on="push", name="position-changed", email=USER)

    order = await connector.place_order(an_order())

    booked = await only(bench)
    assert order.state is OrderState.SUBMITTED
    assert order.broker_order_id == ""
    assert order.balance_id == booked["balance_id"]
    assert order.expiry_time.timestamp() == booked["requested_expiry"]
    # The way may take long; what was sent is not dated after its arrival.
    assert -1 < booked["received_time"] - order.open_time.timestamp() < 10


async def test_tc314_disconnected_means_nothing_sent(bench: Bench) -> None:
    connector = await bench.connected()
    await bench.world.fault("outage")

    async def down() -> bool:
        return connector.state is ConnectionState.RECONNECTING

    await eventually(down)
    with pytest.raises(BrokerUnavailableError):
        await connector.place_order(an_order())
    assert await bench.world.ledger(USER) == []
