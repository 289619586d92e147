"""One of two replicas alone cannot reach PostgreSQL: the other runs its sessions, and nobody is sent to it."""

import random

import pytest

from local.client import Gateway
from local.witness import Simulator
from tests.faults.programme.kinds import isolated
from tests.faults.programme.proxy import Mode
from tests.faults.programme.scene import Scene
from tests.faults.programme.users import connected_users
from tests.faults.programme.world import running_world
from tests.support.envoy import healthy_replicas
from tests.support.eventually import eventually

pytestmark = pytest.mark.slow


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.BLACK_HOLE])
async def test_calls_succeed_while_a_replica_is_cut_off_from_the_ledger(mode: Mode) -> None:
    async with (
        running_world(random.Random(1)) as world,
        Gateway(world.system.gateway) as gateway,
        Simulator(world.addresses["simulator"]["control"]) as simulator,
        connected_users(gateway, 6) as users,
    ):

        async def edge_sees(replicas: int) -> bool:
            return await healthy_replicas(world.folder.run) == replicas

        scene = Scene(world, simulator, random.Random(1))
        replica = scene.busiest()
        async with isolated(scene, replica, mode):
            assert not scene.notes
            (moved,) = scene.cut_offs
            assert moved.sessions >= 3
            await eventually(lambda: edge_sees(1))
            for number in range(20):
                for user in users:
                    await user.session.get("status")
                    if number % 5 == 0:
                        order = {"asset": "EURUSD-OTC", "direction": "call", "duration_seconds": 5}
                        await user.session.post("trade", **order, amount=2 + number / 100)
        await eventually(lambda: edge_sees(2))
        assert replica not in scene.world.progress.deaths
