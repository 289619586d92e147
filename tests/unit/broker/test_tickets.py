"""The last checks and the request that places an order; and the assets they are checked against."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from services.broker.connectors.quadcode.assets import AssetTable, AssetTables, TableKey, parse_assets
from services.broker.connectors.quadcode.messages import CommissionChanged, DigitalInstrument
from services.broker.connectors.quadcode.tickets import (
    check_stake,
    choose_digital,
    digital_payout,
    digital_ticket,
    option_ticket,
)
from services.broker.domain.errors import (
    AssetClosedError,
    BrokerUnavailableError,
    InsufficientFundsError,
    InvalidArgumentError,
    PayoutChangedError,
)
from services.broker.domain.values import Account, AccountType, Broker, Direction, InstrumentType, OrderState
from tests.support.brokers import an_order
from tests.support.clocks import ManualClock
from tests.support.quadcode_frames import ACTIVE, BALANCE_ID, INITIALIZATION, INSTRUMENT, UNDERLYINGS, USER_ID

NOW = 1_795_489_205.0
ACCOUNT = Account(Broker.IQ, AccountType.PRACTICE, USER_ID, BALANCE_ID, Decimal(100), "USD")


def table(initialization: Any = INITIALIZATION, underlyings: Any = UNDERLYINGS) -> AssetTable:
    return parse_assets(json.dumps(initialization).encode(), json.dumps(underlyings).encode())


def test_a_turbo_order_says_what_the_wire_wants() -> None:
    order = an_order("mine", direction=Direction.PUT, amount="2.50")
    ticket = option_ticket(order, table().listing("EURUSD-OTC", InstrumentType.TURBO), ACCOUNT, NOW)
    assert (ticket.call.method, ticket.call.version) == ("binary-options.open-option", "2.0")
    assert ticket.call.body == {
        "user_balance_id": BALANCE_ID,
        "active_id": 76,
        "option_type_id": 3,
        "direction": "put",
        "expired": 1_795_489_260,
        "price": 2.5,
        "refund_value": 0,
        "profit_percent": 87,
    }
    sent = ticket.order
    assert (sent.state, sent.client_order_id, sent.broker_order_id) == (OrderState.SUBMITTED, "mine", "")
    assert (sent.amount, sent.balance_id, sent.payout_rate) == (Decimal("2.50"), BALANCE_ID, 0.87)
    assert sent.expiry_time == datetime.fromtimestamp(1_795_489_260, UTC)
    assert sent.open_time == datetime.fromtimestamp(NOW, UTC)


def test_a_blitz_order_says_its_length() -> None:
    order = an_order(instrument_type=InstrumentType.BLITZ, duration=10)
    body = option_ticket(order, table().listing("EURUSD-OTC", InstrumentType.BLITZ), ACCOUNT, NOW).call.body
    assert (body["option_type_id"], body["expiration_size"], body["expired"]) == (12, 10, int(NOW) + 10)


def test_a_digital_order_names_instrument_and_index() -> None:
    instrument = msgspec.convert(INSTRUMENT, DigitalInstrument)
    order = an_order(instrument_type=InstrumentType.DIGITAL, direction=Direction.PUT, amount="1.10")
    chosen, symbol = choose_digital([instrument], order, INSTRUMENT["expiration"] - 60.0)  # type: ignore[operator]
    listing = table().listing("EURUSD-OTC", InstrumentType.DIGITAL)
    ticket = digital_ticket(order, listing, ACCOUNT, NOW, instrument=chosen, symbol=symbol, payout_rate=0.9)
    assert ticket.call.body == {
        "user_balance_id": BALANCE_ID,
        "instrument_id": "do76A20261124D031100T1MPSPT",
        "instrument_index": 17_954_892,
        "asset_id": 76,
        "amount": "1.10",
    }
    with pytest.raises(PayoutChangedError):
        digital_ticket(
            replace(order, min_payout_rate=0.91),
            listing,
            ACCOUNT,
            NOW,
            instrument=chosen,
            symbol=symbol,
            payout_rate=0.9,
        )


def test_the_payout_of_a_digital_contract_follows_its_price() -> None:
    assert digital_payout(50.0) == 1.0
    assert digital_payout(52.6) == pytest.approx(0.9011, abs=1e-4)


def test_the_payout_floor_is_exact() -> None:
    listing = table().listing("EURUSD-OTC", InstrumentType.TURBO)
    option_ticket(an_order(min_payout_rate=0.87), listing, ACCOUNT, NOW)
    with pytest.raises(PayoutChangedError) as refused:
        option_ticket(an_order(min_payout_rate=0.8700001), listing, ACCOUNT, NOW)
    assert refused.value.payout_rate == 0.87


@pytest.mark.parametrize(
    ("amount", "now", "error"),
    [
        ("0.99", NOW, InvalidArgumentError),
        ("20000.01", NOW, InvalidArgumentError),
        ("100.01", NOW, InsufficientFundsError),
        ("1", 1_795_478_350.0, AssetClosedError),  # between two opening times
        ("1", 1_795_564_740.0, AssetClosedError),  # the end is not inside
    ],
)
def test_stakes_and_hours_are_checked(amount: str, now: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_stake(an_order(amount=amount), table().listing("EURUSD-OTC", InstrumentType.TURBO), ACCOUNT, now)


def test_a_broken_asset_spoils_no_other() -> None:
    broken = {"1": {"id": "x"}, "2": None, "3": ACTIVE | {"option": {"expiration_times": []}}, "76": ACTIVE}
    names = [asset.asset for asset in table(INITIALIZATION | {"turbo": {"actives": broken}}).assets(NOW)]
    assert names == ["EURUSD-OTC"]


def test_payouts_move_with_the_pushes() -> None:
    known = table()
    for kind, active_id in (("turbo-option", 76), ("turbo-option", 99), ("forex", 76)):
        known.take_commission(
            msgspec.convert(
                {"instrument_type": kind, "active_id": active_id, "commission": {"value": 30}}, CommissionChanged
            )
        )
    assert known.listing("EURUSD-OTC", InstrumentType.TURBO).payout_rate == 0.70
    assert known.listing("EURUSD-OTC", InstrumentType.BINARY).payout_rate == 0.87


KEY = TableKey(Broker.IQ, 1, "USD")


class Loader:
    def __init__(self) -> None:
        self.loads = 0
        self.spawned: list[Any] = []

    async def load(self) -> AssetTable:
        self.loads += 1
        return table()

    async def get(self, tables: AssetTables, key: TableKey = KEY) -> AssetTable:
        return await tables.get(key, self.load, self.spawned.append)


async def test_tables_are_shared_by_group_and_by_nothing_less() -> None:
    loader, tables = Loader(), AssetTables(ManualClock(), max_age=60)
    assert await loader.get(tables) is await loader.get(tables)
    for other in (TableKey(Broker.EXNOVA, 1, "USD"), TableKey(Broker.IQ, 2, "USD"), TableKey(Broker.IQ, 1, "EUR")):
        await loader.get(tables, other)
    assert loader.loads == 4


async def test_an_old_table_is_read_anew_before_use_unless_its_payouts_are_kept_live() -> None:
    clock, loader = ManualClock(), Loader()
    tables = AssetTables(clock, max_age=60)
    first = await loader.get(tables)
    await clock.advance(61)
    second = await loader.get(tables)
    assert second is not first
    assert tables.become_keeper(KEY, "me")
    assert not tables.become_keeper(KEY, "you")
    await clock.advance(61)
    assert await loader.get(tables) is second
    (renewal,) = loader.spawned
    await renewal
    assert await loader.get(tables) is not second
    await clock.advance(301)
    loaded = loader.loads
    await loader.get(tables)
    assert loader.loads == loaded + 1, "too old to be used at all"
    assert not tables.resign(KEY, "you")
    assert tables.resign(KEY, "me")


async def test_a_load_that_fails_is_tried_again_by_the_next() -> None:
    loader, tables = Loader(), AssetTables(ManualClock(), max_age=60)

    async def fail() -> AssetTable:
        raise BrokerUnavailableError

    with pytest.raises(BrokerUnavailableError):
        await tables.get(KEY, fail, loader.spawned.append)
    assert await loader.get(tables)
