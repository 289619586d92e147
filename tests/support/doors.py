"""The two ways into the session service, behind one interface: straight over gRPC, and through the gateway."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from tradebot.session.v1 import session_service_pb2, session_service_pb2_grpc
from yarl import URL

from gateway.envoy.config import SERVICE
from gateway.envoy.routes import bindings

DESCRIPTORS = FileDescriptorSet.FromString(Path("gen/tradebot.binpb").read_bytes())

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def body(self) -> Any:
        """The JSON of it."""
        return json.loads(self.text)


class Door(Protocol):
    """Takes a request of the REST contract."""

    async def send(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Make one call; ``target`` is path and query."""
        ...


class GatewayDoor:
    """HTTP to the gateway."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def send(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> Answer:
        return await self.send_raw(method, target, None if body is None else json.dumps(body).encode())

    async def send_raw(
        self, method: str, target: str, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Make one call with a body of any bytes."""
        headers = {"content-type": "application/json", **(headers or {})}
        # Not yarl's: a test means the bytes it writes.
        async with self._http.request(
            method, URL(self._url + target, encoded=True), data=data, headers=headers
        ) as answer:
            return Answer(answer.status, await answer.text(), {k.lower(): v for k, v in answer.headers.items()})


class DirectDoor:
    """gRPC to the service, with the annotations read and the errors shown as the gateway does."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = session_service_pb2_grpc.SessionServiceStub(channel)
        self._bindings = bindings(DESCRIPTORS, SERVICE)

    async def send(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> Answer:
        url = urlsplit(target)
        rpc, fields = self._match(method, url.path)
        fields |= dict(parse_qsl(url.query)) | dict(body or {})
        method_descriptor = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].methods_by_name[rpc]
        request = getattr(session_service_pb2, method_descriptor.input_type.name)()
        json_format.ParseDict(fields, request, ignore_unknown_fields=True)
        # As the gateway does, only what can be an id; nothing else may be metadata anyway.
        metadata = (("x-session-id", request.session_id),) if _ID.fullmatch(request.session_id) else ()
        try:
            response = await getattr(self._stub, rpc)(request, timeout=30, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            headers = {k: str(v) for k, v in trailers.items() if k == "retry-after"}
            return Answer(int(trailers["x-http-status"]), str(trailers["x-error-body"]), headers | _JSON)
        return _answer(response)

    def _match(self, method: str, path: str) -> tuple[str, dict[str, Any]]:
        for binding in self._bindings:
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", binding.path)
            match = re.fullmatch(pattern, path)
            if binding.verb == method and match:
                return binding.rpc, {name: unquote(value) for name, value in match.groupdict().items()}
        raise LookupError(f"{method} {path}")


_JSON = {"content-type": "application/json"}


def _answer(response: Message) -> Answer:
    if isinstance(response, session_service_pb2.ExportTradesResponse):
        return Answer(200, response.file.data.decode(), {"content-type": response.file.content_type})
    fields = json_format.MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return Answer(200, json.dumps(fields), _JSON)
