"""The REST contract's face of an error, sent along as trailing metadata.

The gateway's transcoder makes response headers of it, and the gateway puts them in place: ``x-http-status`` becomes the
status, ``x-error-body`` the whole body. ``x-not-processed`` tells it that the call may go to another replica, whatever it
asks for.
"""

import json
from collections.abc import Mapping
from typing import Final

from services.runtime.errors import ServiceError, StoppingError
from services.runtime.interceptors import Metadata

HTTP_STATUS: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "SESSION_NOT_FOUND": 404,
    "SESSION_MISMATCH": 403,
    "INVALID_CREDENTIALS": 401,
    "TWO_FACTOR_REQUIRED": 401,
    "TWO_FACTOR_INVALID": 401,
    "BROKER_LOGIN_THROTTLED": 429,
    "BROKER_UNAVAILABLE": 503,
    "BOT_ALREADY_RUNNING": 409,
    "BOT_NOT_RUNNING": 409,
    "INSUFFICIENT_FUNDS": 402,
    "ASSET_CLOSED": 409,
    "PURCHASE_WINDOW_CLOSED": 409,
    "PAYOUT_CHANGED": 409,
    "ORDER_REJECTED": 409,
    "LIMIT_REACHED": 429,
    "REQUEST_ID_REUSED": 409,
    "TRADE_NOT_FOUND": 404,
    "NOT_SELLABLE": 409,
    "MODEL_NOT_FOUND": 404,
    "UNAVAILABLE": 503,
    "INTERNAL": 500,
    "TRADE_UNRESOLVED": 409,
}
"""HTTP status of every ``ErrorReason``, as its comment in the proto says."""


def present(error: ServiceError) -> Metadata:
    """Render an error as ``x-http-status``, ``x-error-body`` and, where the wait is known, ``retry-after``."""
    body: dict[str, object] = {"success": False, "code": error.reason, "detail": error.message}
    if error.facts:
        body["info"] = dict(error.facts)
    # A reason of another layer (an error the proto does not know) is a fault of ours.
    status = HTTP_STATUS.get(error.reason, 500)
    # json.dumps writes ASCII without control characters, which is what gRPC metadata may hold.
    metadata: Metadata = (("x-http-status", str(status)), ("x-error-body", json.dumps(body)))
    if isinstance(error, StoppingError):
        metadata = (*metadata, ("x-not-processed", "1"))
    wait = error.facts.get("retry_after")
    return metadata if wait is None else (*metadata, ("retry-after", str(wait)))
