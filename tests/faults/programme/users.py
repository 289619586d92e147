"""The users: they trade by hand and by bot, repeat what got no answer, and mark every order so that a witness knows it.

A manual trade's stake is 1.00 plus its number in cents, and no number comes twice on an account: an order in the
simulator's ledger is known by its stake, whatever we claim about it. Bots stake exactly 1.00.
"""

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf
from typing import Any, Final

import aiohttp

from local.client import ApiError, Gateway, UserSession
from tests.faults.programme.fold import Fold
from tests.faults.programme.world import MAX_OPEN_TRADES
from tests.support.eventually import eventually
from tests.support.traders import PASSWORD

BOT_STAKE: Final = Decimal("1.00")
BOT_TRADES: Final = 12
"""``max_trades`` of the bots that have a limit."""
_ASSETS: Final = ("EURUSD-OTC", "USDJPY-OTC", "AUDCAD-OTC", "NZDUSD-OTC")
_KINDS: Final = (("iq", "PRACTICE"), ("exnova", "REAL"), ("iq", "REAL"), ("exnova", "PRACTICE"))
_TEMPORARY: Final = frozenset({"UNAVAILABLE", "BROKER_UNAVAILABLE", "INTERNAL"})
_PATIENCE: Final = 45.0
"""Seconds for which an unanswered trade is asked for again under its key."""
_REPEATED: Final = 0.1
_BURSTS: Final = 0.02


@dataclass(slots=True)
class Account:
    """A login at a broker and the sessions that trade on it."""

    email: str
    broker: str
    account_type: str
    numbers: int = 0

    def next_number(self) -> int:
        """Return a number that no other trade of the account has."""
        self.numbers += 1
        return self.numbers


@dataclass(slots=True)
class User:
    """One session with its stream."""

    account: Account
    session: UserSession = field(repr=False)
    feed: Fold = field(repr=False)
    max_trades: int | None = None
    """Of the bot; None if the user has none, or it has no limit."""
    has_bot: bool = False
    asked: dict[str, Decimal] = field(default_factory=dict, repr=False)
    """Client request id to stake, of every trade that was asked for."""
    answered: dict[str, str] = field(default_factory=dict, repr=False)
    """Client request id to the trade's id."""
    refusals: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What an answer alone showed to be wrong."""

    async def start_bot(self) -> None:
        """Start the bot, however often the call must be repeated; it trades at once, with real money too."""
        self.has_bot = True
        terms = {"asset": "AUDCAD-OTC", "timeframe": 5, "duration_seconds": 5, "evidence_gate": "off"}
        await self.repeat("start", **terms, max_trades=self.max_trades)

    async def repeat(self, path: str, **fields: Any) -> dict[str, Any]:
        """POST until there is an answer.

        Raises:
            ApiError: It was refused for a reason that time does not heal.
            TimeoutError: No answer in time.
        """

        async def answered() -> dict[str, Any]:
            answer: dict[str, Any] = {}
            try:
                answer = await self.session.post(path, **fields)
            except ApiError as error:
                if error.code not in _TEMPORARY:
                    raise
            except (aiohttp.ClientError, TimeoutError, ValueError):
                pass
            return answer

        async with asyncio.timeout(_PATIENCE):
            return await eventually(answered, within=inf, every=0.2)

    async def trade(self, chance: random.Random) -> None:
        """Place one marked trade; now and then ask again for one that is there."""
        number = self.account.next_number()
        key, stake = f"order-{number}", Decimal(100 + number) / 100
        order = {
            "asset": chance.choice(_ASSETS),
            "direction": chance.choice(("call", "put")),
            "amount": float(stake),
            "duration_seconds": 5,
            "client_request_id": key,
        }
        self.asked[key] = stake
        for _ in range(2 if chance.random() < _REPEATED else 1):
            try:
                answer = await self.repeat("trade", **order)
            except ApiError as error:
                self.refusals[error.code] = self.refusals.get(error.code, 0) + 1
                return
            except TimeoutError:
                self.refusals["no answer"] = self.refusals.get("no answer", 0) + 1
                return
            known = self.answered.setdefault(key, answer["trade_id"])
            if known != answer["trade_id"]:
                self.faults.append(f"{key} was answered as trade {known} and as {answer['trade_id']}")

    async def keep_trading(self, stop: asyncio.Event, chance: random.Random, pause: float) -> None:
        """Trade about every ``pause`` seconds until told to stop, at times in a burst beyond the limit."""
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set():
                for _ in range(MAX_OPEN_TRADES + 2 if chance.random() < _BURSTS else 1):
                    tasks.create_task(self.trade(chance))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), chance.uniform(0.5, 1.5) * pause)


@contextlib.asynccontextmanager
async def connected_users(gateway: Gateway, count: int) -> AsyncIterator[list[User]]:
    """Connect so many sessions, every eighth on the account of the one before it, and follow their events."""
    users: list[User] = []
    async with contextlib.AsyncExitStack() as stack:
        for number in range(count):
            if number % 8 == 7:
                account = users[-1].account
            else:
                broker, account_type = _KINDS[number % len(_KINDS)]
                account = Account(f"trader-{secrets.token_hex(4)}@example.com", broker, account_type)
            session = await gateway.connect(
                broker=account.broker, account_type=account.account_type, email=account.email, password=PASSWORD
            )
            feed = Fold(session)
            task = asyncio.create_task(feed.collect())
            stack.callback(task.cancel)
            users.append(User(account, session, feed))
        async with asyncio.timeout(30):
            for user in users:
                await user.feed.opened.wait()
        # On a shared account one bot only: two equal orders of 1.00 would be told apart by nobody.
        bots = [user for number, user in enumerate(users) if number % 8 < 3]
        for number, user in enumerate(bots):
            user.max_trades = BOT_TRADES if number % 2 else None
            await user.start_bot()
        yield users
