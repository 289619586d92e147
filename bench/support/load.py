"""A closed-loop HTTP load generator that costs the machine little: raw protocol, keep-alive, one request a connection."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass(frozen=True, slots=True)
class Load:
    """What a run came to."""

    latencies: Sequence[float]
    """Of each answer of the measured time, seconds, ascending."""
    errors: int
    """Answers that were not 200."""
    seconds: float

    @property
    def rate(self) -> float:
        """Answers of status 200 a second."""
        return (len(self.latencies) - self.errors) / self.seconds

    def percentile(self, share: float) -> float:
        """Latency that this share of the answers did not exceed, milliseconds."""
        return 1000 * self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


def request(method: str, target: str, body: bytes = b"") -> bytes:
    """Write a whole HTTP/1.1 request."""
    head = f"{method} {target} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, message: bytes, until: float) -> None:
        self._message = message
        self._until = until
        self._data = b""
        self._sent = 0.0
        self.latencies: list[float] = []
        self.errors = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(_END)
        if end < 0:
            return
        start = self._data.index(_LENGTH) + len(_LENGTH)
        length = int(self._data[start : self._data.index(b"\r", start)])
        if len(self._data) < end + len(_END) + length:
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        self.errors += not self._data.startswith(b"HTTP/1.1 200")
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._data = b""
        self._sent = time.perf_counter()
        self._transport.write(self._message)


def _itself(connection: _Connection) -> _Connection:
    return connection


async def run(port: int, messages: Sequence[bytes], seconds: float) -> Load:
    """Send each message over and over on a connection of its own."""
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    connections = [_Connection(message, begun + seconds) for message in messages]
    for connection in connections:
        await loop.create_connection(partial(_itself, connection), "127.0.0.1", port)
    await asyncio.gather(*(connection.done for connection in connections))
    latencies = sorted(latency for connection in connections for latency in connection.latencies)
    return Load(latencies, sum(connection.errors for connection in connections), time.perf_counter() - begun)
