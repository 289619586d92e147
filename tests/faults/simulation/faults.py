"""What goes wrong in a simulated world, and how often. A kind can be switched off to find out which one a failure needs."""

import random
from dataclasses import dataclass, fields, replace

KINDS = (
    "lost_requests",
    "lost_answers",
    "late_requests",
    "errors_after_booking",
    "frozen_connector",
    "cut_connections",
    "connector_restarts",
    "lost_pushes",
    "failing_lists",
    "stale_lists",
    "failing_ledger",
    "ambiguous_commits",
    "cut_off_replicas",
    "lost_signals",
    "wiped_leases",
    "failing_leases",
    "kills",
    "kills_at_sending",
    "freezes",
    "drains",
    "drains_at_sending",
)
"""Every kind of fault."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities per call, and means in seconds between two events (0: never)."""

    lost_requests: float = 0.03
    lost_answers: float = 0.10
    late_requests: float = 0.05
    errors_after_booking: float = 0.03
    frozen_connector: float = 0.05
    cut_connections: float = 45.0
    connector_restarts: float = 120.0
    lost_pushes: float = 0.15
    failing_lists: float = 0.15
    stale_lists: float = 0.30
    failing_ledger: float = 0.01
    ambiguous_commits: float = 0.01
    cut_off_replicas: float = 180.0
    lost_signals: float = 0.20
    wiped_leases: float = 120.0
    failing_leases: float = 0.02
    kills: float = 60.0
    kills_at_sending: float = 0.03
    freezes: float = 60.0
    drains: float = 180.0
    drains_at_sending: float = 0.05

    def without(self, *kinds: str) -> "Faults":
        """Switch kinds off."""
        return replace(self, **dict.fromkeys(kinds, 0.0))


NONE = Faults(**{field.name: 0.0 for field in fields(Faults)})
"""A world in which everything works."""


class Fate:
    """Draws faults; in a world's last phase there are none any more."""

    def __init__(self, rng: random.Random, faults: Faults) -> None:
        self.rng = rng
        self.faults = faults

    def calm(self) -> None:
        """End all faults."""
        self.faults = NONE

    def strikes(self, probability: float) -> bool:
        """Draw. Always draws, so that a fault that is switched off moves as little as possible of the rest."""
        return self.rng.random() < probability

    def pause(self, shortest: float, longest: float) -> float:
        """Draw a duration."""
        return self.rng.uniform(shortest, longest)

    def next_event(self, mean: float) -> float:
        """Draw the seconds until the next event of a kind; far away if it never comes."""
        wait = self.rng.expovariate(1.0)
        return wait * mean if mean > 0 else 1e9
