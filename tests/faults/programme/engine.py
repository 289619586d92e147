"""Lets faults loose in two lanes at once, each kind so many times, in an order that the seed gives."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.faults.programme.kinds import Kind
from tests.faults.programme.scene import MissedError, Scene

_log = logging.getLogger(__name__)
_ATTEMPTS = 3
"""Times that a fault may miss its moment before it is left out."""


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
    async with asyncio.TaskGroup() as tasks:
        for lane in lanes.values():
            scene.chance.shuffle(lane)
            if losers_first:
                lane.sort(key=lambda kind: not kind.loses)
            tasks.create_task(_run_lane(scene, lane, pause, record))
    return record


async def _run_lane(scene: Scene, lane: list[Kind], pause: float, record: Record) -> None:
    for number, kind in enumerate(lane):
        for _ in range(_ATTEMPTS):
            begin = scene.now()
            try:
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
