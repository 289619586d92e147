"""What the answers of the broker and agent services mean to us: above all, what proves that nothing was booked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import grpc
import pytest
from tradebot.agent.v1 import agent_pb2
from tradebot.broker.v1 import account_pb2, broker_service_pb2_grpc, market_pb2, order_pb2
from tradebot.broker.v1 import broker_service_pb2 as pb

from services.runtime.channel import open_channel
from services.runtime.clock import SystemClock
from services.runtime.errors import Code, ServiceError
from services.runtime.interceptors import ErrorInterceptor
from services.runtime.secret import Secret
from services.session.adapters.agent_client import _parse_decision
from services.session.adapters.broker_client import GrpcBroker
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
    TwoFactorInvalidError,
    TwoFactorRequiredError,
)
from services.session.domain.trade import BrokerOrder, Trade, TradeState
from services.session.domain.values import (
    Account,
    AccountType,
    Broker,
    BrokerConnection,
    InstrumentType,
    TradeId,
    session_key,
)
from services.session.ports import AnswerLost, Credentials, Placed
from tests.unit.session.test_codec import TRADE

KEY = session_key("any")
CREDENTIALS = Credentials(Secret("ann@example.com"), Secret("secret"), Secret(""))


class ScriptedBroker(broker_service_pb2_grpc.BrokerServiceServicer):
    """A broker service that does what a test says."""

    def __init__(self) -> None:
        self.act: Callable[[Any, Any], Awaitable[Any]] = self._nothing
        self.stream: list[Any] = []
        self.requests: list[Any] = []

    async def _nothing(self, request: Any, context: Any) -> Any:
        raise AssertionError("nothing was scripted")

    async def _do(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return await self.act(request, context)

    Connect = PlaceOrder = SellOrder = GetAccount = ListAssets = ListOrders = ListCandles = Disconnect = _do

    async def WatchCandles(self, request: Any, context: Any) -> AsyncIterator[Any]:
        raise AssertionError("nothing was scripted")
        yield

    async def WatchAccount(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for message in self.stream:
            if isinstance(message, Exception):
                raise message
            yield message


class RefusalError(ServiceError):
    """Any error of the broker service."""

    reason: ClassVar[str] = ""
    code: ClassVar[Code] = Code.FAILED_PRECONDITION


def refusal(reason: str, **facts: Any) -> ServiceError:
    error = type("RefusalError", (RefusalError,), {"reason": reason})("words", **facts)
    assert isinstance(error, ServiceError)
    return error


@pytest.fixture
async def scripted() -> AsyncIterator[tuple[ScriptedBroker, GrpcBroker, grpc.aio.Server]]:
    async with _serving() as parts:
        yield parts


@asynccontextmanager
async def _serving() -> AsyncIterator[tuple[ScriptedBroker, GrpcBroker, grpc.aio.Server]]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor("broker.tradebot")])
    broker = ScriptedBroker()
    broker_service_pb2_grpc.add_BrokerServiceServicer_to_server(broker, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = open_channel(f"127.0.0.1:{port}")
    try:
        yield broker, GrpcBroker(channel, SystemClock()), server
    finally:
        await channel.close(None)
        await server.stop(None)


Scripted = tuple[ScriptedBroker, GrpcBroker, grpc.aio.Server]


def _sending() -> Trade:
    return replace(TRADE, state=TradeState.SENDING, send_before=datetime.now(UTC) + timedelta(seconds=5))


def _order(state: "order_pb2.OrderState.ValueType" = order_pb2.ORDER_STATE_OPEN, **changes: Any) -> order_pb2.Order:
    order = order_pb2.Order(
        client_order_id=TRADE.trade_id,
        broker_order_id="77",
        state=state,
        account_type=account_pb2.ACCOUNT_TYPE_REAL,
        balance_id=7,
        asset="EURUSD-OTC",
        instrument_type=market_pb2.INSTRUMENT_TYPE_TURBO,
        direction=order_pb2.DIRECTION_CALL,
        amount="10.29",
        payout_rate=0.87,
        **changes,
    )
    order.open_time.FromDatetime(datetime.now(UTC))
    order.expiry_time.FromDatetime(datetime.now(UTC) + timedelta(minutes=1))
    return order


def _raises(error: Exception) -> Callable[[Any, Any], Awaitable[Any]]:
    async def act(request: Any, context: Any) -> Any:
        raise error

    return act


def _answers(response: Any) -> Callable[[Any, Any], Awaitable[Any]]:
    async def act(request: Any, context: Any) -> Any:
        return response

    return act


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refusal("INSUFFICIENT_FUNDS"), InsufficientFundsError),
        (refusal("ASSET_CLOSED", asset="EURUSD"), AssetClosedError),
        (refusal("PURCHASE_WINDOW_CLOSED"), PurchaseWindowClosedError),
        (refusal("PAYOUT_CHANGED", payout_rate=0.8), PayoutChangedError),
        (refusal("ORDER_REJECTED", message="no"), OrderRejectedError),
        (refusal("ACCOUNT_MISMATCH"), OrderRejectedError),
        (refusal("INVALID_ARGUMENT", field="duration"), InvalidOrderError),
        (refusal("BROKER_UNAVAILABLE"), BrokerUnavailableError),
        (refusal("NOT_CONNECTED"), NotConnectedError),
        (refusal("SEND_DEADLINE_PASSED"), BrokerUnavailableError),
    ],
    ids=lambda value: getattr(value, "reason", ""),
)
async def test_a_reason_of_the_broker_service_proves_that_nothing_was_booked(
    scripted: Scripted, error: ServiceError, expected: type[Exception]
) -> None:
    service, client, _ = scripted
    service.act = _raises(error)
    with pytest.raises(expected):
        await client.place(_sending())
    assert len(service.requests) == 1


async def test_a_payout_that_moved_is_told(scripted: Scripted) -> None:
    service, client, _ = scripted
    service.act = _raises(refusal("PAYOUT_CHANGED", payout_rate=0.8))
    with pytest.raises(PayoutChangedError) as error:
        await client.place(_sending())
    assert error.value.facts == {"payout_rate": 0.8}


async def _abort_unavailable(request: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "a proxy says so")


async def _abort_deadline(request: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "")


@pytest.mark.parametrize(
    "act",
    [
        _raises(RuntimeError("a bug behind the socket write")),
        _raises(refusal("INTERNAL")),
        _abort_unavailable,
        _abort_deadline,
        _answers(pb.PlaceOrderResponse(order=_order(order_pb2.ORDER_STATE_SUBMITTED))),
        _answers(pb.PlaceOrderResponse()),
    ],
    ids=["bug", "internal", "unavailable", "deadline", "submitted", "empty"],
)
async def test_anything_else_leaves_the_orders_fate_unknown_and_is_not_repeated(
    scripted: Scripted, act: Callable[[Any, Any], Awaitable[Any]]
) -> None:
    service, client, _ = scripted
    service.act = act
    assert await client.place(_sending()) == AnswerLost()
    assert len(service.requests) == 1


async def test_a_service_that_dies_before_it_answers_leaves_the_fate_unknown(scripted: Scripted) -> None:
    service, client, server = scripted
    reached = asyncio.Event()

    async def never(request: Any, context: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    service.act = never
    placing = asyncio.create_task(client.place(_sending()))
    await reached.wait()
    await server.stop(None)
    assert await placing == AnswerLost()


async def test_an_order_says_exactly_what_the_trade_says(scripted: Scripted) -> None:
    service, client, _ = scripted
    service.act = _answers(pb.PlaceOrderResponse(order=_order()))
    trade = _sending()
    answer = await client.place(trade)
    (request,) = service.requests
    assert (request.client_order_id, request.session_key, request.amount) == (
        trade.trade_id,
        trade.session_key,
        "10.29",
    )
    assert (request.account_type, request.duration) == (account_pb2.ACCOUNT_TYPE_REAL, 60)
    assert request.send_before.ToDatetime(UTC) == trade.send_before
    assert isinstance(answer, Placed)
    order = answer.order
    assert (order.broker_order_id, order.trade_id, order.amount) == ("77", TradeId(TRADE.trade_id), Decimal("10.29"))
    assert (order.account_type, order.instrument_type, order.outcome) == (
        AccountType.REAL,
        InstrumentType.TURBO,
        None,
    )


async def test_a_trade_that_was_not_marked_is_not_sent(scripted: Scripted) -> None:
    service, client, _ = scripted
    with pytest.raises(ValueError, match="marked"):
        await client.place(TRADE)
    assert service.requests == []


async def test_a_word_that_decides_over_money_is_never_guessed(scripted: Scripted) -> None:
    service, client, _ = scripted
    for changes in (
        {"state": order_pb2.ORDER_STATE_CLOSED, "profit": "1.00"},
        {"account_type": account_pb2.ACCOUNT_TYPE_UNSPECIFIED},
        {"direction": order_pb2.DIRECTION_UNSPECIFIED},
    ):
        order = _order()
        for name, value in changes.items():
            setattr(order, name, value)
        service.act = _answers(pb.PlaceOrderResponse(order=order))
        with pytest.raises(KeyError):
            await client.place(_sending())


@pytest.mark.parametrize(
    ("error", "expected", "facts"),
    [
        (refusal("INVALID_CREDENTIALS"), InvalidCredentialsError, {}),
        (
            refusal("TWO_FACTOR_REQUIRED", methods=("sms", "email"), challenge="c"),
            TwoFactorRequiredError,
            {"methods": ("sms", "email"), "challenge": "c"},
        ),
        (refusal("TWO_FACTOR_INVALID"), TwoFactorInvalidError, {}),
        (refusal("LOGIN_THROTTLED", retry_after=600), LoginThrottledError, {"retry_after": 600}),
        (refusal("ACCOUNT_MISMATCH"), InvalidArgumentError, {"field": "account_type"}),
        (refusal("BROKER_UNAVAILABLE"), BrokerUnavailableError, {}),
        (RuntimeError("a bug"), BrokerUnavailableError, {}),
    ],
    ids=lambda value: getattr(value, "reason", ""),
)
async def test_a_refused_login_is_told_in_our_words(
    scripted: Scripted, error: Exception, expected: type[ServiceError], facts: dict[str, Any]
) -> None:
    service, client, _ = scripted
    service.act = _raises(error)
    with pytest.raises(expected) as raised:
        await client.connect(KEY, Broker.IQ, AccountType.PRACTICE, CREDENTIALS)
    assert raised.value.facts == facts


async def test_what_cannot_be_sold_is_not_sellable(scripted: Scripted) -> None:
    service, client, _ = scripted
    for reason in ("NOT_SELLABLE", "ORDER_NOT_FOUND"):
        service.act = _raises(refusal(reason))
        with pytest.raises(NotSellableError):
            await client.sell(KEY, "77")


async def test_the_account_stream_gives_states_balances_orders_and_tokens_until_it_is_cut(scripted: Scripted) -> None:
    service, client, _ = scripted
    account = account_pb2.Account(
        account_type=account_pb2.ACCOUNT_TYPE_PRACTICE, user_id=1, balance_id=2, balance="10000.10", currency="USD"
    )
    submitted = _order(order_pb2.ORDER_STATE_SUBMITTED)
    closed = _order(order_pb2.ORDER_STATE_CLOSED, outcome=order_pb2.OUTCOME_LOST, profit="-10.29")
    service.stream = [
        pb.WatchAccountResponse(connection_state=account_pb2.CONNECTION_STATE_CONNECTED),
        pb.WatchAccountResponse(account=account),
        pb.WatchAccountResponse(order=submitted),
        pb.WatchAccountResponse(order=closed),
        pb.WatchAccountResponse(broker_token="ssid"),
    ]
    async with client.watch_account(KEY) as stream:
        state, balance, order, token = [await anext(stream) for _ in range(4)]
        with pytest.raises(BrokerUnavailableError):
            await anext(stream)
    assert isinstance(balance, Account)
    assert isinstance(order, BrokerOrder)
    assert isinstance(token, Secret)
    assert (state, balance.balance, token.reveal()) == (BrokerConnection.CONNECTED, Decimal("10000.10"), "ssid")
    assert (order.outcome, order.profit) == (TradeState.LOST, Decimal("-10.29"))


async def test_a_stream_without_a_connection_says_so(scripted: Scripted) -> None:
    service, client, _ = scripted
    service.stream = [refusal("NOT_CONNECTED")]
    with pytest.raises(NotConnectedError):
        async with client.watch_account(KEY) as stream:
            await anext(stream)


async def test_an_asset_is_summed_up_over_what_can_be_bought(scripted: Scripted) -> None:
    service, client, _ = scripted
    kinds = [
        market_pb2.Instrument(
            instrument_type=market_pb2.INSTRUMENT_TYPE_TURBO,
            open=False,
            payout_rate=0.9,
            min_amount="1",
            max_amount="5",
        ),
        market_pb2.Instrument(
            instrument_type=market_pb2.INSTRUMENT_TYPE_BLITZ,
            open=True,
            payout_rate=0.8,
            min_amount="2",
            max_amount="50",
        ),
        market_pb2.Instrument(instrument_type=99, open=True, payout_rate=7.0),  # type: ignore[arg-type]  # a kind of the future
    ]
    service.act = _answers(pb.ListAssetsResponse(assets=[market_pb2.Asset(asset="A", name="a", instruments=kinds)]))
    (asset,) = await client.assets(KEY)
    assert (asset.open, asset.payout_rate, asset.min_amount, asset.max_amount) == (True, 0.8, Decimal(2), Decimal(50))
    assert asset.payout_rates == ((InstrumentType.BLITZ, 0.8),)


def test_every_reason_to_abstain_has_a_word_of_its_own() -> None:
    words = {
        name.removeprefix("ABSTAIN_REASON_").lower(): _parse_decision(agent_pb2.Decision(abstain_reason=number)).reason
        for name, number in agent_pb2.AbstainReason.items()
    }
    assert words.pop("unspecified") == ""
    assert words == {name: name for name in words}
    newer = agent_pb2.Decision()
    newer.ParseFromString(b"\x10\x63")  # abstain_reason = 99
    assert _parse_decision(newer).reason == "unknown"
