"""What the use case needs from outside."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol

from services.broker.domain.errors import BrokerError
from services.broker.domain.values import (
    Account,
    AccountEvent,
    AccountType,
    Asset,
    Broker,
    Candle,
    ConnectionState,
    Credentials,
    NewOrder,
    Order,
    OrderList,
    TwoFactor,
)
from services.runtime.secret import Secret


class Connector(Protocol):
    """One user's connection to one balance at one broker.

    It heals itself: after a lost connection it comes back by itself or ends up REFUSED. Every method may be called at
    any time between ``connect`` and ``close``; the ones that ask the broker raise ``BrokerUnavailableError`` while the
    connection is down.
    """

    @property
    def state(self) -> ConnectionState:
        """How the connection stands now."""
        ...

    @property
    def account(self) -> Account:
        """The account as last reported by the broker. Only after ``connect``."""
        ...

    @property
    def broker_token(self) -> Secret:
        """The broker's session token. Only after ``connect``."""
        ...

    async def connect(self, broker_token: Secret | None, two_factor: TwoFactor | None) -> None:
        """Log in, find the balance of the wanted type, and keep the connection up from now on. Called once.

        The token is tried first; a login is asked for at most once.

        Raises:
            InvalidCredentialsError: Never asked again with the same credentials.
            TwoFactorRequiredError: Connect again with the answer.
            TwoFactorInvalidError: The answer was wrong.
            LoginThrottledError: By the broker or by the breaker.
            BrokerUnavailableError: Not reached.
            AccountMismatchError: No balance of that type. Another type is never taken instead.
        """
        ...

    async def close(self, reason: BrokerError, *, log_out: bool = False) -> None:
        """End the connection; its streams end with the reason. Orders stay open at the broker. Idempotent."""
        ...

    async def get_account(self) -> Account:
        """Ask the broker for the balance as it is now."""
        ...

    async def list_assets(self) -> Sequence[Asset]:
        """Return every asset with at least one kind of option, with payouts as they are now."""
        ...

    async def list_candles(self, asset: str, timeframe: int, count: int, end_time: int | None) -> Sequence[Candle]:
        """Return up to ``count`` candles that start before ``end_time``, ascending, without holes the broker can fill.

        Raises:
            AssetClosedError: No such asset.
        """
        ...

    def watch_candles(self, asset: str, timeframe: int) -> AsyncIterator[Candle]:
        """Stream the candle in progress and each candle once more when it closes.

        Intermediate states may be skipped, closed candles never; they come in order.
        """
        ...

    def watch_account(self) -> AsyncIterator[AccountEvent]:
        """Stream the state and the account, then every change; order events may repeat."""
        ...

    async def place_order(self, order: NewOrder) -> Order:
        """Send an order once and return it OPEN or, if the answer is lost, SUBMITTED.

        The same ``client_order_id`` again returns the first call's result, also its error, and sends nothing.

        Raises:
            BrokerError: Whichever it is, nothing was booked.
        """
        ...

    async def sell_order(self, broker_order_id: str) -> Order:
        """Offer an open order back before its expiry.

        Raises:
            NotSellableError: Not this kind, or too late.
            OrderNotFoundError: No such open order.
            SellOutcomeUnknownError: The answer is missing.
        """
        ...

    async def list_orders(self, closed_since: datetime) -> OrderList:
        """Read the broker's lists of open orders and of those closed since a time (broker's clock)."""
        ...

    def in_flight(self) -> Sequence[Awaitable[Order]]:
        """Return the orders that are being placed now."""
        ...


ConnectorFactory = Callable[[Broker, AccountType, Credentials], Connector]
"""Makes a connector that is not connected yet."""


class LoginPermit(Protocol):
    """The right to ask the broker for one login. One of the four must follow."""

    async def succeeded(self) -> None:
        """The credentials are right (also when a second factor is wanted)."""
        ...

    async def refused(self) -> None:
        """The broker refused the credentials."""
        ...

    async def throttled(self, seconds: int) -> None:
        """The broker wants no login for that long."""
        ...

    async def abandoned(self) -> None:
        """The broker was not reached or said nothing: it may have counted the attempt."""
        ...


class LoginBreaker(Protocol):
    """Keeps logins below the broker's limits, per account and per egress address."""

    async def acquire(self, broker: Broker, email: str) -> LoginPermit:
        """Reserve one login attempt, waiting a moment for the address to have room.

        Raises:
            LoginThrottledError: No attempt may be made now.
        """
        ...
