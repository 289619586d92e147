"""The broker service over gRPC: a deadline on every call, no repeats, wire words turned into ours."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo
from tradebot.broker.v1 import account_pb2, broker_service_pb2, broker_service_pb2_grpc, market_pb2, order_pb2

from services.runtime.clock import Clock
from services.runtime.errors import ServiceError
from services.runtime.interceptors import error_info
from services.runtime.secret import Secret
from services.session.domain.errors import (
    AssetClosedError,
    BrokerUnavailableError,
    InsufficientFundsError,
    InvalidArgumentError,
    InvalidCredentialsError,
    InvalidOrderError,
    LoginThrottledError,
    NotConnectedError,
    NotSellableError,
    OrderRejectedError,
    PayoutChangedError,
    PurchaseWindowClosedError,
    TradeRefusedError,
    TwoFactorInvalidError,
    TwoFactorRequiredError,
)
from services.session.domain.trade import BrokerOrder, BrokerOrders, Trade, TradeState
from services.session.domain.values import (
    Account,
    AccountType,
    Asset,
    Broker,
    BrokerConnection,
    Candle,
    Direction,
    InstrumentType,
    SessionKey,
    TradeId,
)
from services.session.ports import AccountEvent, AnswerLost, Credentials, Placed, TwoFactor

_DOMAIN: Final = "broker.tradebot"

_LOGIN_TIMEOUT: Final = 30.0
"""Seconds; a login is several round trips to the broker."""
_READ_TIMEOUT: Final = 10.0
_ANSWER_TIMEOUT: Final = 20.0
"""Seconds after ``send_before`` in which the broker's answer may come; the broker service itself gives up earlier."""
_SELL_TIMEOUT: Final = 15.0

_BROKERS: Final = {
    Broker.IQ: account_pb2.BROKER_IQ,
    Broker.EXNOVA: account_pb2.BROKER_EXNOVA,
}
_ACCOUNT_TYPES: Final = {
    AccountType.PRACTICE: account_pb2.ACCOUNT_TYPE_PRACTICE,
    AccountType.REAL: account_pb2.ACCOUNT_TYPE_REAL,
}
_DIRECTIONS: Final = {
    Direction.CALL: order_pb2.DIRECTION_CALL,
    Direction.PUT: order_pb2.DIRECTION_PUT,
}
_INSTRUMENTS: Final = {
    InstrumentType.TURBO: market_pb2.INSTRUMENT_TYPE_TURBO,
    InstrumentType.BINARY: market_pb2.INSTRUMENT_TYPE_BINARY,
    InstrumentType.BLITZ: market_pb2.INSTRUMENT_TYPE_BLITZ,
    InstrumentType.DIGITAL: market_pb2.INSTRUMENT_TYPE_DIGITAL,
}
_CONNECTIONS: Final = {
    account_pb2.CONNECTION_STATE_CONNECTING: BrokerConnection.CONNECTING,
    account_pb2.CONNECTION_STATE_CONNECTED: BrokerConnection.CONNECTED,
    account_pb2.CONNECTION_STATE_RECONNECTING: BrokerConnection.RECONNECTING,
    account_pb2.CONNECTION_STATE_REFUSED: BrokerConnection.REFUSED,
}
_OUTCOMES: Final = {
    order_pb2.OUTCOME_WON: TradeState.WON,
    order_pb2.OUTCOME_LOST: TradeState.LOST,
    order_pb2.OUTCOME_TIED: TradeState.TIED,
    order_pb2.OUTCOME_SOLD: TradeState.SOLD,
}
# The wire's numbers back to our words. An account type, direction or outcome that is none of these fails loudly (KeyError).
_ACCOUNT_TYPE_OF: Final = {number: word for word, number in _ACCOUNT_TYPES.items()}
_DIRECTION_OF: Final = {number: word for word, number in _DIRECTIONS.items()}
_INSTRUMENT_OF: Final = {number: word for word, number in _INSTRUMENTS.items()}

_T = TypeVar("_T")


def _error(info: ErrorInfo | None) -> ServiceError:
    """Turn what the broker service says into what the session says; its faults and the transport's are unavailability."""
    if info is None:
        return BrokerUnavailableError()
    facts = info.metadata
    match info.reason:
        case "INVALID_ARGUMENT":
            return InvalidArgumentError(facts.get("field", "request"), "was refused by the broker service")
        case "INVALID_CREDENTIALS":
            return InvalidCredentialsError()
        case "TWO_FACTOR_REQUIRED":
            methods = tuple(method for method in facts.get("methods", "").split(",") if method)
            return TwoFactorRequiredError(methods, facts.get("challenge", ""))
        case "TWO_FACTOR_INVALID":
            return TwoFactorInvalidError()
        case "LOGIN_THROTTLED":
            return LoginThrottledError(_whole(facts.get("retry_after", "")))
        case "NOT_CONNECTED":
            return NotConnectedError()
        case "ACCOUNT_MISMATCH":
            return InvalidArgumentError("account_type", "the login has no balance of that type")
        case "NOT_SELLABLE" | "ORDER_NOT_FOUND":
            return NotSellableError()
        case _:
            return _refusal(info) or BrokerUnavailableError()


def _refusal(info: ErrorInfo) -> TradeRefusedError | None:
    """Return the refusal of an order that nothing was booked for, or None."""
    facts = info.metadata
    match info.reason:
        case "INSUFFICIENT_FUNDS":
            return InsufficientFundsError()
        case "ASSET_CLOSED":
            return AssetClosedError()
        case "PURCHASE_WINDOW_CLOSED":
            return PurchaseWindowClosedError()
        case "PAYOUT_CHANGED":
            rate = facts.get("payout_rate", "")
            return PayoutChangedError(float(rate) if rate else None)
        case "ORDER_REJECTED":
            return OrderRejectedError(facts.get("message", ""))
        case "ACCOUNT_MISMATCH":
            return OrderRejectedError("the connection belongs to another account type")
        case _:
            return None


def _invalid(info: ErrorInfo, message: str, trade: Trade) -> InvalidOrderError:
    """Name the field as the user does; the words after it are the broker service's own."""
    field = info.metadata.get("field", "request")
    problem = message.removeprefix(f"{field}: ") or "is not for sale"
    seconds = field == "duration" and trade.instrument_type is InstrumentType.BLITZ
    return InvalidOrderError("duration_seconds" if seconds else field, problem)


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 60


async def _call(call: Awaitable[_T]) -> _T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _error(error_info(error, _DOMAIN)) from error


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _parse_account(account: account_pb2.Account) -> Account:
    return Account(
        user_id=account.user_id,
        balance_id=account.balance_id,
        account_type=_ACCOUNT_TYPE_OF[account.account_type],
        balance=Decimal(account.balance),
        currency=account.currency,
    )


def _parse_candle(candle: market_pb2.Candle) -> tuple[Candle, bool]:
    return (
        Candle(
            open_time=datetime.fromtimestamp(candle.open_time, UTC),
            close_time=datetime.fromtimestamp(candle.close_time, UTC),
            open=candle.open,
            high=candle.high,
            low=candle.low,
            close=candle.close,
            volume=candle.volume,
        ),
        candle.closed,
    )


def _parse_asset(asset: market_pb2.Asset) -> Asset:
    kinds = [item for item in asset.instruments if item.instrument_type in _INSTRUMENT_OF]
    buyable = [item for item in kinds if item.open]
    # A closed asset still shows what it last offered.
    shown = buyable or kinds
    return Asset(
        asset=asset.asset,
        name=asset.name,
        instrument_types=tuple(_INSTRUMENT_OF[item.instrument_type] for item in kinds),
        open=bool(buyable),
        payout_rate=shown[0].payout_rate if shown else 0.0,
        min_amount=min((Decimal(item.min_amount) for item in shown if item.min_amount), default=Decimal(0)),
        max_amount=max((Decimal(item.max_amount) for item in shown if item.max_amount), default=Decimal(0)),
        payout_rates=tuple((_INSTRUMENT_OF[item.instrument_type], item.payout_rate) for item in buyable),
        durations=tuple((_INSTRUMENT_OF[item.instrument_type], tuple(item.durations)) for item in kinds),
    )


def _parse_order(order: order_pb2.Order) -> BrokerOrder:
    """Parse an order that the broker has booked.

    Raises:
        KeyError: A word that decides over money is unknown.
    """
    closed = order.state == order_pb2.ORDER_STATE_CLOSED
    return BrokerOrder(
        broker_order_id=order.broker_order_id,
        trade_id=TradeId(order.client_order_id) if order.client_order_id else None,
        account_type=_ACCOUNT_TYPE_OF[order.account_type],
        balance_id=order.balance_id,
        asset=order.asset,
        instrument_type=_INSTRUMENT_OF[order.instrument_type],
        direction=_DIRECTION_OF[order.direction],
        amount=Decimal(order.amount),
        payout_rate=order.payout_rate,
        open_price=order.open_price,
        open_time=_time(order.open_time),
        expiry_time=_time(order.expiry_time),
        outcome=_OUTCOMES[order.outcome] if closed else None,
        profit=Decimal(order.profit) if closed else Decimal(0),
        close_price=order.close_price,
        close_time=_time(order.close_time) if order.HasField("close_time") else None,
    )


def _booked(order: order_pb2.Order) -> bool:
    return order.state in {order_pb2.ORDER_STATE_OPEN, order_pb2.ORDER_STATE_CLOSED}


class GrpcBroker:
    """The broker service behind one channel."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        self._clock = clock

    async def standing(self, key: SessionKey, broker: Broker, account_type: AccountType) -> Account:
        """Return the account of the standing connection."""
        request = broker_service_pb2.ConnectRequest(
            session_key=key, broker=_BROKERS[broker], account_type=_ACCOUNT_TYPES[account_type]
        )
        return _parse_account((await _call(self._stub.Connect(request, timeout=_READ_TIMEOUT))).account)

    async def connect(
        self,
        key: SessionKey,
        broker: Broker,
        account_type: AccountType,
        credentials: Credentials,
        two_factor: TwoFactor | None = None,
    ) -> tuple[Account, Secret]:
        """Log in, or return the standing connection."""
        request = broker_service_pb2.ConnectRequest(
            session_key=key,
            broker=_BROKERS[broker],
            account_type=_ACCOUNT_TYPES[account_type],
            credentials=broker_service_pb2.Credentials(
                email=credentials.email.reveal(),
                password=credentials.password.reveal(),
                broker_token=credentials.broker_token.reveal(),
            ),
        )
        if two_factor is not None:
            request.two_factor.challenge = two_factor.challenge.reveal()
            request.two_factor.method = two_factor.method
            request.two_factor.code = two_factor.code.reveal()
        response = await _call(self._stub.Connect(request, timeout=_LOGIN_TIMEOUT))
        return _parse_account(response.account), Secret(response.broker_token)

    async def disconnect(self, key: SessionKey, *, log_out: bool) -> None:
        """Close the connection."""
        request = broker_service_pb2.DisconnectRequest(session_key=key, log_out=log_out)
        await _call(self._stub.Disconnect(request, timeout=_READ_TIMEOUT))

    async def account(self, key: SessionKey) -> Account:
        """Return the account with its balance."""
        request = broker_service_pb2.GetAccountRequest(session_key=key)
        response = await _call(self._stub.GetAccount(request, timeout=_READ_TIMEOUT))
        return _parse_account(response.account)

    async def assets(self, key: SessionKey) -> Sequence[Asset]:
        """List assets with live payouts."""
        request = broker_service_pb2.ListAssetsRequest(session_key=key)
        response = await _call(self._stub.ListAssets(request, timeout=_READ_TIMEOUT))
        return [_parse_asset(asset) for asset in response.assets]

    async def candles(self, key: SessionKey, asset: str, timeframe: int, count: int) -> Sequence[tuple[Candle, bool]]:
        """List candles, ascending, each with whether it is closed."""
        request = broker_service_pb2.ListCandlesRequest(session_key=key, asset=asset, timeframe=timeframe, count=count)
        response = await _call(self._stub.ListCandles(request, timeout=_READ_TIMEOUT))
        return [_parse_candle(candle) for candle in response.candles]

    def watch_candles(
        self, key: SessionKey, asset: str, timeframe: int
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[Candle, bool]]]:
        """Iterate over the candle in progress and each closed candle."""
        return self._watch_candles(key, asset, timeframe)

    @asynccontextmanager
    async def _watch_candles(
        self, key: SessionKey, asset: str, timeframe: int
    ) -> AsyncIterator[AsyncIterator[tuple[Candle, bool]]]:
        request = broker_service_pb2.WatchCandlesRequest(session_key=key, asset=asset, timeframe=timeframe)
        # A stream lives as long as it is wanted; the channel's keepalive finds a dead peer.
        call = self._stub.WatchCandles(request)

        async def candles() -> AsyncIterator[tuple[Candle, bool]]:
            async for message in _messages(call):
                yield _parse_candle(message.candle)

        try:
            yield candles()
        finally:
            call.cancel()

    def watch_account(self, key: SessionKey) -> AbstractAsyncContextManager[AsyncIterator[AccountEvent]]:
        """Iterate over what happens to the account."""
        return self._watch_account(key)

    @asynccontextmanager
    async def _watch_account(self, key: SessionKey) -> AsyncIterator[AsyncIterator[AccountEvent]]:
        call = self._stub.WatchAccount(broker_service_pb2.WatchAccountRequest(session_key=key))

        async def events() -> AsyncIterator[AccountEvent]:
            async for message in _messages(call):
                match message.WhichOneof("event"):
                    case "connection_state":
                        yield _CONNECTIONS[message.connection_state]
                    case "account":
                        yield _parse_account(message.account)
                    case "order" if _booked(message.order):
                        yield _parse_order(message.order)
                    case "broker_token":
                        yield Secret(message.broker_token)

        try:
            yield events()
        finally:
            call.cancel()

    async def place(self, trade: Trade) -> Placed | AnswerLost:
        """Send the order, once."""
        if trade.send_before is None:
            raise ValueError("a trade is placed only after it was marked as being sent")
        request = broker_service_pb2.PlaceOrderRequest(
            session_key=trade.session_key,
            client_order_id=trade.trade_id,
            account_type=_ACCOUNT_TYPES[trade.account_type],
            asset=trade.asset,
            instrument_type=_INSTRUMENTS[trade.instrument_type],
            direction=_DIRECTIONS[trade.direction],
            amount=str(trade.amount),
            duration=int(trade.duration.total_seconds()),
            min_payout_rate=trade.min_payout,
        )
        request.send_before.FromDatetime(trade.send_before)
        window = (trade.send_before - self._clock.now()).total_seconds()
        try:
            response = await self._stub.PlaceOrder(request, timeout=max(window, 0.0) + _ANSWER_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            info = error_info(error, _DOMAIN)
            # INTERNAL is raised by any bug, also one behind the socket write: no proof.
            if info is None or info.reason == "INTERNAL":
                return AnswerLost()
            if info.reason == "INVALID_ARGUMENT":
                raise _invalid(info, error.details() or "", trade) from error
            raise _refusal(info) or _error(info) from error
        return Placed(_parse_order(response.order)) if _booked(response.order) else AnswerLost()

    async def sell(self, key: SessionKey, broker_order_id: str) -> BrokerOrder:
        """Offer an open order back."""
        request = broker_service_pb2.SellOrderRequest(session_key=key, broker_order_id=broker_order_id)
        response = await _call(self._stub.SellOrder(request, timeout=_SELL_TIMEOUT))
        return _parse_order(response.order)

    async def orders(self, key: SessionKey, closed_since: datetime) -> BrokerOrders:
        """Read the broker's lists of open and closed orders."""
        request = broker_service_pb2.ListOrdersRequest(session_key=key)
        request.closed_since.FromDatetime(closed_since)
        response = await _call(self._stub.ListOrders(request, timeout=_READ_TIMEOUT))
        return BrokerOrders(
            orders=tuple(_parse_order(order) for order in response.orders if _booked(order)),
            complete=response.complete,
            broker_time=_time(response.broker_time),
        )


async def _messages(call: AsyncIterable[_T]) -> AsyncIterator[_T]:
    """Iterate over a stream; its end, which only the broker service brings about, is a cut."""
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise _error(error_info(error, _DOMAIN)) from error
    raise BrokerUnavailableError
