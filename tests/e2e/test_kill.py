"""Kill -9 of any one process under load: it comes back, sessions and bots go on, nothing is lost or doubled."""

import asyncio
import contextlib
from contextlib import AsyncExitStack

import pytest

from local.client import ApiError
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.traders import Trader, trading

USERS = 4


async def _keep_trading(trader: Trader, stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        with contextlib.suppress(ApiError):
            await trader.trade(amount=1 + number / 100)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)


@pytest.mark.parametrize("name", ["envoy", "bridge", "session", "broker", "agent", "simulator", "redis", "postgres"])
async def test_a_killed_process_comes_back_and_nothing_is_lost_or_doubled(stack: Stack, name: str) -> None:
    async with AsyncExitStack() as opened, stack.gateway() as gateway, stack.simulator() as simulator:
        kinds = [("iq", "PRACTICE"), ("exnova", "REAL")] * (USERS // 2)
        traders = [await opened.enter_async_context(trading(gateway, *kind, name)) for kind in kinds]
        for trader in traders:
            await trader.session.post("start", asset="AUDCAD-OTC", timeframe=5, duration_seconds=5)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for trader in traders:
                tasks.create_task(_keep_trading(trader, stop))
            await _a_trade_closes(traders)
            await stack.restarted(name, stack.kill(name))
            # New trades after the restart show that the way from the user to the broker and back is whole again.
            await _a_trade_closes(traders)
            stop.set()
        for trader in traders:
            assert (await trader.session.get("status"))["status"] == "running"
            await trader.session.post("stop")
        faults = await asyncio.gather(*(trader.faults(simulator, within=60) for trader in traders))
        assert [fault for of_one in faults for fault in of_one] == []


async def _a_trade_closes(traders: list[Trader]) -> None:
    """Wait until every user has seen the end of a trade that was opened from now on."""

    async def closed(trader: Trader, first: int) -> bool:
        begun = {event["data"]["trade_id"] for event in trader.feed.events[first:] if event["type"] == "trade_opened"}
        return any(trade["trade_id"] in begun for trade in trader.feed.of_type("trade_closed"))

    async def one(trader: Trader) -> None:
        first = len(trader.feed.events)
        await eventually(lambda: closed(trader, first), within=40, every=0.1)

    await asyncio.gather(*(one(trader) for trader in traders))
