"""Fifty users at once: every order under its own user, every frame with its own session's id."""

import asyncio
from contextlib import AsyncExitStack

from tests.support.stack import Stack
from tests.support.traders import Trader, trading

USERS = 50
KINDS = (("iq", "PRACTICE"), ("exnova", "REAL"), ("iq", "REAL"), ("exnova", "PRACTICE"))


def stake_of(number: int) -> float:
    """A user's own mark: nobody else's orders have this stake."""
    return round(1 + number / 100, 2)


async def test_fifty_users_trade_at_once_and_nothing_is_mixed(stack: Stack) -> None:
    async with stack.gateway() as gateway, stack.simulator() as simulator, AsyncExitStack() as opened:

        async def join(number: int) -> Trader:
            return await opened.enter_async_context(trading(gateway, *KINDS[number % len(KINDS)], f"u{number}"))

        traders = await asyncio.gather(*(join(number) for number in range(USERS)))

        async def trade_twice(number: int, trader: Trader) -> None:
            amount = stake_of(number)
            first = await trader.trade(amount=amount, direction="call")
            second = await trader.trade(amount=amount, direction="put", duration_seconds=10)
            for trade in (first, second):
                assert (trade["broker"], trade["account_type"]) == KINDS[number % len(KINDS)]
            balance = await trader.session.get("balance")
            assert balance["session_id"] == trader.session.session_id

        await asyncio.gather(*(trade_twice(number, trader) for number, trader in enumerate(traders)))
        faults = await asyncio.gather(*(trader.faults(simulator) for trader in traders))
        assert [fault for of_one in faults for fault in of_one] == []
        for number, trader in enumerate(traders):
            orders = await simulator.ledger(trader.session.email)
            assert [float(order.amount) for order in orders] == [stake_of(number)] * 2
            assert {frame["session_id"] for frame in trader.feed.events} == {trader.session.session_id}
            assert len(trader.feed.of_type("trade_closed")) == 2
