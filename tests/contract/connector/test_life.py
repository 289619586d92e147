"""The acceptance matrix: TC-5xx, life."""

from decimal import Decimal

import pytest

from services.broker.domain.errors import (
    BrokerUnavailableError,
    NotConnectedError,
)
from services.broker.domain.values import (
    ConnectionState,
    InstrumentType,
    OrderState,
    Outcome,
)
from services.runtime.secret import Secret
from tests.contract.connector.conftest import Bench
from tests.contract.connector.matrix import USER, only
from tests.support.brokers import EURUSD, an_order
from tests.support.eventually import eventually


async def test_tc501_comes_back_after_an_outage_and_says_so(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    await bench.world.fault("outage", lasts=0.5)

    async def back() -> bool:
        states = [e for e in watcher.events if isinstance(e, ConnectionState)]
        return ConnectionState.RECONNECTING in states and states[-1] is ConnectionState.CONNECTED

    await eventually(back)
    assert (await connector.place_order(an_order())).state is OrderState.OPEN
    await watcher.stop()


async def test_tc502_a_settlement_during_an_outage_is_told_after_it(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    order = await connector.place_order(an_order())
    await bench.world.fault("outage", lasts=0.5)
    await bench.world.settle(USER, "won")
    closed = await watcher.closed(order.broker_order_id)
    assert (closed.outcome, closed.profit) == (Outcome.WON, Decimal("0.87"))
    await watcher.stop()


async def test_tc503_a_revoked_token_is_replaced_and_handed_out(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    old = connector.broker_token
    await bench.world.revoke(USER)

    async def renewed() -> bool:
        tokens = [e for e in watcher.events if isinstance(e, Secret)]
        return bool(tokens) and tokens[-1] == connector.broker_token != old

    await eventually(renewed)

    async def back() -> bool:
        return connector.state is ConnectionState.CONNECTED

    await eventually(back)
    await watcher.stop()


async def test_tc504_candles_go_on_after_an_outage_without_a_hole(bench: Bench) -> None:
    connector = await bench.connected()
    closed: list[int] = []
    stream = connector.watch_candles(EURUSD, 1)
    cut = False
    async for candle in stream:
        if candle.closed:
            closed.append(candle.open_time)
        if len(closed) == 2 and not cut:
            cut = True
            await bench.world.fault("outage", lasts=1.2)
        if len(closed) >= 6:
            break
    assert closed == list(range(closed[0], closed[0] + len(closed)))


async def test_tc505_a_lost_settlement_push_is_made_good_from_history(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    await bench.world.fault("lost", on="push", name="*position-changed", email=USER)
    await bench.world.fault("lost", on="push", name="*option-closed", email=USER)
    order = await connector.place_order(an_order(instrument_type=InstrumentType.BLITZ, duration=5))
    closed = await watcher.closed(order.broker_order_id, within=15)
    assert closed.outcome is Outcome((await only(bench))["outcome"])
    await watcher.stop()


async def test_tc506_closing_ends_the_streams_with_the_reason(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    candles = connector.watch_candles(EURUSD, 60)
    await anext(candles)
    await connector.close(NotConnectedError(), log_out=True)
    with pytest.raises(NotConnectedError):
        async for _ in candles:
            pass

    async def ended() -> bool:
        return isinstance(watcher.error, NotConnectedError)

    await eventually(ended)
    with pytest.raises(BrokerUnavailableError):
        await connector.place_order(an_order())


async def test_tc507_logging_out_makes_the_token_worthless(bench: Bench) -> None:
    connector = await bench.connected()
    token = connector.broker_token
    await connector.close(NotConnectedError(), log_out=True)
    again = await bench.connected(token=token)
    assert again.broker_token != token


async def test_tc508_refused_for_good_when_the_login_no_longer_works(bench: Bench) -> None:
    connector = await bench.connected()
    await bench.world.fault("two_factor", email=USER)
    await bench.world.revoke(USER)

    async def refused() -> bool:
        return connector.state is ConnectionState.REFUSED

    await eventually(refused)
    with pytest.raises(BrokerUnavailableError):
        await connector.place_order(an_order())
