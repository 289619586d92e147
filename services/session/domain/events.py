"""What a session's user is told. Every event here gets a seq; candles, snapshots and gaps do not pass through this module."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Literal

from services.session.domain.bot import BotSettings, Usage
from services.session.domain.evidence import Gate
from services.session.domain.trade import Trade
from services.session.domain.values import AccountType, BotStatus, Broker, BrokerConnection, CloseReason


@dataclass(frozen=True, slots=True)
class Totals:
    """The session's settled trades, counted in the ledger."""

    wins: int = 0
    losses: int = 0
    ties: int = 0
    sold: int = 0
    total_trades: int = 0
    """Trades that reached the broker."""
    profit: Decimal = Decimal(0)
    """Net, signed."""
    staked: Decimal = Decimal(0)
    """Stakes of all settled trades, as the profit is of all of them."""
    payout_sum: float = 0.0
    """Sum of the payout rates of won and lost trades; with their number it gives the mean payout really offered."""


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A session as its user sees it, without the secret id and the idle time left, which the caller adds."""

    broker: Broker
    account_type: AccountType
    bot_status: BotStatus
    balance: Decimal
    currency: str
    asset: str
    timeframe: int
    settings: BotSettings | None
    usage: Usage
    totals: Totals
    broker_connection: BrokerConnection
    last_seen: datetime
    """Last activity that the ledger knows of."""
    seq: int
    """Seq of the last event that this includes."""
    open_trades: tuple[Trade, ...] = ()
    """Pending, open and unknown trades, oldest first."""
    active_trades: int = 0
    gate: Gate = field(default_factory=Gate)
    """The evidence for the bot's model on its terms, of the version that answered last."""
    gate_voided: int = 0
    """Shadow decisions that a price was missing for."""
    gate_version: str = ""
    """The version; empty before its first answer."""


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """The bot was started, stopped, paused or resumed, or settings changed."""

    type: ClassVar = "status_update"
    status: SessionStatus


@dataclass(frozen=True, slots=True)
class BalanceChanged:
    """The balance changed."""

    type: ClassVar = "balance"
    balance: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class SignalMade:
    """A bot decided at the close of a candle."""

    type: ClassVar = "signal"
    action: Literal["HOLD", "CALL", "PUT"]
    confidence: float
    """Probability of the better direction, 0.5 to 1."""
    model: str
    model_version: str
    asset: str
    timeframe: int
    p_up: float
    break_even: float
    expected_value: float
    reason: str
    """Why HOLD, lower case; empty otherwise."""
    candle_time: datetime
    shadow_action: Literal["", "CALL", "PUT"] = ""
    """What the model said, where the closed gate made it a HOLD."""
    detail: str = ""
    """Words for people."""


@dataclass(frozen=True, slots=True)
class TradeOpened:
    """The broker booked a trade."""

    type: ClassVar = "trade_opened"
    trade: Trade


@dataclass(frozen=True, slots=True)
class TradeClosed:
    """A trade was settled."""

    type: ClassVar = "trade_closed"
    trade: Trade


@dataclass(frozen=True, slots=True)
class TradeRejected:
    """The broker refused a trade, or it is proven that it was never placed."""

    type: ClassVar = "trade_rejected"
    trade: Trade


@dataclass(frozen=True, slots=True)
class TradeUnknown:
    """The broker's answer was lost; the trade is being reconciled."""

    type: ClassVar = "trade_unknown"
    trade: Trade


@dataclass(frozen=True, slots=True)
class LogWritten:
    """Words for people."""

    type: ClassVar = "log"
    level: Literal["info", "warning", "error"]
    message: str


@dataclass(frozen=True, slots=True)
class FaultHappened:
    """Something went wrong that the user should know."""

    type: ClassVar = "error"
    fault_code: str
    """A stable code as in the errors of the REST contract."""
    detail: str


@dataclass(frozen=True, slots=True)
class BrokerConnectionChanged:
    """The connection to the broker changed."""

    type: ClassVar = "broker_connection"
    state: BrokerConnection


@dataclass(frozen=True, slots=True)
class LimitWasReached:
    """A limit stopped a trade or the bot."""

    type: ClassVar = "limit_reached"
    limit: str
    value: float
    used: float
    detail: str


@dataclass(frozen=True, slots=True)
class SessionWillExpire:
    """The session expires without activity."""

    type: ClassVar = "session_expiring"
    expires_in: int
    """Seconds left."""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session is over; always its last event."""

    type: ClassVar = "session_closed"
    reason: CloseReason


Event = (
    StatusUpdate
    | BalanceChanged
    | SignalMade
    | TradeOpened
    | TradeClosed
    | TradeRejected
    | TradeUnknown
    | LogWritten
    | FaultHappened
    | BrokerConnectionChanged
    | LimitWasReached
    | SessionWillExpire
    | SessionEnded
)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as the ledger, Redis and the streams carry it."""

    seq: int
    type: str
    payload: bytes
    """A serialized tradebot.session.v1.Event without its session_id."""
