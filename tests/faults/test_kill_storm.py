"""Every process is killed again and again, at random moments, while many users trade."""

import asyncio
import logging
import os
import random
from contextlib import AsyncExitStack

import pytest

from tests.support.stack import Stack, running_stack
from tests.support.traders import a_trade_closes, keep_trading, trading

USERS = 20
SECONDS = 180.0
PROCESSES = ("envoy", "bridge", "session", "broker", "agent", "simulator", "redis", "postgres")
_log = logging.getLogger(__name__)


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_nothing_is_lost_or_doubled_while_processes_are_killed_at_random() -> None:
    seed = int.from_bytes(os.urandom(4))
    _log.info("seed %d", seed)
    with running_stack() as stack:
        await storm(stack, random.Random(seed))


async def storm(stack: Stack, chance: random.Random) -> None:
    async with stack.gateway() as gateway, stack.simulator() as simulator, AsyncExitStack() as opened:
        kinds = [("iq", "PRACTICE"), ("exnova", "REAL"), ("iq", "REAL"), ("exnova", "PRACTICE")] * (USERS // 4)
        traders = [await opened.enter_async_context(trading(gateway, *kind)) for kind in kinds]
        for trader in traders:
            await trader.session.post("start", asset="AUDCAD-OTC", timeframe=5, duration_seconds=5)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for trader in traders:
                tasks.create_task(keep_trading(trader, stop))
            loop = asyncio.get_running_loop()
            until = loop.time() + SECONDS
            kills = 0
            while loop.time() < until:
                await asyncio.sleep(chance.uniform(0, 6))
                name = chance.choice(PROCESSES)
                await stack.restarted(name, stack.kill(name))
                kills += 1
            await a_trade_closes(traders)
            stop.set()
        for trader in traders:
            assert (await trader.session.get("status"))["status"] == "running"
            await trader.session.post("stop")
        faults = await asyncio.gather(*(trader.faults(simulator, within=120) for trader in traders))
        assert [fault for of_one in faults for fault in of_one] == []
        trades = sum([len(await trader.session.trades()) for trader in traders])
        _log.info("%d kills, %d trades, 0 faults", kills, trades)
