"""The socket: dials, opens, reads, writes and watches it. The only file that touches one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import aiohttp
import msgspec

from services.broker.connectors.quadcode.brands import Brand
from services.broker.connectors.quadcode.messages import UNREADABLE
from services.broker.connectors.quadcode.parsing import ParseError, refusal_text
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
from services.broker.domain.errors import BrokerUnavailableError
from services.runtime.clock import Clock
from services.runtime.secret import Secret

MAX_FRAME: Final = 64 * 1024 * 1024
"""Initialization data is several MB; more than this is no message."""
CLOSE_TIME: Final = 1.0
"""Seconds that the broker gets to answer our close frame."""


class TokenRefusedError(Exception):
    """The broker does not accept the session token."""


class RequestRefusedError(Exception):
    """The broker answered a request with a refusal. Never leaves the connector.

    Attributes:
        status: The reply's status; 0 if the request was not even routed.
        msg: What the broker sent.
        text: Its words.
    """

    def __init__(self, status: int, msg: msgspec.Raw, text: str) -> None:
        super().__init__(f"refused with status {status}")
        self.status = status
        self.msg = msg
        self.text = text


class _LostError(Exception):
    """The socket is gone."""


@dataclass(slots=True)
class FrameCounts:
    """What became of the frames of a process."""

    understood: int = 0
    ignored: int = 0
    """Names we do not use, and answers that nobody waits for any more."""
    malformed: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the link waits, seconds."""

    connect: float = 10.0
    request: float = 10.0
    silence: float = 15.0
    """Without a tick of the broker's clock for this long the socket counts as dead."""


class Link:
    """One conversation with the broker over one socket after another.

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
        self._brand = brand
        self._http = http
        self._clock = clock
        self._timing = timing
        self._counts = counts
        self._handlers: dict[str, Callable[[msgspec.Raw], None]] = {}
        self._protocol = Protocol()
        self._answers: dict[str, asyncio.Future[Answer | None]] = {}
        self._socket: aiohttp.ClientWebSocketResponse[Any] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._ticked = asyncio.Event()

    def handle(self, name: str, handler: Callable[[msgspec.Raw], None]) -> None:
        """Give all pushes of a name to a handler. It must not block; what it raises as unreadable is counted."""
        self._handlers[name] = handler

    @property
    def is_open(self) -> bool:
        """Whether the socket is open and logged in."""
        return self._tasks is not None

    def broker_time(self) -> datetime:
        """Return the broker's time of day as best known."""
        return self._clock.now() + timedelta(seconds=self._protocol.clock_offset or 0.0)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for as long as this socket lives; it is cancelled when the socket is lost, perhaps unbegun.

        Raises:
            BrokerUnavailableError: There is no open socket.
        """
        if self._tasks is None:
            work.close()
            raise BrokerUnavailableError("the connection to the broker is down")
        return self._tasks.create_task(work)

    async def live(self, token: Secret, bring_up: Callable[[], Awaitable[None]]) -> None:
        """Live through one socket: dial, log in, bring up, and read until it is lost. Returns when it is lost.

        Raises:
            TokenRefusedError: The broker does not accept the token.
            BrokerUnavailableError: The socket did not get as far as being logged in.
            Exception: What ``bring_up`` raised; the socket is closed then.
        """
        async with self._dialled() as socket:
            await self._open(socket, token)
            try:
                async with asyncio.TaskGroup() as tasks:
                    self._tasks = tasks
                    tasks.create_task(self._read(socket))
                    await bring_up()
            except BaseExceptionGroup as errors:
                causes = [e for e in errors.exceptions if not isinstance(e, _LostError)]
                if causes:
                    raise causes[0] from None
            finally:
                self._lose()

    async def call(self, call: Call) -> msgspec.Raw:
        """Ask the broker something and return what it answers.

        Raises:
            RequestRefusedError: It said no.
            BrokerUnavailableError: The connection is down, goes down, or no answer came in time.
        """
        return (await self._exchange(*self._protocol.request(call))).msg

    async def subscribe(self, subscription: Subscription) -> None:
        """Ask for a stream of pushes, now and after every reconnect. Down: at the next one.

        Raises:
            RequestRefusedError: The broker refuses it; it is forgotten then.
        """
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
        """Stop a stream of pushes; returns without the broker's confirmation.

        The frame is written before this first yields, so that a new subscription right after it stays behind it.
        """
        request = self._protocol.unsubscribe(subscription)
        if request is not None:
            self._protocol.forget(request[0])
            await self._write_quietly(request[1])

    def forget(self, subscription: Subscription) -> None:
        """Do not renew a subscription on the next socket; the broker is not told."""
        request = self._protocol.unsubscribe(subscription)
        if request is not None:
            self._protocol.forget(request[0])

    async def set_up(self) -> None:
        """Turn acknowledgements on, renew all subscriptions and wait for the broker's clock, on a new socket.

        Raises:
            BrokerUnavailableError: The broker is silent.
        """
        await self._exchange(*self._protocol.options())
        for _, frame in self._protocol.resubscribe():
            await self._write(frame)
        try:
            async with asyncio.timeout(self._timing.request):
                await self._ticked.wait()
        except TimeoutError:
            raise BrokerUnavailableError("the broker's clock does not tick") from None

    async def post(self, call: Call) -> asyncio.Future[Answer | None]:
        """Write a request that must not be written twice, and return where its answer will be, however late.

        The frame is on its way before this first yields. The future's result is None once the socket is lost. Only
        ``BrokerUnavailableError`` proves that nothing was written.

        Raises:
            BrokerUnavailableError: The socket is down or congested; nothing was written.
        """
        socket = self._ready_socket()
        request_id, frame = self._protocol.request(call)
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        try:
            await socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (aiohttp.ClientError, OSError):
            # Raised before or after the bytes were taken: not knowable. The reader will find the socket lost.
            self._answers.pop(request_id, None)
            answer.cancel()
            unknown: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
            unknown.set_result(None)
            return unknown
        return answer

    async def close(self) -> None:
        """Say goodbye to the broker, if it is there."""
        if self._socket is not None:
            await self._socket.close()

    def _ready_socket(self) -> aiohttp.ClientWebSocketResponse[Any]:
        socket = self._socket
        if socket is None or socket.closed or not self.is_open:
            raise BrokerUnavailableError("the connection to the broker is down")
        transport = socket._writer.transport  # noqa: SLF001  # aiohttp shows its write buffer nowhere else
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            # Behind a full buffer the frame would leave at an unknown later time.
            raise BrokerUnavailableError("the connection to the broker is congested")
        return socket

    @asynccontextmanager
    async def _dialled(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse[Any]]:
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
            yield socket
        finally:
            self._socket = None
            await socket.close()

    async def _open(self, socket: aiohttp.ClientWebSocketResponse[Any], token: Secret) -> None:
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

    async def _read(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        loop = asyncio.get_running_loop()
        receive, protocol, clock = socket.receive, self._protocol, self._clock
        try:
            async with asyncio.timeout(self._timing.silence) as watchdog:
                while True:
                    message = await receive()
                    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                        raise _LostError
                    event = protocol.receive(message.data, clock.now().timestamp())
                    if isinstance(event, Tick):
                        self._ticked.set()
                        watchdog.reschedule(loop.time() + self._timing.silence)
                    elif isinstance(event, HeartbeatDue):
                        await self._write_quietly(event.frame)
                    else:
                        self._handle_event(event)
        except TimeoutError:
            raise _LostError from None
        finally:
            self._lose()

    def _handle_event(self, event: Event | Ignored) -> None:
        if isinstance(event, Push):
            self._dispatch(event)
        else:
            self._settle(event)

    def _dispatch(self, push: Push) -> None:
        handler = self._handlers.get(push.name)
        if handler is None:
            self._counts.ignored += 1
            return
        try:
            handler(push.msg)
        except (*UNREADABLE, ParseError):
            self._counts.malformed += 1
        else:
            self._counts.understood += 1

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
        self._tasks = None
        self._protocol.reset()
        answers, self._answers = self._answers, {}
        for future in answers.values():
            if not future.done():
                future.set_result(None)


UNROUTED: Final = 4000
"""The status that we give to requests that the broker did not even route."""
