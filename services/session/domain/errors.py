"""What a session refuses, and why.

ServiceError
├── InvalidArgumentError        a field is missing or out of range
├── SessionNotFoundError        no live session has that id
├── SessionMismatchError        alive, but not with these credentials
├── InvalidCredentialsError     the broker refused e-mail or password
├── TwoFactorRequiredError      the broker wants a second factor
├── TwoFactorInvalidError       the second factor was wrong or late
├── LoginThrottledError         logins are throttled; wait
├── BrokerUnavailableError      the broker cannot be reached; nothing was sent
│   └── NotConnectedError       the broker service holds no connection of the session: connect again
├── BotAlreadyRunningError      runs with other settings
├── BotNotRunningError          stopped; nothing to pause or resume
├── TradeRefusedError           the broker or a rule refused the order; nothing was booked
│   ├── InsufficientFundsError
│   ├── AssetClosedError
│   ├── PurchaseWindowClosedError
│   ├── PayoutChangedError
│   ├── InvalidOrderError
│   └── OrderRejectedError
├── LimitReachedError           a limit does not allow it
├── RequestIdReusedError        the same client_request_id with another trade
├── TradeUnresolvedError        an equal trade is still unknown
├── TradeNotFoundError
├── NotSellableError
├── ModelNotFoundError
├── StaleEpochError             this process no longer runs the session: stop, touch nothing
├── ContradictionError          the broker contradicts the ledger; nothing was changed
└── UnavailableError            a part of the service is away; the call may be repeated
"""

from services.runtime.errors import Code, ServiceError


class InvalidArgumentError(ServiceError):
    """A field is missing or out of range. Facts: field."""

    reason = "INVALID_ARGUMENT"
    code = Code.INVALID_ARGUMENT

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field)


class SessionNotFoundError(ServiceError):
    """No live session has that id."""

    reason = "SESSION_NOT_FOUND"
    code = Code.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("Session not found")


class SessionMismatchError(ServiceError):
    """The session is alive, but not with these credentials, broker or account type."""

    reason = "SESSION_MISMATCH"
    code = Code.PERMISSION_DENIED

    def __init__(self) -> None:
        super().__init__("The session belongs to other credentials, another broker or another account type")


class InvalidCredentialsError(ServiceError):
    """The broker refused e-mail or password."""

    reason = "INVALID_CREDENTIALS"
    code = Code.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("The broker refused the e-mail or the password")


class TwoFactorRequiredError(ServiceError):
    """The broker wants a second factor. Facts: methods, challenge."""

    reason = "TWO_FACTOR_REQUIRED"
    code = Code.UNAUTHENTICATED

    def __init__(self, methods: tuple[str, ...], challenge: str) -> None:
        super().__init__("The broker asks for a second factor", methods=methods, challenge=challenge)


class TwoFactorInvalidError(ServiceError):
    """The second factor was wrong or came too late."""

    reason = "TWO_FACTOR_INVALID"
    code = Code.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("The second factor was wrong or came too late")


class LoginThrottledError(ServiceError):
    """Logins are throttled. Facts: retry_after (seconds)."""

    reason = "BROKER_LOGIN_THROTTLED"
    code = Code.RESOURCE_EXHAUSTED

    def __init__(self, retry_after: int) -> None:
        super().__init__("The broker throttles logins", retry_after=retry_after)


class BrokerUnavailableError(ServiceError):
    """The broker cannot be reached; nothing was sent."""

    reason = "BROKER_UNAVAILABLE"
    code = Code.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("The broker cannot be reached")


class NotConnectedError(BrokerUnavailableError):
    """The broker service holds no connection of the session; whoever has its credentials can connect again."""


class BotAlreadyRunningError(ServiceError):
    """The bot runs with other settings."""

    reason = "BOT_ALREADY_RUNNING"
    code = Code.ABORTED

    def __init__(self) -> None:
        super().__init__("The bot runs with other settings; stop it first")


class BotNotRunningError(ServiceError):
    """The bot is stopped. Facts: status."""

    reason = "BOT_NOT_RUNNING"
    code = Code.FAILED_PRECONDITION

    def __init__(self) -> None:
        super().__init__("The bot is stopped", status="stopped")


class TradeRefusedError(ServiceError):
    """The order was refused and nothing was booked: proof, not a guess."""


class InsufficientFundsError(TradeRefusedError):
    """The balance is below the stake."""

    reason = "INSUFFICIENT_FUNDS"
    code = Code.FAILED_PRECONDITION

    def __init__(self) -> None:
        super().__init__("The balance is below the stake")


class AssetClosedError(TradeRefusedError):
    """The asset is closed or suspended; the broker service says so of one it does not know, too."""

    reason = "ASSET_CLOSED"
    code = Code.FAILED_PRECONDITION

    def __init__(self) -> None:
        super().__init__("The asset cannot be bought now")


class PurchaseWindowClosedError(TradeRefusedError):
    """Too late to buy that expiry."""

    reason = "PURCHASE_WINDOW_CLOSED"
    code = Code.FAILED_PRECONDITION

    def __init__(self) -> None:
        super().__init__("Too late to buy that expiry")


class PayoutChangedError(TradeRefusedError):
    """The payout moved. Facts: payout_rate if known."""

    reason = "PAYOUT_CHANGED"
    code = Code.FAILED_PRECONDITION

    def __init__(self, payout_rate: float | None = None) -> None:
        facts = {} if payout_rate is None else {"payout_rate": payout_rate}
        super().__init__("The payout moved before the order was booked", **facts)


class InvalidOrderError(TradeRefusedError):
    """The broker does not sell what was asked for (a duration, a stake). Facts: field."""

    reason = "INVALID_ARGUMENT"
    code = Code.INVALID_ARGUMENT

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field)


class OrderRejectedError(TradeRefusedError):
    """The broker refused for another reason. Facts: message (the broker's words)."""

    reason = "ORDER_REJECTED"
    code = Code.FAILED_PRECONDITION

    def __init__(self, message: str) -> None:
        super().__init__("The broker refused the order", message=message)


class LimitReachedError(ServiceError):
    """A limit does not allow it. Facts: limit, value, used."""

    reason = "LIMIT_REACHED"
    code = Code.RESOURCE_EXHAUSTED

    def __init__(self, limit: str, value: float, used: float) -> None:
        super().__init__(f"The limit {limit} does not allow this trade", limit=limit, value=value, used=used)


class RequestIdReusedError(ServiceError):
    """The same client_request_id came with another trade."""

    reason = "REQUEST_ID_REUSED"
    code = Code.ABORTED

    def __init__(self) -> None:
        super().__init__("This client_request_id belongs to another trade", field="client_request_id")


class TradeUnresolvedError(ServiceError):
    """An equal trade is still unknown. Facts: trade_id."""

    reason = "TRADE_UNRESOLVED"
    code = Code.ABORTED

    def __init__(self, trade_id: str) -> None:
        super().__init__("An equal trade is still being reconciled with the broker", trade_id=trade_id)


class TradeNotFoundError(ServiceError):
    """The session has no such trade."""

    reason = "TRADE_NOT_FOUND"
    code = Code.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("Trade not found")


class NotSellableError(ServiceError):
    """The trade is not open, or the broker does not buy it back."""

    reason = "NOT_SELLABLE"
    code = Code.FAILED_PRECONDITION

    def __init__(self) -> None:
        super().__init__("The trade cannot be sold before its expiry")


class ModelNotFoundError(ServiceError):
    """There is no model of that name."""

    reason = "MODEL_NOT_FOUND"
    code = Code.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("Model not found")


class StaleEpochError(ServiceError):
    """This process no longer runs the session: another one took over."""

    reason = "UNAVAILABLE"
    code = Code.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("The session moved to another replica")


class ContradictionError(ServiceError):
    """What is to be recorded cannot be true beside what the ledger holds; nothing was changed. Wants a person.

    A refused trade that turns up at the broker, a second order for one trade, an order that another trade claimed.
    """

    reason = "INTERNAL"
    code = Code.INTERNAL

    def __init__(self, what: str) -> None:
        super().__init__(what)


class UnavailableError(ServiceError):
    """A part of the service is away; the call may be repeated."""

    reason = "UNAVAILABLE"
    code = Code.UNAVAILABLE

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not available")
