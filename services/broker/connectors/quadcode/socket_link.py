"""The link over a WebSocket: dials, opens, reads, writes and watches it. The only file that touches a socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import aiohttp
import msgspec

from services.broker.connectors.quadcode.brands import Brand
from services.broker.connectors.quadcode.link import (
    FrameCounts,
    Link,
    LostError,
    RequestRefusedError,
    Timing,
    TokenRefusedError,
)
from services.broker.connectors.quadcode.parsing import refusal_text
from services.broker.connectors.quadcode.protocol import (
    Acknowledged,
    Answer,
    Authenticated,
    Call,
    Event,
    HeartbeatDue,
    Ignored,
    Protocol,
    Push,
    Rejected,
    Subscription,
    Tick,
)
from services.broker.domain.errors import BrokerUnavailableError, SendDeadlinePassedError
from services.runtime.clock import Clock
from services.runtime.secret import Secret

Socket = aiohttp.ClientWebSocketResponse[Any]

MAX_FRAME: Final = 64 * 1024 * 1024
"""Initialization data is several MB; more than this is no message."""
UNROUTED: Final = 4000
"""The status that we give to requests that the broker did not even route."""
CLOSE_TIME: Final = 1.0
"""Seconds that the broker gets to answer our close frame."""


class SocketLink(Link):
    """Speaks the platform's wire itself.

    Args:
        brand: Where to dial.
        http: The process's client session.
        clock: Our time of day.
        timing: How long to wait.
        counts: The process's counters.
    """

    def __init__(
        self,
        brand: Brand,
        http: aiohttp.ClientSession,
        clock: Clock,
        *,
        timing: Timing,
        counts: FrameCounts,
    ) -> None:
        super().__init__(counts)
        self._brand = brand
        self._http = http
        self._clock = clock
        self._timing = timing
        self._protocol = Protocol()
        self._answers: dict[str, asyncio.Future[Answer | None]] = {}
        self._socket: Socket | None = None
        self._ticked = asyncio.Event()

    def broker_time(self) -> datetime:
        """Return the broker's time of day as best known."""
        return self._clock.now() + timedelta(seconds=self._protocol.clock_offset or 0.0)

    async def call(self, call: Call) -> msgspec.Raw:
        """Ask the broker something and return what it answers."""
        return (await self._exchange(*self._protocol.request(call))).msg

    async def subscribe(self, subscription: Subscription) -> None:
        """Ask for a stream of pushes, now and after every reconnect."""
        request = self._protocol.subscribe(subscription)
        if request is None or not self.is_open:
            return
        try:
            await self._exchange(*request)
        except RequestRefusedError:
            self._protocol.unsubscribe(subscription)
            raise
        except BrokerUnavailableError:
            # It is remembered: the next socket asks again.
            return

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop a stream of pushes; the frame is written before this first yields."""
        request = self._protocol.unsubscribe(subscription)
        if request is not None:
            self._protocol.forget(request[0])
            await self._write_quietly(request[1])

    def forget(self, subscription: Subscription) -> None:
        """Do not renew a subscription on the next socket."""
        request = self._protocol.unsubscribe(subscription)
        if request is not None:
            self._protocol.forget(request[0])

    async def set_up(self) -> None:
        """Turn acknowledgements on, renew all subscriptions and wait for the broker's clock."""
        await self._exchange(*self._protocol.options())
        for _, frame in self._protocol.resubscribe():
            await self._write(frame)
        try:
            async with asyncio.timeout(self._timing.request):
                await self._ticked.wait()
        except TimeoutError:
            raise BrokerUnavailableError("the broker's clock does not tick") from None

    async def post(self, call: Call, not_after: datetime | None = None) -> asyncio.Future[Answer | None]:
        """Write a request that must not be written twice. Between its checks and the write nothing yields."""
        socket = self._ready_socket()
        if not_after is not None and self._clock.now() >= not_after:
            raise SendDeadlinePassedError
        request_id, frame = self._protocol.request(call)
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        try:
            await socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (aiohttp.ClientError, OSError):
            # Raised before or after the bytes were taken: not knowable. The reader will find the socket lost.
            if not answer.done():
                answer.set_result(None)
        return answer

    def _ready_socket(self) -> Socket:
        socket = self._socket
        if socket is None or socket.closed or not self.is_open:
            raise BrokerUnavailableError("the connection to the broker is down")
        transport = socket._writer.transport  # noqa: SLF001  # aiohttp shows its write buffer nowhere else
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            # Behind a full buffer the frame would leave at an unknown later time.
            raise BrokerUnavailableError("the connection to the broker is congested")
        return socket

    @asynccontextmanager
    async def _opened(self, token: Secret) -> AsyncIterator[None]:
        """Dial and authenticate."""
        try:
            async with asyncio.timeout(self._timing.connect):
                socket = await self._http.ws_connect(
                    self._brand.ws_url,
                    origin=self._brand.origin,
                    max_msg_size=MAX_FRAME,
                    decode_text=False,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIME),
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise BrokerUnavailableError from error
        self._socket = socket
        try:
            await self._authenticate(socket, token)
            yield
        finally:
            self._socket = None
            await socket.close()

    async def _authenticate(self, socket: Socket, token: Secret) -> None:
        self._ticked.clear()
        try:
            async with asyncio.timeout(self._timing.connect):
                await socket.send_frame(self._protocol.opening(token.reveal()), aiohttp.WSMsgType.TEXT)
                while True:
                    message = await socket.receive()
                    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                        raise BrokerUnavailableError("the broker closed the connection")
                    event = self._protocol.receive(message.data, self._clock.now().timestamp())
                    if isinstance(event, Authenticated):
                        if not event.accepted:
                            raise TokenRefusedError
                        return
                    if isinstance(event, Tick):
                        self._ticked.set()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise BrokerUnavailableError from error

    async def _read(self) -> None:
        """Read until the socket is lost or the broker's clock has stopped."""
        loop, socket = asyncio.get_running_loop(), self._socket
        if socket is None:
            raise LostError
        receive, protocol, clock = socket.receive, self._protocol, self._clock
        try:
            async with asyncio.timeout(self._timing.silence) as watchdog:
                while True:
                    message = await receive()
                    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                        raise LostError
                    event = protocol.receive(message.data, clock.now().timestamp())
                    if isinstance(event, Tick):
                        self._ticked.set()
                        watchdog.reschedule(loop.time() + self._timing.silence)
                    elif isinstance(event, HeartbeatDue):
                        await self._write_quietly(event.frame)
                    else:
                        self._handle_event(event)
        except TimeoutError:
            raise LostError from None

    def _handle_event(self, event: Event | Ignored) -> None:
        if isinstance(event, Push):
            self._dispatch(event.name, event.msg)
        else:
            self._settle(event)

    def _settle(self, event: Event | Ignored) -> None:
        match event:
            case Answer():
                answer = event
            case Acknowledged(request_id):
                answer = Answer(request_id, "result", 0, msgspec.Raw(b"null"))
            case Rejected(request_id, reason):
                # Same shape as any refusal, so that there is one way to read it.
                answer = Answer(request_id, "result", UNROUTED, msgspec.Raw(msgspec.json.encode({"message": reason})))
            case Ignored.MALFORMED:
                self._counts.malformed += 1
                return
            case _:
                self._counts.ignored += 1
                return
        self._counts.understood += 1
        future = self._answers.pop(answer.request_id, None)
        if future is not None and not future.done():
            future.set_result(answer)

    async def _exchange(self, request_id: str, frame: bytes) -> Answer:
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = future
        try:
            async with asyncio.timeout(self._timing.request):
                await self._write(frame)
                answer = await future
        except TimeoutError:
            raise BrokerUnavailableError("the broker does not answer") from None
        finally:
            self._answers.pop(request_id, None)
            self._protocol.forget(request_id)
        if answer is None:
            raise BrokerUnavailableError("the connection to the broker was lost")
        if answer.refused:
            raise RequestRefusedError(answer.status, answer.msg, refusal_text(answer.msg))
        return answer

    async def _write(self, frame: bytes) -> None:
        if self._socket is None or self._socket.closed:
            raise BrokerUnavailableError("the connection to the broker is down")
        try:
            await self._socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (aiohttp.ClientError, OSError) as error:
            raise BrokerUnavailableError from error

    async def _write_quietly(self, frame: bytes) -> None:
        try:
            await self._write(frame)
        except BrokerUnavailableError:
            # The reader sees the same loss and deals with it.
            return

    def _lose(self) -> None:
        """Answer what was asked with nothing."""
        self._protocol.reset()
        answers, self._answers = self._answers, {}
        for future in answers.values():
            if not future.done():
                future.set_result(None)
