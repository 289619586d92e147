"""The service as its callers see it: over gRPC, with its errors, streams and drain."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tradebot.broker.v1 import account_pb2, broker_service_pb2_grpc, market_pb2, order_pb2
from tradebot.broker.v1 import broker_service_pb2 as pb

from services.broker.bootstrap import ERROR_DOMAIN, bootstrap
from services.runtime.channel import open_channel
from services.runtime.interceptors import error_info
from services.runtime.server import Server
from simulator.server import Simulator
from simulator.settings import Settings as SimulatorSettings
from tests.support.brokers import EURUSD, broker_settings
from tests.support.eventually import eventually

PRACTICE = account_pb2.ACCOUNT_TYPE_PRACTICE


@dataclass
class Service:
    """A running service and a client of it."""

    simulator: Simulator
    server: Server
    stub: Any

    async def connect(self, key: str = "key", email: str = "user@example.com", **changes: Any) -> pb.ConnectResponse:
        fields: dict[str, Any] = {
            "session_key": key,
            "broker": account_pb2.BROKER_IQ,
            "account_type": PRACTICE,
            "credentials": pb.Credentials(email=email, password="secret"),
        }
        response: pb.ConnectResponse = await self.stub.Connect(pb.ConnectRequest(**(fields | changes)))
        return response


def place_request(**changes: Any) -> pb.PlaceOrderRequest:
    send_before = Timestamp()
    send_before.FromDatetime(datetime.now(UTC) + timedelta(seconds=5))
    fields: dict[str, Any] = {
        "session_key": "key",
        "client_order_id": "one",
        "account_type": PRACTICE,
        "asset": EURUSD,
        "instrument_type": market_pb2.INSTRUMENT_TYPE_BLITZ,
        "direction": order_pb2.DIRECTION_CALL,
        "amount": "1.00",
        "duration": 5,
        "send_before": send_before,
    }
    return pb.PlaceOrderRequest(**(fields | changes))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(SimulatorSettings(ack_delay=0.005)))
        settings = broker_settings(simulator)
        application = await stack.enter_async_context(bootstrap(settings))
        server = Server(application, settings)
        await server.start()
        stack.push_async_callback(server.stop)
        channel = open_channel(f"127.0.0.1:{server.port}")
        stack.push_async_callback(channel.close)
        yield Service(simulator, server, broker_service_pb2_grpc.BrokerServiceStub(channel))


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Return how a call was refused, by the service itself."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    info = error_info(error.value, ERROR_DOMAIN)
    assert info is not None
    return error.value.code(), info.reason, dict(info.metadata)


async def test_every_call_but_connect_needs_a_connection(service: Service) -> None:
    stub = service.stub
    for call in (
        stub.GetAccount(pb.GetAccountRequest(session_key="none")),
        stub.ListAssets(pb.ListAssetsRequest(session_key="none")),
        stub.ListCandles(pb.ListCandlesRequest(session_key="none", asset=EURUSD, timeframe=60)),
        stub.ListOrders(pb.ListOrdersRequest(session_key="none")),
        stub.PlaceOrder(place_request(session_key="none")),
        stub.SellOrder(pb.SellOrderRequest(session_key="none", broker_order_id="1")),
        stub.WatchAccount(pb.WatchAccountRequest(session_key="none")).read(),
        stub.WatchCandles(pb.WatchCandlesRequest(session_key="none", asset=EURUSD, timeframe=60)).read(),
    ):
        assert await refusal(call) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_CONNECTED", {})
    await stub.Disconnect(pb.DisconnectRequest(session_key="none"))


async def test_connecting_again_returns_the_standing_connection_and_guards_it(service: Service) -> None:
    first = await service.connect()
    again = await service.connect()
    assert (again.account, again.broker_token) == (first.account, first.broker_token)
    wrong = pb.Credentials(email="user@example.com", password="wrong")
    for changes in (
        {"credentials": wrong},
        {"account_type": account_pb2.ACCOUNT_TYPE_REAL},
        {"broker": account_pb2.BROKER_EXNOVA},
        {"email": "other@example.com"},
    ):
        code, reason, _ = await refusal(service.connect(**changes))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ACCOUNT_MISMATCH")
    account = await service.stub.GetAccount(pb.GetAccountRequest(session_key="key"))
    assert account.account == first.account
    assert account.connection_state == account_pb2.CONNECTION_STATE_CONNECTED


async def test_the_standing_connection_is_found_without_credentials_and_never_made_so(service: Service) -> None:
    _, reason, _ = await refusal(service.connect(credentials=None))
    assert reason == "NOT_CONNECTED"
    first = await service.connect()
    found = await service.connect(credentials=None)
    assert (found.account, found.broker_token) == (first.account, "")
    for changes in ({"account_type": account_pb2.ACCOUNT_TYPE_REAL}, {"broker": account_pb2.BROKER_EXNOVA}):
        _, reason, _ = await refusal(service.connect(credentials=None, **changes))
        assert reason == "ACCOUNT_MISMATCH"


async def test_two_callers_that_connect_at_once_share_one_login(service: Service) -> None:
    answers = await asyncio.gather(*(service.connect() for _ in range(10)))
    assert len({answer.broker_token for answer in answers}) == 1


async def test_the_second_factor_goes_through_the_proto(service: Service) -> None:
    _, reason, facts = await refusal(service.connect(email="twofa@example.com"))
    assert reason == "TWO_FACTOR_REQUIRED"
    assert "sms" in facts["methods"].split(",")
    proof = pb.TwoFactor(challenge=facts["challenge"], method="email", code="123456")
    assert (await service.connect(email="twofa@example.com", two_factor=proof)).account.balance == "10000.00"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"client_order_id": ""}, "client_order_id"),
        ({"client_order_id": "x" * 65}, "client_order_id"),
        ({"account_type": 0}, "account_type"),
        ({"asset": ""}, "asset"),
        ({"instrument_type": 0}, "instrument_type"),
        ({"direction": 0}, "direction"),
        ({"amount": ""}, "amount"),
        ({"amount": "0"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "Infinity"}, "amount"),
        ({"amount": "1e1000000"}, "amount"),
        ({"amount": "1.001"}, "amount"),
        ({"duration": 0}, "duration"),
        ({"duration": -5}, "duration"),
        ({"min_payout_rate": float("nan")}, "min_payout_rate"),
        ({"min_payout_rate": -0.1}, "min_payout_rate"),
        ({"send_before": None}, "send_before"),
    ],
)
async def test_bad_orders_name_the_field(service: Service, changes: dict[str, Any], field: str) -> None:
    await service.connect()
    code, reason, facts = await refusal(service.stub.PlaceOrder(place_request(**changes)))
    assert (code, reason, facts) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", {"field": field})


async def test_an_order_goes_out_and_its_events_come_back(service: Service) -> None:
    await service.connect()
    stream = service.stub.WatchAccount(pb.WatchAccountRequest(session_key="key"))
    assert (await stream.read()).connection_state == account_pb2.CONNECTION_STATE_CONNECTED
    assert (await stream.read()).account.balance == "10000.00"
    placed = (await service.stub.PlaceOrder(place_request())).order
    assert placed.state == order_pb2.ORDER_STATE_OPEN
    while not (event := await stream.read()).HasField("order") or event.order.state != order_pb2.ORDER_STATE_CLOSED:
        pass
    assert event.order.broker_order_id == placed.broker_order_id
    assert event.order.profit in {"0.87", "-1.00", "0.00"}
    listed = await service.stub.ListOrders(pb.ListOrdersRequest(session_key="key"))
    assert listed.complete
    assert [order.client_order_id for order in listed.orders] == ["one"]
    stream.cancel()


async def test_refusals_carry_their_facts(service: Service) -> None:
    await service.connect()
    code, reason, facts = await refusal(service.stub.PlaceOrder(place_request(asset="NOSUCH")))
    assert (code, reason, facts) == (grpc.StatusCode.FAILED_PRECONDITION, "ASSET_CLOSED", {"asset": "NOSUCH"})
    code, reason, facts = await refusal(
        service.stub.PlaceOrder(place_request(client_order_id="2", min_payout_rate=0.9))
    )
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PAYOUT_CHANGED")
    assert float(facts["payout_rate"]) == pytest.approx(0.87)
    past = Timestamp(seconds=1)
    code, reason, _ = await refusal(service.stub.PlaceOrder(place_request(client_order_id="3", send_before=past)))
    assert (code, reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "SEND_DEADLINE_PASSED")


async def test_candles_are_listed_and_streamed(service: Service) -> None:
    await service.connect()
    request = pb.ListCandlesRequest(session_key="key", asset=EURUSD, timeframe=60, count=5)
    assert len((await service.stub.ListCandles(request)).candles) == 5
    for count in (-1, 5_001):
        request = pb.ListCandlesRequest(session_key="key", asset=EURUSD, timeframe=60, count=count)
        assert (await refusal(service.stub.ListCandles(request)))[2] == {"field": "count"}
    stream = service.stub.WatchCandles(pb.WatchCandlesRequest(session_key="key", asset=EURUSD, timeframe=60))
    assert (await stream.read()).candle.open_time % 60 == 0
    stream.cancel()


async def test_disconnect_ends_the_streams_with_not_connected(service: Service) -> None:
    await service.connect()
    streams = [
        service.stub.WatchAccount(pb.WatchAccountRequest(session_key="key")),
        service.stub.WatchCandles(pb.WatchCandlesRequest(session_key="key", asset=EURUSD, timeframe=60)),
    ]
    for stream in streams:
        await stream.read()
    await service.stub.Disconnect(pb.DisconnectRequest(session_key="key"))
    for stream in streams:
        code, reason, _ = await refusal(drained(stream))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_CONNECTED")
    assert (await service.connect()).account.balance == "10000.00"


async def test_draining_answers_the_orders_under_way_and_ends_the_streams(service: Service) -> None:
    await service.connect()
    stream = service.stub.WatchAccount(pb.WatchAccountRequest(session_key="key"))
    await stream.read()
    call = service.stub.PlaceOrder(place_request())
    platform = service.simulator.platforms["iq"]

    async def arrived() -> bool:
        return bool(platform.exchange.orders)

    await eventually(arrived, every=0.001)
    stopping = asyncio.create_task(service.server.stop())
    assert (await call).order.state == order_pb2.ORDER_STATE_OPEN
    code, reason, _ = await refusal(drained(stream))
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "BROKER_UNAVAILABLE")
    await stopping


async def test_no_secret_is_in_the_log(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    secret = pb.Credentials(email="canary@example.com", password="canary-password")
    await refusal(service.connect(credentials=secret))
    token = (await service.connect(email="canary@example.com")).broker_token
    await service.stub.PlaceOrder(place_request())
    _, _, facts = await refusal(service.connect(key="two", email="twofa@example.com"))
    await service.stub.Disconnect(pb.DisconnectRequest(session_key="key", log_out=True))
    written = "".join(capsys.readouterr())
    assert "connection_state" in written, "the log must be in here for this test to mean anything"
    for hidden in ("canary-password", token, facts["challenge"], "canary@example.com"):
        assert hidden not in written


async def drained(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass
