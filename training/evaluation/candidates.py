"""What can be judged: anything that turns feature rows into actions, with a probability or without."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from markets import FloatArray, break_even
from services.agent.features import FeatureArray

ActionArray = npt.NDArray[np.int8]
ACTIONS: Final[ActionArray] = np.array([0, 1, -1], dtype=np.int8)
"""What a policy's choices 0, 1, 2 mean: hold, call, put."""
CHUNK: Final = 256


class Candidate(Protocol):
    """Something that trades. Pure: the same rows always give the same answers."""

    def p_up(self, features: FeatureArray) -> FloatArray | None:
        """Return P(up) a row, or None if it does not estimate one."""
        ...

    def actions(self, features: FeatureArray, payout_rate: float, margin: float) -> ActionArray:
        """Return 1 call, -1 put, 0 hold a row."""
        ...


def threshold(p_up: FloatArray, payout_rate: float, margin: float) -> ActionArray:
    """Trade where the better direction exceeds break-even by more than the margin: the service's rule, on arrays."""
    needed = break_even(payout_rate) + margin
    return np.where(p_up > needed, 1, np.where(1.0 - p_up > needed, -1, 0)).astype(np.int8)


class OnnxCandidate:
    """A model's file, run as the service runs it."""

    def __init__(self, model: bytes | Path, kind: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        content = model if isinstance(model, bytes) else model.read_bytes()
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._kind = kind

    def run(self, features: FeatureArray) -> Any:
        """Return the first output of the file on many rows."""
        blocks = [features[start : start + CHUNK] for start in range(0, len(features), CHUNK)]
        output = self._session.get_outputs()[0].name
        return np.concatenate([self._session.run([output], {"features": block})[0] for block in blocks])

    def p_up(self, features: FeatureArray) -> FloatArray | None:
        """Return P(up), or None for a policy."""
        return self.run(features).astype(np.float64) if self._kind == "probability" else None

    def actions(self, features: FeatureArray, payout_rate: float, margin: float) -> ActionArray:
        """Apply the threshold to a probability; take a policy at its word."""
        p_up = self.p_up(features)
        if p_up is not None:
            return threshold(p_up, payout_rate, margin)
        chosen: ActionArray = ACTIONS[self.run(features).argmax(axis=1)]
        return chosen


@dataclass(frozen=True, slots=True)
class FunctionCandidate:
    """A plain function of the features: baselines, and the cheats that the audit must catch."""

    act: Callable[[FeatureArray], ActionArray]

    def p_up(self, features: FeatureArray) -> FloatArray | None:
        """None."""
        _ = features
        return None

    def actions(self, features: FeatureArray, payout_rate: float, margin: float) -> ActionArray:
        """Return what the function says."""
        _ = payout_rate, margin
        return self.act(features)
