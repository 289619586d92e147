"""What the broker service says to the brokers, read off the wire: the moment at which an order's bytes have left it."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec

from tests.faults.programme.proxy import Connection

_TEXT: Final = 1
_ORDER: Final = b"open-option"


@dataclass(frozen=True, slots=True)
class SeenOrder:
    """An order on the wire."""

    balance_id: int
    direction: str
    amount: Decimal


Strike = Callable[[SeenOrder], Awaitable[bool]]
"""Called while the order is held; returns whether it may go on to the broker."""


class OrderWatch:
    """All connections' orders, and the strikes that wait for the next ones."""

    def __init__(self) -> None:
        self.seen = 0
        self._strikes: list[Strike] = []

    def strike_next(self, strike: Strike) -> None:
        """Strike at the next order that nobody else waits for."""
        self._strikes.append(strike)

    def disarm(self, strike: Strike) -> None:
        """Forget a strike that has not found its moment."""
        if strike in self._strikes:
            self._strikes.remove(strike)

    async def passes(self, order: SeenOrder) -> bool:
        """Tell whether an order may go on."""
        self.seen += 1
        return not self._strikes or await self._strikes.pop(0)(order)


class OrderGate:
    """Follows one WebSocket connection."""

    def __init__(self, connection: Connection, watch: OrderWatch) -> None:
        self._connection = connection
        self._watch = watch
        self._buffer = bytearray()
        self._upgraded = False

    async def from_client(self, piece: bytes) -> bool:
        self._buffer += piece
        if not self._upgraded:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return True
            del self._buffer[: end + 4]
            self._upgraded = True
        for payload in self._frames():
            if _ORDER in payload and (order := _order(payload)) is not None and not await self._watch.passes(order):
                # The whole piece is lost with the connection, as with a sender that died before it wrote.
                self._connection.cut()
                return False
        return True

    async def from_server(self, piece: bytes) -> bool:
        return True

    def _frames(self) -> Iterator[bytes]:
        """Take the complete frames off the buffer; a client's frames are masked and, with us, never fragmented."""
        while len(self._buffer) >= 6:
            code, length, at = self._buffer[0] & 0x0F, self._buffer[1] & 0x7F, 2
            if length >= 126:
                size = 2 if length == 126 else 8
                if len(self._buffer) < at + size:
                    return
                length = int.from_bytes(self._buffer[at : at + size])
                at += size
            end = at + 4 + length
            if len(self._buffer) < end:
                return
            mask, masked = self._buffer[at : at + 4], bytes(self._buffer[at + 4 : end])
            del self._buffer[:end]
            if code == _TEXT:
                key = bytes(mask) * (length // 4 + 1)
                yield (int.from_bytes(masked) ^ int.from_bytes(key[:length])).to_bytes(length)


def _order(payload: bytes) -> SeenOrder | None:
    message = msgspec.json.decode(payload)["msg"]
    if not str(message["name"]).endswith("open-option"):
        return None
    body = message["body"]
    return SeenOrder(int(body["user_balance_id"]), str(body["direction"]), Decimal(str(body["price"])))
