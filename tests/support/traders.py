"""Users that trade through the gateway and can tell at the end whether all was right."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from local.client import ApiError, Feed, Gateway, UserSession
from local.witness import Simulator, Story, cents, judge
from tests.support.eventually import eventually

PASSWORD: Final = "secret"
FINAL: Final = frozenset({"won", "lost", "tied", "sold", "rejected", "not_placed"})
_TEMPORARY: Final = frozenset({"UNAVAILABLE", "BROKER_UNAVAILABLE"})


@dataclass(frozen=True, slots=True)
class Trader:
    """A connected user with an open stream of events."""

    session: UserSession
    feed: Feed

    async def trade(self, **order: Any) -> dict[str, Any]:
        """Place one trade, repeating the call under its own key until there is an answer.

        Raises:
            ApiError: It was refused for a reason that time does not heal.
        """
        order = {"asset": "EURUSD-OTC", "direction": "call", "amount": 1, "duration_seconds": 5, **order}
        key = secrets.token_hex(8)

        async def answered() -> dict[str, Any]:
            answer: dict[str, Any] = {}
            try:
                answer = await self.session.post("trade", **order, client_request_id=key)
            except ApiError as error:
                if error.code not in _TEMPORARY:
                    raise
            except (aiohttp.ClientError, TimeoutError):
                pass
            return answer

        return await eventually(answered, within=40, every=0.1)

    async def ended(self, trade_id: str) -> dict[str, Any]:
        """Wait until one trade is settled and return it."""

        async def final() -> dict[str, Any]:
            trade: dict[str, Any] = await self.session.get(f"trades/{trade_id}")
            assert trade["status"] in FINAL
            return trade

        return await eventually(final, within=30, every=0.1)

    async def settled(self, within: float = 30.0) -> list[dict[str, Any]]:
        """Wait until no trade is under way and return them all."""

        async def all_final() -> list[dict[str, Any]]:
            with contextlib.suppress(ApiError, aiohttp.ClientError):
                trades = await self.session.trades()
                open_ones = [trade["status"] for trade in trades if trade["status"] not in FINAL]
                assert not open_ones
                return trades
            return []

        return await eventually(all_final, within=within, every=0.2)

    async def at_rest(self) -> dict[str, Any]:
        """Wait until the stream has brought all that the session knows, and return its status."""

        async def caught_up() -> dict[str, Any]:
            status: dict[str, Any] = await self.session.get("status")
            assert self.feed.last_seq == status["seq"]
            return status

        return await eventually(caught_up, within=15, every=0.1)

    async def faults(self, simulator: Simulator, within: float = 30.0) -> list[str]:
        """Wait for the end of all trades, then say what differs from what the simulator saw, and what the stream broke."""
        trades = await self.settled(within)
        start = cents(self.session.connected["balance"])
        expected = start + sum(cents(trade["profit"]) for trade in trades)

        async def balance_is_right() -> bool:
            return cents((await self.session.get("balance"))["balance"]) == expected

        with contextlib.suppress(AssertionError):
            await eventually(balance_is_right, within=10, every=0.1)
        status = await self.at_rest()
        session = self.session
        end = cents(status["balance"])
        story = Story(session.email, session.broker, session.account_type, start, end, trades)
        orders = await simulator.ledger(session.email)
        balance = await simulator.balance(session.email, session.broker, session.account_type)
        return [*self.feed.faults, *judge(story, orders, balance)]


@contextlib.asynccontextmanager
async def trading(gateway: Gateway, broker: str, account_type: str, name: str = "") -> AsyncIterator[Trader]:
    """Connect a new user, follow its events, and disconnect at the end."""
    email = f"trader-{name or 'x'}-{secrets.token_hex(4)}@example.com"
    session = await gateway.connect(broker=broker, account_type=account_type, email=email, password=PASSWORD)
    try:
        async with session.follow() as feed:
            yield Trader(session, feed)
    finally:
        with contextlib.suppress(ApiError, aiohttp.ClientError):
            await session.post("disconnect")
