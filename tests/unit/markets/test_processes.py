"""The processes keep their promises: reproducible, causal, symmetric, and P(up) is the truth."""

import numpy as np
import pytest

from markets import (
    AnchoredReversion,
    Autoregressive,
    FloatArray,
    Garch,
    Process,
    SwitchingAutoregressive,
    TrendingRegimes,
    break_even,
    closes,
    score,
    standard_markets,
)

MARKETS = standard_markets()
EVERY_MARKET = pytest.mark.parametrize("market", MARKETS.values(), ids=MARKETS.keys())


def optimal(p_up: FloatArray, payout_rate: float) -> "np.ndarray[tuple[int, ...], np.dtype[np.int8]]":
    needed = break_even(payout_rate)
    return np.where(p_up > needed, 1, np.where(1.0 - p_up > needed, -1, 0)).astype(np.int8)


@EVERY_MARKET
def test_same_seed_gives_same_path(market: Process) -> None:
    first = market.returns(np.random.default_rng(5), (2, 300))
    again = market.returns(np.random.default_rng(5), (2, 300))
    other = market.returns(np.random.default_rng(6), (2, 300))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert market.returns(np.random.default_rng(5), 300).shape == (300,)


@EVERY_MARKET
@pytest.mark.parametrize("horizon", [1, 3])
def test_p_up_never_reads_the_future(market: Process, horizon: int) -> None:
    returns = market.returns(np.random.default_rng(1), (3, 400))
    whole = market.p_up(returns, horizon)
    assert np.array_equal(market.p_up(returns[:, :150], horizon), whole[:, :150])


@EVERY_MARKET
@pytest.mark.parametrize("horizon", [1, 3])
def test_mirrored_returns_mirror_p_up(market: Process, horizon: int) -> None:
    returns = market.returns(np.random.default_rng(2), (3, 400))
    np.testing.assert_allclose(market.p_up(-returns, horizon), 1.0 - market.p_up(returns, horizon), atol=1e-12)


@EVERY_MARKET
@pytest.mark.parametrize("horizon", [1, 3])
def test_p_up_is_calibrated_against_what_happens(market: Process, horizon: int) -> None:
    returns = market.returns(np.random.default_rng(3), (60, 4000))
    p_up = market.p_up(returns, horizon)[:, :-horizon]
    total = np.cumsum(returns, axis=1)
    rose = (total[:, horizon:] - total[:, :-horizon]) > 0
    for low, high in [(0.0, 0.4), (0.4, 0.47), (0.47, 0.53), (0.53, 0.6), (0.6, 1.0)]:
        inside = (p_up >= low) & (p_up < high)
        if (n := int(inside.sum())) > 1000:
            # Overlapping horizons correlate neighbouring outcomes, hence the factor.
            tolerance = 4.0 * 0.5 * np.sqrt(horizon / n)
            assert abs(float(rose[inside].mean() - p_up[inside].mean())) < tolerance


@pytest.mark.parametrize(
    ("name", "hit", "coverage"),
    [
        ("ar_mom", 0.603, 0.74),
        ("ar_rev", 0.603, 0.74),
        ("ou_rw", 0.565, 0.49),
        ("regime", 0.598, 0.88),
        ("msar", 0.604, 0.54),
    ],
)
def test_optimum_of_the_standard_markets_is_as_published(name: str, hit: float, coverage: float) -> None:
    market = MARKETS[name]
    returns = market.returns(np.random.default_rng(4), (60, 4000))
    p_up = market.p_up(returns)
    best = score(optimal(p_up, 0.87), p_up, 0.87)
    assert best.hit_rate == pytest.approx(hit, abs=0.004)
    assert best.trade_rate == pytest.approx(coverage, abs=0.02)
    assert best.share == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["rw", "garch"])
def test_nothing_is_to_be_earned_where_there_is_no_edge(name: str) -> None:
    p_up = MARKETS[name].p_up(np.zeros((4, 10)))
    best = score(optimal(p_up, 0.92), p_up, 0.92)
    assert best.trade_rate == 0.0
    assert best.optimum_per_bar == 0.0


def test_parameters_may_differ_by_path() -> None:
    phi, stay = np.array([0.1, 0.4]), np.array([0.95, 0.99])
    families: list[tuple[Process, list[Process]]] = [
        (Autoregressive(phi), [Autoregressive(0.1), Autoregressive(0.4)]),
        (Garch(phi, 0.5), [Garch(0.1, 0.5), Garch(0.4, 0.5)]),
        (AnchoredReversion(stay, phi), [AnchoredReversion(0.95, 0.1), AnchoredReversion(0.99, 0.4)]),
        (TrendingRegimes(phi, stay), [TrendingRegimes(0.1, 0.95), TrendingRegimes(0.4, 0.99)]),
        (SwitchingAutoregressive(phi, stay), [SwitchingAutoregressive(0.1, 0.95), SwitchingAutoregressive(0.4, 0.99)]),
    ]
    for many, singles in families:
        returns = many.returns(np.random.default_rng(7), (2, 200))
        together = many.p_up(returns, 2)
        for path, single in enumerate(singles):
            np.testing.assert_allclose(together[path], single.p_up(returns[path], 2), atol=1e-12)


def test_score_is_an_expectation_that_luck_cannot_raise() -> None:
    p_up = np.array([0.6, 0.6, 0.5, 0.3])
    everything_right = score(np.array([1, 1, 0, -1], dtype=np.int8), p_up, 0.87)
    assert everything_right.share == pytest.approx(1.0)
    against = score(np.array([-1, 0, 1, 0], dtype=np.int8), p_up, 0.87)
    assert against.profit_per_bar < 0.0
    assert against.hit_rate == pytest.approx(0.45)
    assert np.isnan(score(np.zeros(4, dtype=np.int8), p_up, 0.87).hit_rate)


def test_closes_start_at_the_start_and_follow_the_returns() -> None:
    path = closes(np.array([[1.0, -1.0, 2.0]]), start=2.0, volatility=0.01)
    assert path.shape == (1, 4)
    np.testing.assert_allclose(np.diff(np.log(path)), [[0.01, -0.01, 0.02]], atol=1e-15)
    assert path[0, 0] == 2.0
