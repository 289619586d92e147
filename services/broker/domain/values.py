"""What the broker service talks about: accounts, assets, candles and orders, free of any wire."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from services.runtime.secret import Secret


class Broker(StrEnum):
    """A broker's platform."""

    IQ = "iq"
    EXNOVA = "exnova"


class AccountType(StrEnum):
    """Whose money an account holds."""

    PRACTICE = "PRACTICE"
    REAL = "REAL"


class ConnectionState(StrEnum):
    """How a connection stands towards the broker."""

    CONNECTING = "CONNECTING"
    CONNECTED = "CONNECTED"
    RECONNECTING = "RECONNECTING"
    REFUSED = "REFUSED"
    """Only the user can go on: the broker refuses the login, asks for a second factor, or answers for another account."""


class InstrumentType(StrEnum):
    """The kind of option."""

    TURBO = "turbo"
    BINARY = "binary"
    BLITZ = "blitz"
    DIGITAL = "digital"


class Direction(StrEnum):
    """Which way the price has to go."""

    CALL = "call"
    PUT = "put"


class OrderState(StrEnum):
    """Where an order stands at the broker, as far as we know."""

    SUBMITTED = "SUBMITTED"
    """Written to the socket, answer missing: it may or may not have been booked."""
    OPEN = "OPEN"
    CLOSED = "CLOSED"


class Outcome(StrEnum):
    """How a settled order ended."""

    WON = "won"
    LOST = "lost"
    TIED = "tied"
    SOLD = "sold"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the user proves himself with."""

    email: str = field(repr=False)
    password: Secret


@dataclass(frozen=True, slots=True)
class TwoFactor:
    """The answer to ``TwoFactorRequiredError``."""

    challenge: Secret
    method: str
    code: Secret
    """Empty asks the broker to send one."""


@dataclass(frozen=True, slots=True)
class Account:
    """The one balance that a connection trades with."""

    broker: Broker
    account_type: AccountType
    user_id: int
    balance_id: int
    balance: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Instrument:
    """What can be bought on one asset with one kind of option."""

    instrument_type: InstrumentType
    open: bool
    payout_rate: float
    """Profit on a win as a fraction of the stake; 0 where the broker tells it only at the order (digital)."""
    min_amount: Decimal
    max_amount: Decimal
    durations: tuple[int, ...]
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Asset:
    """Something whose price options are on."""

    asset: str
    name: str
    active_id: int
    instruments: tuple[Instrument, ...]


@dataclass(frozen=True, slots=True)
class Candle:
    """The prices of one interval; times in unix seconds."""

    open_time: int
    close_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    closed: bool
    """Whether the interval is over."""


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order as the caller wants it."""

    client_order_id: str
    account_type: AccountType
    """A guard: must be the connection's."""
    asset: str
    instrument_type: InstrumentType
    direction: Direction
    amount: Decimal
    duration: int
    """Seconds from now to the wanted expiry."""
    min_payout_rate: float
    send_before: datetime
    """Nothing is written at or after this time, our clock."""


@dataclass(frozen=True, slots=True)
class Order:
    """One option contract at the broker."""

    client_order_id: str
    broker_order_id: str
    state: OrderState
    account_type: AccountType
    balance_id: int
    asset: str
    instrument_type: InstrumentType
    direction: Direction
    amount: Decimal
    payout_rate: float
    open_price: float
    """0 if not known."""
    open_time: datetime
    """Broker's clock; of a SUBMITTED order the time of sending."""
    expiry_time: datetime
    outcome: Outcome | None = None
    profit: Decimal | None = None
    """Net, negative for a loss."""
    close_price: float = 0.0
    close_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class OrderList:
    """The broker's lists of open and closed orders at one time."""

    orders: tuple[Order, ...]
    complete: bool
    """Whether both lists were read to their end and every entry was understood."""
    broker_time: datetime


AccountEvent = ConnectionState | Account | Order | Secret
"""What happens to an account; a ``Secret`` is a new session token of the broker."""
