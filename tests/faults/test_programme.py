"""The fault programme on real processes: many users trade while everything breaks, and nothing may be lost or doubled.

The small form strikes once with every kind; the big form at least thirty times, under at least 10,000 trades, and writes
its figures into docs/reliability.md. What may happen is left to the machine, what must hold is not: see programme/judge.
"""

import logging
import os
from pathlib import Path

import pytest

from tests.faults.page import rewrite
from tests.faults.programme.programme import Form, run
from tests.faults.programme.report import Run, table
from tests.faults.programme.scene import CUT_OFF_BOUND, TAKEOVER_BOUND

SMALL = Form(users=12, times=1, pause=0.1, trade_every=1.5)
BIG = Form(users=48, times=30, pause=0.3, trade_every=5.0, intents=10_000)
pytestmark = pytest.mark.slow
_log = logging.getLogger(__name__)


def a_seed() -> int:
    """Return the seed that is asked for (FAULTS_SEED), else a new one."""
    return int(os.environ.get("FAULTS_SEED") or int.from_bytes(os.urandom(4)))


async def programme(form: Form) -> Run:
    """Run it, say all figures and findings, and insist that nothing is violated."""
    seed = a_seed()
    _log.info("seed %d", seed)
    folder = os.environ.get("FAULTS_FOLDER")
    result = await run(form, seed, Path(folder) if folder else None)
    said = "\n".join([table(result), "", *result.verdict.violations[:100], *too_slow(result)])
    _log.info("\n%s", said)
    assert not result.verdict.violations, said
    assert result.verdict.of_bots > 0
    return result


def too_slow(result: Run) -> list[str]:
    """Return every takeover that took longer than its bound."""
    return [
        f"{one.kind}: {one.sessions} sessions without a runner for {one.seconds:.1f} s"
        for measured, bound in ((result.scene.takeovers, TAKEOVER_BOUND), (result.scene.cut_offs, CUT_OFF_BOUND))
        for one in measured
        if one.seconds > bound
    ]


@pytest.mark.timeout(900)
async def test_nothing_is_lost_or_doubled_when_everything_breaks_once() -> None:
    result = await programme(SMALL)
    assert {one.kind for one in result.record.struck} | result.record.left_out.keys() == {
        kind.name for kind in result.kinds
    }


@pytest.mark.faults
@pytest.mark.timeout(3600)
async def test_nothing_is_lost_or_doubled_when_everything_breaks_thirty_times() -> None:
    result = await programme(BIG)
    assert not too_slow(result)
    assert result.verdict.intents >= BIG.intents
    assert all(result.record.count(kind) >= BIG.times or kind.name in result.record.left_out for kind in result.kinds)
    rewrite("programme", table(result))
