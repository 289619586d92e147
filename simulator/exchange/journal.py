"""The append-only record of accounts, logins and orders, from which a restarted simulator takes up where it was.

One JSON object a line, each a kind and the whole state of one thing after a change. A line is handed to the operating
system before the change is answered to anybody, so it survives the death of the process (not that of the machine).
"""

from collections.abc import Iterator
from os import SEEK_END
from pathlib import Path
from typing import IO, Any, Final, Protocol

import msgspec

from simulator.exchange.orders import Order

LONGEST_LINE: Final = 2**20
"""Bytes that no line comes near."""


class Entry(msgspec.Struct, tag_field="kind", frozen=True):
    """Any line of the journal."""

    brand: str


class AccountEntry(Entry, tag="account", frozen=True):
    """An account came into being, or its practice balance was set anew."""

    email: str
    user_id: int
    balances: dict[int, tuple[int, str]]
    """Balance id to (type id, amount)."""


class LoginEntry(Entry, tag="login", frozen=True):
    """A session token was issued or, with ``user_id`` None, revoked. Only the token's hash is kept."""

    token_hash: str
    user_id: int | None


class OrderEntry(Entry, tag="order", frozen=True):
    """The state of an order after a change, and the balance that it moved."""

    order: dict[str, Any]
    balance_id: int | None
    balance: str | None


class ResetEntry(Entry, tag="reset", frozen=True):
    """Everything of the brand before this line is forgotten."""


JournalEntry = AccountEntry | LoginEntry | OrderEntry | ResetEntry


class Journal(Protocol):
    """Where changes are recorded."""

    def append(self, entry: JournalEntry) -> None:
        """Record a change; it survives the process when this returns."""
        ...

    def entries(self) -> Iterator[JournalEntry]:
        """Replay what was recorded before this process."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class NoJournal:
    """Keeps nothing: the simulator forgets all with its process."""

    def append(self, entry: JournalEntry) -> None:
        """Drop it."""

    def entries(self) -> Iterator[JournalEntry]:
        """Nothing was kept."""
        return iter(())

    def close(self) -> None:
        """Nothing to release."""


class FileJournal:
    """A file of JSON lines, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._encoder = msgspec.json.Encoder()
        self._mend()
        self._file: IO[bytes] = path.open("ab", buffering=0)
        path.chmod(0o600)

    def append(self, entry: JournalEntry) -> None:
        """Write a line; see ``Journal``."""
        self._file.write(self._encoder.encode(entry) + b"\n")

    def entries(self) -> Iterator[JournalEntry]:
        """Read all lines from the beginning."""
        decoder = msgspec.json.Decoder(JournalEntry)
        with self._path.open("rb") as lines:
            for line in lines:
                yield decoder.decode(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _mend(self) -> None:
        """Cut off a last line that a killed process left unfinished: nobody was told of that change."""
        if not self._path.exists():
            return
        with self._path.open("r+b") as file:
            size = file.seek(0, SEEK_END)
            start = max(0, size - LONGEST_LINE)
            file.seek(start)
            whole = start + file.read().rfind(b"\n") + 1
            if whole < size:
                file.truncate(whole)


def order_to_entry(order: Order) -> dict[str, Any]:
    """Return an order as JSON types."""
    built: dict[str, Any] = msgspec.to_builtins(order)
    return built


def order_from_entry(entry: dict[str, Any]) -> Order:
    """Read an order back."""
    return msgspec.convert(entry, Order, strict=False)
