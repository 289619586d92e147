"""The production desk, runner, reconciler, leases and ledger in simulated worlds: no order doubled, lost or misattributed."""

import re

import pytest

from tests.faults.page import rewrite
from tests.faults.simulation.campaign import campaign
from tests.faults.simulation.mutants import MUTANTS

pytestmark = pytest.mark.slow

_QUICK = (
    "resend",
    "mark_after_sending",
    "reject_on_timeout",
    "no_claim",
    "ignore_ambiguous_commit",
    "unknown_is_no_exposure",
    "ignore_the_gate",
)
"""Mutants that a few seeds catch; ``make faults`` runs them all."""


_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9]{40}")
"""Of trades and sessions."""


@pytest.mark.timeout(600)
def test_300_worlds_keep_every_invariant() -> None:
    summary = campaign(range(300))
    assert not summary.failed, f"python -m tests.faults.simulation --seeds {summary.failed[0].seed} says more"
    assert summary.trades > 2_500
    assert summary.booked > 2_000
    # A world in which bots hold shows nothing of what only bots can do wrong.
    assert summary.of_bots > 500


def test_the_same_seed_gives_the_same_world() -> None:
    seeds = range(3)
    assert campaign(seeds).outcomes == campaign(seeds).outcomes


@pytest.mark.parametrize("mutant", _QUICK)
def test_the_checker_catches_a_wrong_protocol(mutant: str) -> None:
    assert campaign(range(25), mutant=mutant, until_caught=True).failed


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_every_wrong_protocol_is_caught_within_300_seeds() -> None:
    lines = ["| Wrong protocol | Caught by seed | What the checker said |", "|---|---|---|"]
    for name, mutant in MUTANTS.items():
        failed = campaign(range(300), workers=2, mutant=name, until_caught=True).failed
        assert failed, name
        said = _IDS.sub("…", failed[0].violations[0])
        lines.append(f"| {str(mutant.__doc__).rstrip('.')} | {failed[0].seed} | {said} |")
    rewrite("mutants", "\n".join(lines))


@pytest.mark.faults
@pytest.mark.timeout(4 * 3600)
def test_5000_worlds_keep_every_invariant() -> None:
    summary = campaign(range(5_000), workers=2)
    assert not summary.failed, f"python -m tests.faults.simulation --seeds {summary.failed[0].seed} says more"
    assert summary.trades >= 50_000
    rewrite(
        "simulation",
        f"Measured: **{len(summary.outcomes):,} worlds, {summary.trades:,} intents ({summary.of_bots:,} of bots), "
        f"{summary.booked:,} orders at the broker, 0 violations**.",
    )
