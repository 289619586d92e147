"""A simulator for each test, on free ports."""

from collections.abc import AsyncIterator

import pytest

from simulator.server import Simulator
from simulator.settings import Settings


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Settings(ack_delay=0.005)) as running:
        yield running
