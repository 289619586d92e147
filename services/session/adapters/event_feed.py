"""What one process knows of one session's event log: its newest events, and that there are more."""

import asyncio
from collections import deque
from typing import Final

from services.session.domain.events import SessionEnded, StoredEvent

_KEPT: Final = 256
"""Newest events kept in memory; a reader further behind reads the ledger."""


class Feed:
    """A window on the end of a log, without holes. Readers keep their own place and come back for what follows it.

    Events may be added late, twice and with holes between: the window then begins anew after the hole, and whoever
    needs what is in it finds it in the ledger, where it was before anybody heard of it.
    """

    def __init__(self) -> None:
        self.latest = 0
        """Highest seq that is known to exist."""
        self.ended = False
        """No event will follow."""
        self.drained = False
        """This process ends its subscriptions."""
        self.readers = 0
        self._window: deque[StoredEvent] = deque(maxlen=_KEPT)
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change; take it before looking, so that no change is missed."""
        return self._changed

    def add(self, event: StoredEvent) -> None:
        """Take an event that was committed."""
        if event.seq <= self.latest:
            return
        if self._window and self._window[-1].seq != event.seq - 1:
            self._window.clear()
        self._window.append(event)
        self.learn(event.seq, ended=event.type == SessionEnded.type)

    def learn(self, latest: int, *, ended: bool) -> None:
        """Take what the ledger says about the log's end."""
        if latest > self.latest or ended > self.ended:
            self.latest = max(latest, self.latest)
            self.ended = self.ended or ended
            self._notify()

    def get(self, seq: int) -> StoredEvent | None:
        """Return an event if it is in the window."""
        index = seq - self._window[0].seq if self._window else -1
        return self._window[index] if 0 <= index < len(self._window) else None

    def drain(self) -> None:
        """Let every reader end."""
        self.drained = True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
