"""Training data: simulated paths as feature rows with the exact probability of a rise as target."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from markets import FloatArray
from services.agent.features import FEATURES, FeatureArray, advance, describe, new_state
from training.families import SHARES, draw

MIN_HISTORY: Final = 1000
"""Bars before the first row: the models are neither trained nor used below."""
COMPARED: Final = 50_000
"""Rows on which a finished file is held against torch."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Simulated paths of all families, one a row."""

    returns: FloatArray
    p_up: FloatArray
    """P(the next return is positive | returns up to here), exact."""
    weight: FloatArray
    """Weight of a path's bars in the loss."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to learn from."""

    features: FeatureArray
    p_up: FloatArray
    weight: FloatArray


def simulate(rng: np.random.Generator, paths: int, bars: int) -> Paths:
    """Draw paths of all families in their shares."""
    returns, p_up, weight = [], [], []
    for family, share in SHARES.items():
        count = max(1, round(paths * share.paths))
        process = draw(family, rng, count)
        drawn = process.returns(rng, (count, bars))
        returns.append(drawn)
        p_up.append(process.p_up(drawn))
        weight.append(np.full(count, share.weight))
    return Paths(np.concatenate(returns), np.concatenate(p_up), np.concatenate(weight))


def feature_rows(returns: FloatArray, first: int, every: int = 1) -> FeatureArray:
    """Return the features after each ``every``-th bar from ``first`` on, shape (paths, rows, FEATURES).

    Row 0 is what a model sees once bar ``first`` has closed.
    """
    paths, bars = returns.shape
    wanted = range(first, bars, every)
    out = np.empty((paths, len(wanted), FEATURES), dtype=np.float32)
    state = new_state(paths)
    for t in range(bars):
        advance(state, returns[:, t])
        if t >= first and (t - first) % every == 0:
            out[:, (t - first) // every] = describe(state)
    return out


def training_rows(rng: np.random.Generator, paths: int = 448, bars: int = 4000, every: int = 6) -> Rows:
    """Return fresh rows: each call is a new world, so there is nothing to overfit."""
    drawn = simulate(rng, paths, bars)
    first = MIN_HISTORY + int(rng.integers(every))
    features = feature_rows(drawn.returns, first, every)
    p_up = drawn.p_up[:, first::every]
    weight = np.broadcast_to((drawn.weight / drawn.weight.mean())[:, np.newaxis], p_up.shape)
    return Rows(features.reshape(-1, FEATURES), p_up.reshape(-1), weight.reshape(-1))
