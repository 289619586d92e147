"""The features of a whole history at once: the same state as bar by bar, some fifty times sooner."""

import itertools
from typing import Final

import numpy as np
import numpy.typing as npt

from services.agent.features.definition import (
    BARS,
    CLIP,
    LAGS,
    MEMORIES,
    MEMORY,
    MEMORY_DECAYS,
    ONE,
    POWER2,
    POWER4,
    PREDICTOR,
    PREDICTORS,
    PRODUCT,
    SCALE_BARS,
    SIGNALS,
    SIZE,
    SIZE_TO_DEVIATION,
    SIZE_WEIGHT,
    SQUARE,
    STATE,
    SUM_DECAYS,
    VOLATILITY_DECAY,
    FloatArray,
)

_DECAY: Final = np.array(MEMORY_DECAYS)[:, np.newaxis]
_SUM_DECAY: Final = np.array(SUM_DECAYS)[:, np.newaxis]
_SUM_GAIN: Final = np.sqrt(1.0 - _SUM_DECAY**2)
_VOLATILITY_DECAY: Final = np.array([[VOLATILITY_DECAY]])
_NEGLIGIBLE: Final = 1e-18


def state_of(returns: FloatArray, starts: npt.NDArray[np.intp]) -> FloatArray:
    """Return the state row, shape (1, STATE), after a history.

    Args:
        returns: Log returns, oldest first, finite.
        starts: Ascending positions of the returns before which there was a gap; a value of ``len(returns)`` is a gap
            after which no return has come yet.
    """
    bars = len(returns)
    state = np.zeros((1, STATE))
    if bars == 0:
        return state
    size = _forgotten_sum(np.abs(returns[np.newaxis, :]) * (1.0 - VOLATILITY_DECAY), _VOLATILITY_DECAY)[0]
    weight = 1.0 - VOLATILITY_DECAY ** np.arange(1, bars + 1)
    z = np.zeros(bars)
    before = size[:-1]
    usable = (np.arange(1, bars) >= SCALE_BARS) & (before > 0.0)
    scale = np.where(usable, before / weight[:-1] * SIZE_TO_DEVIATION, 1.0)
    z[1:] = np.clip(np.where(usable, returns[1:] / scale, 0.0), -CLIP, CLIP)

    predictors = np.empty((PREDICTORS, bars))
    edges = [0, *(int(start) for start in starts if 0 < start < bars), bars]
    for first, end in itertools.pairwise(edges):
        segment = z[first:end]
        for lag in range(LAGS):
            predictors[lag, first : first + lag] = 0.0
            predictors[lag, first + lag : end] = segment[: max(end - first - lag, 0)]
        predictors[LAGS:, first:end] = _forgotten_sum(segment * _SUM_GAIN, _SUM_DECAY)

    # The signals of a bar hold the predictors before it; before the first bar and after a gap those are 0.
    earlier = np.zeros_like(predictors)
    earlier[:, 1:] = predictors[:, :-1]
    earlier[:, edges[1:-1]] = 0.0
    weights = (1.0 - _DECAY) * _DECAY ** np.arange(bars - 1, -1, -1)
    memory = np.empty((MEMORIES, SIGNALS))
    memory[:, PRODUCT] = (weights * z) @ earlier.T
    memory[:, SQUARE] = weights @ (earlier * earlier).T
    memory[:, POWER2] = weights @ z**2
    memory[:, POWER4] = weights @ z**4
    memory[:, ONE] = 1.0 - _DECAY[:, 0] ** bars

    state[0, BARS] = bars
    state[0, SIZE] = size[-1]
    state[0, SIZE_WEIGHT] = weight[-1]
    if not (len(starts) and starts[-1] >= bars):
        state[0, PREDICTOR] = predictors[:, -1]
    state[0, MEMORY] = memory.reshape(-1)
    return state


def _forgotten_sum(values: FloatArray, decay: FloatArray) -> FloatArray:
    """Return ``y[t] = decay * y[t-1] + values[t]`` along the last axis, by doubling."""
    out = values.copy() if values.shape[0] == decay.shape[0] else np.repeat(values, decay.shape[0], axis=0)
    bars = out.shape[-1]
    reach, factor = 1, decay
    while reach < bars and factor.max() > _NEGLIGIBLE:
        out[:, reach:] += factor * out[:, :-reach]
        factor = factor * factor
        reach *= 2
    return out
