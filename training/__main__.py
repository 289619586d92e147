"""Trains and publishes the shipped models: ``python -m training [edge] [rl-ppo]``; all of them by default."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from markets import FloatArray
from services.agent.features import FEATURES_VERSION, FeatureArray
from services.agent.registry.manifest import MODEL_FILE, Manifest
from training.dataset import COMPARED, MIN_HISTORY, training_rows
from training.edge import EdgeSettings, train_edge
from training.evaluation.candidates import threshold
from training.families import MAX_PERSISTENCE, RANGES, SHARES
from training.onnx_graph import edge_graph, policy_graph
from training.policy import PolicySettings, train_policy
from training.progress import Progress
from training.publish import MODELS, library_versions, now, publish, signing_key

VERSION = "1.0.0"
MARGIN = 0.005
MAX_DIFFERENCE = 1e-5
"""Largest difference of a probability between ONNX and torch that is rounding; 1e-6 is usual."""


def main() -> None:
    """Train what the command line names."""
    makers: dict[str, Callable[[Progress, Path], Path]] = {"edge": make_edge, "rl-ppo": make_policy}
    parser = argparse.ArgumentParser(prog="make train", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="model", help=f"any of {', '.join(makers)}")
    parser.add_argument("--into", type=Path, default=MODELS, help="folder to publish into")
    wanted = parser.parse_args()
    if unknown := set(wanted.models) - makers.keys():
        sys.exit(f"no such model: {', '.join(sorted(unknown))}")
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("set OMP_NUM_THREADS=1: more threads are slower at these sizes and not reproducible")
    progress = Progress()
    for name in wanted.models or makers:
        progress.say(f"published {makers[name](progress, wanted.into)}")


def make_edge(progress: Progress, into: Path) -> Path:
    """Train and publish the default model."""
    settings = EdgeSettings()
    network = train_edge(settings, progress)
    weights = {name: value.detach().numpy() for name, value in network.named_parameters()}
    content = edge_graph(weights)
    rows = training_rows(np.random.default_rng(settings.seed + 1)).features[:COMPARED]
    with torch.no_grad():
        expected = torch.sigmoid(network(torch.from_numpy(rows))).numpy()
    manifest = _manifest(
        name="edge",
        kind="probability",
        description=(
            "Probability that the next candle closes higher, learnt on simulated markets whose true probability is "
            "known. It trades where the past bars prove an edge larger than the payout's, and holds otherwise. It has "
            "shown no profit on real market data; see the card."
        ),
        payout_range=(0.5, 0.95),
        policy_payout=None,
        training={**asdict(settings), "torch_difference": _difference(content, rows, _as_it_is(expected), _as_it_is)},
    )
    return publish(manifest, {MODEL_FILE: content}, into, signing_key().key)


def make_policy(progress: Progress, into: Path) -> Path:
    """Train and publish the reinforcement-learning policy."""
    settings = PolicySettings()
    policy = train_policy(settings, progress)
    content = policy_graph(policy.weights)
    manifest = _manifest(
        name="rl-ppo",
        kind="policy",
        description=(
            "Proximal policy optimisation on the same features and markets as the default model, gamma 0, payout 0.87 "
            "baked in. Shown for comparison: it earns less of what can be earned and trades more often on noise. It has "
            "shown no profit on real market data; see the card."
        ),
        payout_range=(settings.payout_rate, 0.95),
        policy_payout=settings.payout_rate,
        training={
            **asdict(settings),
            "torch_difference": _difference(content, policy.rows, _softmax(policy.logits), _softmax),
        },
    )
    return publish(manifest, {MODEL_FILE: content}, into, signing_key().key)


def _difference(content: bytes, rows: FeatureArray, expected: FloatArray, shown: Callable[[Any], FloatArray]) -> float:
    """Return the largest difference of a probability between the file and torch.

    Raises:
        ValueError: It is beyond rounding: the graph is not the network.
    """
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    answers = shown(session.run(None, {"features": rows})[0])
    difference = float(np.abs(answers - expected).max())
    if difference > MAX_DIFFERENCE or not np.array_equal(_chosen(answers), _chosen(expected)):
        raise ValueError(f"ONNX and torch differ by {difference}")
    return difference


def _chosen(answers: FloatArray) -> Any:
    """Return the actions that follow from P(up) or from a policy's probabilities."""
    return threshold(answers, 0.87, MARGIN) if answers.ndim == 1 else answers.argmax(axis=1)


def _as_it_is(p_up: Any) -> FloatArray:
    return np.asarray(p_up, dtype=np.float64)


def _softmax(logits: Any) -> FloatArray:
    powers: FloatArray = np.exp(np.float64(logits) - np.max(logits, axis=1, keepdims=True))
    shares: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _manifest(training: dict[str, Any], **facts: Any) -> Manifest:
    world = {
        "ranges": RANGES,
        "max_persistence": MAX_PERSISTENCE,
        "shares": {name: asdict(share) for name, share in SHARES.items()},
        "libraries": library_versions(),
    }
    return Manifest(
        version=VERSION,
        create_time=now(),
        features_version=FEATURES_VERSION,
        expiry_bars=1,
        min_history=MIN_HISTORY,
        margin=MARGIN,
        files={},
        onnx={},
        training={**training, **world},
        data={},
        results={},
        **facts,
    )


if __name__ == "__main__":
    main()
