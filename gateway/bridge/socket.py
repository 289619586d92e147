"""One WebSocket from upgrade to close."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import msgspec
import structlog
from aiohttp import web

from gateway.bridge.feed import Feed
from gateway.bridge.frames import Close, CloseCode, ForeignEventError
from gateway.bridge.hub import Hub
from gateway.bridge.mailbox import Mailbox
from gateway.bridge.settings import BridgeSettings
from gateway.bridge.upstream import RefusedError

_log = structlog.get_logger(__name__)
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_SEQ = re.compile(r"[0-9]{1,18}", re.ASCII)
_MAX_MESSAGE = 4096
_BAD_REQUEST = Close(CloseCode.BAD_REQUEST, "INVALID_ARGUMENT")
_LEFT = Close(CloseCode.NORMAL, "")


class _ClientMessage(msgspec.Struct, forbid_unknown_fields=False):
    type: str
    last_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for when it opens a socket."""

    session_id: str
    last_seq: int | None


def parse_wish(path: Mapping[str, str], query: Mapping[str, str]) -> Wish | Close:
    """Read the session and the position from path and query; a ``Close`` says what is wrong with them."""
    named = {value for value in (path.get("session_id"), query.get("session_id")) if value}
    if len(named) != 1:
        return _BAD_REQUEST
    session_id = named.pop()
    if not _SESSION_ID.fullmatch(session_id):
        return Close(CloseCode.UNKNOWN_SESSION, "SESSION_NOT_FOUND")
    last_seq = query.get("last_seq")
    if last_seq is None:
        return Wish(session_id, None)
    if not _SEQ.fullmatch(last_seq):
        return _BAD_REQUEST
    return Wish(session_id, int(last_seq))


class Sockets:
    """Serves the upgrade requests."""

    def __init__(self, hub: Hub, settings: BridgeSettings) -> None:
        self._hub = hub
        self._settings = settings
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def close(self) -> None:
        """Close every socket with 1001 and wait until the clients have answered, or had their time to."""
        self._hub.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.close_timeout):
                await self._idle.wait()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket to its end. A refusal comes as a close code, which is all that a browser shows a page."""
        settings = self._settings
        ws = web.WebSocketResponse(
            timeout=settings.close_timeout, heartbeat=settings.heartbeat, compress=False, max_msg_size=_MAX_MESSAGE
        )
        if not ws.can_prepare(request):
            body = {"success": False, "code": "UPGRADE_REQUIRED", "detail": "this path speaks WebSocket"}
            return web.json_response(body, status=426, headers={"upgrade": "websocket"})
        self._open += 1
        self._idle.clear()
        try:
            await ws.prepare(request)
            wish = parse_wish(request.match_info, request.query)
            close = wish if isinstance(wish, Close) else await self._serve(ws, wish)
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(settings.close_timeout):
                    await ws.close(code=close.code, message=close.reason.encode())
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()
        return ws

    async def _serve(self, ws: web.WebSocketResponse, wish: Wish) -> Close:
        mailbox = Mailbox(self._settings.max_queue)
        try:
            feed = self._hub.join(wish.session_id, mailbox)
        except RefusedError as refused:
            return refused.close
        try:
            async with asyncio.TaskGroup() as tasks:
                connection = _Connection(ws, feed, mailbox, self._settings, tasks)
                connection.start(wish.last_seq)
                close = await mailbox.ended
                connection.stop()
        finally:
            self._hub.leave(wish.session_id, feed, mailbox)
        return close


class _Connection:
    """The tasks of one open socket: one reads, one writes, one brings the mailbox up to date."""

    def __init__(
        self,
        ws: web.WebSocketResponse,
        feed: Feed,
        mailbox: Mailbox,
        settings: BridgeSettings,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._ws = ws
        self._feed = feed
        self._mailbox = mailbox
        self._settings = settings
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()

    def start(self, last_seq: int | None) -> None:
        grace = self._settings.resume_grace if last_seq is None else 0.0
        self._subscription = self._tasks.create_task(self._subscribe(last_seq, grace))
        self._reader = self._tasks.create_task(self._read())
        self._writer = self._tasks.create_task(self._write())
        self._beat = self._loop.call_later(self._settings.heartbeat, self._heartbeat)

    def stop(self) -> None:
        self._beat.cancel()
        for task in (self._subscription, self._reader, self._writer):
            task.cancel()

    async def _subscribe(self, last_seq: int | None, grace: float) -> None:
        await asyncio.sleep(grace)
        try:
            await self._feed.subscribe(self._mailbox, last_seq)
        except RefusedError as refused:
            self._mailbox.end(refused.close)
        except ForeignEventError:
            _log.error("foreign_event")
            self._mailbox.end(Close(CloseCode.INTERNAL, "INTERNAL"))

    async def _read(self) -> None:
        first = True
        async for message in self._ws:
            if message.type is not aiohttp.WSMsgType.TEXT or not self._obey(message.data, first=first):
                self._mailbox.end(_BAD_REQUEST)
                return
            first = False
        self._mailbox.end(_LEFT)

    def _obey(self, text: str, *, first: bool) -> bool:
        try:
            message = msgspec.json.decode(text, type=_ClientMessage)
        except msgspec.DecodeError:
            return False
        if message.type == "ping":
            self._mailbox.say('{"type":"pong"}')
            return True
        if message.type != "resume" or not first or message.last_seq is None or message.last_seq < 0:
            return False
        self._subscription.cancel()
        self._subscription = self._tasks.create_task(self._subscribe(message.last_seq, 0.0))
        return True

    async def _write(self) -> None:
        with suppress(ConnectionError):
            while isinstance(item := await self._mailbox.take(), str):
                await self._ws.send_str(item)
            self._mailbox.end(item)
        # A lost connection is the reader's to notice.

    def _heartbeat(self) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._mailbox.say(f'{{"type":"heartbeat","time":"{now}","seq":{self._mailbox.cursor or 0}}}')
        self._beat = self._loop.call_later(self._settings.heartbeat, self._heartbeat)
