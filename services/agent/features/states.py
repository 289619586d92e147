"""The states of all open streams in one array, so that a bar that closes for many bots is one pass of numpy."""

from collections.abc import Sequence

import numpy as np

from services.agent.features.definition import STATE, FeatureArray, FloatArray, describe
from services.agent.features.streaming import advance, break_off


class StreamStates:
    """Rows that are taken, moved on together, and given back."""

    def __init__(self, capacity: int = 64) -> None:
        self._rows: FloatArray = np.zeros((capacity, STATE))
        self._free = list(range(capacity - 1, -1, -1))

    def take(self, state: FloatArray) -> int:
        """Put a state (1, STATE) into a free row and return the row's number."""
        if not self._free:
            capacity = len(self._rows)
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._free = list(range(2 * capacity - 1, capacity - 1, -1))
        slot = self._free.pop()
        self._rows[slot] = state[0]
        return slot

    def give_back(self, slot: int) -> None:
        """Free a row."""
        self._free.append(slot)

    def break_off(self, slot: int) -> None:
        """Mark a gap before the next candle of a row."""
        break_off(self._rows[slot : slot + 1])

    def describe(self, slot: int) -> FeatureArray:
        """Return the feature row (1, FEATURES) of a row as it stands."""
        return describe(self._rows[slot : slot + 1])

    def advance(self, slots: Sequence[int], returns: Sequence[float]) -> FeatureArray:
        """Move distinct rows on by one bar each and return their feature rows, in order."""
        if len(slots) == 1:
            state = self._rows[slots[0] : slots[0] + 1]
            advance(state, np.array(returns))
            return describe(state)
        index = np.array(slots)
        state = self._rows[index]
        advance(state, np.array(returns))
        self._rows[index] = state
        return describe(state)
