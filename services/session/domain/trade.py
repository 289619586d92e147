"""A trade: one option contract from intent to settlement, and the only moves it can make.

::

    INTENT ──► SENDING ──► OPEN ──► WON | LOST | TIED | SOLD
       │          │ │        ▲
       │          │ └► UNKNOWN ──► NOT_PLACED ──► OPEN   (late adoption: the broker's list was stale)
       │          └──► REJECTED
       └► REJECTED | NOT_PLACED

INTENT proves that nothing left this house. SENDING is committed before the first byte leaves, so a SENDING found after a
crash is UNKNOWN. UNKNOWN is left only by what the broker lists.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from services.session.domain.values import (
    AccountType,
    Broker,
    Direction,
    InstrumentType,
    SessionKey,
    TradeId,
    TradeSource,
)


class TradeState(StrEnum):
    """Where a trade stands in the ledger."""

    INTENT = "intent"
    SENDING = "sending"
    OPEN = "open"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    NOT_PLACED = "not_placed"
    WON = "won"
    LOST = "lost"
    TIED = "tied"
    SOLD = "sold"

    @property
    def status(self) -> str:
        """The contract's word: INTENT and SENDING are both ``pending`` to the user."""
        return "pending" if self in {TradeState.INTENT, TradeState.SENDING} else self.value


SETTLED: Final = frozenset({TradeState.WON, TradeState.LOST, TradeState.TIED, TradeState.SOLD})
"""Ended at the broker with a result."""

ACTIVE: Final = frozenset({TradeState.INTENT, TradeState.SENDING, TradeState.OPEN, TradeState.UNKNOWN})
"""The stake is, or may be, at risk: counts as exposure."""

MOVES: Final = {
    TradeState.INTENT: frozenset({TradeState.SENDING, TradeState.REJECTED, TradeState.NOT_PLACED}),
    TradeState.SENDING: frozenset({TradeState.OPEN, TradeState.UNKNOWN, TradeState.REJECTED}),
    TradeState.UNKNOWN: frozenset({TradeState.OPEN, TradeState.REJECTED, TradeState.NOT_PLACED}),
    TradeState.NOT_PLACED: frozenset({TradeState.OPEN}),
    TradeState.OPEN: SETTLED,
}
"""Every legal move; what is not here is refused by the ledger."""


@dataclass(frozen=True, slots=True)
class TradeRequest:
    """What a user or a bot asks for, validated."""

    session_key: SessionKey
    source: TradeSource
    asset: str
    instrument_type: InstrumentType
    direction: Direction
    amount: Decimal
    """Stake in the account's currency, over 0, at most 2 decimals."""
    duration: timedelta
    """5 to 300 s for blitz, full minutes otherwise."""
    idempotency_key: str | None = None
    """The client's ``client_request_id``, or ``bot:<run>:<candle close>:<n>`` for a bot; unique within the session and source."""
    min_payout: float = 0.0
    """Refuse below this payout rate."""
    run_id: str | None = None
    """The bot run that asks; None for manual trades."""
    model: str = ""
    model_version: str = ""
    model_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade as the ledger holds it."""

    trade_id: TradeId
    session_key: SessionKey
    state: TradeState
    source: TradeSource
    client_request_id: str
    """Empty if none was given, and for bots."""
    broker: Broker
    account_type: AccountType
    balance_id: int
    asset: str
    instrument_type: InstrumentType
    direction: Direction
    amount: Decimal
    currency: str
    duration: timedelta
    create_time: datetime
    min_payout: float = 0.0
    send_time: datetime | None = None
    """When it became SENDING: no order of the broker's that is older can be this one."""
    send_before: datetime | None = None
    """Nothing was written to the broker at or after this time; set when SENDING."""
    payout_rate: float = 0.0
    entry_price: float = 0.0
    close_price: float = 0.0
    profit: Decimal = Decimal(0)
    """Net, signed; 0 until settled."""
    open_time: datetime | None = None
    expiry_time: datetime | None = None
    close_time: datetime | None = None
    broker_order_id: str = ""
    model: str = ""
    model_version: str = ""
    model_sha256: str = ""
    reason: str = ""
    """Error code of a trade that was rejected or not placed."""
    ambiguous: bool = False
    """UNKNOWN, and more than one order at the broker could be it: only a person can tell."""


@dataclass(frozen=True, slots=True)
class BrokerOrder:
    """An order as the broker reports it."""

    broker_order_id: str
    trade_id: TradeId | None
    """Set if the connector itself placed it under this id since it started."""
    account_type: AccountType
    balance_id: int
    asset: str
    instrument_type: InstrumentType
    direction: Direction
    amount: Decimal
    payout_rate: float
    open_price: float
    open_time: datetime
    expiry_time: datetime
    outcome: TradeState | None = None
    """WON, LOST, TIED or SOLD once the broker settled it."""
    profit: Decimal = Decimal(0)
    close_price: float = 0.0
    close_time: datetime | None = None


def order_of(trade: Trade, broker_order_id: str, open_time: datetime, expiry_time: datetime) -> BrokerOrder:
    """Return the open order that a trade became at the broker, at the payout and price the trade has."""
    return BrokerOrder(
        broker_order_id=broker_order_id,
        trade_id=trade.trade_id,
        account_type=trade.account_type,
        balance_id=trade.balance_id,
        asset=trade.asset,
        instrument_type=trade.instrument_type,
        direction=trade.direction,
        amount=trade.amount,
        payout_rate=trade.payout_rate,
        open_price=trade.entry_price,
        open_time=open_time,
        expiry_time=expiry_time,
    )


@dataclass(frozen=True, slots=True)
class BrokerOrders:
    """The broker's own lists, read at one time."""

    orders: tuple[BrokerOrder, ...]
    complete: bool
    """Whether both lists were read to their end; only then may an absence mean anything."""
    broker_time: datetime
