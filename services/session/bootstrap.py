"""Puts the session service together: the only place that names concrete adapters."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
from tradebot.session.v1 import session_service_pb2, session_service_pb2_grpc

from services.runtime.channel import open_channel
from services.runtime.clock import Clock, SystemClock
from services.runtime.interceptors import ErrorInterceptor
from services.runtime.redis_client import connect
from services.session import codec
from services.session.adapters.activity import RedisActivity
from services.session.adapters.agent_client import GrpcAgent
from services.session.adapters.broker_client import GrpcBroker
from services.session.adapters.event_log import RedisEventLog
from services.session.adapters.leases import RedisLeases
from services.session.adapters.ledger.database import PostgresDatabase
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.adapters.signals import RedisSignals
from services.session.adapters.tokens import JwtTokens, SigningKey
from services.session.adapters.vault import Vault
from services.session.domain.bot import ServiceLimits
from services.session.domain.events import StoredEvent
from services.session.domain.values import SessionKey
from services.session.ports import Agent, BrokerGateway, EventLog
from services.session.rest_errors import present
from services.session.servicer import SessionServicer
from services.session.settings import SessionSettings
from services.session.use_cases.login import Logins
from services.session.use_cases.ownership import Ownership
from services.session.use_cases.retention import keep_pruning
from services.session.use_cases.runner import RunnerTools, SessionRunner
from services.session.use_cases.sessions import Sessions
from services.session.use_cases.sharing import FairShare
from services.session.use_cases.trading import TradeDesk
from services.session.use_cases.watching import Watching

ERROR_DOMAIN = "session.tradebot"


class SessionApplication:
    """The service as the process base runs it."""

    service_names: Sequence[str] = (session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name,)

    def __init__(
        self, servicer: SessionServicer, desk: TradeDesk, ownership: Ownership, log: EventLog, drain_patience: float
    ) -> None:
        self.interceptor = ErrorInterceptor(ERROR_DOMAIN, present)
        self._servicer = servicer
        self._desk = desk
        self._ownership = ownership
        self._log = log
        self._drain_patience = drain_patience

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer."""
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(self._servicer, server)

    def is_ready(self) -> bool:
        """Return False while another replica reaches the ledger and this one does not."""
        return not self._ownership.is_cut_off

    async def drain(self) -> None:
        """Come to rest so that another replica can go on at once.

        Bots stop first, then orders under way are answered and recorded, then the events about them go out and the
        streams end, and only then are the leases given up: whoever takes over finds nothing half-way.
        """
        await self._ownership.stop()
        await self._desk.drain(self._drain_patience)
        await self._log.drain()
        await self._ownership.release()


@asynccontextmanager
async def bootstrap(settings: SessionSettings) -> AsyncIterator[SessionApplication]:
    """Build the application and run what it does by itself; closes what it opened."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        channels = [open_channel(target) for target in (settings.broker_target, settings.agent_target)]
        for channel in channels:
            stack.push_async_callback(channel.close)
        async with application(
            settings, clock, broker=GrpcBroker(channels[0], clock), agent=GrpcAgent(channels[1])
        ) as built:
            yield built


@asynccontextmanager
async def application(
    settings: SessionSettings, clock: Clock, *, broker: BrokerGateway, agent: Agent
) -> AsyncIterator[SessionApplication]:
    """Build the application around a broker and an agent, on the real ledger and live state."""
    name = uuid.uuid4().hex
    async with AsyncExitStack() as stack:
        redis = connect(settings.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose)
        database = await stack.enter_async_context(PostgresDatabase.at(settings.postgres_url.get_secret_value()))

        def publish(key: SessionKey, event: StoredEvent, /) -> None:
            log.publish(key, event)

        vault = Vault.from_file(settings.kek_file)

        def open_ledger(database: PostgresDatabase) -> PostgresLedger:
            return PostgresLedger(database, vault=vault, clock=clock, encode=codec.encode_event, publish=publish)

        ledger = open_ledger(database)
        # The look for sessions does not wait for its turn behind all that runners and callers want.
        lookout = await stack.enter_async_context(
            PostgresDatabase.at(settings.postgres_url.get_secret_value(), connections=1)
        )
        log = RedisEventLog(redis, ledger, clock=clock, name=name)
        signals = RedisSignals(redis, clock=clock, name=name)
        activity = RedisActivity(redis, ledger, clock=clock)
        leases = RedisLeases(redis, clock=clock, new_id=_new_id, ttl=settings.lease_ttl)
        limits = ServiceLimits(settings.max_open_trades, settings.max_amount)
        logins = Logins(ledger, broker)
        desk = TradeDesk(
            ledger,
            broker,
            logins=logins,
            signals=signals,
            clock=clock,
            limits=limits,
            new_id=_new_id,
            send_window=settings.send_window,
            patience=settings.trade_patience,
        )
        tools = RunnerTools(
            ledger=ledger,
            activity=activity,
            signals=signals,
            broker=broker,
            agent=agent,
            logins=logins,
            desk=desk,
            clock=clock,
            limits=limits,
            encode_candle=codec.encode_candle,
            jitter=random.random,
            idle_timeout=settings.idle_timeout,
            expiry_warning=settings.expiry_warning,
        )

        def new_runner(key: SessionKey, may_send: Callable[[], bool]) -> SessionRunner:
            return SessionRunner(key, tools, may_send)

        ownership = Ownership(
            ledger=open_ledger(lookout),
            leases=leases,
            signals=signals,
            clock=clock,
            new_runner=new_runner,
            share=FairShare(settings.settle_time),
            jitter=random.random,
            scan_interval=settings.scan_interval,
            scan_limit=settings.scan_limit,
        )
        sessions = Sessions(
            ledger=ledger,
            activity=activity,
            signals=signals,
            broker=broker,
            agent=agent,
            tokens=JwtTokens(SigningKey.read(settings.jwt_key_file), clock),
            logins=logins,
            desk=desk,
            claim=ownership.claim,
            clock=clock,
            limits=limits,
            new_id=_new_id,
            idle_timeout=settings.idle_timeout,
            token_lifetime=settings.token_lifetime,
        )
        watching = Watching(ledger, activity, log, signals, clock)
        servicer = SessionServicer(sessions, watching, clock, settings.idle_timeout)
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(run()) for run in (log.run, signals.run, ownership.run)]
            background.append(tasks.create_task(keep_pruning(ledger, clock, settings.event_retention)))
            try:
                yield SessionApplication(servicer, desk, ownership, log, settings.drain_patience)
            finally:
                # Whatever ends the application, no runner outlives it.
                await ownership.stop()
                await desk.drain(0.0)
                for task in background:
                    task.cancel()


def _new_id() -> str:
    return str(uuid.uuid4())
