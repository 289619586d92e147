"""Kill -9 of every process in turn under load: it comes back, sessions and bots go on, nothing is lost or doubled."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.stack import Stack
from tests.support.traders import a_trade_closes, keep_trading, trading

PROCESSES = ("envoy", "bridge", "session", "broker", "agent", "simulator", "redis", "postgres")


@pytest.mark.timeout(300)
async def test_every_killed_process_comes_back_and_nothing_is_lost_or_doubled(stack: Stack) -> None:
    async with stack.gateway() as gateway, stack.simulator() as simulator, AsyncExitStack() as opened:
        kinds = [("iq", "PRACTICE"), ("exnova", "REAL"), ("iq", "REAL"), ("exnova", "PRACTICE")]
        traders = [await opened.enter_async_context(trading(gateway, *kind)) for kind in kinds]
        for trader in traders:
            await trader.session.post("start", asset="AUDCAD-OTC", timeframe=5, duration_seconds=5)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for trader in traders:
                tasks.create_task(keep_trading(trader, stop))
            for name in PROCESSES:
                await stack.restarted(name, stack.kill(name))
                # Trades that begin and end after the restart show that the whole way to the broker and back is there.
                await a_trade_closes(traders)
            stop.set()
        for trader in traders:
            assert (await trader.session.get("status"))["status"] == "running"
            await trader.session.post("stop")
        # An order that was lost on its way is proven absent after about 95 s: see domain/reconciliation.resolved_by.
        faults = await asyncio.gather(*(trader.faults(simulator, within=120) for trader in traders))
        assert [fault for of_one in faults for fault in of_one] == []
