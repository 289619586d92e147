"""The figures of a run: for the log, and for the generated part of docs/reliability.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tests.faults.programme.engine import CALM, STORM, Record
from tests.faults.programme.judge import Verdict
from tests.faults.programme.kinds import Kind
from tests.faults.programme.scene import CUT_OFF_BOUND, TAKEOVER_BOUND, Scene
from tests.faults.programme.world import LEASE


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the programme, over."""

    seed: int
    users: int
    minutes: float
    scene: Scene
    record: Record
    verdict: Verdict
    kinds: Sequence[Kind]


def table(run: Run) -> str:
    """Write the figures as Markdown."""
    verdict, record = run.verdict, run.record
    takeovers = sorted(takeover.seconds for takeover in run.scene.takeovers)
    handovers = sorted(handover.seconds for handover in run.scene.handovers)
    cut_offs = sorted(cut_off.seconds for cut_off in run.scene.cut_offs)
    times = sorted(verdict.resolutions)
    scale = f"{run.users} sessions, two session replicas, a lease of {LEASE:.0f} s"
    lines = [
        f"Seed {run.seed}; {scale}; {run.minutes:.0f} minutes of faults, two at a time, {CALM:.0f} s of calm after every {STORM:.0f} s.",
        "",
        "| | |",
        "|---|---|",
        f"| trades asked for (rows of the ledger) / of these by bots | {verdict.intents:,} / {verdict.of_bots:,} |",
        f"| booked by the broker / settled in the ledger | {verdict.orders:,} / {verdict.placed:,} |",
        f"| refused / proven never placed | {verdict.rejected:,} / {verdict.not_placed:,} |",
        f"| faults, of {sum(record.count(kind) > 0 for kind in run.kinds)} kinds | {len(record.struck):,} |",
        f"| unknown for a while / of these found at the broker | {verdict.unknown:,} / {verdict.recovered:,} |",
        f"| unknown until resolved, from the send: median / longest | {_seconds(times)} |",
        f"| of these beyond the bound of undisturbed lists, all by the next calm | {verdict.beyond_bound:,} |",
        f"| takeovers measured; median / longest (bound {TAKEOVER_BOUND:.0f} s) | {len(takeovers)}; {_seconds(takeovers)} |",
        f"| orderly handovers, with the drain before them; median / longest | {len(handovers)}; {_seconds(handovers)} |",
        f"| from replicas cut off from PostgreSQL alone; median / longest (bound {CUT_OFF_BOUND:.0f} s) | {len(cut_offs)}; {_seconds(cut_offs)} |",
        f"| runners begun / sessions that woken replicas let go of | {verdict.epochs:,} / {run.scene.stood_down:,} |",
        f"| events folded by clients / their reconnects | {verdict.events:,} / {verdict.reconnects:,} |",
        f"| **violations** | **{len(verdict.violations)}** |",
        "",
        "| Fault | Times |",
        "|---|---|",
        *(f"| {kind.name} | {record.left_out.get(kind.name) or record.count(kind)} |" for kind in run.kinds),
    ]
    return "\n".join(lines)


def _seconds(values: Sequence[float]) -> str:
    return f"{median(values):.1f} s / {values[-1]:.1f} s" if values else "none"
