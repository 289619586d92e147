"""One run: the system, its users, the faults, the convergence, the judgement."""

import asyncio
import contextlib
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from local.client import ApiError, Gateway
from local.witness import Simulator
from tests.faults.programme.engine import let_loose
from tests.faults.programme.judge import judged
from tests.faults.programme.kinds import KINDS
from tests.faults.programme.report import Run
from tests.faults.programme.scene import Scene
from tests.faults.programme.users import User, connected_users
from tests.faults.programme.world import running_world
from tests.support.eventually import eventually


@dataclass(frozen=True, slots=True)
class Form:
    """How big a run is."""

    users: int
    times: int
    """Faults of each kind."""
    pause: float
    """Mean seconds between two faults of a lane."""
    trade_every: float
    """Mean seconds between two trades of a user."""
    intents: int = 0
    """Trades that must have been asked for before the users stop."""


async def run(form: Form, seed: int, keep: Path | None = None) -> Run:
    """Run the programme once.

    Args:
        form: How big.
        seed: Gives the order of the faults and what users do; not the moments, those are the machine's.
        keep: Data folder that is kept, with all logs; None for one that is removed.
    """
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(running_world(chance, keep))
        gateway = await stack.enter_async_context(Gateway(world.system.gateway))
        simulator = await stack.enter_async_context(Simulator(world.addresses["simulator"]["control"]))
        users = await stack.enter_async_context(connected_users(gateway, form.users))
        scene = Scene(world, simulator, chance)
        stop = asyncio.Event()
        begun = scene.now()
        async with asyncio.TaskGroup() as tasks:
            for number, user in enumerate(users):
                own = random.Random(f"{seed}/{number}")
                tasks.create_task(user.keep_trading(stop, own, form.trade_every))
            record = await let_loose(scene, KINDS, form.times, form.pause, losers_first=form.times == 1)
            await eventually(lambda: _enough(users, form.intents), within=1800, every=1.0)
            minutes = (scene.now() - begun) / 60
            stop.set()
        await world.ready()
        for user in users:
            with contextlib.suppress(ApiError, aiohttp.ClientError, TimeoutError):
                if user.has_bot:
                    await user.repeat("stop")
        verdict = await judged(scene, users, record.calms)
        return Run(seed, form.users, minutes, scene, record, verdict, KINDS)


async def _enough(users: list[User], intents: int) -> bool:
    return sum(len(user.asked) for user in users) >= intents
