"""Methods about what is not traded or kept here: answered truthfully with nothing, so that no client waits for ever."""

from typing import Any, Final

from simulator.wire import frames
from simulator.wire.requests import BAD_REQUEST, Method, Methods, Reply, Request

NOT_TRADED: Final = "not available on this server"


def empty(name: str, msg: dict[str, Any]) -> Method:
    """Return a handler that always answers the same."""

    def handler(_request: Request) -> Reply:
        return Reply(name, msg)

    return handler


def refuse(name: str) -> Method:
    """Return a handler that says that there is no such thing here."""

    def handler(_request: Request) -> Reply:
        return Reply(name, {"message": NOT_TRADED}, BAD_REQUEST)

    return handler


def get_user_profile_client(request: Request) -> Reply:
    """``get-user-profile-client``: everybody is a stranger."""
    user_id = frames.decode_object(request.message.body).get("user_id")
    return Reply("user-profile-client", {"user_id": user_id, "user_name": "", "isSuccessful": True})


METHODS: Final[Methods] = {
    "get-deferred-orders": empty("deferred-orders", {"orders": []}),
    "get-available-leverages": empty("available-leverages", {"leverages": []}),
    "get-overnight-fee": empty("overnight-fee", {}),
    "get-users-availability": empty("users-availability", {"statuses": []}),
    "request-leaderboard-deals-client": empty(
        "leaderboard-deals-client", {"isSuccessful": True, "result": {"positional": {}}}
    ),
    "request-leaderboard-userinfo-deals-client": empty(
        "leaderboard-userinfo-deals-client", {"isSuccessful": True, "result": {"entries_by_country": {}}}
    ),
    "get-user-profile-client": get_user_profile_client,
    "get-technical-indicators": refuse("technical-indicators"),
    "place-order-temp": refuse("order-placed-temp"),
    "change-tpsl": refuse("tpsl-changed"),
    "change-auto-margin-call": refuse("auto-margin-call-changed"),
    "cancel-order": refuse("order-canceled"),
}
