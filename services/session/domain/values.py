"""The closed choices and small values of a session, in the contract's words."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, NewType

TIMEFRAMES: Final = (
    1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 604800, 2592000,
)  # fmt: skip
"""The candle lengths that the brokers have, seconds."""

SessionKey = NewType("SessionKey", str)
"""Names a session everywhere inside: derived from the secret session_id, worthless to a client, safe in logs and stores."""

TradeId = NewType("TradeId", str)
"""UUID of a trade; also the idempotency key towards the broker service."""


def session_key(session_id: str) -> SessionKey:
    """Derive the key of a session: the first 160 bits of SHA-256 in hex.

    The id has 122 random bits, so the hash cannot be turned back; no salt or table is needed.
    """
    return SessionKey(hashlib.sha256(session_id.encode()).hexdigest()[:40])


class Broker(StrEnum):
    """A broker's platform."""

    IQ = "iq"
    EXNOVA = "exnova"


class AccountType(StrEnum):
    """Whose money a session trades."""

    PRACTICE = "PRACTICE"
    REAL = "REAL"


class Direction(StrEnum):
    """Which way the price has to go."""

    CALL = "call"
    PUT = "put"


class InstrumentType(StrEnum):
    """The kind of option."""

    TURBO = "turbo"
    BINARY = "binary"
    BLITZ = "blitz"
    DIGITAL = "digital"


class SessionState(StrEnum):
    """Where a session stands in its life."""

    ACTIVE = "active"
    CLOSING = "closing"
    """Its id is dead and its bot stopped; its open trades are followed to their end."""
    CLOSED = "closed"
    """Nothing is left but the ledger."""


class CloseReason(StrEnum):
    """Why a session ended."""

    DISCONNECTED = "disconnected"
    EXPIRED = "expired"


class BotStatus(StrEnum):
    """What the user wants of the bot; the lease holder converges to it."""

    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"


class BrokerConnection(StrEnum):
    """How the session's connection to the broker stands."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    REFUSED = "refused"


class TradeSource(StrEnum):
    """Who asked for a trade."""

    MANUAL = "manual"
    BOT = "bot"


@dataclass(frozen=True, slots=True)
class Account:
    """The one balance at the broker that a session trades with."""

    user_id: int
    """The broker's number of the user."""
    balance_id: int
    """The broker's number of the balance."""
    account_type: AccountType
    """As the broker reports it for this balance."""
    balance: Decimal
    """Available now, in ``currency``."""
    currency: str
    """ISO 4217 code."""


@dataclass(frozen=True, slots=True)
class Candle:
    """The prices of one interval."""

    open_time: datetime
    """Start, aware UTC, a multiple of the timeframe."""
    close_time: datetime
    """Start of the next interval."""
    open: float
    high: float
    low: float
    close: float
    volume: float = 0.0


@dataclass(frozen=True, slots=True)
class Asset:
    """Something whose price options are on, summed up over the kinds of option."""

    asset: str
    name: str
    """A label for people."""
    instrument_types: tuple[InstrumentType, ...]
    open: bool
    """Whether any kind can be bought now."""
    payout_rate: float
    """Profit on a win as a fraction of the stake, of the first open kind."""
    min_amount: Decimal
    max_amount: Decimal
    payout_rates: tuple[tuple[InstrumentType, float], ...] = ()
    """Payout rate of each kind that is open now."""
    durations: tuple[tuple[InstrumentType, tuple[int, ...]], ...] = ()
    """Lives on offer of each kind, seconds; for blitz exactly these, for the others a grid."""
