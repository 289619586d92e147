"""Frames: how requests are read and how everything that is sent is spelled."""

from typing import Any, Final, TypeVar

import msgspec

RequestId = str | int | float | None
DecodedT = TypeVar("DecodedT")


class Frame(msgspec.Struct):
    """The envelope of everything that a client sends."""

    name: str
    request_id: RequestId = None
    msg: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def echo(self) -> str | None:
        """The request id as answers carry it: always a string; None if the client sent none."""
        return None if self.request_id is None else str(self.request_id)


class Message(msgspec.Struct):
    """``msg`` of sendMessage, subscribeMessage and unsubscribeMessage."""

    name: str
    version: str | int | float = "1.0"
    body: msgspec.Raw = msgspec.Raw(b"{}")
    params: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def method(self) -> str:
        """The name without the service in front of it."""
        return self.name.rpartition(".")[2]

    @property
    def major(self) -> int:
        """The version's first number; 1 if it cannot be read."""
        head = str(self.version).partition(".")[0]
        return int(head) if head.isdecimal() else 1


_frames: Final = msgspec.json.Decoder(Frame)
_messages: Final = msgspec.json.Decoder(Message)
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


def _decode(decoder: msgspec.json.Decoder[DecodedT], data: str | bytes | msgspec.Raw) -> DecodedT:
    try:
        return decoder.decode(data)
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error


def read_frame(data: str | bytes) -> Frame:
    """Read an envelope.

    Raises:
        msgspec.DecodeError: It is not JSON of that shape.
    """
    return _decode(_frames, data)


def read_message(raw: msgspec.Raw) -> Message:
    """Read the inner message; raises as ``read_frame``."""
    return _decode(_messages, raw)


def encode(value: Any) -> bytes:
    """Return JSON; decimals become numbers with their own digits."""
    return _encoder.encode(value)


def ack(request_id: str, *, reason: str | None = None) -> bytes:
    """Spell an acknowledgement, or a refusal to route the request."""
    msg: dict[str, Any] = {"success": True} if reason is None else {"success": False, "reason": reason}
    return encode({"name": "result", "request_id": request_id, "msg": msg})


def reply(request_id: str | None, name: str, msg: Any, status: int | None) -> bytes:
    """Spell the data frame that answers a request."""
    frame: dict[str, Any] = {"request_id": request_id} if request_id is not None else {}
    frame["name"] = name
    frame["msg"] = msg
    if status is not None:
        frame["status"] = status
    return encode(frame)


def push(service: str, name: str, msg: Any) -> bytes:
    """Spell an event of a service."""
    return encode({"name": name, "microserviceName": service, "msg": msg})


def bare(name: str, msg: Any) -> bytes:
    """Spell a frame that belongs to no service."""
    return encode({"name": name, "msg": msg})


def websocket_frame(payload: bytes) -> bytes:
    """Return an unmasked, uncompressed text frame (RFC 6455, section 5.2).

    A server's frame is the same for every receiver, so one that goes to thousands of sockets is built once.
    """
    length = len(payload)
    if length < 126:
        header = bytes((0x81, length))
    elif length < 65_536:
        header = b"\x81\x7e" + length.to_bytes(2, "big")
    else:
        header = b"\x81\x7f" + length.to_bytes(8, "big")
    return header + payload


def decode_object(raw: msgspec.Raw) -> dict[str, Any]:
    """Read a JSON object of no particular shape; anything else counts as empty."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
