"""A simulated world: replicas of the session service as they run in production, on simulated time, broker and live state.

Two phases: faults strike while users and bots trade; then everything works and whatever is unresolved must be resolved.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from math import ceil, inf
from typing import Any, Final, Literal
from uuid import UUID

from services.runtime.errors import ServiceError
from services.session.adapters.leases import RedisLeases
from services.session.adapters.ledger import sql
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.domain.bot import BotSettings, ServiceLimits
from services.session.domain.errors import UnavailableError
from services.session.domain.evidence import GateMode
from services.session.domain.model import ModelVersion
from services.session.domain.trade import ACTIVE, Trade, TradeRequest
from services.session.domain.values import (
    Account,
    AccountType,
    BotStatus,
    Broker,
    Candle,
    Direction,
    InstrumentType,
    SessionKey,
    TradeId,
    TradeSource,
)
from services.session.ports import Agent, BrokerGateway, Decision, DecisionFeed
from services.session.use_cases.login import Logins
from services.session.use_cases.ownership import Ownership
from services.session.use_cases.runner import RunnerTools, SessionRunner
from services.session.use_cases.sharing import FairShare
from services.session.use_cases.trading import TradeDesk
from tests.faults.simulation.faults import Fate, Faults
from tests.faults.simulation.ledger import Inner, SimDatabase, SimServer, Transaction, moves_of
from tests.faults.simulation.live_state import SimActivity, SimRedis, SimSignals
from tests.faults.simulation.loop import Process, SimLoop
from tests.faults.simulation.platform import ASSET, EPOCH, SimPlatform
from tests.support.eventually import eventually
from tests.support.ledgers import CREDENTIALS, a_ledger

LIMITS: Final = ServiceLimits(max_open_trades=4)
PODS: Final = 2
MANUAL_TRADES: Final = 7
FAULTY: Final = 300.0
"""Seconds of the first phase."""
CALM: Final = 420.0
"""Seconds in which everything must be resolved: the last order's latest acceptance, the lists' staleness, its expiry."""
_LEASE: Final = 2.0
_SETTLE: Final = 3.0
_BURSTS: Final = 0.4
"""Share of worlds in which somebody places many trades at once."""
_GATED: Final = 0.1
"""Share of worlds whose bot stands behind an evidence gate, which a world is too short to open."""
_PATIENCE: Final = 30.0
"""Seconds after which a client asks again with the same key."""


class SimClock:
    """The loop's time."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))


class SimAgent:
    """Decides by chance, every time anew: a candle that is decided twice may be decided otherwise."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    @asynccontextmanager
    async def decide_on(
        self, settings: BotSettings, payout_rate: float, history: Sequence[Candle]
    ) -> AsyncIterator[DecisionFeed]:
        yield self

    async def models(self) -> Sequence[ModelVersion]:
        return [await self.model("")]

    async def model(self, name: str, version: str = "") -> ModelVersion:
        return ModelVersion(name or "m")

    async def min_history(self, model: str) -> int:
        return 1

    async def next(self, candle: Candle, payout_rate: float) -> Decision:
        await asyncio.sleep(self._rng.uniform(0.001, 0.2))
        action: Literal["HOLD", "CALL", "PUT"] = self._rng.choice(("HOLD", "CALL", "CALL", "PUT", "PUT"))
        return Decision(action, "", 0.9 if action == "CALL" else 0.1, 0.53, 0.1, "m", "1", "0")


@dataclass(slots=True)
class History:
    """What happened, for the checker."""

    moves: list[tuple[str, str, str]] = field(default_factory=list)
    """Trade, old and new state, as committed."""
    senders: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    """Processes that began to send a bot's order, by session and epoch."""
    answers: dict[tuple[SessionKey, str], set[TradeId]] = field(default_factory=dict)
    """Trades that clients were told of, by session and key."""
    overdrawn: list[str] = field(default_factory=list)
    """Sessions that had more open trades than their limit when one was reserved, or counted wrongly."""
    unexpected: list[str] = field(default_factory=list)
    """What was raised that nobody should raise."""


class Pod:
    """One replica of the session service, put together as bootstrap does."""

    def __init__(self, world: "World", name: str) -> None:
        loop, fate = world.loop, world.fate
        clock = SimClock(loop)
        self.process: Process = loop.process(name)
        self.process.at_death.append(lambda: world.server.connection_lost(self.process))
        self.database = SimDatabase(world.server, self.process)
        self.ledger: PostgresLedger = world.new_ledger(self.database, clock)
        signals = SimSignals(fate, world.signals)
        broker: BrokerGateway = world.platform
        agent: Agent = SimAgent(fate.rng)
        self._leases = RedisLeases(world.redis.client(), clock=clock, new_id=world.new_id, ttl=_LEASE)
        logins = Logins(self.ledger, broker)
        self.desk = TradeDesk(
            self.ledger, broker, logins=logins, signals=signals, clock=clock, limits=LIMITS, new_id=world.new_id
        )
        tools = RunnerTools(
            ledger=self.ledger,
            activity=SimActivity(clock.now),
            signals=signals,
            broker=broker,
            agent=agent,
            logins=logins,
            desk=self.desk,
            clock=clock,
            limits=LIMITS,
            encode_candle=lambda *_, **__: b"",
            jitter=fate.rng.random,
            idle_timeout=10**6,
            expiry_warning=300,
        )
        self.ownership = Ownership(
            ledger=self.ledger,
            leases=self._leases,
            signals=signals,
            clock=clock,
            new_runner=lambda key, may_send: SessionRunner(key, tools, may_send),
            share=FairShare(_SETTLE),
            jitter=fate.rng.random,
            scan_interval=1.0,
            scan_limit=100,
        )
        self.main = loop.start(self.process, self.ownership.run())

    async def drain(self) -> None:
        """Come to rest in the production order, and exit."""
        await self.ownership.stop()
        await self.desk.drain(5.0)
        await self.ownership.release()
        self.process.kill()


class World:
    """One seed's world."""

    def __init__(self, inner: Inner, seed: int, faults: Faults) -> None:
        self.seed = seed
        self.loop = SimLoop(random.Random(seed))
        self.fate = Fate(self.loop.rng, faults)
        self.server = SimServer(inner, self.loop, self.fate)
        self.server.at_commit.append(self._observe)
        self.platform = SimPlatform(self.loop, self.fate)
        self.platform.stop_caller = self._drain
        self.redis = SimRedis(self.loop, self.fate)
        self.signals: list[SimSignals] = []
        self.history = History()
        self.pods: list[Pod] = []
        self.keys: list[SessionKey] = []
        self._started = 0

    def new_id(self) -> str:
        """Make an id that the seed determines."""
        return str(UUID(int=self.loop.rng.getrandbits(128), version=4))

    def new_ledger(self, database: SimDatabase, clock: SimClock) -> PostgresLedger:
        """Make a process's ledger."""
        return a_ledger(database, clock=clock)

    def run(self) -> None:
        """Live through both phases."""
        self.server.inner.rows("TRUNCATE sessions CASCADE")
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._live())
        finally:
            asyncio.set_event_loop(None)
            self.server.close()
        self.history.unexpected += [repr(failure) for failure in self.loop.failures]

    async def _live(self) -> None:
        await self._set_up()
        harm = [
            self.loop.outside(work) for work in (*self._harms(), *(self._keep_up(number) for number in range(PODS)))
        ]
        users = [self.loop.outside(self._user(number)) for number in range(MANUAL_TRADES)]
        if self.loop.rng.random() < _BURSTS:
            users.append(self.loop.outside(self._burst()))
        await asyncio.sleep(FAULTY)
        self.fate.calm()
        await asyncio.gather(*users)
        await self._stop_bot()
        # What is not finished then, the checker tells.
        with suppress(AssertionError):
            await eventually(self._finished, within=CALM, every=5.0)
        for task in harm:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                self.history.unexpected.append(repr(error))

    async def _finished(self) -> bool:
        states = [state.value for state in ACTIVE]
        open_trades = self.server.inner.rows("SELECT 1 FROM trades WHERE state = ANY($1::text[]) LIMIT 1", states)
        return not open_trades and self.is_shared_fairly()

    def is_shared_fairly(self) -> bool:
        """Tell whether every session runs, and no living replica runs more than its share."""
        held = [len(pod.ownership) for pod in self.pods if pod.process.alive]
        return sum(held) == len(self.keys) and max(held) <= ceil(len(self.keys) / len(held))

    # Who lives here

    async def _set_up(self) -> None:
        """Three sessions: two of one user on one balance, and one of another user, whose bot runs."""
        outside = self.loop.process("setup")
        ledger = a_ledger(SimDatabase(self.server, outside), clock=SimClock(self.loop))
        accounts = [Account(1, 11, AccountType.PRACTICE, Decimal(10_000), "USD")] * 2
        accounts.append(Account(2, 22, AccountType.REAL, Decimal(10_000), "USD"))
        faults, self.fate.faults = self.fate.faults, Faults(**dict.fromkeys(Faults.__dataclass_fields__, 0.0))
        for number, account in enumerate(accounts):
            key = SessionKey(f"{number:040d}")
            await ledger.create_session(key, Broker.IQ, account, CREDENTIALS)
            self.platform.accounts[key] = account
            self.keys.append(key)
        settings = BotSettings(
            amount=Decimal(2),
            timeframe=30,
            instrument_type=InstrumentType.BLITZ if self.loop.rng.random() < 0.3 else InstrumentType.TURBO,
            duration=timedelta(seconds=30) if self.loop.rng.random() < 0.5 else timedelta(minutes=1),
        )
        if settings.instrument_type is InstrumentType.TURBO:
            settings = replace(settings, duration=timedelta(minutes=1))
        # Said by the user, as it must be with real money: the bot would trade nothing in the other worlds.
        gated = self.loop.rng.random() < _GATED
        settings = replace(settings, gate=GateMode.EVIDENCE if gated else GateMode.OPEN)
        await ledger.start_bot(self.keys[2], settings, self.new_id())
        self.fate.faults = faults

    async def _stop_bot(self) -> None:
        """Stop the bot as its user would: until it is done, at whichever replica lives."""
        while True:
            pod = await self._living_pod()
            call = self.loop.start(pod.process, pod.ledger.set_bot_status(self.keys[2], BotStatus.STOPPED))
            done, _ = await asyncio.wait({call}, timeout=5.0)
            if done and not call.cancelled() and call.exception() is None:
                return

    async def _user(self, number: int) -> None:
        """Place one trade, as often as it takes to get an answer, and sometimes twice at once."""
        rng = self.loop.rng
        await asyncio.sleep(rng.uniform(5.0, FAULTY - 60.0))
        key = rng.choice(self.keys)
        request = TradeRequest(
            session_key=key,
            source=TradeSource.MANUAL,
            asset=ASSET,
            instrument_type=rng.choice((InstrumentType.TURBO, InstrumentType.TURBO, InstrumentType.BLITZ)),
            direction=rng.choice((Direction.CALL, Direction.PUT)),
            amount=rng.choice((Decimal(1), Decimal(2))),
            duration=timedelta(minutes=1),
            idempotency_key=f"client-{number}",
        )
        if rng.random() < 0.3:
            self.loop.outside(self._submit(request))
        for _ in range(4):
            if await self._submit(request):
                return

    async def _burst(self) -> None:
        """Place more different trades at once than the limit allows."""
        rng = self.loop.rng
        await asyncio.sleep(rng.uniform(5.0, FAULTY - 60.0))
        key = rng.choice(self.keys)
        requests = [
            TradeRequest(
                session_key=key,
                source=TradeSource.MANUAL,
                asset=ASSET,
                instrument_type=InstrumentType.TURBO,
                direction=Direction.CALL,
                amount=Decimal(10 + number),
                duration=timedelta(minutes=1),
                idempotency_key=f"burst-{number}",
            )
            for number in range(LIMITS.max_open_trades + 2)
        ]
        await asyncio.gather(*(self._submit(request) for request in requests))

    async def _submit(self, request: TradeRequest) -> bool:
        """Ask a replica once; False if no answer came, or none that means anything."""
        assert request.idempotency_key is not None
        pod = await self._living_pod()
        call = self.loop.start(pod.process, self._place(pod, request))
        done, _ = await asyncio.wait({call}, timeout=_PATIENCE)
        if not done or call.cancelled():
            return False
        try:
            trade = call.result()
        except UnavailableError:
            return False
        except ServiceError:
            return True
        except Exception as error:  # noqa: BLE001  # the checker says what it was
            self.history.unexpected.append(repr(error))
            return True
        name = (request.session_key, request.idempotency_key)
        self.history.answers.setdefault(name, set()).add(trade.trade_id)
        return True

    @staticmethod
    async def _place(pod: Pod, request: TradeRequest) -> Trade:
        record = await pod.ledger.session(request.session_key)
        assert record is not None
        return await pod.desk.place(record, request)

    async def _living_pod(self) -> Pod:
        async def living() -> Sequence[Pod]:
            return [pod for pod in self.pods if pod.process.alive]

        return self.loop.rng.choice(await eventually(living, within=inf, every=0.1))

    # What befalls them

    async def _keep_up(self, number: int) -> None:
        """Start a replica again whenever it has died."""
        while True:
            self._started += 1
            pod = Pod(self, f"pod-{number}-{self._started}")
            self.pods.append(pod)
            died = asyncio.Event()
            pod.process.at_death.append(died.set)
            await asyncio.wait({pod.main, self.loop.outside(died.wait())}, return_when=asyncio.FIRST_COMPLETED)
            if pod.process.alive:
                self.history.unexpected.append(f"a replica ended: {pod.main!r}")
                pod.process.kill()
            self.pods.remove(pod)
            await asyncio.sleep(self.fate.pause(0.5, 5.0))

    def _drain(self, process: Process) -> None:
        for pod in self.pods:
            if pod.process is process:
                self.loop.start(process, pod.drain())

    def _harms(self) -> list[Coroutine[Any, Any, None]]:
        async def kill() -> None:
            if self.pods:
                self.loop.rng.choice(self.pods).process.kill()

        async def freeze() -> None:
            if self.pods:
                self.loop.freeze(self.loop.rng.choice(self.pods).process, self.fate.pause(1.0, 40.0))

        async def drain() -> None:
            if living := [pod for pod in self.pods if pod.process.alive]:
                self._drain(self.loop.rng.choice(living).process)

        async def wipe() -> None:
            self.redis.wipe()

        async def cut_off() -> None:
            if self.pods:
                until = min(self.loop.time() + self.fate.pause(3.0, 40.0), FAULTY)
                self.loop.rng.choice(self.pods).database.silent_until = until

        async def restart() -> None:
            self.platform.restart_connector()

        faults = self.fate.faults
        return [
            self._again_and_again(faults.kills, kill),
            self._again_and_again(faults.freezes, freeze),
            self._again_and_again(faults.drains, drain),
            self._again_and_again(faults.wiped_leases, wipe),
            self._again_and_again(faults.cut_off_replicas, cut_off),
            self._again_and_again(faults.cut_connections, self.platform.cut_something),
            self._again_and_again(faults.connector_restarts, restart),
        ]

    async def _again_and_again(self, mean: float, strike: Callable[[], Awaitable[None]]) -> None:
        while self.loop.time() < FAULTY:
            await asyncio.sleep(self.fate.next_event(mean))
            if self.loop.time() < FAULTY:
                await strike()

    def _observe(self, process: Process, transaction: Transaction) -> None:
        """Look at what was just committed."""
        self.history.moves += moves_of(transaction)
        reserved = any(statement == sql.INSERT_TRADE for statement, _ in transaction.statements)
        if reserved or moves_of(transaction):
            self._check_exposure(reserved=reserved)
        for statement, arguments in transaction.statements:
            if statement == sql.MOVE_TRADE and arguments[2] == "sending":
                (row,) = self.server.inner.rows(
                    "SELECT s.session_key, s.epoch, t.source FROM trades t JOIN sessions s USING (session_key) "
                    "WHERE trade_id = $1",
                    arguments[0],
                )
                if row["source"] == "bot":
                    self.history.senders.setdefault((row["session_key"], row["epoch"]), set()).add(process.name)

    def _check_exposure(self, *, reserved: bool) -> None:
        """Recount what the limits count, at every instant that changes it."""
        for row in self.server.inner.rows(
            "SELECT s.session_key, s.open_trades, s.exposure, count(t.trade_id) AS open, "
            "coalesce(sum(t.amount), 0) AS staked FROM sessions s LEFT JOIN trades t ON t.session_key = s.session_key "
            "AND t.state IN ('intent', 'sending', 'open', 'unknown') GROUP BY s.session_key"
        ):
            if (row["open"], row["staked"]) != (row["open_trades"], row["exposure"]):
                self.history.overdrawn.append(f"session {row['session_key']} counts other trades than it has")
            if reserved and row["open"] > LIMITS.max_open_trades:
                self.history.overdrawn.append(f"session {row['session_key']} has {row['open']} open trades")

    def count(self) -> Counter[str]:
        """Count trades by their last state."""
        rows = self.server.inner.rows("SELECT state, count(*) AS trades FROM trades GROUP BY state")
        return Counter({row["state"]: row["trades"] for row in rows})
