"""The acceptance matrix: TC-2xx, market."""

import asyncio

import pytest

from services.broker.domain.errors import (
    AssetClosedError,
    InvalidArgumentError,
)
from services.broker.domain.values import (
    Candle,
    InstrumentType,
)
from tests.contract.connector.conftest import Bench
from tests.support.brokers import EURUSD
from tests.support.eventually import eventually


async def test_tc201_assets_tell_what_can_be_bought(bench: Bench) -> None:
    assets = {asset.asset: asset for asset in await (await bench.connected()).list_assets()}
    kinds = {i.instrument_type: i for i in assets[EURUSD].instruments}
    assert assets[EURUSD].active_id == 76
    assert set(kinds) == set(InstrumentType)
    assert all(kind.open for kind in kinds.values())
    assert kinds[InstrumentType.TURBO].payout_rate == pytest.approx(0.87)
    assert kinds[InstrumentType.TURBO].durations == (60, 120, 180, 240, 300)
    assert 5 in kinds[InstrumentType.BLITZ].durations
    assert kinds[InstrumentType.BLITZ].min_amount == 1
    assert not any(i.open for i in assets["USDCHF-OTC"].instruments), "outside its schedule"
    assert not any(i.open for i in assets["EURUSD"].instruments), "suspended"


async def test_tc202_payouts_are_live(bench: Bench) -> None:
    connector = await bench.connected()
    await connector.list_assets()
    await bench.world.set_asset(payout=71)

    async def moved() -> bool:
        (asset,) = [a for a in await connector.list_assets() if a.asset == EURUSD]
        rates = {i.instrument_type: i.payout_rate for i in asset.instruments}
        return rates[InstrumentType.TURBO] == rates[InstrumentType.BLITZ] == pytest.approx(0.71)

    await eventually(moved)


async def test_tc203_candles_are_ascending_aligned_and_without_holes(bench: Bench) -> None:
    candles = await (await bench.connected()).list_candles(EURUSD, 60, 2_500, None)
    starts = [candle.open_time for candle in candles]
    assert starts == list(range(starts[0], starts[0] + 2_500 * 60, 60))
    assert all(c.low <= min(c.open, c.close) <= max(c.open, c.close) <= c.high for c in candles)
    assert all(c.close_time - c.open_time == 60 and c.open_time % 60 == 0 for c in candles)
    assert all(c.closed for c in candles[:-1])


async def test_tc204_candles_end_before_the_end_time(bench: Bench) -> None:
    connector = await bench.connected()
    end = (await connector.list_candles(EURUSD, 60, 10, None))[4].open_time
    candles = await connector.list_candles(EURUSD, 60, 3, end)
    assert [c.open_time for c in candles] == [end - 180, end - 120, end - 60]
    assert all(c.closed for c in candles)


async def test_tc205_unknown_asset_and_timeframe_are_refused(bench: Bench) -> None:
    connector = await bench.connected()
    with pytest.raises(AssetClosedError):
        await connector.list_candles("NOSUCH", 60, 10, None)
    with pytest.raises(InvalidArgumentError):
        await connector.list_candles(EURUSD, 7, 10, None)
    with pytest.raises(AssetClosedError):
        await anext(connector.watch_candles("NOSUCH", 60))


async def test_tc206_live_candles_close_once_each_in_order_and_agree_with_history(bench: Bench) -> None:
    connector = await bench.connected()
    closed: list[Candle] = []
    async for candle in connector.watch_candles(EURUSD, 1):
        if candle.closed:
            closed.append(candle)
        if len(closed) == 3:
            break
    starts = [c.open_time for c in closed]
    assert starts == [starts[0], starts[0] + 1, starts[0] + 2]
    listed = {c.open_time: c for c in await connector.list_candles(EURUSD, 1, 30, None)}
    assert [listed[start] for start in starts] == closed


async def test_tc207_two_watchers_of_one_candle_both_see_it(bench: Bench) -> None:
    connector = await bench.connected()
    first, second = connector.watch_candles(EURUSD, 5), connector.watch_candles(EURUSD, 5)
    one, two = await asyncio.gather(anext(first), anext(second))
    assert one.open_time % 5 == two.open_time % 5 == 0
    await first.aclose()  # type: ignore[attr-defined]
    assert (await anext(second)).open_time % 5 == 0, "one leaving does not end the other's stream"
    await second.aclose()  # type: ignore[attr-defined]
