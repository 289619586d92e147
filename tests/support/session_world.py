"""The session service on fakes and a manual clock: every real part of it between the wire and the ports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

from services.runtime.secret import Secret
from services.session import codec
from services.session.domain.bot import BotSettings, ServiceLimits
from services.session.domain.trade import Trade, TradeRequest
from services.session.domain.values import (
    AccountType,
    Broker,
    Direction,
    InstrumentType,
    SessionKey,
    TradeSource,
    session_key,
)
from services.session.use_cases.login import Logins
from services.session.use_cases.ownership import Ownership
from services.session.use_cases.runner import RunnerTools, SessionRunner
from services.session.use_cases.sessions import ConnectCommand, Connected, Sessions
from services.session.use_cases.sharing import FairShare
from services.session.use_cases.trading import TradeDesk
from services.session.use_cases.watching import Watching
from tests.support.clocks import ManualClock
from tests.support.fake_ledger import FakeLedger
from tests.support.fakes import (
    FakeActivity,
    FakeAgent,
    FakeBroker,
    FakeEventLog,
    FakeLeases,
    FakeSignals,
    FakeTokens,
    a_candle,
    a_new_id,
)

IDLE_TIMEOUT = 3600
EXPIRY_WARNING = 300


class World:
    """One replica, its broker, its agent and its ledger."""

    def __init__(self, limits: ServiceLimits | None = None) -> None:
        self.clock = ManualClock()
        self.ledger = FakeLedger(self.clock)
        self.activity = FakeActivity(self.ledger, self.clock)
        self.signals = FakeSignals()
        self.broker = FakeBroker(self.clock)
        self.agent = FakeAgent()
        self.leases = FakeLeases(self.clock)
        self.log = FakeEventLog(self.ledger)
        self.limits = limits or ServiceLimits()
        self.logins = Logins(self.ledger, self.broker)
        self.desk = TradeDesk(
            self.ledger,
            self.broker,
            logins=self.logins,
            signals=self.signals,
            clock=self.clock,
            limits=self.limits,
            new_id=a_new_id,
        )
        self.runners: dict[SessionKey, SessionRunner] = {}
        """The last one made for each session."""
        self.ownership = self.new_ownership()
        self.sessions = Sessions(
            ledger=self.ledger,
            activity=self.activity,
            signals=self.signals,
            broker=self.broker,
            agent=self.agent,
            tokens=FakeTokens(),
            logins=self.logins,
            desk=self.desk,
            claim=self.ownership.claim,
            clock=self.clock,
            limits=self.limits,
            new_id=a_new_id,
            idle_timeout=IDLE_TIMEOUT,
            token_lifetime=timedelta(hours=12),
        )
        self.watching = Watching(self.ledger, self.activity, self.log, self.signals, self.clock)

    def new_ownership(self) -> Ownership:
        """Another replica on the same ledger."""
        return Ownership(
            ledger=self.ledger,
            leases=self.leases,
            signals=self.signals,
            clock=self.clock,
            new_runner=self.new_runner,
            share=FairShare(15.0),
            jitter=lambda: 0.5,
            scan_interval=1.0,
            scan_limit=1000,
        )

    def new_runner(self, key: SessionKey, may_send: Callable[[], bool]) -> SessionRunner:
        tools = RunnerTools(
            ledger=self.ledger,
            activity=self.activity,
            signals=self.signals,
            broker=self.broker,
            agent=self.agent,
            logins=self.logins,
            desk=self.desk,
            clock=self.clock,
            limits=self.limits,
            encode_candle=codec.encode_candle,
            jitter=lambda: 0.5,
            idle_timeout=IDLE_TIMEOUT,
            expiry_warning=EXPIRY_WARNING,
        )
        runner = self.runners[key] = SessionRunner(key, tools, may_send)
        return runner

    async def connect(self, email: str = "ann@example.com", **changes: Any) -> Connected:
        return await self.sessions.connect(a_connect(email, **changes))

    async def key(self, email: str = "ann@example.com", **changes: Any) -> SessionKey:
        return session_key((await self.connect(email, **changes)).session_id.reveal())

    async def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, and everybody do what he has to do on the way."""
        left = seconds
        while left > 0:
            await self.clock.advance(min(step, left))
            await settle()
            left -= step

    async def close_candle(self, key: SessionKey, timeframe: int = 60) -> None:
        """Let the clock reach the end of the candle in progress, and the broker say that it is closed."""
        now = self.clock.now()
        left = timeframe - now.timestamp() % timeframe
        await self.clock.advance(left)
        await settle()
        self.broker.quotes(key, a_candle(self.clock.now(), timeframe))
        await settle()


@asynccontextmanager
async def running(limits: ServiceLimits | None = None) -> AsyncIterator[World]:
    """A world whose ownership runs, so that sessions have their runners."""
    world = World(limits)
    owning = asyncio.create_task(world.ownership.run())
    await settle()
    try:
        yield world
    finally:
        await world.ownership.stop()
        await world.desk.drain(0)
        owning.cancel()
        await asyncio.gather(owning, return_exceptions=True)


async def settle(turns: int = 60) -> None:
    """Let everything that can go on without time passing go on."""
    for _ in range(turns):
        await asyncio.sleep(0)


def a_connect(email: str = "ann@example.com", **changes: Any) -> ConnectCommand:
    fields: dict[str, Any] = {
        "broker": Broker.EXNOVA,
        "account_type": AccountType.PRACTICE,
        "email": Secret(email),
        "password": Secret("secret"),
        **changes,
    }
    return ConnectCommand(**fields)


def a_manual_trade(key: SessionKey, **changes: Any) -> TradeRequest:
    fields: dict[str, Any] = {
        "session_key": key,
        "source": TradeSource.MANUAL,
        "asset": "EURUSD-OTC",
        "instrument_type": InstrumentType.BLITZ,
        "direction": Direction.CALL,
        "amount": Decimal("10.00"),
        "duration": timedelta(seconds=30),
        **changes,
    }
    return TradeRequest(**fields)


def bot_settings(**changes: Any) -> BotSettings:
    fields: dict[str, Any] = {
        "timeframe": 60,
        "duration": timedelta(seconds=30),
        "instrument_type": InstrumentType.BLITZ,
        "amount": Decimal("5.00"),
        **changes,
    }
    return BotSettings(**fields)


def bot_trades(world: World) -> list[Trade]:
    return [trade for trade in world.ledger.all_trades() if trade.source is TradeSource.BOT]
