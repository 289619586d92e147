from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from gateway.bridge.app import running
from gateway.bridge.settings import BridgeSettings
from services.runtime.channel import open_channel
from tests.support.doors import DirectDoor, GatewayDoor
from tests.support.envoy import Edge, running_envoy
from tests.support.session_fake import FakeSession, serving
from tests.support.stack import Stack, running_stack


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The whole system; gone again when the one module that needs it is done."""
    with running_stack() as running:
        yield running


@dataclass(frozen=True, slots=True)
class Rig:
    """A real edge and a real bridge before a session service that answers what it is told to."""

    fake: FakeSession
    edge: Edge
    gateway: GatewayDoor
    direct: DirectDoor


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """One for a module: starting Envoy costs a third of a second."""
    directory: Path = tmp_path_factory.mktemp("edge")
    async with AsyncExitStack() as stack:
        fake = FakeSession()
        session = await stack.enter_async_context(serving(fake))
        bridge = await stack.enter_async_context(
            running(BridgeSettings(port=0, session_target=f"127.0.0.1:{session}", close_timeout=1.0))
        )
        edge = await stack.enter_async_context(running_envoy(directory, session=session, bridge=bridge))
        http = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        channel = await stack.enter_async_context(open_channel(f"127.0.0.1:{session}"))
        yield Rig(fake, edge, GatewayDoor(http, edge.url), DirectDoor(channel))


@pytest.fixture
def rig(module_rig: Rig) -> Rig:
    """The module's, forgetting what earlier tests told it."""
    module_rig.fake.answers.clear()
    module_rig.fake.aborts.clear()
    module_rig.fake.calls.clear()
    return module_rig
