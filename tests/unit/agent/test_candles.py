"""The rules of a usable history: nonsense, gaps, ties, flat and old markets; window and tape agree on all of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.agent.domain.candles import RECENT_BARS, Candle, Candles, Tape, read_history
from services.agent.domain.decision import AbstainReason, Terms

TERMS = Terms(timeframe=60, expiry=60, payout_rate=0.87)
START = 1_700_000_040


def some_candles(closes: list[float], missing: frozenset[int] = frozenset()) -> list[Candle]:
    kept = [(n, close) for n, close in enumerate(closes) if n not in missing]
    return [Candle(START + 60 * n, close, close + 0.001, close - 0.001, close) for n, close in kept]


def columns(candles: list[Candle]) -> Candles:
    return Candles(
        open_time=np.array([c.open_time for c in candles], dtype=np.int64),
        open=np.array([c.open for c in candles], dtype=np.float64),
        high=np.array([c.high for c in candles], dtype=np.float64),
        low=np.array([c.low for c in candles], dtype=np.float64),
        close=np.array([c.close for c in candles], dtype=np.float64),
    )


def walk(n: int, seed: int = 1) -> list[float]:
    return list(1.1 + np.cumsum(np.random.default_rng(seed).standard_normal(n)) * 1e-4)


@given(missing=st.frozensets(st.integers(0, 99), max_size=30), ties=st.sets(st.integers(1, 99)))
def test_window_and_tape_read_the_same_history(missing: frozenset[int], ties: set[int]) -> None:
    closes = walk(100)
    for n in sorted(ties):
        closes[n] = closes[n - 1]
    candles = some_candles(closes, missing)
    history = read_history(columns(candles), 60)
    assert history is not None
    tape, returns, starts = Tape(60), [], []
    for n, candle in enumerate(candles):
        assert tape.accepts(candle)
        value = tape.follow(candle)
        if value is not None:
            returns.append(value)
        elif n:
            starts.append(len(returns))
    assert tape == history.tape
    np.testing.assert_allclose(history.returns, returns, rtol=1e-9, atol=1e-15)
    assert list(history.starts) == sorted(set(starts))


NONSENSE = {
    "nan": {"close": math.nan},
    "infinite": {"high": math.inf},
    "zero": {"low": 0.0},
    "negative": {"open": -1.0, "low": -1.0},
    "close above high": {"close": 1.2, "high": 1.15},
    "open below low": {"open": 1.0, "low": 1.05},
    "high below low": {"high": 1.0, "low": 1.2, "open": 1.1, "close": 1.1},
}


@pytest.mark.parametrize("change", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_refused_wherever_it_stands(change: dict[str, float]) -> None:
    candles = some_candles(walk(50))
    for place in (0, 25, 49):
        spoilt = [*candles]
        spoilt[place] = replace(candles[place], **change)
        assert read_history(columns(spoilt), 60) is None
        assert not Tape(60).accepts(spoilt[place])


@pytest.mark.parametrize("shift", [-60, -120, -30, 30, 0])
def test_times_that_do_not_ascend_by_the_timeframe_are_refused(shift: int) -> None:
    candles = some_candles(walk(10))
    tape = Tape(60)
    for candle in candles:
        tape.follow(candle)
    wrong = replace(candles[-1], open_time=candles[-1].open_time + shift)
    assert not tape.accepts(wrong)
    assert read_history(columns([*candles, wrong]), 60) is None


def test_the_move_over_a_gap_is_no_return() -> None:
    candles = some_candles([1.0, 1.1, 1.2, 1.3, 1.4], missing=frozenset({2}))
    history = read_history(columns(candles), 60)
    assert history is not None
    np.testing.assert_allclose(history.returns, [math.log(1.1), math.log(1.4 / 1.3)])
    assert list(history.starts) == [1]


def test_empty_history_is_short_not_wrong() -> None:
    history = read_history(columns([]), 60)
    assert history is not None
    assert history.tape.objection(TERMS, 0, 1) is None or len(history.returns) == 0
    assert history.tape.objection(TERMS, 0, 1000) is AbstainReason.INSUFFICIENT_HISTORY


def objection_after(candles: list[Candle], terms: Terms = TERMS, min_history: int = 100) -> AbstainReason | None:
    history = read_history(columns(candles), 60)
    assert history is not None
    return history.tape.objection(terms, len(history.returns), min_history)


def test_one_candle_short_of_the_demanded_history_is_too_short() -> None:
    assert objection_after(some_candles(walk(99))) is AbstainReason.INSUFFICIENT_HISTORY
    assert objection_after(some_candles(walk(100))) is None


def test_a_gap_silences_for_a_number_of_bars_and_then_no_more() -> None:
    gap_at = 200
    last_silent = some_candles(walk(gap_at + RECENT_BARS), missing=frozenset({gap_at}))
    assert objection_after(last_silent) is AbstainReason.STALE_OR_GAP
    assert objection_after(some_candles(walk(gap_at + 1 + RECENT_BARS), missing=frozenset({gap_at}))) is None


def test_a_market_that_stands_still_is_stale_and_a_single_tie_is_not() -> None:
    closes = walk(200)
    assert objection_after(some_candles([*closes, *[closes[-1]] * (RECENT_BARS - 1)])) is None
    assert objection_after(some_candles([*closes, *[closes[-1]] * RECENT_BARS])) is AbstainReason.STALE_OR_GAP


def test_flat_prices_that_round_badly_are_still_flat() -> None:
    # numpy's std of 200 times 1.1 is not 0.
    assert objection_after(some_candles([1.1] * 200)) is AbstainReason.STALE_OR_GAP


def test_with_the_brokers_clock_an_old_candle_is_stale() -> None:
    candles = some_candles(walk(200))
    closed = candles[-1].open_time + 60
    assert objection_after(candles, replace(TERMS, as_of_time=closed)) is None
    assert objection_after(candles, replace(TERMS, as_of_time=closed + 59)) is None
    assert objection_after(candles, replace(TERMS, as_of_time=closed + 60)) is AbstainReason.STALE_OR_GAP
