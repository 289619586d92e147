"""The broker service's errors.

::

    ServiceError
    └── BrokerError
        ├── InvalidArgumentError
        ├── InvalidCredentialsError
        ├── TwoFactorRequiredError
        ├── TwoFactorInvalidError
        ├── LoginThrottledError
        ├── BrokerUnavailableError
        ├── NotConnectedError
        ├── AccountMismatchError
        ├── SellOutcomeUnknownError            the only one that proves nothing
        └── OrderError                         nothing was booked
            ├── InsufficientFundsError
            ├── AssetClosedError
            ├── PurchaseWindowClosedError
            ├── PayoutChangedError
            ├── OrderRejectedError
            ├── SendDeadlinePassedError
            ├── NotSellableError
            └── OrderNotFoundError

Whichever of them ends ``place_order`` proves that nothing was booked.
"""

from services.runtime.errors import Code, ServiceError


class BrokerError(ServiceError):
    """Root of the tree."""


class InvalidArgumentError(BrokerError):
    """A field is missing or out of range."""

    reason = "INVALID_ARGUMENT"
    code = Code.INVALID_ARGUMENT

    def __init__(self, field: str, demand: str) -> None:
        super().__init__(f"{field} {demand}", field=field)


class InvalidCredentialsError(BrokerError):
    """The broker refused e-mail or password."""

    reason = "INVALID_CREDENTIALS"
    code = Code.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("the broker refused e-mail or password")


class TwoFactorRequiredError(BrokerError):
    """The broker wants a second factor.

    Args:
        methods: Ways the broker offers, as it names them.
        challenge: What the user's answer refers to; a secret, it goes only to the caller.
    """

    reason = "TWO_FACTOR_REQUIRED"
    code = Code.UNAUTHENTICATED

    def __init__(self, methods: tuple[str, ...], challenge: str) -> None:
        super().__init__("the broker wants a second factor", methods=methods, challenge=challenge)


class TwoFactorInvalidError(BrokerError):
    """The second factor was wrong or its challenge is over."""

    reason = "TWO_FACTOR_INVALID"
    code = Code.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("the second factor is wrong or its challenge is over")


class LoginThrottledError(BrokerError):
    """Logins are throttled, by the broker or by our own breaker.

    Attributes:
        retry_after: Seconds until the next login may be tried.
    """

    reason = "LOGIN_THROTTLED"
    code = Code.RESOURCE_EXHAUSTED

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"logins are throttled, try again in {retry_after} s", retry_after=retry_after)
        self.retry_after = retry_after


class BrokerUnavailableError(BrokerError):
    """The broker could not be reached or the connection is down; nothing was sent."""

    reason = "BROKER_UNAVAILABLE"
    code = Code.UNAVAILABLE

    def __init__(self, message: str = "the broker cannot be reached") -> None:
        super().__init__(message)


class NotConnectedError(BrokerError):
    """There is no connection under that key; nothing was sent."""

    reason = "NOT_CONNECTED"
    code = Code.FAILED_PRECONDITION

    def __init__(self) -> None:
        super().__init__("no connection under this session key")


class AccountMismatchError(BrokerError):
    """The login has no balance of that type, or another account is meant than the connection's."""

    reason = "ACCOUNT_MISMATCH"
    code = Code.FAILED_PRECONDITION

    def __init__(self, message: str) -> None:
        super().__init__(message)


class SellOutcomeUnknownError(BrokerError):
    """The answer to a sale was lost: the order's next event tells."""

    reason = "SELL_OUTCOME_UNKNOWN"
    code = Code.DEADLINE_EXCEEDED

    def __init__(self) -> None:
        super().__init__("the broker did not answer the sale")


class OrderError(BrokerError):
    """Nothing was booked, or nothing was sold."""

    code = Code.FAILED_PRECONDITION


class InsufficientFundsError(OrderError):
    """The balance is below the stake."""

    reason = "INSUFFICIENT_FUNDS"

    def __init__(self) -> None:
        super().__init__("the balance is below the stake")


class AssetClosedError(OrderError):
    """The asset is unknown, closed or suspended for that kind of option."""

    reason = "ASSET_CLOSED"

    def __init__(self, asset: str) -> None:
        super().__init__("the asset cannot be traded now with this kind of option", asset=asset)


class PurchaseWindowClosedError(OrderError):
    """Too late to buy that expiry."""

    reason = "PURCHASE_WINDOW_CLOSED"

    def __init__(self) -> None:
        super().__init__("too late to buy that expiry")


class PayoutChangedError(OrderError):
    """The payout is below what was asked for, or moved between quote and order.

    Attributes:
        payout_rate: What the broker offers now, if it says so.
    """

    reason = "PAYOUT_CHANGED"

    def __init__(self, payout_rate: float | None) -> None:
        if payout_rate is None:
            super().__init__("the payout has changed")
        else:
            super().__init__("the payout has changed", payout_rate=payout_rate)
        self.payout_rate = payout_rate


class OrderRejectedError(OrderError):
    """The broker refused for another reason; ``message`` is in its own words."""

    reason = "ORDER_REJECTED"

    def __init__(self, message: str) -> None:
        super().__init__("the broker rejected the order", message=message)


class SendDeadlinePassedError(OrderError):
    """``send_before`` had passed before a byte was written."""

    reason = "SEND_DEADLINE_PASSED"
    code = Code.DEADLINE_EXCEEDED

    def __init__(self) -> None:
        super().__init__("the order was not sent in time")


class NotSellableError(OrderError):
    """The broker does not buy this order back, or not any more."""

    reason = "NOT_SELLABLE"

    def __init__(self) -> None:
        super().__init__("the broker does not buy this order back")


class OrderNotFoundError(OrderError):
    """The broker knows no such order."""

    reason = "ORDER_NOT_FOUND"
    code = Code.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("no such order")
