"""One definition, two forms: bar by bar equals all at once; mirrored markets give mirrored features; no look-ahead."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from markets import standard_markets
from services.agent.features import (
    FEATURES,
    ODD_FEATURES,
    FeatureArray,
    FloatArray,
    advance,
    break_off,
    describe,
    new_state,
    state_of,
)

NO_GAPS = np.array([], dtype=np.intp)


def bar_by_bar(returns: FloatArray, starts: npt.NDArray[np.intp] = NO_GAPS) -> FloatArray:
    state = new_state()
    for t, value in enumerate(returns):
        if t in starts:
            break_off(state)
        advance(state, np.array([value]))
    if len(returns) in starts:
        break_off(state)
    return state


@pytest.mark.parametrize("name", standard_markets())
def test_window_and_streaming_forms_are_equal(name: str) -> None:
    returns = standard_markets()[name].returns(np.random.default_rng(1), 1500) * 1e-4
    np.testing.assert_allclose(state_of(returns, NO_GAPS), bar_by_bar(returns), rtol=1e-9, atol=1e-14)


@settings(max_examples=60)
@given(
    length=st.integers(0, 80),
    gaps=st.sets(st.integers(0, 80), max_size=12),
    ties=st.floats(0.0, 1.0),
    scale=st.sampled_from([1e-12, 1e-4, 1.0]),
    seed=st.integers(0, 1000),
)
def test_forms_are_equal_with_gaps_ties_and_short_histories(
    length: int, gaps: set[int], ties: float, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.standard_normal(length) * scale * (rng.random(length) >= ties)
    starts = np.array(sorted(g for g in gaps if 0 < g <= length), dtype=np.intp)
    np.testing.assert_allclose(state_of(returns, starts), bar_by_bar(returns, starts), rtol=1e-7, atol=1e-13)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    returns = np.random.default_rng(2).standard_normal((7, 200))
    together = new_state(7)
    for t in range(200):
        advance(together, returns[:, t])
    for row in range(7):
        alone = new_state()
        for t in range(200):
            advance(alone, returns[row : row + 1, t])
        assert np.array_equal(alone[0], together[row])
        assert np.array_equal(describe(alone)[0], describe(together)[row])


def test_a_mirrored_market_flips_the_odd_features_and_keeps_the_even_ones() -> None:
    returns = standard_markets()["msar"].returns(np.random.default_rng(3), 800)
    plain, mirrored = describe(state_of(returns, NO_GAPS)), describe(state_of(-returns, NO_GAPS))
    assert np.array_equal(mirrored[:, :ODD_FEATURES], -plain[:, :ODD_FEATURES])
    assert np.array_equal(mirrored[:, ODD_FEATURES:], plain[:, ODD_FEATURES:])


def test_the_unit_of_the_prices_does_not_matter() -> None:
    returns = standard_markets()["ou_rw"].returns(np.random.default_rng(4), 800)
    np.testing.assert_allclose(
        describe(state_of(returns * 1e-6, NO_GAPS)), describe(state_of(returns, NO_GAPS)), rtol=1e-5
    )


def test_later_bars_change_nothing_before_them() -> None:
    returns = np.random.default_rng(5).standard_normal(900)
    state = new_state()
    for value in returns[:600]:
        advance(state, np.array([value]))
    before: FeatureArray = describe(state)
    for value in returns[600:]:
        advance(state, np.array([value]))
    assert np.array_equal(before, describe(bar_by_bar(returns[:600])))


def test_a_flat_market_gives_zeros_not_nan() -> None:
    features = describe(state_of(np.zeros(500), NO_GAPS))
    assert features.shape == (1, FEATURES)
    assert np.isfinite(features).all()
    assert not features[0, :ODD_FEATURES].any()
    assert np.isfinite(describe(new_state())).all()


def test_a_freak_bar_is_bounded() -> None:
    returns = np.random.default_rng(6).standard_normal(500) * 1e-4
    returns[400] = 50.0
    features = describe(state_of(returns, NO_GAPS))
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 20.0


def test_features_of_a_random_walk_are_standardised() -> None:
    state = new_state(2000)
    rng = np.random.default_rng(7)
    for _ in range(400):
        advance(state, rng.standard_normal(2000))
    odd = describe(state)[:, :ODD_FEATURES]
    assert np.abs(odd.mean(axis=0)).max() < 0.1
    assert np.abs(odd.std(axis=0) - 1.0).max() < 0.08
