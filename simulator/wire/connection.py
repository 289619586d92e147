"""One client's socket: frames in, frames out, its subscriptions, and the faults that befall its frames."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from simulator.exchange.accounts import Account
from simulator.exchange.timers import Timers
from simulator.faults import FaultKind, FaultRule, FaultScript, Point
from simulator.wire.frames import Frame, bare, read_frame, websocket_frame

MAX_UNSENT: Final = 32 * 1024 * 1024
"""Bytes that may wait for a client that does not read; more than that and it is cut off."""
MAX_WAITING: Final = 2_000
"""Requests that may wait to be handled."""
AUTHENTICATION_DEADLINE: Final = 120.0
"""Seconds that a socket may stay open without a login."""

log: Final = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a client wants to hear: an event by its bare name, a version, and filters with their values as text."""

    name: str
    major: int
    filters: tuple[tuple[str, str], ...]

    def matches(self, facts: dict[str, str]) -> bool:
        """Tell whether an event with these facts is meant; a filter on something the event has not, is ignored."""
        return all(facts.get(key, value) == value for key, value in self.filters)


@dataclass(frozen=True, slots=True)
class Received:
    """A frame that waits to be handled."""

    frame: Frame
    at: float
    """When it came, unix seconds."""


Handler = Callable[["Connection", Received], Awaitable[None]]


class Connection:
    """A socket. Frames are handled one after another; sending never waits."""

    def __init__(
        self,
        number: int,
        brand: str,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        *,
        faults: FaultScript,
        timers: Timers,
        clock: Callable[[], float],
        delay: float,
    ) -> None:
        self.number = number
        self.brand = brand
        self.account: Account | None = None
        self.legacy = False
        """Whether it was opened with an ``ssid`` message, as the old clients do."""
        self.subscriptions: set[Subscription] = set()
        self.watched_positions: frozenset[str] = frozenset()
        """Portfolio ids whose states it wants, until ``watched_until`` (unix seconds)."""
        self.watched_until = 0.0
        self._socket = socket
        self._transport = transport
        self._faults = faults
        self._timers = timers
        self._clock = clock
        self._delay = delay
        self._waiting: asyncio.Queue[Received | None] = asyncio.Queue(MAX_WAITING)
        self._held: list[bytes] = []
        self.is_cut = False

    @property
    def email(self) -> str:
        """E-mail of the account, empty before the login."""
        return "" if self.account is None else self.account.email

    async def serve(self, handler: Handler) -> None:
        """Read and handle until the client goes. What was received before it went is still handled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._handle_all(handler))
            try:
                await self._read_all()
            finally:
                # The queue may be full: a client that floods and leaves loses what is behind its limit.
                while True:
                    try:
                        self._waiting.put_nowait(None)
                        break
                    except asyncio.QueueFull:
                        self._waiting.get_nowait()

    async def _read_all(self) -> None:
        opened = self._clock()
        while not self.is_cut:
            wait = None if self.account else max(0.0, opened + AUTHENTICATION_DEADLINE - self._clock())
            try:
                message = await self._socket.receive(wait)
            except TimeoutError:
                if self.account is None:
                    await self.close("no login")
                    return
                continue
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            try:
                frame = read_frame(message.data)
            except msgspec.DecodeError:
                log.info("frame_unreadable", brand=self.brand, connection=self.number)
                continue
            try:
                self._waiting.put_nowait(Received(frame, self._clock()))
            except asyncio.QueueFull:
                log.warning("client_floods", brand=self.brand, connection=self.number)
                self.cut()

    async def _handle_all(self, handler: Handler) -> None:
        while (received := await self._waiting.get()) is not None:
            wait = received.at + self._delay - self._clock()
            if wait > 0:
                await asyncio.sleep(wait)
            await handler(self, received)

    async def pause(self, seconds: float) -> None:
        """Keep the client waiting; what it sent meanwhile waits too."""
        await asyncio.sleep(seconds)

    # ---- sending -----------------------------------------------------------------------------------------------

    def send(self, payload: bytes) -> None:
        """Send a frame that no fault is to befall."""
        self.write(websocket_frame(payload))

    def write(self, frame: bytes) -> None:
        """Write a complete WebSocket frame; a client that does not read is cut off in the end."""
        transport = self._transport
        if transport.is_closing() or self._socket.closed:
            return
        transport.write(frame)
        if transport.get_write_buffer_size() > MAX_UNSENT:
            log.warning("client_too_slow", brand=self.brand, connection=self.number)
            self.cut()

    def push(self, name: str, frame: bytes, payload: bytes) -> None:
        """Send an event: the ready frame, unless a fault wants its payload."""
        if self._held or self._faults.has(Point.PUSH):
            self.deliver(Point.PUSH, name, payload)
        else:
            self.write(frame)

    def deliver(self, point: Point, name: str, payload: bytes) -> None:
        """Send an acknowledgement, reply or event through the fault script."""
        hits = self._faults.strike(point, self.brand, self.email, name) if self._faults.has(point) else []
        copies, delay, hold = 1, 0.0, False
        for rule, drawn in hits:
            match rule.kind:
                case FaultKind.LOST:
                    return
                case FaultKind.LATE:
                    delay += drawn
                case FaultKind.DUPLICATE:
                    copies += rule.count
                case FaultKind.OUT_OF_ORDER:
                    hold = True
                    self._timers.at(self._clock() + (drawn or 1.0), self._release)
                case FaultKind.MALFORMED:
                    payload = payload[: len(payload) // 2] if rule.text is None else rule.text.encode()
                case FaultKind.UNKNOWN_FRAME:
                    self.send(_unknown(rule))
                case _:
                    pass
        if hold:
            self._held.append(payload)
            return
        for _ in range(copies):
            if delay:
                self._timers.at(self._clock() + delay, lambda late=payload: self.send(late))  # type: ignore[misc]  # mypy cannot infer a default in a lambda
            else:
                self.send(payload)
        if not delay:
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        for payload in held:
            self.send(payload)

    # ---- ending ------------------------------------------------------------------------------------------------

    async def close(self, reason: str) -> None:
        """Close in good order."""
        await self._socket.close(code=WSCloseCode.OK, message=reason.encode())

    def cut(self) -> None:
        """Drop the connection without a word, as a broken network does."""
        self.is_cut = True
        self._transport.abort()


def _unknown(rule: FaultRule) -> bytes:
    if rule.text is not None:
        return rule.text.encode()
    return bare("some-future-event", {"value": 1, "nested": {"list": [None, "x"]}})
