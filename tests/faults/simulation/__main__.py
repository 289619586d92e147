"""``python -m tests.faults.simulation``: live through many seeds, print what fails, and shrink it.

``--seeds 0:300`` a range; ``--workers 2``; ``--mutants`` runs every wrong protocol until it is caught; ``--mutant NAME`` one.
"""

import argparse
import sys
import time

from tests.faults.simulation.campaign import Summary, campaign, shrink
from tests.faults.simulation.mutants import MUTANTS


def main() -> int:
    """Return 0 if our protocol has no violation and every mutant was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulation")
    parser.add_argument("--seeds", default="0:300", help="first:last+1, or one seed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS])
    parser.add_argument("--mutants", action="store_true", help="run every mutant until it is caught")
    options = parser.parse_args()
    first, _, last = options.seeds.partition(":")
    seeds = range(int(first), int(last or int(first) + 1))
    if options.mutants:
        return _run_mutants(seeds, options.workers)
    started = time.monotonic()
    summary = campaign(seeds, workers=options.workers, mutant=options.mutant)
    _say(
        f"{len(summary.outcomes)} seeds, {summary.trades} intents ({summary.of_bots} of bots), {summary.booked} orders at the broker, "
        f"{len(summary.failed)} seeds with violations, {time.monotonic() - started:.0f} s"
    )
    if summary.failed:
        _explain(summary, options.mutant)
    return 1 if summary.failed else 0


def _run_mutants(seeds: range, workers: int) -> int:
    survivors = 0
    for name in MUTANTS:
        summary = campaign(seeds, workers=workers, mutant=name, until_caught=True)
        if summary.failed:
            _say(f"{name}: caught by seed {summary.failed[0].seed}: {summary.failed[0].violations[0]}")
        else:
            survivors += 1
            _say(f"{name}: NOT caught in {len(summary.outcomes)} seeds")
    return 1 if survivors else 0


def _explain(summary: Summary, mutant: str) -> None:
    for outcome in summary.failed:
        for violation in outcome.violations:
            _say(f"seed {outcome.seed}: {violation}")
    seed = summary.failed[0].seed
    _say(f"shrinking seed {seed} …")
    last, needed = shrink(seed, mutant)
    _say(f"seed {seed} needs only: {', '.join(needed) or 'no fault at all'}")
    for outcome in last.failed:
        for violation in outcome.violations:
            _say(f"seed {outcome.seed}, shrunk: {violation}")


def _say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
