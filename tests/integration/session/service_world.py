"""The session service's replicas on the real ledger, live state, broker service and simulator, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tradebot.session.v1 import session_service_pb2 as pb
from tradebot.session.v1.event_pb2 import Event
from tradebot.session.v1.session_service_pb2_grpc import SessionServiceStub

from services.broker.bootstrap import bootstrap as broker_bootstrap
from services.runtime.channel import open_channel
from services.runtime.clock import SystemClock
from services.runtime.interceptors import error_info
from services.runtime.server import Server
from services.runtime.settings import ServerSettings
from services.session.adapters.broker_client import GrpcBroker
from services.session.bootstrap import ERROR_DOMAIN, SessionApplication, application
from services.session.domain.values import Candle
from services.session.ports import Agent, Decision
from services.session.settings import SessionSettings
from simulator.server import Simulator
from simulator.settings import Settings as SimulatorSettings
from tests.support.brokers import broker_settings
from tests.support.eventually import eventually
from tests.support.fakes import FakeAgent, a_decision

ASSET = "EURUSD-OTC"


class EagerAgent(FakeAgent):
    """Buys at every candle."""

    async def next(self, candle: Candle, payout_rate: float) -> Decision:
        return a_decision("CALL", 0.6)


class Client:
    """A user of one replica."""

    def __init__(self, target: str) -> None:
        self.channel = open_channel(target)
        self.stub: Any = SessionServiceStub(self.channel)

    async def connect(self, email: str = "", **changes: Any) -> pb.ConnectResponse:
        fields = {"broker": "exnova", "email": email or f"{uuid4().hex}@example.com", "password": "secret", **changes}
        response: pb.ConnectResponse = await self.stub.Connect(pb.ConnectRequest(**fields), timeout=20)
        return response

    async def trade(self, session_id: str, **changes: Any) -> Any:
        fields = {"direction": "call", "amount": 10, "duration_seconds": 5, **changes}
        return await self.stub.PlaceTrade(pb.PlaceTradeRequest(session_id=session_id, **fields), timeout=30)

    async def get_trade(self, session_id: str, trade_id: str) -> Any:
        return await self.stub.GetTrade(pb.GetTradeRequest(session_id=session_id, trade_id=trade_id), timeout=10)

    async def status(self, session_id: str) -> Any:
        return await self.stub.GetStatus(pb.GetStatusRequest(session_id=session_id), timeout=10)

    async def trades(self, session_id: str) -> list[Any]:
        response = await self.stub.ListTrades(pb.ListTradesRequest(session_id=session_id, limit=500), timeout=10)
        return list(response.trades)

    async def start(self, session_id: str, **changes: Any) -> Any:
        fields = {"timeframe": 5, "duration_seconds": 5, "amount": 2, **changes}
        return await self.stub.StartBot(pb.StartBotRequest(session_id=session_id, **fields), timeout=10)

    async def close(self) -> None:
        await self.channel.close(None)


def reason(error: grpc.aio.AioRpcError) -> str:
    """The stable word of a refusal."""
    info = error_info(error, ERROR_DOMAIN)
    assert info is not None
    return str(info.reason)


class Watcher:
    """Folds a session's stream, and resumes it wherever it is served."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.events: list[Event] = []
        self.first_seq: int | None = None
        self.seq: int | None = None
        self.gaps = 0
        self.closed = False
        self._joined = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def follow(self, client: Client) -> None:
        """Begin, and wait for the snapshot: what happens before it is never told."""
        self._task = asyncio.create_task(self._follow(client))
        await asyncio.wait_for(self._joined.wait(), 10)

    async def _follow(self, client: Client) -> None:
        call = client.stub.WatchEvents(pb.WatchEventsRequest(session_id=self.session_id, last_seq=self.seq))
        with suppress(grpc.aio.AioRpcError):
            async for message in call:
                self._take(message.event)

    def _take(self, event: Event) -> None:
        assert event.session_id == self.session_id
        kind = event.WhichOneof("data")
        if kind == "candle":
            return
        if kind == "gap":
            self.gaps += 1
            return
        if kind == "snapshot":
            self.seq = event.seq
            self.first_seq = event.seq if self.first_seq is None else self.first_seq
            self._joined.set()
            return
        assert self.seq is not None
        assert event.seq == self.seq + 1, f"{kind} {event.seq} after {self.seq}"
        self.seq = event.seq
        self.events.append(event)
        self.closed = kind == "session_closed"

    @property
    def types(self) -> list[str]:
        return [str(event.WhichOneof("data")) for event in self.events]

    async def ended(self) -> None:
        """Wait until the stream is over."""
        assert self._task is not None
        await asyncio.wait_for(self._task, 10)

    async def leave(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


class Replica:
    """One process's worth of the session service."""

    def __init__(self, built: SessionApplication, server: Server, stack: AsyncExitStack) -> None:
        self.built = built
        self.server = server
        self.client = Client(f"127.0.0.1:{server.port}")
        self._stack = stack
        self._gone = False

    async def stop(self) -> None:
        """End it as SIGTERM does."""
        if not self._gone:
            self._gone = True
            await self.server.stop()
            await self._stack.aclose()

    async def close(self) -> None:
        """End it and its client, whose calls are cancelled: not before they have seen the end."""
        await self.stop()
        await self.client.close()


class ServiceWorld:
    """Simulator, broker service and session replicas."""

    def __init__(self, simulator: Simulator, http: aiohttp.ClientSession, settings: SessionSettings) -> None:
        self.simulator = simulator
        self.settings = settings
        self.broker_port = 0
        self._http = http
        self._broker: AsyncExitStack | None = None
        self._broker_server: Server | None = None
        self._replicas: list[Replica] = []

    async def start_broker(self) -> None:
        """Start the broker service, on the port it had before."""
        self._broker = AsyncExitStack()
        configured = broker_settings(self.simulator, port=self.broker_port)
        built = await self._broker.enter_async_context(broker_bootstrap(configured))
        self._broker_server = Server(built, configured)
        await self._broker_server.start()
        self.broker_port = self._broker_server.port

    async def stop_broker(self) -> None:
        """End it as SIGTERM does."""
        if self._broker is not None and self._broker_server is not None:
            await self._broker_server.stop()
            await self._broker.aclose()
            self._broker = None

    async def replica(self, agent: Agent | None = None) -> Replica:
        """Start a replica of the session service."""
        stack = AsyncExitStack()
        channel = open_channel(f"127.0.0.1:{self.broker_port}")
        stack.push_async_callback(channel.close)
        clock = SystemClock()
        built = await stack.enter_async_context(
            application(self.settings, clock, broker=GrpcBroker(channel, clock), agent=agent or EagerAgent())
        )
        server = Server(built, ServerSettings(drain_delay=0.0, drain_grace=1.0))
        await server.start()
        replica = Replica(built, server, stack)
        self._replicas.append(replica)
        return replica

    async def close(self) -> None:
        for replica in self._replicas:
            await replica.close()
        await self.stop_broker()

    # The witness

    async def ledger(self, email: str) -> list[dict[str, Any]]:
        return list((await self._control("GET", f"/ledger?email={email}"))["orders"])

    async def fault(self, kind: str, **rule: Any) -> None:
        await self._control("POST", "/faults", {"kind": kind, **rule})

    async def no_faults(self) -> None:
        await self._control("DELETE", "/faults")

    async def settle(self, email: str, outcome: str) -> None:
        await self._control("POST", "/settle", {"email": email, "outcome": outcome})

    async def _control(self, method: str, path: str, body: Any = None) -> Any:
        async with self._http.request(method, self.simulator.control + path, json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json()


@asynccontextmanager
async def a_service_world(
    postgres_url: str, redis_url: str, folder: Path, **changes: Any
) -> AsyncIterator[ServiceWorld]:
    """Run a simulator and a broker service; replicas are started by the test."""
    kek, pem = folder / "kek", folder / "jwt.pem"
    kek.write_bytes(bytes(range(32)))
    kek.chmod(0o600)
    pem.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    values: dict[str, Any] = {
        "redis_url": redis_url,
        "postgres_url": postgres_url,
        "broker_target": "unused",
        "agent_target": "unused",
        "kek_file": kek,
        "jwt_key_file": pem,
        "lease_ttl": 2.0,
        "scan_interval": 0.2,
        "drain_patience": 5.0,
        **changes,
    }
    async with (
        Simulator(SimulatorSettings(ack_delay=0.005)) as simulator,
        aiohttp.ClientSession() as http,
    ):
        world = ServiceWorld(simulator, http, SessionSettings(**values))
        await world.start_broker()
        try:
            yield world
        finally:
            await world.close()


async def until_settled(client: Client, session_id: str, trade_id: str, within: float = 15) -> Any:
    """Wait for a trade's result."""

    async def settled() -> Any:
        trade = await client.get_trade(session_id, trade_id)
        return trade if trade.status in {"won", "lost", "tied", "sold"} else None

    return await eventually(settled, within=within, every=0.1)
