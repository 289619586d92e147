"""Lets faults loose in two lanes at once, each kind so many times, in an order that the seed gives."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from tests.faults.programme.kinds import Kind
from tests.faults.programme.scene import MissedError, Scene

_log = logging.getLogger(__name__)
_ATTEMPTS: Final = 3
"""Times that a fault may miss its moment before it is left out."""
STORM: Final = 50.0
"""Seconds of faults until a calm."""
CALM: Final = 20.0
"""Seconds of a calm: time to reconnect, and for three lists 3 s apart."""


@dataclass(slots=True)
class Struck:
    """One fault that was carried out."""

    kind: str
    begin: float
    end: float
    """Loop times; at the end the part answered again."""


@dataclass(slots=True)
class Record:
    """All faults of a run."""

    struck: list[Struck] = field(default_factory=list)
    missed: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    """Kinds that this machine cannot do, and why."""
    calms: list[tuple[datetime, datetime]] = field(default_factory=list)
    """When nothing was broken for a while; the last one is after all faults."""

    def count(self, kind: Kind) -> int:
        """Return how often a kind was carried out."""
        return sum(one.kind == kind.name for one in self.struck)


async def let_loose(
    scene: Scene, kinds: Iterable[Kind], times: int, pause: float, *, losers_first: bool = False
) -> Record:
    """Carry out every kind so many times.

    Args:
        scene: Where.
        kinds: What.
        times: Faults of each kind.
        pause: Mean seconds between two faults of a lane.
        losers_first: Whether kinds that lose orders strike first, so that their proofs take their time meanwhile.
    """
    record = Record()
    lanes: dict[str, list[Kind]] = {}
    for kind in kinds:
        if why := kind.available():
            record.left_out[kind.name] = why
        else:
            lanes.setdefault(kind.lane, []).extend([kind] * times)
    turns = [asyncio.Lock() for _ in lanes]
    calming = asyncio.create_task(_calm_now_and_then(turns, record))
    try:
        async with asyncio.TaskGroup() as tasks:
            for lane, turn in zip(lanes.values(), turns, strict=True):
                scene.chance.shuffle(lane)
                if losers_first:
                    lane.sort(key=lambda kind: not kind.loses)
                tasks.create_task(_run_lane(scene, lane, pause, record, turn))
    finally:
        calming.cancel()
    record.calms.append(_calm_from_now())
    return record


async def _calm_now_and_then(turns: Sequence[asyncio.Lock], record: Record) -> None:
    """Give the system the time to resolve what the faults left behind: without it, bounds would mean nothing."""
    while True:
        await asyncio.sleep(STORM)
        async with AsyncExitStack() as held:
            for turn in turns:
                await held.enter_async_context(turn)
            record.calms.append(_calm_from_now())
            await asyncio.sleep(CALM)


def _calm_from_now() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now, now + timedelta(seconds=CALM)


async def _run_lane(scene: Scene, lane: list[Kind], pause: float, record: Record, turn: asyncio.Lock) -> None:
    for number, kind in enumerate(lane):
        for _ in range(_ATTEMPTS):
            try:
                async with turn:
                    begin = scene.now()
                    await kind.strike(scene)
            except MissedError:
                record.missed += 1
                continue
            except (TimeoutError, AssertionError) as error:
                # What was broken does not come back: a finding, and the faults that follow may show more.
                scene.notes.append(f"after {kind.name}: {type(error).__name__} {error}")
                _log.warning("%s did not heal: %s", kind.name, error)
            record.struck.append(Struck(kind.name, begin, scene.now()))
            _log.info("%d/%d %s, %.1f s", number + 1, len(lane), kind.name, scene.now() - begin)
            break
        await asyncio.sleep(scene.chance.uniform(0, 2 * pause))
