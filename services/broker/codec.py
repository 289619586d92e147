"""Between the proto's messages and ours. Whatever is wrong with a request is said here."""

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from tradebot.broker.v1 import account_pb2, broker_service_pb2, market_pb2, order_pb2

from services.broker.connections import Connect
from services.broker.domain.errors import InvalidArgumentError
from services.broker.domain.values import (
    Account,
    AccountEvent,
    AccountType,
    Asset,
    Broker,
    Candle,
    ConnectionState,
    Credentials,
    Direction,
    InstrumentType,
    NewOrder,
    Order,
    OrderList,
    OrderState,
    Outcome,
    TwoFactor,
)
from services.runtime.secret import Secret

MAX_KEY: Final = 64
MAX_CANDLES: Final = 5_000
DEFAULT_CANDLES: Final = 100
MAX_AMOUNT: Final = Decimal(1_000_000_000)
CENT: Final = Decimal("0.01")

BROKERS: Final = {account_pb2.BROKER_IQ: Broker.IQ, account_pb2.BROKER_EXNOVA: Broker.EXNOVA}
ACCOUNT_TYPES: Final = {
    account_pb2.ACCOUNT_TYPE_PRACTICE: AccountType.PRACTICE,
    account_pb2.ACCOUNT_TYPE_REAL: AccountType.REAL,
}
INSTRUMENT_TYPES: Final = {
    market_pb2.INSTRUMENT_TYPE_TURBO: InstrumentType.TURBO,
    market_pb2.INSTRUMENT_TYPE_BINARY: InstrumentType.BINARY,
    market_pb2.INSTRUMENT_TYPE_BLITZ: InstrumentType.BLITZ,
    market_pb2.INSTRUMENT_TYPE_DIGITAL: InstrumentType.DIGITAL,
}
DIRECTIONS: Final = {order_pb2.DIRECTION_CALL: Direction.CALL, order_pb2.DIRECTION_PUT: Direction.PUT}
_BROKERS_OUT: Final = {ours: theirs for theirs, ours in BROKERS.items()}
_ACCOUNT_TYPES_OUT: Final = {ours: theirs for theirs, ours in ACCOUNT_TYPES.items()}
_INSTRUMENT_TYPES_OUT: Final = {ours: theirs for theirs, ours in INSTRUMENT_TYPES.items()}
_DIRECTIONS_OUT: Final = {ours: theirs for theirs, ours in DIRECTIONS.items()}
_STATES_OUT: Final = {
    ConnectionState.CONNECTING: account_pb2.CONNECTION_STATE_CONNECTING,
    ConnectionState.CONNECTED: account_pb2.CONNECTION_STATE_CONNECTED,
    ConnectionState.RECONNECTING: account_pb2.CONNECTION_STATE_RECONNECTING,
    ConnectionState.REFUSED: account_pb2.CONNECTION_STATE_REFUSED,
}
_ORDER_STATES_OUT: Final = {
    OrderState.SUBMITTED: order_pb2.ORDER_STATE_SUBMITTED,
    OrderState.OPEN: order_pb2.ORDER_STATE_OPEN,
    OrderState.CLOSED: order_pb2.ORDER_STATE_CLOSED,
}
_OUTCOMES_OUT: Final = {
    Outcome.WON: order_pb2.OUTCOME_WON,
    Outcome.LOST: order_pb2.OUTCOME_LOST,
    Outcome.TIED: order_pb2.OUTCOME_TIED,
    Outcome.SOLD: order_pb2.OUTCOME_SOLD,
}


def session_key(key: str) -> str:
    """Return a valid session key."""
    return _text("session_key", key)


def wanted_account(request: broker_service_pb2.ConnectRequest) -> tuple[Broker, AccountType]:
    """Read which account Connect means."""
    broker = BROKERS.get(request.broker)
    if broker is None:
        raise InvalidArgumentError("broker", "is required")
    return broker, _account_type(request.account_type)


def connect_from_proto(request: broker_service_pb2.ConnectRequest) -> Connect:
    """Read Connect."""
    broker, account_type = wanted_account(request)
    credentials = request.credentials
    return Connect(
        session_key=session_key(request.session_key),
        broker=broker,
        account_type=account_type,
        credentials=Credentials(
            _text("credentials.email", credentials.email, limit=254),
            Secret(_text("credentials.password", credentials.password, limit=1_024)),
        ),
        broker_token=Secret(credentials.broker_token) if credentials.broker_token else None,
        two_factor=_two_factor(request.two_factor) if request.HasField("two_factor") else None,
    )


def new_order_from_proto(request: broker_service_pb2.PlaceOrderRequest) -> NewOrder:
    """Read PlaceOrder."""
    instrument_type = INSTRUMENT_TYPES.get(request.instrument_type)
    if instrument_type is None:
        raise InvalidArgumentError("instrument_type", "is required")
    direction = DIRECTIONS.get(request.direction)
    if direction is None:
        raise InvalidArgumentError("direction", "is required")
    if not request.HasField("send_before"):
        raise InvalidArgumentError("send_before", "is required")
    if not 0 < request.duration <= 86_400:
        raise InvalidArgumentError("duration", "must be 5 to 86400 s")
    if not (math.isfinite(request.min_payout_rate) and request.min_payout_rate >= 0):
        raise InvalidArgumentError("min_payout_rate", "must be a fraction, 0 or more")
    return NewOrder(
        client_order_id=_text("client_order_id", request.client_order_id),
        account_type=_account_type(request.account_type),
        asset=_text("asset", request.asset),
        instrument_type=instrument_type,
        direction=direction,
        amount=_amount(request.amount),
        duration=request.duration,
        min_payout_rate=request.min_payout_rate,
        send_before=_time("send_before", request.send_before),
    )


def candle_span(request: broker_service_pb2.ListCandlesRequest) -> tuple[int, int | None]:
    """Return how many candles are wanted and before when."""
    count = request.count or DEFAULT_CANDLES
    if not 1 <= count <= MAX_CANDLES:
        raise InvalidArgumentError("count", f"must be 1 to {MAX_CANDLES}")
    if request.end_time < 0:
        raise InvalidArgumentError("end_time", "must be unix seconds")
    return count, request.end_time or None


def asset(name: str) -> str:
    """Return a valid asset name."""
    return _text("asset", name)


def broker_order_id(text: str) -> str:
    """Return a valid order id of the broker."""
    return _text("broker_order_id", text)


def closed_since(request: broker_service_pb2.ListOrdersRequest, now: datetime) -> datetime:
    """Return from when on closed orders are wanted."""
    if not request.HasField("closed_since"):
        return now - timedelta(days=1)
    return _time("closed_since", request.closed_since)


def account_to_proto(account: Account) -> account_pb2.Account:
    """Write an account."""
    return account_pb2.Account(
        broker=_BROKERS_OUT[account.broker],
        account_type=_ACCOUNT_TYPES_OUT[account.account_type],
        user_id=account.user_id,
        balance_id=account.balance_id,
        balance=money(account.balance),
        currency=account.currency,
    )


def state_to_proto(state: ConnectionState) -> account_pb2.ConnectionState.ValueType:
    """Write a connection state."""
    return _STATES_OUT[state]


def asset_to_proto(listed: Asset) -> market_pb2.Asset:
    """Write an asset."""
    return market_pb2.Asset(
        asset=listed.asset,
        name=listed.name,
        active_id=listed.active_id,
        instruments=[
            market_pb2.Instrument(
                instrument_type=_INSTRUMENT_TYPES_OUT[instrument.instrument_type],
                open=instrument.open,
                payout_rate=instrument.payout_rate,
                min_amount=money(instrument.min_amount),
                max_amount=money(instrument.max_amount),
                durations=instrument.durations,
            )
            for instrument in listed.instruments
        ],
    )


def candle_to_proto(candle: Candle) -> market_pb2.Candle:
    """Write a candle."""
    return market_pb2.Candle(
        open_time=candle.open_time,
        close_time=candle.close_time,
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=candle.volume,
        closed=candle.closed,
    )


def order_to_proto(order: Order) -> order_pb2.Order:
    """Write an order."""
    message = order_pb2.Order(
        client_order_id=order.client_order_id,
        broker_order_id=order.broker_order_id,
        state=_ORDER_STATES_OUT[order.state],
        account_type=_ACCOUNT_TYPES_OUT[order.account_type],
        balance_id=order.balance_id,
        asset=order.asset,
        instrument_type=_INSTRUMENT_TYPES_OUT[order.instrument_type],
        direction=_DIRECTIONS_OUT[order.direction],
        amount=money(order.amount),
        payout_rate=order.payout_rate,
        open_price=order.open_price,
        open_time=_timestamp(order.open_time),
        expiry_time=_timestamp(order.expiry_time),
        close_price=order.close_price,
    )
    if order.outcome is not None:
        message.outcome = _OUTCOMES_OUT[order.outcome]
    if order.profit is not None:
        message.profit = money(order.profit)
    if order.close_time is not None:
        message.close_time.CopyFrom(_timestamp(order.close_time))
    return message


def order_list_to_proto(orders: OrderList) -> broker_service_pb2.ListOrdersResponse:
    """Write a list of orders."""
    return broker_service_pb2.ListOrdersResponse(
        orders=[order_to_proto(order) for order in orders.orders],
        complete=orders.complete,
        broker_time=_timestamp(orders.broker_time),
    )


def event_to_proto(event: AccountEvent) -> broker_service_pb2.WatchAccountResponse:
    """Write what happened to an account."""
    match event:
        case ConnectionState():
            return broker_service_pb2.WatchAccountResponse(connection_state=_STATES_OUT[event])
        case Account():
            return broker_service_pb2.WatchAccountResponse(account=account_to_proto(event))
        case Order():
            return broker_service_pb2.WatchAccountResponse(order=order_to_proto(event))
        case Secret():
            return broker_service_pb2.WatchAccountResponse(broker_token=event.reveal())


def money(amount: Decimal) -> str:
    """Write an amount with at least two decimals, and more only where there are more."""
    return format(amount if amount != amount.quantize(CENT) else amount.quantize(CENT), "f")


def _account_type(value: account_pb2.AccountType.ValueType) -> AccountType:
    account_type = ACCOUNT_TYPES.get(value)
    if account_type is None:
        raise InvalidArgumentError("account_type", "is required")
    return account_type


def _two_factor(message: broker_service_pb2.TwoFactor) -> TwoFactor:
    return TwoFactor(
        Secret(_text("two_factor.challenge", message.challenge, limit=4_096)),
        _text("two_factor.method", message.method),
        Secret(message.code),
    )


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
        exact = amount.is_finite() and amount == amount.quantize(CENT)
    except InvalidOperation:
        exact = False
    if not exact or not 0 < amount <= MAX_AMOUNT:
        raise InvalidArgumentError("amount", "must be over 0 with at most 2 decimals")
    return amount


def _text(name: str, value: str, *, limit: int = MAX_KEY) -> str:
    if not 1 <= len(value) <= limit:
        raise InvalidArgumentError(name, f"must have 1 to {limit} characters")
    return value


def _time(name: str, stamp: Timestamp) -> datetime:
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(name, "is not a time") from error


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
