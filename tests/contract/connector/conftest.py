"""Every connector on every brand: the same numbered cases for all of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from services.broker.domain.ports import Connector
from services.broker.domain.values import Broker
from tests.support.brokers import Watcher, World, a_world
from tests.support.environments import FARIA, Environments

NO_BLITZ: Final = "the library subscribes to no event of a blitz option"
CANNOT: Final[dict[str, str]] = {
    "tc201": NO_BLITZ,
    "tc202": NO_BLITZ,
    "tc402": NO_BLITZ,
    "tc404": NO_BLITZ,
    "tc405": NO_BLITZ,
    "tc505": NO_BLITZ,
    "blitz": NO_BLITZ,
    "tc305-digital": "a digital order without funds is rejected after its acceptance, which the library does not hear",
    "tc306-digital": "a digital order without funds is rejected after its acceptance, which the library does not hear",
}
"""What the library cannot do, by case or kind, and why."""


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


@pytest.fixture(params=["native", pytest.param("iqoptionapi", marks=pytest.mark.interop_full)])
def implementation(request: pytest.FixtureRequest) -> str:
    """The connectors that there are."""
    return str(request.param)


@pytest.fixture(params=list(Broker), ids=str)
async def bench(request: pytest.FixtureRequest, implementation: str) -> AsyncIterator[Bench]:
    settings: dict[str, Any] = {}
    if implementation == "iqoptionapi":
        name = request.node.name
        for case, reason in CANNOT.items():
            if all(part in name for part in case.split("-")):
                pytest.skip(reason)
        settings = {"connector": "iqoptionapi", "iqoptionapi_python": str(Environments()(FARIA)), "order_timeout": 4.0}
    async with a_world(**settings) as world:
        yield Bench(world, request.param)
