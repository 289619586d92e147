"""Runs many worlds in worker processes of their own, each on its own PostgreSQL, and shrinks what fails."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog

from services.session.migrate import migrate
from tests.faults.simulation.checker import violations
from tests.faults.simulation.faults import KINDS, Faults
from tests.faults.simulation.ledger import Inner
from tests.faults.simulation.mutants import MUTANTS
from tests.faults.simulation.world import World
from tests.support.engines import postgres

_SEEDS_PER_WORKER: Final = 200
"""A worker keeps every world it lived through: see ``Process.tasks``."""
_ROOT: Final = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed."""

    seed: int
    trades: int
    """Intents in the ledger."""
    of_bots: int
    """Those of them that a bot asked for."""
    booked: int
    """Orders at the broker."""
    violations: tuple[str, ...]
    trace: str
    """Hash of everything that happened: the same seed gives the same."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of many."""

    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Seeds with violations."""
        return tuple(outcome for outcome in self.outcomes if outcome.violations)

    @property
    def trades(self) -> int:
        """Intents."""
        return sum(outcome.trades for outcome in self.outcomes)

    @property
    def of_bots(self) -> int:
        """Intents of bots."""
        return sum(outcome.of_bots for outcome in self.outcomes)

    @property
    def booked(self) -> int:
        """Orders at the broker."""
        return sum(outcome.booked for outcome in self.outcomes)


def campaign(
    seeds: Sequence[int],
    *,
    workers: int = 1,
    mutant: str = "",
    without: Iterable[str] = (),
    until_caught: bool = False,
) -> Summary:
    """Live through every seed.

    Args:
        seeds: Which worlds.
        workers: How many processes at once.
        mutant: Name of a wrong protocol to run instead of ours.
        without: Kinds of faults that are switched off.
        until_caught: End with the first seed that fails.
    """
    batches = [list(seeds[start : start + _SEEDS_PER_WORKER]) for start in range(0, len(seeds), _SEEDS_PER_WORKER)]
    if len(batches) < workers:
        batches = [list(seeds[start::workers]) for start in range(min(workers, len(seeds)))]
    outcomes: list[Outcome] = []
    running: list[subprocess.Popen[str]] = []
    try:
        while batches or running:
            while batches and len(running) < workers:
                running.append(_worker(batches.pop(0), mutant, tuple(without), until_caught=until_caught))
            finished = running.pop(0)
            outcomes += _outcomes(finished)
            if until_caught and any(outcome.violations for outcome in outcomes):
                break
    finally:
        for worker in running:
            worker.kill()
            worker.communicate()
    return Summary(tuple(sorted(outcomes, key=lambda outcome: outcome.seed)))


def shrink(seed: int, mutant: str = "") -> tuple[Summary, tuple[str, ...]]:
    """Switch off one kind of fault after the other for as long as the seed still fails; returns those it needs."""
    off: list[str] = []
    last = campaign([seed], mutant=mutant)
    for kind in KINDS:
        attempt = campaign([seed], mutant=mutant, without=[*off, kind])
        if attempt.failed:
            off.append(kind)
            last = attempt
    return last, tuple(kind for kind in KINDS if kind not in off)


def _worker(seeds: list[int], mutant: str, without: tuple[str, ...], *, until_caught: bool) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.simulation.campaign"]
    task = {"seeds": seeds, "mutant": mutant, "without": without, "until_caught": until_caught}
    return subprocess.Popen(  # noqa: S603  # our own command line
        [*command, json.dumps(task)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        # The order of sets of strings is part of what a seed determines.
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )


def _outcomes(worker: subprocess.Popen[str]) -> list[Outcome]:
    output, _ = worker.communicate()
    if worker.returncode != 0:
        raise RuntimeError(f"a worker ended with status {worker.returncode}")
    found = []
    for line in output.splitlines():
        values = json.loads(line)
        found.append(Outcome(**{**values, "violations": tuple(values["violations"])}))
    return found


def _live(task: dict[str, object], url: str) -> Iterator[Outcome]:
    """Live through worlds in this process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    inner = Inner(url)
    if mutant := str(task["mutant"]):
        MUTANTS[mutant](inner)
    faults = Faults().without(*_list(task["without"]))
    for seed in _list(task["seeds"]):
        world = World(inner, int(seed), faults)
        _KEPT.append(world)
        world.run()
        found = violations(world)
        (bots,) = inner.rows("SELECT count(*) AS trades FROM trades WHERE source = 'bot'")
        yield Outcome(
            world.seed,
            sum(world.count().values()),
            bots["trades"],
            len(world.platform.journal),
            tuple(found),
            _trace(world),
        )
        if found and task["until_caught"]:
            return


_KEPT: Final[list[World]] = []


def _list(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def _trace(world: World) -> str:
    booked = [(position.number, position.tag, position.open_time.isoformat()) for position in world.platform.journal]
    told = world.server.inner.rows("SELECT payload FROM events ORDER BY session_key, seq")
    everything = repr((world.history.moves, booked, [event["payload"] for event in told], world.loop.time()))
    return hashlib.sha256(everything.encode()).hexdigest()[:16]


def _main() -> None:
    task = json.loads(sys.argv[1])
    with postgres() as engine:
        asyncio.run(migrate(engine.url))
        for outcome in _live(task, engine.url):
            sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
            sys.stdout.flush()
    # Without the interpreter's cleanup: it would run what killed processes left unfinished.
    os._exit(0)


if __name__ == "__main__":
    _main()
