"""A client of the public REST and WebSocket contract, as the demo and the tests use it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

_CALL_TIMEOUT: Final = 20.0
_RETRY_EVERY: Final = 0.1


class ApiError(Exception):
    """The gateway answered with an error."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {body.get('code')}: {body.get('detail')}")
        self.status = status
        self.code = str(body.get("code", ""))
        self.info: Mapping[str, Any] = body.get("info") or {}


class Gateway:
    """The public address of a running system."""

    def __init__(self, url: str) -> None:
        self.url = url
        # One connection a call under way, however many users share the client.
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_CALL_TIMEOUT), connector=aiohttp.TCPConnector(limit=0)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._http.close()

    async def call(
        self, method: str, path: str, *, json: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        """Make one call and return the decoded body.

        Raises:
            ApiError: Any status but 200.
            aiohttp.ClientError: No answer.
        """
        async with self._http.request(method, self.url + path, json=json, params=query) as answer:
            body = await answer.json()
            if answer.status != 200:
                raise ApiError(answer.status, body)
            return body

    async def connect(
        self, *, broker: str, account_type: str, email: str, password: str, session_id: str | None = None
    ) -> "UserSession":
        """Open a session, or take one up again.

        Raises:
            ApiError: It was refused.
        """
        who = {"broker": broker, "account_type": account_type, "email": email, "password": password}
        body = await self.call("POST", "/api/connect", json={**who, "session_id": session_id})
        return UserSession(self, body["session_id"], email, broker, account_type, body)

    def socket(self, session_id: str, last_seq: int | None) -> Any:
        """Open a WebSocket; an async context manager."""
        query = {"session_id": session_id} | ({} if last_seq is None else {"last_seq": str(last_seq)})
        return self._http.ws_connect(f"{self.url}/ws", params=query, max_msg_size=0)


@dataclass(frozen=True, slots=True)
class UserSession:
    """One session of one user."""

    gateway: Gateway = field(repr=False)
    session_id: str = field(repr=False)
    email: str = field(repr=False)
    broker: str
    account_type: str
    connected: Mapping[str, Any] = field(repr=False)
    """What connect answered."""

    async def post(self, path: str, **fields: Any) -> Any:
        """POST to a path of the API with the session's id."""
        return await self.gateway.call("POST", f"/api/{path}", json={"session_id": self.session_id, **fields})

    async def get(self, path: str, **query: Any) -> Any:
        """GET a path of the API with the session's id."""
        return await self.gateway.call("GET", f"/api/{path}", query={"session_id": self.session_id, **query})

    async def trades(self) -> list[dict[str, Any]]:
        """Return all trades, newest first."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = await self.get("trades", limit=500, page_token=token)
            found += page["trades"]
            token = page["next_page_token"]
            if not token:
                return found

    @contextlib.asynccontextmanager
    async def follow(self) -> AsyncIterator["Feed"]:
        """Collect the session's events over a WebSocket that is opened again whenever it breaks."""
        feed = Feed(self)
        task = asyncio.create_task(feed.collect())
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                await feed.opened.wait()
            yield feed
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


class Feed:
    """The events of one session as a client sees them, and whatever was wrong with them."""

    def __init__(self, session: UserSession) -> None:
        self._session = session
        self.events: list[dict[str, Any]] = []
        """Numbered events in order."""
        self.last_seq: int | None = None
        self.faults: list[str] = []
        """What no client may ever see: a foreign frame, a hole, a repetition."""
        self.reconnects = 0
        self.changed = asyncio.Event()
        """Set at every frame; whoever waits clears it."""
        self.opened = asyncio.Event()
        """The first snapshot is there."""

    async def collect(self) -> None:
        """Read until cancelled or until the session is over."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.gateway.socket(self._session.session_id, self.last_seq) as socket:
                    async for message in socket:
                        if message.type is aiohttp.WSMsgType.TEXT:
                            self.take(json.loads(message.data))
                if socket.close_code in (4400, 4401, 4404, 4408):
                    return
            self.reconnects += 1
            await asyncio.sleep(_RETRY_EVERY)

    def take(self, frame: dict[str, Any]) -> None:
        """Judge one frame and keep it."""
        kind = frame["type"]
        if kind not in ("heartbeat", "pong"):
            if frame.get("session_id") != self._session.session_id:
                self.faults.append(f"a {kind} frame carries another session's id")
            if frame.get("account_type") != self._session.account_type:
                self.faults.append(f"a {kind} frame carries another account type")
        if kind == "gap":
            self.faults.append(f"gap {frame['data']}")
        elif kind == "snapshot":
            # A snapshot is the state at its seq; in a resumed stream it must not jump over events.
            if self.last_seq is not None and frame["seq"] != self.last_seq:
                self.faults.append(f"snapshot at {frame['seq']} after {self.last_seq}")
            self.last_seq = int(frame["seq"])
            self.opened.set()
        elif kind not in ("heartbeat", "pong", "candle"):
            if self.last_seq is not None and frame["seq"] != self.last_seq + 1:
                self.faults.append(f"seq {frame['seq']} after {self.last_seq}")
            self.last_seq = int(frame["seq"])
            self.events.append(frame)
        self.changed.set()

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Return the data of the events of one type."""
        return [event["data"] for event in self.events if event["type"] == kind]
