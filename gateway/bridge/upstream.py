"""A session's events from the session service, across its restarts."""

import random
from collections.abc import AsyncGenerator

import grpc
import structlog
from tradebot.session.v1 import session_service_pb2, session_service_pb2_grpc

from gateway.bridge.frames import Close, CloseCode, Frame, FrameEncoder
from services.runtime.clock import Clock

_log = structlog.get_logger(__name__)

_REFUSALS = {
    grpc.StatusCode.NOT_FOUND: Close(CloseCode.UNKNOWN_SESSION, "SESSION_NOT_FOUND"),
    grpc.StatusCode.INVALID_ARGUMENT: Close(CloseCode.BAD_REQUEST, "INVALID_ARGUMENT"),
    grpc.StatusCode.UNAUTHENTICATED: Close(CloseCode.NOT_AUTHORISED, "UNAUTHENTICATED"),
    grpc.StatusCode.PERMISSION_DENIED: Close(CloseCode.NOT_AUTHORISED, "PERMISSION_DENIED"),
}


class RefusedError(Exception):
    """The session service will not stream this session, now or later."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.reason)
        self.close = close
        """How the sockets end."""


class Upstream:
    """Opens streams at the session service."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock, retry_first: float, retry_most: float) -> None:
        self._stub = session_service_pb2_grpc.SessionServiceStub(channel)
        self._clock = clock
        self._retry_first = retry_first
        self._retry_most = retry_most
        self._encoder = FrameEncoder()

    async def follow(self, session_id: str, last_seq: int | None) -> AsyncGenerator[Frame, None]:
        """Yield a session's frames, after ``last_seq`` or from a snapshot on, until ``session_closed``.

        Opens the stream anew when it breaks, at the last seq that was yielded; no frame is lost or comes twice.

        Raises:
            RefusedError: The session is unknown, or the request makes no sense.
            ForeignEventError: Another session's event came; nothing of it was yielded.
        """
        seq = last_seq
        pause = self._retry_first
        while True:
            call = self._stub.WatchEvents(session_service_pb2.WatchEventsRequest(session_id=session_id, last_seq=seq))
            try:
                async for response in call:
                    pause = self._retry_first
                    frame = self._encoder.encode(response.event, session_id)
                    if frame is None:
                        continue
                    if frame.type not in {"candle", "gap"}:
                        if frame.type != "snapshot" and seq is not None:
                            if frame.position <= seq:
                                continue
                            if frame.position > seq + 1:
                                _log.error("event_seq_jumped", after=seq, to=frame.position)
                                break
                        seq = frame.position
                    yield frame
                    if frame.type == "session_closed":
                        return
            except grpc.aio.AioRpcError as error:
                refusal = _REFUSALS.get(error.code())
                if refusal:
                    raise RefusedError(refusal) from None
                _log.info("upstream_broken", code=error.code().name)
            finally:
                call.cancel()
            await self._clock.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, self._retry_most)
