"""The words of the failures that no service has put into words: one body for each HTTP status."""

import json
from collections.abc import Mapping
from typing import Any, Final

FIXED: Final[Mapping[int, tuple[str, str]]] = {
    400: ("INVALID_ARGUMENT", "the request is malformed"),
    401: ("UNAUTHENTICATED", "the request is not authenticated"),
    403: ("PERMISSION_DENIED", "the request is not allowed"),
    404: ("NOT_FOUND", "there is nothing at this path"),
    405: ("METHOD_NOT_ALLOWED", "this path does not know the method"),
    408: ("REQUEST_TIMEOUT", "the request took too long to arrive"),
    409: ("ABORTED", "the request was overtaken by another"),
    413: ("PAYLOAD_TOO_LARGE", "the request body is too large"),
    426: ("UPGRADE_REQUIRED", "this path speaks WebSocket"),
    429: ("TOO_MANY_REQUESTS", "too many requests"),
    431: ("HEADERS_TOO_LARGE", "the request headers are too large"),
    499: ("CANCELLED", "the request was cancelled"),
    500: ("INTERNAL", "internal error"),
    501: ("UNIMPLEMENTED", "the service does not know this call"),
    502: ("UNAVAILABLE", "the service is not available"),
    503: ("UNAVAILABLE", "the service is not available"),
    504: ("DEADLINE_EXCEEDED", "the service did not answer in time"),
}
"""HTTP status → code and detail of the contract's error body."""

SESSION_NOT_FOUND: Final = {"success": False, "code": "SESSION_NOT_FOUND", "detail": "Session not found"}
"""The answer to an id that cannot be a session's; the session service says the same of an id that is none."""


def body(status: int) -> dict[str, Any]:
    """Return the error body for a status; one that is not in the table reads as an internal error."""
    code, detail = FIXED.get(status, FIXED[500])
    return {"success": False, "code": code, "detail": detail}


def mappers() -> list[dict[str, Any]]:
    """Render Envoy's ``local_reply_config.mappers``."""

    def when(op: str, status: int) -> dict[str, Any]:
        comparison = {"op": op, "value": {"default_value": status, "runtime_key": "unused"}}
        return {"status_code_filter": {"comparison": comparison}}

    # A direct_response of 200 is a local reply too.
    success = {
        "filter": when("LE", 399),
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }
    # rest.lua looks into this one for the name of the field that has the wrong type.
    malformed = {
        "filter": when("EQ", 400),
        "body_format_override": {"json_format": {**body(400), "detail": "%LOCAL_REPLY_BODY%"}},
    }
    fixed = [
        {"filter": when("EQ", status), "body_format_override": {"json_format": body(status)}}
        for status in FIXED
        if status != 400
    ]
    return [success, malformed, *fixed]


def lua_table() -> str:
    """Render the bodies as a Lua table from status to JSON text."""
    entries = (f'["{status}"] = [==[{json.dumps(body(status))}]==]' for status in FIXED)
    return "{\n  " + ",\n  ".join(entries) + ",\n}"
