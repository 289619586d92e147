"""Every connector on every brand: the same numbered cases for all of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from services.broker.domain.ports import Connector
from services.broker.domain.values import Broker
from tests.support.brokers import Watcher, World, a_world


@dataclass
class Bench:
    """A world seen through one brand."""

    world: World
    broker: Broker

    async def connected(self, email: str = "trader@example.com", **options: Any) -> Connector:
        return await self.world.connected(email, broker=self.broker, **options)

    def connector(self, email: str = "trader@example.com", **options: Any) -> Connector:
        return self.world.connector(email, broker=self.broker, **options)

    def watch(self, connector: Connector) -> Watcher:
        return Watcher(connector)


@pytest.fixture(params=["native"])
def implementation(request: pytest.FixtureRequest) -> str:
    """The connectors that there are."""
    return str(request.param)


@pytest.fixture(params=list(Broker), ids=str)
async def bench(request: pytest.FixtureRequest, implementation: str) -> AsyncIterator[Bench]:
    assert implementation == "native"
    async with a_world() as world:
        yield Bench(world, request.param)
