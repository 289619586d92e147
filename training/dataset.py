"""Training data: simulated paths as feature rows with the exact probability of a rise as target."""

from collections.abc import Sequence
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


def feature_rows(returns: FloatArray, wanted: Sequence[int]) -> FeatureArray:
    """Return the features after the wanted bars, ascending, shape (paths, rows, FEATURES).

    A row is what a model sees once its bar has closed.
    """
    out = np.empty((len(returns), len(wanted), FEATURES), dtype=np.float32)
    state = new_state(len(returns))
    place = 0
    for t in range(wanted[-1] + 1):
        advance(state, returns[:, t])
        if t == wanted[place]:
            out[:, place] = describe(state)
            place += 1
    return out


def training_rows(rng: np.random.Generator, paths: int = 448) -> Rows:
    """Return some 200,000 fresh rows: each call is a new world, so there is nothing to overfit.

    Half of them have less than 2,000 bars of history, where the evidence is thin and bots begin.
    """
    young = np.arange(MIN_HISTORY, 2 * MIN_HISTORY, 4) + int(rng.integers(4))
    old = np.arange(2 * MIN_HISTORY, 4 * MIN_HISTORY, 8) + int(rng.integers(8))
    wanted = [*young.tolist(), *old.tolist()]
    drawn = simulate(rng, paths, wanted[-1] + 1)
    features = feature_rows(drawn.returns, wanted)
    p_up = drawn.p_up[:, wanted]
    weight = np.broadcast_to((drawn.weight / drawn.weight.mean())[:, np.newaxis], p_up.shape)
    return Rows(features.reshape(-1, FEATURES), p_up.reshape(-1), weight.reshape(-1))
