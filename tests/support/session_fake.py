"""A session service that answers what a test tells it to, for the tests of what stands before it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from google.protobuf.message import Message
from tradebot.session.v1 import event_pb2, session_service_pb2, session_service_pb2_grpc, status_pb2

from services.runtime.errors import ServiceError
from services.runtime.interceptors import ErrorInterceptor, Metadata
from services.runtime.server import Server
from services.runtime.settings import ServerSettings
from services.session.domain.errors import SessionNotFoundError
from services.session.rest_errors import present

Answer = Message | Exception | Callable[[Any], Awaitable[Message]]
SERVICE = "tradebot.session.v1.SessionService"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that arrived."""

    rpc: str
    request: Any
    metadata: dict[str, str | bytes]


@dataclass(slots=True)
class Log:
    """The events of one session, oldest first."""

    events: list[event_pb2.Event] = field(default_factory=list)
    trimmed: int = 0
    """Events up to this seq are not available any more."""
    candles: list[event_pb2.Event] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def seq(self) -> int:
        return len(self.events)


class FakeSession:
    """Records every unary call and answers it from ``answers``; streams ``logs``."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.aborts: dict[str, tuple[grpc.StatusCode, str]] = {}
        """Calls that end with a bare status, as the transport's failures do."""
        self.calls: list[Call] = []
        self.refused: list[str] = []
        """Reasons of the calls that were answered with an error of ours."""
        self.logs: dict[str, Log] = {}
        self.streams: list[tuple[str, int | None]] = []
        """Every stream that was opened: session and ``last_seq``."""
        self.open_streams: dict[str, int] = defaultdict(int)
        self._outage = asyncio.Event()
        self.down = False
        self.ready = True
        """Whether it wants to be called."""
        self.skip: int | None = None
        """A seq that the stream leaves out once, as a broken service would."""
        for method in session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].methods:
            if not method.server_streaming:
                setattr(self, method.name, self._unary(method.name))

    def _unary(self, rpc: str) -> Callable[[Any, Any], Awaitable[Message]]:
        async def answer(request: Any, context: Any) -> Message:
            self.calls.append(Call(rpc, request, dict(context.invocation_metadata() or ())))
            if rpc in self.aborts:
                await context.abort(*self.aborts[rpc])
            answer = self.answers[rpc]
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, Message) else await answer(request)

        return answer

    async def WatchEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        session_id = request.session_id
        last_seq = request.last_seq if request.HasField("last_seq") else None
        self.streams.append((session_id, last_seq))
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        log = self.logs.get(session_id)
        if log is None:
            raise SessionNotFoundError
        if last_seq is not None and last_seq > log.seq:
            last_seq = None
        self.open_streams[session_id] += 1
        try:
            async for event in self._events(session_id, log, last_seq):
                yield session_service_pb2.WatchEventsResponse(event=event)
                if event.HasField("session_closed"):
                    return
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        finally:
            self.open_streams[session_id] -= 1

    async def _events(self, session_id: str, log: Log, last_seq: int | None) -> AsyncIterator[event_pb2.Event]:
        outage = self._outage
        if last_seq is not None and last_seq < log.trimmed:
            gap = event_pb2.Gap(from_seq=last_seq + 1, to_seq=log.trimmed)
            yield event_pb2.Event(session_id=session_id, account_type="PRACTICE", gap=gap)
            last_seq = None
        if last_seq is None:
            last_seq = log.seq
            yield self.snapshot(session_id)
        candles = len(log.candles)
        while not outage.is_set():
            changed = log.changed
            for event in log.events[last_seq:]:
                last_seq = event.seq
                if event.seq == self.skip:
                    self.skip = None
                    continue
                yield event
            for event in log.candles[candles:]:
                candles += 1
                yield event
            if log.changed is changed and last_seq == log.seq and candles == len(log.candles):
                waits = [asyncio.create_task(changed.wait()), asyncio.create_task(outage.wait())]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in waits:
                        task.cancel()

    def snapshot(self, session_id: str) -> event_pb2.Event:
        seq = self.logs[session_id].seq
        status = status_pb2.Status(success=True, session_id=session_id, broker="iq", status="stopped", seq=seq)
        return event_pb2.Event(session_id=session_id, seq=seq, account_type="PRACTICE", snapshot=status)

    def open(self, session_id: str) -> Log:
        """Make a session known."""
        return self.logs.setdefault(session_id, Log())

    def publish(self, session_id: str, **data: Any) -> event_pb2.Event:
        """Append one event, ``publish("s", balance=Balance(balance=1))``; a candle gets no number."""
        log = self.logs[session_id]
        candle = "candle" in data
        seq = 0 if candle else log.seq + 1
        event = event_pb2.Event(session_id=session_id, seq=seq, account_type="PRACTICE", **data)
        event.time.FromJsonString("2026-11-24T05:00:00.250Z")
        (log.candles if candle else log.events).append(event)
        log.changed.set()
        log.changed = asyncio.Event()
        return event

    def break_streams(self) -> None:
        """End every open stream with UNAVAILABLE, as a replica does that goes away."""
        self._outage.set()
        self._outage = asyncio.Event()


class _Application:
    service_names: Sequence[str] = (SERVICE,)

    def __init__(self, fake: FakeSession) -> None:
        def noted(error: ServiceError) -> Metadata:
            fake.refused.append(error.reason)
            return present(error)

        self.interceptor = ErrorInterceptor("session.tradebot", noted)
        self._fake = fake

    def register(self, server: grpc.aio.Server) -> None:
        # Not a subclass of the servicer: the rpcs are attributes, made from the descriptor.
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(cast("Any", self._fake), server)

    def is_ready(self) -> bool:
        return self._fake.ready

    async def drain(self) -> None:
        self._fake.break_streams()


@asynccontextmanager
async def serving(fake: FakeSession, port: int = 0, *, drain_calls: float = 2.0) -> AsyncIterator[int]:
    """Serve a fake on loopback exactly as a service is served; gives the port."""
    server = Server(
        _Application(fake), ServerSettings(port=port, drain_delay=0, drain_calls=drain_calls, drain_grace=1)
    )
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop()
