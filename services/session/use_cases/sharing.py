"""How the replicas share the sessions: what one takes up at once, what it leaves to a poorer one, what it gives away."""

from collections.abc import Collection, Sequence
from math import ceil
from typing import Final

from services.session.domain.values import SessionKey

_AT_ONCE: Final = 10
"""Sessions given away at one look: each is without a runner until another replica's next look."""
_TOLERANCE: Final = 0.1
"""Part of a fair share that a replica may have too much, so that nothing moves to and fro."""
_RESPITE: Final = 60.0
"""Seconds without giving after a replica with a full share had to take what nobody took."""


class FairShare:
    """One replica's view of who shares the sessions, made anew at every look for sessions that nobody runs.

    A fair share is the number of sessions by the number of replicas that look for some, rounded up. Nobody is told to
    take anything: who gives a session away lets it go free, and the first replica with less than its share takes it.

    Args:
        settle: Seconds that a replica has to live before others give it sessions: one that dies again and again
            would draw sessions to itself and take them down each time.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._since: dict[str, float] = {}
        self._free_before: frozenset[SessionKey] = frozenset()
        self._keeps_until = float("-inf")

    def see(self, now: float, replicas: Collection[str]) -> None:
        """Note the names of the replicas that look for sessions, this one among them."""
        self._since = {name: self._since.get(name, now) for name in replicas}

    def to_take(self, now: float, free: Sequence[SessionKey], *, held: int, total: int) -> Sequence[SessionKey]:
        """Return which of the free sessions to take: all, but with a full share only what was left at the last look too.

        Args:
            now: Monotonic seconds.
            free: Sessions that nobody runs.
            held: How many this replica runs.
            total: How many there are to run.
        """
        full = held >= ceil(total / max(len(self._since), 1))
        taken = [key for key in free if key in self._free_before] if full else list(free)
        self._free_before = frozenset(free)
        if full and taken:
            # Some replica has less than its share and does not take: giving it more would only move sessions about.
            self._keeps_until = now + _RESPITE
        return taken

    def to_give(self, now: float, *, held: int, total: int) -> int:
        """Return how many of the ``held`` sessions this replica should let go."""
        settled = sum(now - since >= self._settle for since in self._since.values())
        if settled < 2 or now < self._keeps_until:
            return 0
        share = ceil(total / settled)
        excess = held - share
        return min(excess, _AT_ONCE) if excess > _TOLERANCE * share else 0
