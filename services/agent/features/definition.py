"""What the models see: the one definition of the features, for training and serving.

Everything is built from standardised returns ``z``: the log return of a bar divided by the volatility known before it.

- **Predictors** (odd: they change sign when the market is mirrored) are what the next move may depend on: the last
  three ``z`` and exponentially weighted sums of all of them, each scaled to variance 1 on a random walk.
- **Evidence** (even: the same on a mirrored market) is how well each predictor has foretold the next ``z`` so far:
  their correlation, forgotten at five speeds from 10 bars to thousands. Without the slow ones no model can tell a
  market with an edge from a random walk: 200 bars do not hold that much information for anybody.
- **Texture** (even) is the shape of the returns: size now against before, tails, and how much history there is.

Rules: a return needs two neighbouring candles, so after a gap the predictors start from zero and nothing is learnt
from the jump; an unchanged price is a return of 0 like any other; the first bars only set the scale.

Two forms compute it: ``streaming`` moves states on bar by bar, ``window`` goes through a whole history at once. They
share the layout below and ``describe``; a test holds them equal.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
FeatureArray = npt.NDArray[np.float32]

FEATURES_VERSION: Final = "1"
"""Changes whenever the value of a feature could change; a model is bound to it."""

VOLATILITY_DECAY: Final = 0.985
"""Forgetting of the size of returns in the volatility. Sizes, not squares: a bad tick is over soon."""

SIZE_TO_DEVIATION: Final = 1.2533141373155003
"""Standard deviation of a normal law in units of its mean size: sqrt(pi / 2)."""

SCALE_BARS: Final = 20
"""Returns at the start that only set the scale: their ``z`` is 0."""

CLIP: Final = 4.0
"""Bound of ``z``: one freak bar must not outweigh a hundred."""

LAGS: Final = 3
"""Predictors that are single past ``z``, the newest first."""

SUM_DECAYS: Final = (0.6, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Forgetting of the predictors that are sums."""

MEMORY_DECAYS: Final = (0.9, 0.97, 0.99, 0.997, 0.9995)
"""Forgetting of the evidence."""

PREDICTORS: Final = LAGS + len(SUM_DECAYS)
MEMORIES: Final = len(MEMORY_DECAYS)

ODD_FEATURES: Final = PREDICTORS
EVEN_FEATURES: Final = MEMORIES * PREDICTORS + 2 * MEMORIES + 1
FEATURES: Final = ODD_FEATURES + EVEN_FEATURES
"""Columns of a feature row: the odd ones first."""

# Signals whose forgotten sums are the memory: z times each predictor before it, each such predictor squared, and then
# z^2, z^4 and 1 (the weight of the sums).
PRODUCT: Final = slice(0, PREDICTORS)
SQUARE: Final = slice(PREDICTORS, 2 * PREDICTORS)
POWER2, POWER4, ONE = range(2 * PREDICTORS, 2 * PREDICTORS + 3)
SIGNALS: Final = 2 * PREDICTORS + 3

# Columns of a state row. A row of zeros is the state before the first return.
BARS, SIZE, SIZE_WEIGHT = range(3)
PREDICTOR: Final = slice(3, 3 + PREDICTORS)
MEMORY: Final = slice(3 + PREDICTORS, 3 + PREDICTORS + MEMORIES * SIGNALS)
STATE: Final = 3 + PREDICTORS + MEMORIES * SIGNALS

TAILS_BOUND: Final = 5.0

TINY: Final = 1e-12
"""Added where a sum that may be 0 divides: 0/0 becomes 0."""


def describe(state: FloatArray) -> FeatureArray:
    """Return the feature rows of state rows."""
    rows = len(state)
    memory = state[:, MEMORY].reshape(rows, MEMORIES, SIGNALS)
    power = memory[:, :, POWER2]
    weight = memory[:, :, ONE]
    out = np.empty((rows, FEATURES), dtype=np.float32)
    out[:, :ODD_FEATURES] = state[:, PREDICTOR]
    evidence = memory[:, :, PRODUCT] / np.sqrt(memory[:, :, SQUARE] * power[:, :, np.newaxis] + TINY)
    at = ODD_FEATURES + MEMORIES * PREDICTORS
    out[:, ODD_FEATURES:at] = evidence.reshape(rows, -1)
    out[:, at : at + MEMORIES] = np.sqrt(power / (weight + TINY))
    # 1 where the returns are normal, more where the tails are fat: sqrt(E[z^4] / 3) / E[z^2].
    tails = np.sqrt(memory[:, :, POWER4] * weight / (3.0 * power * power + TINY))
    out[:, at + MEMORIES : -1] = np.minimum(tails, TAILS_BOUND)
    out[:, -1] = weight[:, -1]
    return out
