"""Models signed by a key of the test's own, and a running agent service."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tradebot.agent.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc

from markets import closes, standard_markets
from services.agent.bootstrap import agent
from services.agent.registry.signature import sign
from services.agent.settings import AgentSettings
from services.runtime.channel import open_channel
from services.runtime.server import Server
from services.runtime.settings import ServerSettings

SHIPPED = Path(__file__).resolve().parents[3] / "models"
START = 1_700_000_100
TIMEFRAME = 5


@dataclass(frozen=True, slots=True)
class ModelShop:
    """Publishes versions of the shipped network under the test's key."""

    folder: Path
    key: Ed25519PrivateKey
    keys: Path

    @classmethod
    def at(cls, folder: Path) -> "ModelShop":
        key = Ed25519PrivateKey.generate()
        keys = folder / "keys"
        keys.mkdir()
        (folder / "models").mkdir()
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (keys / "test.pem").write_bytes(pem)
        return cls(folder / "models", key, keys)

    def publish(self, version: str, name: str = "edge", **changes: Any) -> Path:
        """Write a version in one move, as the training does."""
        shipped = next((SHIPPED / "edge").iterdir())
        onnx = (shipped / "model.onnx").read_bytes()
        card = f"# {name} {version}\n"
        manifest = json.loads((shipped / "manifest.json").read_bytes())
        digests = {"model.onnx": onnx, "card.md": card.encode()}
        manifest |= {"name": name, "version": version}
        manifest["files"] = {file: hashlib.sha256(content).hexdigest() for file, content in digests.items()}
        manifest |= changes
        content = json.dumps(manifest).encode()
        building = self.folder / name / f".{version}.new"
        building.mkdir(parents=True)
        (building / "model.onnx").write_bytes(onnx)
        (building / "card.md").write_text(card)
        (building / "manifest.json").write_bytes(content)
        (building / "manifest.sig").write_bytes(sign(content, self.key))
        return building.rename(self.folder / name / version)

    def select(self, **selection: Any) -> None:
        """Replace ``selection.json`` in one move."""
        new = self.folder / ".selection.new"
        new.write_text(json.dumps(selection))
        new.rename(self.folder / "selection.json")

    def settings(self) -> AgentSettings:
        return AgentSettings(models=self.folder, trusted_keys=(self.keys,), poll_interval=0.02)


class Conversation:
    """A DecideStream: one question, one answer."""

    def __init__(self, stub: "agent_service_pb2_grpc.AgentServiceAsyncStub") -> None:
        self._call = stub.DecideStream()

    async def ask(self, request: agent_service_pb2.DecideStreamRequest) -> agent_pb2.Decision:
        await self._call.write(request)
        return await self.listen()

    async def listen(self) -> agent_pb2.Decision:
        async with asyncio.timeout(60):
            response = await self._call.read()
        assert isinstance(response, agent_service_pb2.DecideStreamResponse), "the stream has ended"
        return response.decision

    async def end(self) -> None:
        await self._call.done_writing()
        assert await self._call.read() is grpc.aio.EOF


@dataclass(frozen=True, slots=True)
class Agent:
    """A running service and a client of it."""

    stub: "agent_service_pb2_grpc.AgentServiceAsyncStub"
    server: Server

    def converse(self) -> Conversation:
        return Conversation(self.stub)


@asynccontextmanager
async def running_agent(settings: AgentSettings) -> AsyncIterator[Agent]:
    async with agent(settings) as application:
        server = Server(application, ServerSettings(drain_delay=0.0, drain_grace=1.0))
        await server.start()
        channel = open_channel(f"127.0.0.1:{server.port}")
        try:
            yield Agent(agent_service_pb2_grpc.AgentServiceStub(channel), server)
        finally:
            await channel.close()
            await server.stop()


def some_closes(market: str, bars: int, seed: int = 1) -> list[float]:
    rng = np.random.default_rng(seed)
    path: list[float] = closes(standard_markets()[market].returns(rng, bars - 1)).tolist()
    return path


def candles_of(path: Sequence[float], first: int = 0) -> list[agent_pb2.Candle]:
    return [
        agent_pb2.Candle(open_time=START + TIMEFRAME * (first + n), open=close, high=close, low=close, close=close)
        for n, close in enumerate(path)
    ]


def terms(**changes: Any) -> agent_pb2.DecisionContext:
    sound = {"asset": "EURUSD-OTC", "timeframe": TIMEFRAME, "expiry": TIMEFRAME, "payout_rate": 0.87}
    return agent_pb2.DecisionContext(**{**sound, **changes})


def opening(path: Sequence[float], **changes: Any) -> agent_service_pb2.DecideStreamRequest:
    context = terms(**changes)
    return agent_service_pb2.DecideStreamRequest(
        open=agent_service_pb2.DecideStreamRequest.Open(context=context, candles=candles_of(path))
    )


def following(path: Sequence[float], place: int, **changes: Any) -> agent_service_pb2.DecideStreamRequest:
    (candle,) = candles_of(path[place : place + 1], place)
    return agent_service_pb2.DecideStreamRequest(
        next=agent_service_pb2.DecideStreamRequest.Next(candle=candle, **changes)
    )
