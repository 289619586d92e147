"""Trains and publishes the shipped models: ``python -m training [edge] [rl-ppo]``; all of them by default."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.agent.features import FEATURES_VERSION
from services.agent.registry.manifest import MODEL_FILE, Manifest
from training.dataset import MIN_HISTORY
from training.edge import EdgeSettings, train_edge
from training.families import MAX_PERSISTENCE, RANGES, SHARES
from training.onnx_graph import edge_graph
from training.progress import Progress
from training.publish import MODELS, library_versions, now, publish, signing_key

VERSION = "1.0.0"
MARGIN = 0.005


def main() -> None:
    """Train what the command line names."""
    makers: dict[str, Callable[[Progress, Path], Path]] = {"edge": make_edge}
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
        training=asdict(settings),
    )
    return publish(manifest, {MODEL_FILE: edge_graph(weights)}, into, signing_key().key)


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
