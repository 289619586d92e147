"""Models in onnxruntime, one thread each: at these sizes a second thread only adds waiting."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from services.agent.domain.decision import Action, Opinion
from services.agent.domain.errors import ModelRefusedError
from services.agent.features import FEATURES, FEATURES_VERSION, FeatureArray
from services.agent.registry.files import VerifiedModel

_ACTIONS = (Action.HOLD, Action.CALL, Action.PUT)


class OnnxModel:
    """A verified file, loaded from the very bytes that were verified.

    Raises:
        ModelRefusedError: The file is not for this service: other features, or inputs and outputs that do not fit.
    """

    def __init__(self, verified: VerifiedModel) -> None:
        manifest = verified.manifest
        if manifest.features_version != FEATURES_VERSION:
            raise ModelRefusedError(
                f"it wants features {manifest.features_version}, this service has {FEATURES_VERSION}"
            )
        self.manifest = manifest
        self.card = verified.card
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(verified.onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises bare classes of its C++ side
            raise ModelRefusedError("onnxruntime cannot load it") from error
        self._outputs = ["p_up"] if manifest.kind == "probability" else ["logits", "value"]
        inputs = {node.name: node.shape[-1] for node in self._session.get_inputs()}
        if inputs != {"features": FEATURES} or [o.name for o in self._session.get_outputs()] != self._outputs:
            raise ModelRefusedError("its inputs or outputs are not those of its kind")

    def judge(self, features: FeatureArray) -> Sequence[Opinion]:
        """Return one opinion a row."""
        answers = self._session.run(self._outputs, {"features": features})
        if not all(np.isfinite(answer).all() for answer in answers):
            raise FloatingPointError("the model answered with a value that is not finite")
        if self.manifest.kind == "probability":
            return [Opinion(p_up) for p_up in answers[0].tolist()]
        logits, values = answers
        payout = self.manifest.policy_payout or 1.0
        return [
            _policy_opinion(_ACTIONS[choice], value, payout)
            for choice, value in zip(logits.argmax(axis=1).tolist(), values.tolist(), strict=True)
        ]


def _policy_opinion(action: Action, value: float, payout: float) -> Opinion:
    """Translate the policy's own forecast of its profit into the probability that it implies."""
    if action is Action.HOLD:
        return Opinion(0.5, action)
    p_win = min(max((1.0 + value) / (1.0 + payout), 0.0), 1.0)
    return Opinion(p_win if action is Action.CALL else 1.0 - p_win, action)
