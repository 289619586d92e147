"""The features bar by bar: a state per row, moved on by one return at a time, many rows at once."""

from typing import Final

import numpy as np

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
_GAIN: Final = 1.0 - _DECAY
_SUM_DECAY: Final = np.array(SUM_DECAYS)
_SUM_GAIN: Final = np.sqrt(1.0 - _SUM_DECAY**2)


def new_state(rows: int = 1) -> FloatArray:
    """Return the state before the first return."""
    return np.zeros((rows, STATE))


def advance(state: FloatArray, returns: FloatArray) -> None:
    """Move every row on by one bar, in place.

    Args:
        state: State rows, contiguous.
        returns: Log return of the bar, one a row, finite.
    """
    rows = len(state)
    size = state[:, SIZE]
    usable = (state[:, BARS] >= SCALE_BARS) & (size > 0.0)
    # Where the scale is not usable z is 0, whatever is divided here.
    scale = np.where(usable, size / np.where(usable, state[:, SIZE_WEIGHT], 1.0) * SIZE_TO_DEVIATION, 1.0)
    z = np.clip(np.where(usable, returns / scale, 0.0), -CLIP, CLIP)

    predictors = state[:, PREDICTOR]
    signals = np.empty((rows, SIGNALS))
    np.multiply(predictors, z[:, np.newaxis], out=signals[:, PRODUCT])
    np.multiply(predictors, predictors, out=signals[:, SQUARE])
    signals[:, POWER2] = z * z
    signals[:, POWER4] = signals[:, POWER2] ** 2
    signals[:, ONE] = 1.0
    memory = state[:, MEMORY].reshape(rows, MEMORIES, SIGNALS)
    memory = memory * _DECAY + signals[:, np.newaxis, :] * _GAIN
    state[:, MEMORY] = memory.reshape(rows, -1)

    for lag in range(LAGS - 1, 0, -1):
        predictors[:, lag] = predictors[:, lag - 1]
    predictors[:, 0] = z
    sums = predictors[:, LAGS:]
    sums *= _SUM_DECAY
    sums += z[:, np.newaxis] * _SUM_GAIN

    state[:, SIZE] = size * VOLATILITY_DECAY + np.abs(returns) * (1.0 - VOLATILITY_DECAY)
    state[:, SIZE_WEIGHT] = state[:, SIZE_WEIGHT] * VOLATILITY_DECAY + (1.0 - VOLATILITY_DECAY)
    state[:, BARS] += 1.0


def break_off(state: FloatArray) -> None:
    """Mark a gap before the next candle, in place: the predictors start again, the evidence stays."""
    state[:, PREDICTOR] = 0.0
