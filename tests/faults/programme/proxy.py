"""A TCP proxy that can cut, delay and swallow, and shows what passes to whoever wants to strike at an exact moment."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from types import TracebackType
from typing import Final, Protocol, Self

_CHUNK: Final = 65_536
_LINGER: Final = 0.5
"""Seconds that a server gets to read what a client wrote before it died; closed at once, unread bytes could be lost."""


class Mode(Enum):
    """What the proxy does with what passes."""

    PASS = auto()
    DELAY = auto()
    """Every piece waits, up to ``Proxy.delay`` seconds, in order."""
    BLACK_HOLE = auto()
    """Nothing passes in either direction, nothing is closed, new connections are taken and stay silent."""
    REFUSE = auto()
    """Connections are closed as soon as they are taken."""


class Gate(Protocol):
    """Sees one connection's bytes before they pass; each method returns whether the piece may pass."""

    async def from_client(self, piece: bytes) -> bool:
        """See what the client sends."""
        ...

    async def from_server(self, piece: bytes) -> bool:
        """See what the server sends."""
        ...


class Connection:
    """One proxied connection."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self._ends = [client]

    def joined(self, server: asyncio.StreamWriter) -> None:
        """Add the other end."""
        self._ends.append(server)

    def cut(self) -> None:
        """Reset both ends, as a broken path does."""
        for end in self._ends:
            end.transport.abort()


class Proxy:
    """Listens on a free port of its own for one server.

    Args:
        port: Where the server listens on this machine.
        chance: Draws the delays.
        gate: Makes a gate for a connection; None lets everything pass unseen.
    """

    def __init__(
        self, port: int, chance: random.Random, gate: Callable[[Connection], Gate] | None = None, delay: float = 0.4
    ) -> None:
        self._target = port
        self._chance = chance
        self._new_gate = gate
        self._delay = delay
        self._mode = Mode.PASS
        self._may_pass = asyncio.Event()
        self._may_pass.set()
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where to connect instead of at the server."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def set(self, mode: Mode) -> None:
        """Change what happens from now on. A black hole that ends lets pass what it held back."""
        self._mode = mode
        if mode is Mode.BLACK_HOLE:
            self._may_pass.clear()
        else:
            self._may_pass.set()

    def cut(self) -> int:
        """Reset all connections and return how many there were."""
        cut = list(self._connections)
        for connection in cut:
            connection.cut()
        return len(cut)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(writer)
        self._connections.add(connection)
        try:
            with contextlib.suppress(OSError):
                await self._carry(connection, reader, writer)
        finally:
            connection.cut()
            self._connections.discard(connection)
            self._tasks.discard(task)

    async def _carry(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.REFUSE:
            return
        await self._may_pass.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        connection.joined(far_writer)
        gate = self._new_gate(connection) if self._new_gate is not None else None
        ways = (
            asyncio.create_task(self._pump(reader, far_writer, gate.from_client if gate else None)),
            asyncio.create_task(self._pump(far_reader, writer, gate.from_server if gate else None)),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if ways[0].done() and not far_writer.transport.is_closing():
                far_writer.write_eof()
                await asyncio.wait({ways[1]}, timeout=_LINGER)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        may_pass: Callable[[bytes], Awaitable[bool]] | None,
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_CHUNK):
                if may_pass is not None and not await may_pass(piece):
                    continue
                if self._mode is Mode.DELAY:
                    await asyncio.sleep(self._chance.uniform(0, self._delay))
                await self._may_pass.wait()
                writer.write(piece)
                await writer.drain()
