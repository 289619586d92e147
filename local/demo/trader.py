"""One user of the demo: connects, lets a bot trade, trades once by hand, and tells its story at the end."""

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from local.client import ApiError, Feed, Gateway, UserSession
from local.witness import Story, cents

PASSWORD: Final = "secret"  # noqa: S105  # the documented password of every simulated account
_MANUAL: Final = {"asset": "EURUSD-OTC", "direction": "call", "amount": 5, "duration_seconds": 15}
_SETTLE_WITHIN: Final = 45.0
_BOT_PATIENCE: Final = 60.0
"""Seconds; nine 5-second candles were the longest that the shipped model held on these markets in five hours."""
_POLL: Final = 0.5
_FINAL: Final = frozenset({"won", "lost", "tied", "sold", "rejected", "not_placed"})


@dataclass(frozen=True, slots=True)
class Role:
    """Who a user of the demo is."""

    name: str
    broker: str
    account_type: str
    asset: str
    """What its bot trades."""


@dataclass(slots=True)
class Trader:
    """A user at work. The view reads it while it changes."""

    role: Role
    email: str
    doing: str = "waiting"
    session: UserSession | None = field(default=None, repr=False)
    feed: Feed | None = field(default=None, repr=False)
    status: dict[str, Any] = field(default_factory=dict, repr=False)
    """The last answer of ``/api/status``."""
    story: Story | None = None
    faults: list[str] = field(default_factory=list)
    """What was wrong, in words."""

    async def run(self, gateway: Gateway, seconds: float) -> None:
        """Live through the demo. Whatever the gateway refuses is one of the faults."""
        try:
            await self._run(gateway, seconds)
        except ApiError as error:
            self.faults.append(f"the gateway answered {error}")
        except TimeoutError:
            self.faults.append(f"nothing came in time while {self.doing}")
        self.doing = "done"

    async def _run(self, gateway: Gateway, seconds: float) -> None:
        self.doing = "connecting"
        role = self.role
        session = await gateway.connect(
            broker=role.broker, account_type=role.account_type, email=self.email, password=PASSWORD
        )
        self.session = session
        async with session.follow() as self.feed:
            self.doing = "trading"
            # With real money a bot waits for evidence of an edge, which takes longer than anybody looks on here.
            terms = {"asset": role.asset, "timeframe": 5, "duration_seconds": 5, "amount": 1}
            await session.post("start", **terms, evidence_gate="off")
            await session.post("trade", **_MANUAL, client_request_id=f"demo-{role.name}")
            await self._watch(session, seconds)
            self.doing = "settling"
            await session.post("stop")
            async with asyncio.timeout(_SETTLE_WITHIN):
                trades = await self._settled_trades(session)
            await self._close(session, trades)
        await session.post("disconnect")

    async def _watch(self, session: UserSession, seconds: float) -> None:
        """Look on for some time, and on until the bot has traded: a good model also holds for many candles in a row."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (now := loop.time()) < until or (now < until + _BOT_PATIENCE and not self._bot_has_traded()):
            self.status = await session.get("status")
            await asyncio.sleep(_POLL)

    def _bot_has_traded(self) -> bool:
        return self.feed is not None and any(trade["source"] == "bot" for trade in self.feed.of_type("trade_opened"))

    async def _settled_trades(self, session: UserSession) -> list[dict[str, Any]]:
        while True:
            trades = await session.trades()
            if all(trade["status"] in _FINAL for trade in trades):
                return trades
            await asyncio.sleep(_POLL)

    async def _close(self, session: UserSession, trades: list[dict[str, Any]]) -> None:
        """Wait until stream, balance and trades tell the same, and keep that as the story."""
        assert self.feed is not None  # noqa: S101  # set by the caller
        profit = sum((cents(trade["profit"]) for trade in trades), Decimal(0))
        expected = cents(session.connected["balance"]) + profit
        loop = asyncio.get_running_loop()
        until = loop.time() + 10
        while loop.time() < until:
            self.status = await session.get("status")
            settled = len(self.feed.of_type("trade_closed")) >= len([t for t in trades if t["status"] != "rejected"])
            if settled and self.feed.last_seq == self.status["seq"] and cents(self.status["balance"]) == expected:
                break
            await asyncio.sleep(_POLL)
        self.faults += self.feed.faults
        if self.feed.last_seq != self.status["seq"]:
            self.faults.append(f"the stream ends at {self.feed.last_seq}, the session is at {self.status['seq']}")
        if not any(trade["source"] == "bot" for trade in trades):
            self.faults.append("its bot placed no trade")
        self.story = Story(
            email=self.email,
            broker=self.role.broker,
            account_type=self.role.account_type,
            start_balance=cents(session.connected["balance"]),
            end_balance=cents(self.status["balance"]),
            trades=trades,
        )
