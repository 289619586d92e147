"""Trains the default model: a calibrated probability network, on simulated markets whose true probability is known."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from services.agent.features import ODD_FEATURES
from training.dataset import training_rows
from training.network import EdgeNetwork
from training.progress import Progress


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """How long and how fast it learns."""

    seed: int = 20
    rounds: int = 240
    """Worlds drawn, each of some 200,000 rows, each seen once."""
    batch: int = 4096
    peak_rate: float = 3e-3
    """Learning rate at its peak, of a one-cycle schedule."""
    clip: float = 0.3
    """Bound of the gradient's norm."""
    average: float = 0.998
    """The shipped weights are the running average of the trained ones."""


def train_edge(settings: EdgeSettings, progress: Progress) -> EdgeNetwork:
    """Train on fresh worlds; deterministic by seed on one thread.

    The target is the exact probability rather than what happened: the same optimum, a hundredth of the noise.
    """
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    even = training_rows(rng).features[:, ODD_FEATURES:]
    deviation = torch.from_numpy(even.std(axis=0) + 1e-3)
    network = EdgeNetwork(torch.from_numpy(even.mean(axis=0)), deviation)
    averaged = copy.deepcopy(network)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained)
    batches = len(even) // settings.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.peak_rate, total_steps=settings.rounds * (batches + 1), pct_start=0.1
    )
    steps = 0
    for _ in progress.track(range(settings.rounds), "edge: worlds"):
        rows = training_rows(rng)
        features = torch.from_numpy(rows.features)
        target = torch.from_numpy(rows.p_up.astype(np.float32))
        weight = torch.from_numpy(rows.weight.astype(np.float32))
        order = torch.randperm(len(features))
        loss = torch.zeros(())
        for start in range(0, batches * settings.batch, settings.batch):
            picked = order[start : start + settings.batch]
            loss = nn.functional.binary_cross_entropy_with_logits(
                network(features[picked]), target[picked], weight=weight[picked]
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, settings.clip)
            optimizer.step()
            schedule.step()
            steps += 1
            keep = min(settings.average, (1 + steps) / (10 + steps))
            with torch.no_grad():
                for mean, current in zip(averaged.parameters(), network.parameters(), strict=True):
                    mean.lerp_(current, 1.0 - keep)
        progress.note(f"loss {loss.item():.5f}")
    averaged.eval()
    return averaged
