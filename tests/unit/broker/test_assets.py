"""The names of assets: an order is searched by the asset's name, so a name that was read once stays."""

import asyncio
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any

from services.broker.connectors.quadcode.assets import AssetTable, AssetTables, Listing, TableKey
from services.broker.domain.values import Broker, InstrumentType
from tests.support.clocks import ManualClock

KEY = TableKey(Broker.IQ, 1, "USD")


def a_listing(active_id: int, asset: str) -> Listing:
    return Listing(
        active_id=active_id,
        asset=asset,
        instrument_type=InstrumentType.TURBO,
        tradable=True,
        schedule=((0, 2**40),),
        payout_percent=87,
        min_amount=Decimal(1),
        max_amount=Decimal(100),
        durations=(60,),
        count=5,
        deadtime=30,
        buyback_deadtime=None,
    )


async def test_an_asset_that_leaves_the_table_keeps_its_name_and_is_no_longer_offered() -> None:
    clock = ManualClock()
    tables = AssetTables(clock, max_age=60)
    lists = iter([[a_listing(76, "EURUSD-OTC"), a_listing(77, "EURGBP-OTC")], [a_listing(77, "EURGBP-OTC")]])

    async def load() -> AssetTable:
        return AssetTable(next(lists), {})

    def spawn(work: Coroutine[Any, Any, None]) -> object:
        return asyncio.ensure_future(work)

    await tables.get(KEY, load, spawn)
    await clock.advance(61)
    table = await tables.get(KEY, load, spawn)
    assert (table.name(76), table.name(77), table.name(78)) == ("EURUSD-OTC", "EURGBP-OTC", None)
    assert [asset.asset for asset in table.assets(0.0)] == ["EURGBP-OTC"]
