"""The markets of the training: seven families of processes, each path with parameters of its own.

The ranges are wide enough that no model can learn a parameter by heart, and leave out edges so weak that the payout
eats them anyway: a model that hopes for those trades on noise.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from markets import (
    AnchoredReversion,
    Autoregressive,
    FloatArray,
    Garch,
    Process,
    RandomWalk,
    SwitchingAutoregressive,
    TrendingRegimes,
)

RANGES: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "rw": {},
    "garch": {"alpha": (0.01, 0.20), "beta": (0.60, 0.95), "degrees": (4.0, 12.0)},
    "ar_mom": {"phi": (0.13, 0.45)},
    "ar_rev": {"phi": (-0.45, -0.13)},
    "ou_rw": {"rho": (0.80, 0.95), "anchor_step": (0.25, 0.75)},
    "regime": {"drift": (0.25, 0.55), "stay": (0.96, 0.992)},
    "msar": {"phi": (0.25, 0.50), "stay": (0.98, 0.995)},
}
"""Uniform ranges of the parameters; they go into the manifest."""

MAX_PERSISTENCE: Final = 0.985
"""Bound of alpha + beta, below which a GARCH market has a stationary variance."""


@dataclass(frozen=True, slots=True)
class Share:
    """How much of the training one family is."""

    paths: float
    """Share of the paths."""
    weight: float
    """Weight of one of its bars in the loss; paths times weight is what the model holds for the prior."""


SHARES: Final[dict[str, Share]] = {
    # Markets without an edge weigh 77 % together: a trade there costs the whole margin of the house.
    "rw": Share(0.40, 4.0),
    "garch": Share(0.12, 1.5),
    "ar_mom": Share(0.08, 0.6),
    "ar_rev": Share(0.08, 0.6),
    # The edge that takes longest to prove: with less weight it would not be believed at 1,200 bars.
    "ou_rw": Share(0.12, 2.0),
    "regime": Share(0.10, 1.0),
    "msar": Share(0.10, 1.0),
}


def draw(family: str, rng: np.random.Generator, paths: int) -> Process:
    """Return a process whose every path has parameters drawn from the family's ranges."""
    drawn: dict[str, FloatArray] = {name: rng.uniform(low, high, paths) for name, (low, high) in RANGES[family].items()}
    match family:
        case "rw":
            return RandomWalk()
        case "garch":
            beta = np.minimum(drawn["beta"], MAX_PERSISTENCE - drawn["alpha"])
            return Garch(drawn["alpha"], beta, drawn["degrees"])
        case "ar_mom" | "ar_rev":
            return Autoregressive(drawn["phi"])
        case "ou_rw":
            return AnchoredReversion(drawn["rho"], drawn["anchor_step"])
        case "regime":
            return TrendingRegimes(drawn["drift"], drawn["stay"])
        case "msar":
            return SwitchingAutoregressive(drawn["phi"], drawn["stay"])
    raise ValueError(family)
