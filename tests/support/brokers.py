"""The broker service's parts against a real simulator over real sockets, and what the simulator says of it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

import aiohttp

from services.broker.bootstrap import client_session, connector_factory, login_breaker
from services.broker.domain.ports import Connector, ConnectorFactory
from services.broker.domain.values import (
    AccountEvent,
    AccountType,
    Broker,
    Credentials,
    Direction,
    InstrumentType,
    NewOrder,
    Order,
    OrderState,
    TwoFactor,
)
from services.broker.settings import Settings
from services.runtime.clock import SystemClock
from services.runtime.secret import Secret
from simulator.server import Simulator
from simulator.settings import Settings as SimulatorSettings
from tests.support.eventually import eventually

PASSWORD: Final = "secret"
EURUSD: Final = "EURUSD-OTC"
_ids = itertools.count(1)
V = TypeVar("V")


def broker_settings(simulator: Simulator, **changes: Any) -> Settings:
    """Settings that point both brands at the simulator, with a tester's patience."""
    iq, exnova = simulator.addresses["iq"], simulator.addresses["exnova"]
    values: dict[str, Any] = {
        "iq_http_url": f"{iq['http']}/api",
        "iq_ws_url": iq["ws"],
        "exnova_http_url": f"{exnova['http']}/api",
        "exnova_ws_url": exnova["ws"],
        "drain_delay": 0.0,
        "drain_grace": 1.0,
        "order_timeout": 8.0,
        "request_timeout": 10.0,
        "settlement_grace": 0.5,
    }
    return Settings(**(values | changes))


def credentials(email: str, password: str = PASSWORD) -> Credentials:
    return Credentials(email, Secret(password))


def an_order(
    client_order_id: str = "",
    *,
    account_type: AccountType = AccountType.PRACTICE,
    asset: str = EURUSD,
    instrument_type: InstrumentType = InstrumentType.TURBO,
    direction: Direction = Direction.CALL,
    amount: str = "1",
    duration: int = 60,
    min_payout_rate: float = 0.0,
    send_within: float = 60.0,
) -> NewOrder:
    return NewOrder(
        client_order_id=client_order_id or f"order-{next(_ids)}",
        account_type=account_type,
        asset=asset,
        instrument_type=instrument_type,
        direction=direction,
        amount=Decimal(amount),
        duration=duration,
        min_payout_rate=min_payout_rate,
        send_before=datetime.now(UTC) + timedelta(seconds=send_within),
    )


class World:
    """A simulator and a factory of connectors; closes every connector it made."""

    def __init__(self, simulator: Simulator, factory: ConnectorFactory, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self._factory = factory
        self._http = http
        self._connectors: list[Connector] = []

    def connector(
        self,
        email: str = "user@example.com",
        *,
        broker: Broker = Broker.IQ,
        account_type: AccountType = AccountType.PRACTICE,
        password: str = PASSWORD,
    ) -> Connector:
        """Make a connector that is not connected."""
        connector = self._factory(broker, account_type, credentials(email, password))
        self._connectors.append(connector)
        return connector

    async def connected(
        self,
        email: str = "user@example.com",
        *,
        token: Secret | None = None,
        two_factor: TwoFactor | None = None,
        **options: Any,
    ) -> Connector:
        """Make a connector and connect it."""
        connector = self.connector(email, **options)
        await connector.connect(token, two_factor)
        return connector

    async def ledger(self, email: str | None = None) -> list[dict[str, Any]]:
        """Return every order that the simulator was sent."""
        reply = await self._control("GET", f"/ledger?email={email or ''}")
        return list(reply["orders"])

    async def accounts(self, email: str) -> list[dict[str, Any]]:
        reply = await self._control("GET", f"/accounts?email={email}")
        return list(reply["accounts"])

    async def logins(self, email: str) -> list[dict[str, Any]]:
        """Return the login attempts that reached the simulator."""
        reply = await self._control("GET", "/logins")
        return [attempt for attempt in reply["attempts"] if attempt["email"] == email]

    async def fault(self, kind: str, **rule: Any) -> str:
        """Put a fault in force and return its id."""
        reply = await self._control("POST", "/faults", {"kind": kind, **rule})
        return str(reply["ids"][0])

    async def struck(self, fault_id: str) -> int:
        reply = await self._control("GET", "/faults")
        return next(int(rule["struck"]) for rule in reply["faults"] if rule["id"] == fault_id)

    async def no_faults(self) -> None:
        await self._control("DELETE", "/faults")

    async def settle(self, email: str, outcome: str | None = None) -> None:
        """End the user's open orders now."""
        await self._control("POST", "/settle", {"email": email, "outcome": outcome})

    async def revoke(self, email: str) -> None:
        """Make the user's tokens worthless and cut his sockets."""
        await self._control("POST", "/revoke", {"email": email})

    async def set_asset(self, asset: str = EURUSD, **conditions: Any) -> None:
        await self._control("POST", "/assets", {"asset": asset, **conditions})

    async def set_balance(self, email: str, amount: str, broker: Broker = Broker.IQ) -> None:
        wanted = {"brand": broker.value, "email": email, "account_type": "PRACTICE", "amount": float(amount)}
        await self._control("POST", "/balance", wanted)

    async def close(self) -> None:
        from services.broker.domain.errors import NotConnectedError  # noqa: PLC0415  # only here

        for connector in self._connectors:
            await connector.close(NotConnectedError())

    async def _control(self, method: str, path: str, body: Any = None) -> Any:
        async with self._http.request(method, self.simulator.control + path, json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json()


@asynccontextmanager
async def a_world(
    *,
    simulator_settings: SimulatorSettings | None = None,
    spoil: Callable[[ConnectorFactory], ConnectorFactory] = lambda factory: factory,
    **settings: Any,
) -> AsyncIterator[World]:
    """Run a simulator and a factory of native connectors on it.

    Args:
        simulator_settings: How the simulator behaves.
        spoil: Changes the factory, for tests of the tests.
        settings: Changes of the broker service's settings.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(simulator_settings or SimulatorSettings(ack_delay=0.005)))
        http = await stack.enter_async_context(client_session())
        configured = broker_settings(simulator, **settings)
        breaker = await login_breaker(configured, clock, stack)
        world = World(simulator, spoil(connector_factory(configured, http, breaker, clock)), http)
        stack.push_async_callback(world.close)
        yield world


@dataclass
class Watcher:
    """Collects what a connector says of its account."""

    connector: Connector

    def __post_init__(self) -> None:
        self.events: list[AccountEvent] = []
        self.error: Exception | None = None
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            async for event in self.connector.watch_account():
                self.events.append(event)
        except Exception as error:  # noqa: BLE001  # handed to the test
            self.error = error

    def orders(self) -> list[Order]:
        return [event for event in self.events if isinstance(event, Order)]

    async def closed(self, broker_order_id: str, within: float = 10.0) -> Order:
        """Wait for an order's end and return it."""
        return await self.seen(
            lambda order: order.broker_order_id == broker_order_id and order.state is OrderState.CLOSED, within
        )

    async def seen(self, wanted: Callable[[Order], bool], within: float = 10.0) -> Order:
        """Wait for an order event and return it."""

        async def probe() -> list[Order]:
            return [order for order in self.orders() if wanted(order)]

        return (await eventually(probe, within=within))[0]

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
