"""The features of the models: pure numpy, one definition for training and serving."""

from services.agent.features.definition import (
    FEATURES,
    FEATURES_VERSION,
    ODD_FEATURES,
    STATE,
    FeatureArray,
    FloatArray,
    describe,
)
from services.agent.features.streaming import advance, break_off, new_state
from services.agent.features.window import state_of

__all__ = [
    "FEATURES",
    "FEATURES_VERSION",
    "ODD_FEATURES",
    "STATE",
    "FeatureArray",
    "FloatArray",
    "advance",
    "break_off",
    "describe",
    "new_state",
    "state_of",
]
