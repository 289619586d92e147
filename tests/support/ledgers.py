"""Ledgers for tests: on the real PostgreSQL, with small encodings and builders of what goes in."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from services.runtime.clock import Clock, SystemClock
from services.runtime.secret import Secret
from services.session.adapters.ledger.database import Database
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.adapters.vault import Vault
from services.session.domain.bot import ServiceLimits
from services.session.domain.events import Event, StatusUpdate, StoredEvent
from services.session.domain.trade import BrokerOrder, Trade, TradeRequest, TradeState, order_of
from services.session.domain.values import (
    Account,
    AccountType,
    Broker,
    Direction,
    InstrumentType,
    SessionKey,
    TradeId,
    TradeSource,
    session_key,
)
from services.session.ports import Credentials

LIMITS = ServiceLimits()
CREDENTIALS = Credentials(Secret("ann@example.com"), Secret("secret"), Secret("ssid-1"))


def encode(event: Event, seq: int, time: datetime, account_type: AccountType) -> bytes:
    """Serialize an event well enough to tell in a test what it said."""
    said: dict[str, Any] = {"type": event.type, "seq": seq, "time": time.isoformat(), "account_type": account_type}
    trade = getattr(event, "trade", None)
    if isinstance(trade, Trade):
        said |= {"trade_id": trade.trade_id, "state": trade.state, "profit": str(trade.profit)}
    if isinstance(event, StatusUpdate):
        said |= {"bot_status": event.status.bot_status, "status_seq": event.status.seq}
    return json.dumps(said).encode()


def decode(event: StoredEvent) -> dict[str, Any]:
    """Read what ``encode`` wrote."""
    said: dict[str, Any] = json.loads(event.payload)
    assert (said["seq"], said["type"]) == (event.seq, event.type)
    return said


@dataclass(slots=True)
class Published:
    """Collects what a ledger publishes."""

    events: list[tuple[SessionKey, StoredEvent]] = field(default_factory=list)

    def __call__(self, key: SessionKey, event: StoredEvent, /) -> None:
        self.events.append((key, event))

    def of(self, key: SessionKey) -> list[StoredEvent]:
        return [event for owner, event in self.events if owner == key]


def a_ledger(
    database: Database,
    *,
    clock: Clock | None = None,
    publish: Callable[[SessionKey, StoredEvent], None] = lambda key, event: None,
    vault: Vault | None = None,
) -> PostgresLedger:
    """A ledger on a database."""
    return PostgresLedger(
        database,
        vault=vault or Vault([bytes(32)]),
        clock=clock or SystemClock(),
        encode=encode,
        publish=publish,
    )


def a_key() -> SessionKey:
    return session_key(str(uuid4()))


def a_trade_id() -> TradeId:
    return TradeId(str(uuid4()))


def an_account(balance_id: int | None = None, account_type: AccountType = AccountType.PRACTICE) -> Account:
    """An account; every call gives another balance unless told which."""
    balance_id = uuid4().int % 2**40 if balance_id is None else balance_id
    return Account(100_001, balance_id, account_type, Decimal("10000.00"), "USD")


async def a_session(ledger: PostgresLedger, account: Account | None = None, broker: Broker = Broker.IQ) -> SessionKey:
    """Create a session in the ledger."""
    key = a_key()
    await ledger.create_session(key, broker, account or an_account(), CREDENTIALS)
    return key


def a_request(key: SessionKey, **changes: Any) -> TradeRequest:
    """A manual trade of 10.00, call, one minute turbo."""
    request = TradeRequest(
        session_key=key,
        source=TradeSource.MANUAL,
        asset="EURUSD-OTC",
        instrument_type=InstrumentType.TURBO,
        direction=Direction.CALL,
        amount=Decimal("10.00"),
        duration=timedelta(minutes=1),
    )
    return replace(request, **changes)


def a_bot_request(key: SessionKey, run_id: str, signal: int = 0, **changes: Any) -> TradeRequest:
    """What a bot's run asks for."""
    return a_request(
        key, source=TradeSource.BOT, run_id=run_id, idempotency_key=f"bot:{run_id}:{signal}", model="m", **changes
    )


def an_order(trade: Trade, order_id: str | None = None, **changes: Any) -> BrokerOrder:
    """The broker's order for a trade, open."""
    open_time = trade.send_time or datetime.now(UTC)
    order = order_of(trade, order_id or str(uuid4().int % 10**14), open_time, open_time + trade.duration)
    return replace(order, **{"payout_rate": 0.87, "open_price": 1.1753, **changes})


def ended(order: BrokerOrder, outcome: TradeState, profit: str | None = None) -> BrokerOrder:
    """The same order, settled."""
    natural = {
        TradeState.WON: order.amount * Decimal("0.87"),
        TradeState.LOST: -order.amount,
        TradeState.TIED: Decimal(0),
        TradeState.SOLD: order.amount * Decimal("-0.4"),
    }
    return replace(
        order,
        outcome=outcome,
        profit=natural[outcome] if profit is None else Decimal(profit),
        close_price=1.18,
        close_time=order.expiry_time,
    )


async def a_sending_trade(ledger: PostgresLedger, key: SessionKey, **changes: Any) -> Trade:
    """Reserve a trade and move it to SENDING."""
    trade, new = await ledger.reserve(a_request(key, **changes), a_trade_id(), LIMITS, epoch=None)
    assert new
    return await ledger.begin_send(trade.trade_id, datetime.now(UTC) + timedelta(seconds=3), epoch=None)
