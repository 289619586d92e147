"""The edge's routes, derived from the ``google.api.http`` annotations so that a new rpc cannot be forgotten."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto

Json = Mapping[str, Any]

# Longer than the session service's own patience: a user should get the trade as it stands, not a 504.
_TIMEOUTS = {
    "Connect": 30,
    "PlaceTrade": 25,
    "CloseTrade": 25,
    "ExportTrades": 30,
    # Time for the broker service to be restarted and for the session to log in there again.
    "ListAssets": 20,
    "ListCandles": 20,
}
_DEFAULT_TIMEOUT = 10
_NEVER_SENT = "connect-failure,refused-stream,retriable-headers"
_OTHER_HOSTS: Final = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}
_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Binding:
    """One way to call one rpc over HTTP."""

    rpc: str
    """The method's name ("GetBalance")."""
    verb: str
    """"GET" or "POST"."""
    path: str
    """The path with its parameters ("/api/trades/{trade_id}")."""
    read: bool
    """Whether the rpc changes nothing: it can be had with GET."""


def bindings(descriptors: FileDescriptorSet, service: str) -> list[Binding]:
    """List the HTTP bindings of a service, literal paths before those with parameters.

    Args:
        descriptors: The protos with everything they import.
        service: The service's full name.
    """
    found: list[Binding] = []
    for method in _methods(descriptors, service):
        if method.options.HasExtension(annotations_pb2.http):
            rule = method.options.Extensions[annotations_pb2.http]
            rules = [rule, *rule.additional_bindings]
            read = any(each.get for each in rules)
            found += [Binding(method.name, *_verb_and_path(each), read) for each in rules]
    return sorted(found, key=lambda binding: (bool(_PARAMETER.search(binding.path)), binding.path, binding.verb))


_NUMBERS: Final = frozenset(
    {FieldDescriptorProto.TYPE_DOUBLE, FieldDescriptorProto.TYPE_INT32, FieldDescriptorProto.TYPE_UINT64}
)
"""The types of numbers in the requests."""


def request_fields(descriptors: FileDescriptorSet, service: str) -> dict[str, dict[str, str]]:
    """Map every request's name to the JSON paths of its fields ("amount", "two_factor.code") and their kinds.

    A kind is "number", "object" or "other".
    """
    messages = {
        f".{file.package}.{message.name}": message for file in descriptors.file for message in file.message_type
    }

    def paths(type_name: str, prefix: str) -> dict[str, str]:
        found = {}
        for field in messages[type_name].field:
            nested = field.type_name in messages
            found[prefix + field.name] = "number" if field.type in _NUMBERS else "object" if nested else "other"
            if nested:
                found |= paths(field.type_name, f"{prefix}{field.name}.")
        return found

    return {
        method.name: dict(sorted(paths(method.input_type, "").items())) for method in _methods(descriptors, service)
    }


def lua_pattern(path: str) -> str:
    """Return the Lua pattern of a path with its parameters."""
    pieces = _PARAMETER.split(path)[::2]
    return "^" + "[^/]+".join(re.sub(r"[^\w/]", r"%\g<0>", piece) for piece in pieces) + "$"


def _methods(descriptors: FileDescriptorSet, service: str) -> Iterable[MethodDescriptorProto]:
    for file in descriptors.file:
        for candidate in file.service:
            if f"{file.package}.{candidate.name}" == service:
                yield from candidate.method


def _verb_and_path(rule: http_pb2.HttpRule) -> tuple[str, str]:
    pattern = rule.WhichOneof("pattern")
    if pattern not in {"get", "post"}:
        raise ValueError(f"the gateway knows GET and POST, not {pattern!r}")
    return pattern.upper(), getattr(rule, pattern)


def routes(found: Iterable[Binding]) -> list[Json]:
    """Render the route table: preflights, health, WebSocket, one route a binding, 405 and 404."""
    found = list(found)
    return [
        {
            # The CORS filter answers a preflight only on a route that leads to a cluster.
            "name": "preflight",
            "match": {
                "prefix": "/",
                "headers": [
                    _method("OPTIONS"),
                    {"name": "origin", "present_match": True},
                    {"name": "access-control-request-method", "present_match": True},
                ],
            },
            "route": {"cluster": "session"},
        },
        {
            "name": "GET /healthz",
            "match": {"path": "/healthz", "headers": [_method("GET")]},
            "direct_response": {"status": 200, "body": {"inline_string": '{"status":"ok"}'}},
        },
        *(_websocket(path) for path in ("/ws", "/ws/{session_id}")),
        *(_call(binding) for binding in found),
        *_wrong_methods({"/healthz": ["GET"], "/ws": ["GET"], "/ws/{session_id}": ["GET"]}),
        *_wrong_methods({path: [b.verb for b in same] for path, same in groupby(found, key=lambda b: b.path)}),
        {"name": "not found", "match": {"prefix": "/"}, "direct_response": {"status": 404}},
    ]


def _call(binding: Binding) -> Json:
    # A call that was provably never processed may go to another replica; a read may be repeated whatever happened.
    retry_on = "unavailable,cancelled,reset," + _NEVER_SENT if binding.read else _NEVER_SENT
    return {
        "name": f"{binding.verb} {binding.path}",
        "match": {**_path(binding.path), "headers": [_method(binding.verb)]},
        "route": {
            "cluster": "session",
            "timeout": f"{_TIMEOUTS.get(binding.rpc, _DEFAULT_TIMEOUT)}s",
            "retry_policy": {
                "retry_on": retry_on,
                # A replica that is about to end says this of a call that it has not begun.
                "retriable_headers": [{"name": "x-not-processed", "present_match": True}],
                "num_retries": 2,
                "retry_host_predicate": [_OTHER_HOSTS],
                "host_selection_retry_max_attempts": "10",
                "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
            },
        },
    }


def _websocket(path: str) -> Json:
    return {
        "name": f"GET {path}",
        "match": {**_path(path), "headers": [_method("GET")]},
        # The bridge sends something at least every 30 seconds.
        "route": {"cluster": "bridge", "timeout": "0s", "idle_timeout": "90s"},
    }


def _wrong_methods(allowed: Mapping[str, Sequence[str]]) -> list[Json]:
    return [
        {
            "name": f"wrong method {path}",
            "match": _path(path),
            "direct_response": {"status": 405},
            "response_headers_to_add": [{"header": {"key": "allow", "value": ", ".join(verbs)}}],
        }
        for path, verbs in allowed.items()
    ]


def _method(verb: str) -> Json:
    return {"name": ":method", "string_match": {"exact": verb}}


def _path(template: str) -> Json:
    if not _PARAMETER.search(template):
        return {"path": template}
    pieces = _PARAMETER.split(template)[::2]
    return {"safe_regex": {"regex": "[^/]+".join(re.escape(piece) for piece in pieces)}}
