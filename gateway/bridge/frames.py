"""Events as the text frames of the REST contract: JSON with numbers, RFC 3339 times and no zero left out."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgspec
from google.protobuf.message import Message
from tradebot.session.v1 import event_pb2

_TIMESTAMP = "google.protobuf.Timestamp"
_EXACT = 2**53


class CloseCode(IntEnum):
    """Why a socket is closed."""

    NORMAL = 1000
    GOING_AWAY = 1001
    INTERNAL = 1011
    BAD_REQUEST = 4400
    NOT_AUTHORISED = 4401
    UNKNOWN_SESSION = 4404
    SESSION_EXPIRED = 4408
    CONSUMER_TOO_SLOW = 4409
    TOO_MANY_SOCKETS = 4429


@dataclass(frozen=True, slots=True)
class Close:
    """The end of a socket."""

    code: CloseCode
    reason: str
    """A stable word, as in the error codes of the REST contract."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One event, ready to be sent to every socket of its session."""

    type: str
    """The contract's word ("trade_opened")."""
    position: int
    """The seq a reader has reached with it; of a gap the last seq that is missing; 0 if it is not numbered."""
    text: str
    key: str = ""
    """Of a candle: what it replaces while it waits."""
    close: Close | None = None
    """How the socket ends after this frame."""


class ForeignEventError(Exception):
    """An event of one session came on another one's stream."""


class FrameEncoder:
    """Turns events into frames. Remembers how each message type is laid out."""

    def __init__(self) -> None:
        self._plans: dict[str, list[tuple[str, str]]] = {}
        self._json = msgspec.json.Encoder()

    def encode(self, event: event_pb2.Event, session_id: str) -> Frame | None:
        """Render an event of a session; None if it is of a kind this build does not know.

        Raises:
            ForeignEventError: It is another session's.
        """
        if event.session_id and event.session_id != session_id:
            raise ForeignEventError
        kind = event.WhichOneof("data")
        if kind is None:
            return None
        data = getattr(event, kind)
        numbered = kind not in {"candle", "gap"}
        text = self._json.encode(
            {
                "type": kind,
                "session_id": session_id,
                **({"seq": event.seq} if numbered else {}),
                "time": event.time.ToJsonString(),
                "account_type": event.account_type,
                "data": self._fields(data),
            }
        ).decode()
        if kind == "candle":
            return Frame(kind, 0, text, key=f"{data.asset} {data.timeframe}")
        if kind == "gap":
            return Frame(kind, data.to_seq, text)
        return Frame(kind, event.seq, text, close=_end(data) if kind == "session_closed" else None)

    def _fields(self, message: Message) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, kind in self._plan(message.DESCRIPTOR):
            value = getattr(message, name)
            if kind == "list":
                fields[name] = list(value)
            elif kind == "messages":
                fields[name] = [self._fields(item) for item in value]
            elif kind == "always" or message.HasField(name):
                if kind == "time":
                    value = value.ToJsonString()
                elif kind == "message":
                    value = self._fields(value)
                fields[name] = _number(value) if isinstance(value, float) else value
        return fields

    def _plan(self, descriptor: Any) -> list[tuple[str, str]]:
        plan = self._plans.get(descriptor.full_name)
        if plan is None:
            plan = self._plans[descriptor.full_name] = [(field.name, _kind(field)) for field in descriptor.fields]
        return plan


def _kind(field: Any) -> str:
    nested = field.message_type
    if field.is_repeated:
        return "list" if nested is None else "messages"
    if nested is not None:
        return "time" if nested.full_name == _TIMESTAMP else "message"
    return "optional" if field.has_presence else "always"


def _number(value: float) -> float | int:
    # As the transcoder writes it: 1000, not 1000.0.
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def _end(closed: event_pb2.SessionClosed) -> Close:
    if closed.reason == "expired":
        return Close(CloseCode.SESSION_EXPIRED, "SESSION_EXPIRED")
    return Close(CloseCode.NORMAL, "SESSION_CLOSED")
