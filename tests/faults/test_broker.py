"""The big forms of the broker service's proofs."""

import pytest

from simulator.settings import Settings as SimulatorSettings
from tests.support.brokers import a_world
from tests.support.frame_fuzz import fuzz
from tests.support.isolation import play, users, violations

USERS = 500
FRAMES = 1_000_000


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_five_hundred_users_never_meet() -> None:
    people = users(USERS)
    # One busy loop plays the broker as well: its answers are slower than a broker's.
    async with a_world(
        simulator_settings=SimulatorSettings(ack_delay=0.005), order_timeout=5.0, silence_limit=60.0
    ) as world:
        await play(world, people, seed=3)
        assert await violations(world, people) == []
        assert len([o for o in await world.ledger() if o["booked_time"] is not None]) > USERS


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_a_million_mutated_frames_do_no_harm() -> None:
    counts = await fuzz(FRAMES, seed=1)
    assert counts.malformed + counts.understood + counts.ignored >= FRAMES * 0.85
