"""Puts the broker service together: the only place that names concrete adapters."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import grpc
from tradebot.broker.v1 import broker_service_pb2, broker_service_pb2_grpc

from services.broker.breaker import Breaker, Counters, LocalCounters, SharedCounters
from services.broker.connections import Connections
from services.broker.connectors.iqoptionapi.process_link import ProcessLink
from services.broker.connectors.quadcode.assets import AssetTables
from services.broker.connectors.quadcode.brands import Brand
from services.broker.connectors.quadcode.connector import Patience, QuadcodeConnector, Shared
from services.broker.connectors.quadcode.link import FrameCounts, Link, Timing
from services.broker.connectors.quadcode.login import HttpLogin
from services.broker.connectors.quadcode.orders import OrderTiming
from services.broker.connectors.quadcode.socket_link import SocketLink
from services.broker.domain.ports import ConnectorFactory, LoginBreaker
from services.broker.domain.values import AccountType, Broker, Credentials
from services.broker.redis_scripts import RedisScripts
from services.broker.servicer import BrokerServicer
from services.broker.settings import Settings
from services.runtime.clock import Clock, SystemClock
from services.runtime.interceptors import ErrorInterceptor

ERROR_DOMAIN = "broker.tradebot"


class BrokerApplication:
    """The service as the process base runs it."""

    service_names: Sequence[str] = (broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"].full_name,)

    def __init__(self, connections: Connections, clock: Clock, drain_patience: float) -> None:
        self.interceptor = ErrorInterceptor(ERROR_DOMAIN)
        self._connections = connections
        self._clock = clock
        self._drain_patience = drain_patience

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer."""
        broker_service_pb2_grpc.add_BrokerServiceServicer_to_server(
            BrokerServicer(self._connections, self._clock), server
        )

    def is_ready(self) -> bool:
        """Return True: whether a platform answers is told per connection."""
        return True

    async def drain(self) -> None:
        """Wait for the orders under way, then close all connections; their streams end with it."""
        await self._connections.drain(self._drain_patience)


@asynccontextmanager
async def bootstrap(settings: Settings, clock: Clock | None = None) -> AsyncIterator[BrokerApplication]:
    """Build the application; closes what it opened."""
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(client_session())
        breaker = await login_breaker(settings, clock, stack)
        connections = Connections(connector_factory(settings, http, breaker, clock), clock)
        # Whatever ends the application, no connection outlives it.
        stack.push_async_callback(connections.drain, 0.0)
        sweeping = asyncio.create_task(connections.keep_sweeping(settings.unwatched_limit))
        stack.callback(sweeping.cancel)
        yield BrokerApplication(connections, clock, settings.order_timeout + 1.0)


def client_session() -> aiohttp.ClientSession:
    """Make the one HTTP and WebSocket client. It keeps no cookies: they would pass from one user to the next."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
        headers={"User-Agent": "tradebot"},
    )


def connector_factory(
    settings: Settings, http: aiohttp.ClientSession, breaker: LoginBreaker, clock: Clock
) -> ConnectorFactory:
    """Return what makes connectors, over the link that the settings choose."""
    patience = Patience(
        link=Timing(settings.connect_timeout, settings.request_timeout, settings.silence_limit),
        orders=OrderTiming(settings.order_timeout, settings.settlement_grace),
    )
    shared = Shared(clock, AssetTables(clock, settings.assets_max_age), FrameCounts(), patience, random.Random())
    brands = settings.brands()
    logins = {
        broker: HttpLogin(brand, http, breaker, clock, settings.connect_timeout) for broker, brand in brands.items()
    }

    def link(brand: Brand, account_type: AccountType) -> Link:
        if settings.connector == "iqoptionapi":
            python = settings.iqoptionapi_python
            return ProcessLink(python, brand, account_type, clock, timing=patience.link, counts=shared.counts)
        return SocketLink(brand, http, clock, timing=patience.link, counts=shared.counts)

    def make(broker: Broker, account_type: AccountType, credentials: Credentials) -> QuadcodeConnector:
        brand = brands[broker]
        return QuadcodeConnector(
            brand,
            account_type,
            credentials,
            login=logins[broker],
            link=link(brand, account_type),
            shared=shared,
        )

    return make


async def login_breaker(settings: Settings, clock: Clock, stack: AsyncExitStack) -> LoginBreaker:
    """Return the breaker: over Redis if there is one, else within the process."""
    counters: Counters = LocalCounters(clock)
    if settings.redis_url is not None:
        scripts = RedisScripts(settings.redis_url.get_secret_value())
        stack.push_async_callback(scripts.close)
        counters = SharedCounters(scripts, counters, lambda: clock.now().timestamp())
    return Breaker(counters, settings.egress, clock, lambda: uuid.uuid4().hex)
