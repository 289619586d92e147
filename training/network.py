"""The default model's network: odd in the market's mirror by construction, so that it cannot prefer a direction."""

from typing import Final

import torch
from torch import nn

from services.agent.features import FEATURES, ODD_FEATURES

HIDDEN: Final = 96
BENT: Final = 24
BOUND: Final = 6.0
"""Standardised even features are cut here: what lies beyond was never trained on."""
SQUARE_SCALE: Final = 0.25
"""Brings the squares of the even features to the size of the features."""


class EdgeNetwork(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """Log odds of a rise = sum of the odd features, plain and bent, times gates that only the even features open.

    Mirroring the market flips the odd features and leaves the gates alone: the log odds change sign exactly. The gates see
    the even features and their squares, because that is how evidence adds up: a likelihood is quadratic in a correlation.
    """

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        even = FEATURES - ODD_FEATURES
        terms = ODD_FEATURES + BENT
        self.mean = nn.Parameter(mean, requires_grad=False)
        self.scale = nn.Parameter(1.0 / deviation, requires_grad=False)
        self.first = nn.Linear(2 * even, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.gate = nn.Linear(HIDDEN, terms)
        self.direct = nn.Linear(even, terms, bias=False)
        self.bend = nn.Linear(ODD_FEATURES, BENT, bias=False)
        # All gates shut: it begins as the model that sees nothing.
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        nn.init.zeros_(self.direct.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the log odds of a rise, one a row."""
        odd = features[:, :ODD_FEATURES]
        even = torch.clamp((features[:, ODD_FEATURES:] - self.mean) * self.scale, -BOUND, BOUND)
        hidden = self.first(torch.cat([even, even * even * SQUARE_SCALE], dim=1))
        hidden = nn.functional.silu(self.second(nn.functional.silu(hidden)))
        gates = self.gate(hidden) + self.direct(even)
        terms = torch.cat([odd, torch.tanh(self.bend(odd))], dim=1)
        return (gates * terms).sum(dim=1)
