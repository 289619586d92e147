"""The platform's conversation without a socket: frames in, events out, frames to send as return values.

Knows the opening, request ids, acknowledgements apart from answers, subscriptions, and the broker's clock. It reads of a
frame only what it needs to pass it on. Nothing here waits, so every rule can be tested with plain calls.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import msgspec

from services.broker.connectors.quadcode.messages import UNREADABLE, Envelope, ResultMessage

FAILED: Final = 4000
"""Replies with this status or a higher one are refusals."""
CLOCK_JUMP: Final = 2.0
"""A clock sample further than this from the estimate replaces it at once, seconds."""
CLOCK_SANE: Final = 7 * 86_400.0
"""A clock further than this from ours is no clock, seconds."""
CLOCK_DECAY: Final = 0.002
"""How far the estimate gives way per sample towards later arrivals, seconds; follows a drift, ignores jitter."""

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
Body = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Call:
    """One method of ``sendMessage``."""

    method: str
    version: str
    body: Body


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a stream of pushes is identified by."""

    name: str
    version: str
    filters: tuple[tuple[str, int | str], ...]


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The answer to the opening."""

    accepted: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The data that answers a request. A status of 4000 or more is a refusal."""

    request_id: str
    name: str
    status: int
    msg: msgspec.Raw

    @property
    def refused(self) -> bool:
        """Whether the broker said no."""
        return self.status >= FAILED


@dataclass(frozen=True, slots=True)
class Rejected:
    """The broker did not even route the request."""

    request_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A request that is answered by its acknowledgement alone has been accepted."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Push:
    """Something the broker says by itself."""

    name: str
    msg: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Tick:
    """The broker's clock, already taken into the estimate."""


@dataclass(frozen=True, slots=True)
class HeartbeatDue:
    """The broker asks for a sign of life: send the frame."""

    frame: bytes


Event = Authenticated | Answer | Rejected | Acknowledged | Push | Tick | HeartbeatDue


class Ignored(Enum):
    """Why a frame led to nothing."""

    MALFORMED = auto()
    ORPHAN = auto()
    """Answers nothing that is still asked."""
    EXPECTED = auto()
    """Part of the conversation without a meaning of its own."""


_TICK: Final = Tick()
_envelope: Final = msgspec.json.Decoder(Envelope)
_result: Final = msgspec.json.Decoder(ResultMessage)
_number: Final = msgspec.json.Decoder(float)
_boolean: Final = msgspec.json.Decoder(bool)
_encode: Final = msgspec.json.Encoder().encode


class ServerClock:
    """The broker's time of day, from its ticks."""

    __slots__ = ("offset",)

    def __init__(self) -> None:
        self.offset: float | None = None
        """Broker's time minus ours, seconds; None before the first tick."""

    def take(self, server_time: float, now: float) -> None:
        """Take a tick; both times in unix seconds.

        Raises:
            msgspec.ValidationError: That is no time.
        """
        # The sample is late by the way of the frame, never early: the largest one is the truest.
        sample = server_time - now
        if not abs(sample) < CLOCK_SANE:
            raise msgspec.ValidationError("no time")
        if self.offset is None or abs(sample - self.offset) > CLOCK_JUMP:
            self.offset = sample
        else:
            self.offset = max(sample, self.offset - CLOCK_DECAY)


class Protocol:
    """One side of one conversation; lives over reconnects so that ids stay unique and subscriptions are kept."""

    __slots__ = ("_clock", "_last_id", "_open", "_opening_id", "_pending", "_subscriptions")

    def __init__(self) -> None:
        self._last_id = 0
        self._opening_id = ""
        self._open = False
        self._pending: dict[str, bool] = {}
        """Requests under way; whether the acknowledgement alone answers."""
        self._subscriptions: dict[Subscription, None] = {}
        self._clock = ServerClock()

    @property
    def clock_offset(self) -> float | None:
        """Broker's time minus ours, seconds; None before the first tick."""
        return self._clock.offset

    @property
    def is_open(self) -> bool:
        """Whether the broker accepted the opening of this socket."""
        return self._open

    def opening(self, token: str) -> bytes:
        """Begin on a new socket: return the frame that opens it, and forget what was under way on the last one."""
        self.reset()
        self._opening_id = self._next_id()
        msg: Body = {"ssid": token, "protocol": 3, "session_id": "", "client_session_id": ""}
        return _frame("authenticate", self._opening_id, msg)

    def options(self) -> tuple[str, bytes]:
        """Return the frame that turns acknowledgements on, and its id."""
        return self._request("setOptions", {"sendResults": True}, ack_only=True)

    def request(self, call: Call) -> tuple[str, bytes]:
        """Return a new request's id and frame."""
        msg: Body = {"name": call.method, "version": call.version, "body": dict(call.body)}
        return self._request("sendMessage", msg, ack_only=False)

    def subscribe(self, subscription: Subscription) -> tuple[str, bytes] | None:
        """Remember a subscription; return its frame, or None if it stands already."""
        if subscription in self._subscriptions:
            return None
        self._subscriptions[subscription] = None
        return self._request("subscribeMessage", _subscription_message(subscription), ack_only=True)

    def unsubscribe(self, subscription: Subscription) -> tuple[str, bytes] | None:
        """Forget a subscription; return the frame that ends it, or None if there was none."""
        if subscription not in self._subscriptions:
            return None
        del self._subscriptions[subscription]
        return self._request("unsubscribeMessage", _subscription_message(subscription), ack_only=True)

    def resubscribe(self) -> list[tuple[str, bytes]]:
        """Return frames for all remembered subscriptions, for a new socket."""
        return [
            self._request("subscribeMessage", _subscription_message(subscription), ack_only=True)
            for subscription in self._subscriptions
        ]

    def forget(self, request_id: str) -> None:
        """Stop waiting: an answer that still comes is an orphan."""
        self._pending.pop(request_id, None)

    def reset(self) -> list[str]:
        """The socket is gone: return the ids of the requests that will never be answered."""
        self._open = False
        lost = list(self._pending)
        self._pending.clear()
        return lost

    def receive(self, data: bytes, now: float) -> Event | Ignored:
        """Take one frame.

        Args:
            data: The frame's text, UTF-8.
            now: Our time of day at its arrival, unix seconds.
        """
        try:
            return self._receive(data, now)
        except (*UNREADABLE, OverflowError):
            return Ignored.MALFORMED

    def _receive(self, data: bytes, now: float) -> Event | Ignored:
        frame = _envelope.decode(data)
        match frame.name:
            case "timeSync":
                self._clock.take(_number.decode(frame.msg) / 1000, now)
                return _TICK
            case "result":
                return self._take_ack(_id(frame), frame.msg)
            case "heartbeat":
                server_time = _number.decode(frame.msg)
                reply: Body = {"heartbeatTime": int(server_time), "userTime": int(now * 1000)}
                return HeartbeatDue(_frame("heartbeat", self._next_id(), reply))
            case "authenticated":
                if self._open or _id(frame) not in ("", self._opening_id):
                    return Ignored.ORPHAN
                self._open = _boolean.decode(frame.msg)
                return Authenticated(self._open)
            case "front":
                return Ignored.EXPECTED
        request_id = _id(frame)
        if not request_id:
            return Push(frame.name, frame.msg)
        if request_id not in self._pending:
            return Ignored.ORPHAN
        if self._pending[request_id]:
            return Ignored.EXPECTED
        del self._pending[request_id]
        return Answer(request_id, frame.name, frame.status or 0, frame.msg)

    def _take_ack(self, request_id: str, msg: msgspec.Raw) -> Event | Ignored:
        result = _result.decode(msg)
        ack_only = self._pending.get(request_id)
        if ack_only is None:
            return Ignored.ORPHAN
        if not result.success:
            del self._pending[request_id]
            return Rejected(request_id, result.reason)
        if not ack_only:
            return Ignored.EXPECTED
        del self._pending[request_id]
        return Acknowledged(request_id)

    def _request(self, name: str, msg: Body, *, ack_only: bool) -> tuple[str, bytes]:
        request_id = self._next_id()
        self._pending[request_id] = ack_only
        return request_id, _frame(name, request_id, msg)

    def _next_id(self) -> str:
        self._last_id += 1
        return str(self._last_id)


def _id(frame: Envelope) -> str:
    return "" if frame.request_id is None else str(frame.request_id)


def _frame(name: str, request_id: str, msg: Body) -> bytes:
    return _encode({"name": name, "request_id": request_id, "msg": msg})


def _subscription_message(subscription: Subscription) -> Body:
    filters: dict[str, Json] = dict(subscription.filters)
    return {"name": subscription.name, "version": subscription.version, "params": {"routingFilters": filters}}
