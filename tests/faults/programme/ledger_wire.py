"""What a session replica says to PostgreSQL, read off the wire: who runs a session, who sends a trade, when it commits.

The production code knows nothing of this. Its statements are told apart by the SQL text that a connection prepares.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from services.session.adapters.ledger import sql
from tests.faults.programme.proxy import Connection

_SSL_REQUEST: Final = 80_877_103
_STARTUP_CODES: Final = frozenset({_SSL_REQUEST, 80_877_104})

Strike = Callable[[str], Awaitable[None]]
"""Called with the trade's id at the moment struck at; the bytes wait for it."""


class Observer:
    """What all replicas have been seen to do, and the strikes that wait for their moment."""

    def __init__(self) -> None:
        self.sender: dict[str, str] = {}
        """Trade id to the replica that marked it as being sent."""
        self.epochs: list[tuple[float, str, str]] = []
        """Loop time, replica, session key: every runner that began."""
        self._after_commit: dict[str, Strike] = {}
        self._swallow: dict[str, asyncio.Future[str]] = {}

    def strike_after_mark(self, replica: str, strike: Strike) -> None:
        """When this replica's next SENDING is committed, and before it hears of it."""
        self._after_commit[replica] = strike

    def swallow_commit(self, replica: str) -> "asyncio.Future[str]":
        """Let the next commit of a trade's move through, drop its answer, cut; resolves to the trade's id."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._swallow[replica] = future
        return future

    def disarm(self, replica: str) -> None:
        """Forget the strikes that have not found their moment."""
        self._after_commit.pop(replica, None)
        self._swallow.pop(replica, None)

    def holder(self, key: str) -> str | None:
        """Return which replica began the session's newest runner."""
        return next((replica for _, replica, known in reversed(self.epochs) if known == key), None)

    def holders(self) -> dict[str, str]:
        """Return all sessions' holders."""
        return {key: replica for _, replica, key in self.epochs}

    async def committed(self, replica: str, marked: str, moved: str) -> bool:
        """A commit has been answered; returns whether the client may hear of it."""
        if marked and (strike := self._after_commit.pop(replica, None)):
            await strike(marked)
            return False
        if moved and (waiting := self._swallow.pop(replica, None)):
            waiting.set_result(moved)
            return False
        return True


class LedgerGate:
    """Follows one connection."""

    def __init__(self, connection: Connection, replica: str, observer: Observer) -> None:
        self._connection = connection
        self._replica = replica
        self._observer = observer
        self._buffer = bytearray()
        self._started = False
        self._statements: dict[bytes, bytes] = {}
        self._marked = ""
        self._moved = ""
        self._began = ""
        self._committing = False

    async def from_client(self, piece: bytes) -> bool:
        self._buffer += piece
        for kind, body in self._messages():
            if kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                self._statements[name] = text
            elif kind == b"B":
                self._bound(body)
            elif kind == b"Q":
                self._committing = body.startswith(b"COMMIT")
                if not self._committing:
                    self._marked = self._moved = self._began = ""
        return True

    async def from_server(self, piece: bytes) -> bool:
        # One message of 'C' "COMMIT": it cannot be within another statement's answer, a COMMIT goes alone.
        if not self._committing or b"COMMIT\0" not in piece:
            return True
        self._committing = False
        marked, moved = self._marked, self._moved
        if self._began:
            self._observer.epochs.append((asyncio.get_running_loop().time(), self._replica, self._began))
        self._marked = self._moved = self._began = ""
        if await self._observer.committed(self._replica, marked, moved):
            return True
        self._connection.cut()
        return False

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            if not self._started:
                if len(self._buffer) < 8:
                    return
                length, code = struct.unpack_from("!ii", self._buffer)
                if len(self._buffer) < length:
                    return
                del self._buffer[:length]
                self._started = code not in _STARTUP_CODES
                continue
            if len(self._buffer) < 5:
                return
            length = struct.unpack_from("!i", self._buffer, 1)[0]
            if len(self._buffer) < length + 1:
                return
            message = bytes(self._buffer[: length + 1])
            del self._buffer[: length + 1]
            yield message[:1], message[5:]

    def _bound(self, body: bytes) -> None:
        _, name, rest = body.split(b"\0", 2)
        text = self._statements.get(name, b"").decode()
        if text == sql.MOVE_TRADE:
            trade_id, _, after = _arguments(rest, 3)
            self._moved = trade_id
            if after == "sending":
                self._marked = trade_id
                self._observer.sender[trade_id] = self._replica
        elif text == sql.BEGIN_EPOCH:
            # It counts when it is committed: one that waits for the row may be given up.
            self._began = _arguments(rest, 1)[0]


def _arguments(rest: bytes, count: int) -> list[str]:
    """Read the first arguments of a Bind; text is the same in both of PostgreSQL's formats."""
    formats = struct.unpack_from("!h", rest)[0]
    at = 2 + 2 * formats + 2
    values = []
    for _ in range(count):
        length = struct.unpack_from("!i", rest, at)[0]
        at += 4
        values.append(rest[at : at + max(length, 0)].decode())
        at += max(length, 0)
    return values
