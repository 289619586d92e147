"""Hands changes from the one who sees them to a slow reader, bounded, the newest state of a thing winning."""

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

from services.broker.domain.errors import BrokerError, BrokerUnavailableError

V = TypeVar("V")


class Mailbox(Generic[V]):
    """A bounded queue for one reader in which a value replaces the waiting one of the same key.

    It never drops the last value of a key: a reader that lets more than ``limit`` keys pile up is cut off with
    ``BrokerUnavailableError`` and has to begin anew from a snapshot.
    """

    __slots__ = ("_error", "_limit", "_values", "_waiter")

    def __init__(self, limit: int = 5_000) -> None:
        self._limit = limit
        self._values: dict[Hashable, V] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._error: BrokerError | None = None

    def put(self, key: Hashable, value: V) -> None:
        """Add a value behind all that wait, in place of the one with the same key."""
        if self._error is not None:
            return
        self._values.pop(key, None)
        if len(self._values) >= self._limit:
            self._values.clear()
            self.close(BrokerUnavailableError("the reader of this stream is too slow: open it again"))
            return
        self._values[key] = value
        self._wake()

    def close(self, error: BrokerError) -> None:
        """Let the reader take what waits, then raise the error to it."""
        self._error = self._error or error
        self._wake()

    async def get(self) -> V:
        """Return the oldest waiting value, or wait for one.

        Raises:
            BrokerError: What ``close`` was given, once nothing waits any more.
        """
        while not self._values:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._values.pop(next(iter(self._values)))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Hub(Generic[V]):
    """Gives every value to all current readers."""

    __slots__ = ("_mailboxes",)

    def __init__(self) -> None:
        self._mailboxes: set[Mailbox[V]] = set()

    def __len__(self) -> int:
        return len(self._mailboxes)

    def join(self) -> Mailbox[V]:
        """Add a reader."""
        mailbox: Mailbox[V] = Mailbox()
        self._mailboxes.add(mailbox)
        return mailbox

    def leave(self, mailbox: Mailbox[V]) -> None:
        """Remove a reader."""
        self._mailboxes.discard(mailbox)

    def publish(self, key: Hashable, value: V) -> None:
        """Give a value to all readers."""
        for mailbox in self._mailboxes:
            mailbox.put(key, value)

    def close(self, error: BrokerError) -> None:
        """End all readers' streams with an error."""
        for mailbox in self._mailboxes:
            mailbox.close(error)
