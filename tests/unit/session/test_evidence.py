"""The gate opens on evidence and on nothing else; the statistics are those of the textbooks."""

import random
from decimal import Decimal

import pytest

from services.session.domain.evidence import (
    WEALTH_CAP,
    Gate,
    GateMode,
    Record,
    Verdict,
    break_even,
    default_gate_mode,
    judge,
    shadow_profit,
    wilson,
)

PAYOUT = 0.87


def run_gate(rng: random.Random, hit_rate: float, decisions: int, gate: Gate | None = None) -> Gate:
    gate = gate or Gate()
    for _ in range(decisions):
        gate = gate.after(PAYOUT if rng.random() < hit_rate else -1.0, PAYOUT)
    return gate


@pytest.mark.parametrize(
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
    ("hits", "decided", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_agrees_with_published_tables(hits: int, decided: int, low: float, high: float) -> None:
    interval = wilson(hits, decided)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_no_trials_say_nothing() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


@pytest.mark.parametrize(("payout", "needed"), [(0.87, 0.53476), (0.80, 0.55556), (1.0, 0.5)])
def test_break_even_rate(payout: float, needed: float) -> None:
    assert break_even(payout) == pytest.approx(needed, abs=1e-5)


def test_verdict_compares_the_interval_with_break_even() -> None:
    needed = break_even(PAYOUT)
    assert judge(29, 29, needed) is Verdict.TOO_FEW
    assert judge(248, 500, needed) is Verdict.NO_EVIDENCE
    assert judge(300, 500, needed) is Verdict.EDGE
    assert judge(200, 500, needed) is Verdict.LOSS


def test_record_excludes_ties_and_sales_from_the_hit_rate_but_not_from_the_money() -> None:
    record = Record()
    for outcome, profit in [("won", "8.70"), ("lost", "-10"), ("tied", "0"), ("sold", "-3.50")]:
        record = record.and_trade(outcome, Decimal(10), Decimal(profit), Decimal("0.87"))
    assert (record.wins, record.losses, record.ties, record.sold) == (1, 1, 1, 1)
    assert record.hit_rate == 0.5
    assert record.staked == Decimal(40)
    assert record.profit == Decimal("-4.80")
    assert record.profit_per_stake == pytest.approx(-0.12)
    assert record.verdict is Verdict.TOO_FEW


def test_record_break_even_is_that_of_the_payouts_really_paid_weighted_by_stake() -> None:
    record = (
        Record()
        .and_trade("won", Decimal(30), Decimal(27), Decimal("0.90"))
        .and_trade("lost", Decimal(10), Decimal(-10), Decimal("0.70"))
    )
    assert record.break_even == pytest.approx(1.0 / 1.85)


def test_empty_record_has_no_rates_and_words_for_it() -> None:
    record = Record()
    assert record.hit_rate is None
    assert record.break_even is None
    assert record.profit_per_stake is None
    assert record.words() == "too few to say: 0 trades"


def test_unsettled_outcome_is_refused() -> None:
    with pytest.raises(ValueError, match="settled"):
        Record().and_trade("open", Decimal(1), Decimal(0), Decimal("0.87"))


def test_words_say_what_is_known() -> None:
    gate = Gate(hits=211, decided=412, payout_sum=412 * PAYOUT, wealth=0.4)
    assert gate.words() == ("no evidence of an edge: 412 shadow decisions, hit 51.2 % [46.4, 56.0], break-even 53.5 %")
    assert Gate().words() == "no evidence of an edge: 0 shadow decisions"


@pytest.mark.parametrize(
    ("direction", "entry", "leave", "profit"),
    [("call", 1.0, 1.1, PAYOUT), ("call", 1.1, 1.0, -1.0), ("put", 1.1, 1.0, PAYOUT), ("put", 1.0, 1.0, 0.0)],
)
def test_shadow_decision_is_priced_like_the_option(direction: str, entry: float, leave: float, profit: float) -> None:
    assert shadow_profit(direction, entry, leave, PAYOUT) == profit


def test_gate_stays_shut_without_an_edge() -> None:
    # At break-even exactly, the hardest null: at most 1 % of gates may ever open.
    rng = random.Random(1)
    opened = 0
    for _ in range(300):
        gate = Gate()
        for _ in range(2000):
            gate = gate.after(PAYOUT if rng.random() < break_even(PAYOUT) else -1.0, PAYOUT)
            if gate.opened:
                opened += 1
                break
    # 1 % of 300 is 3; 8 would be a 1-in-100 accident.
    assert opened <= 8


def test_gate_opens_on_a_real_edge() -> None:
    rng = random.Random(2)
    assert all(run_gate(rng, 0.62, 2000).opened for _ in range(50))


def test_gate_closes_when_the_edge_goes_and_then_starts_from_nothing() -> None:
    rng = random.Random(3)
    gate = run_gate(rng, 0.65, 1500)
    assert gate.opened
    assert gate.wealth <= WEALTH_CAP
    while gate.opened:
        gate = run_gate(rng, 0.45, 1, gate)
    assert gate.wealth == 1.0
    assert not gate.lets_through(GateMode.EVIDENCE)


def test_ties_are_counted_and_move_nothing() -> None:
    gate = Gate().after(0.0, PAYOUT)
    assert (gate.ties, gate.decided, gate.wealth) == (1, 0, 1.0)


@pytest.mark.parametrize("profit", [float("nan"), float("inf"), -1.5, 0.9])
def test_impossible_evidence_is_refused(profit: float) -> None:
    with pytest.raises(ValueError, match="possible"):
        Gate().after(profit, PAYOUT)


def test_gate_is_demanded_by_default_wherever_money_could_be_real() -> None:
    assert default_gate_mode("PRACTICE") is GateMode.OPEN
    assert default_gate_mode("REAL") is GateMode.EVIDENCE
    assert default_gate_mode("anything else") is GateMode.EVIDENCE
    assert Gate().lets_through(GateMode.OPEN)
    assert not Gate().lets_through(GateMode.EVIDENCE)
