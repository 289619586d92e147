"""Kill -9 of any one process under load: it comes back, sessions and bots go on, nothing is lost or doubled."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.stack import Stack
from tests.support.traders import a_trade_closes, keep_trading, trading

USERS = 4


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
                tasks.create_task(keep_trading(trader, stop))
            await a_trade_closes(traders)
            await stack.restarted(name, stack.kill(name))
            # New trades after the restart show that the way from the user to the broker and back is whole again.
            await a_trade_closes(traders)
            stop.set()
        for trader in traders:
            assert (await trader.session.get("status"))["status"] == "running"
            await trader.session.post("stop")
        faults = await asyncio.gather(*(trader.faults(simulator, within=60) for trader in traders))
        assert [fault for of_one in faults for fault in of_one] == []
