"""The same golden requests, straight over gRPC and through the gateway."""

from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from tradebot.session.v1 import session_service_pb2 as pb

from services.runtime.errors import Code, InternalError, ServiceError
from services.session.domain import errors
from tests.contract.rest.conftest import Rig
from tests.contract.rest.golden import CANDLE, EXPORT, GOLDEN, SESSION, TRADE, Golden

pytestmark = pytest.mark.asyncio(loop_scope="module")

BALANCE = f"/api/balance?session_id={SESSION}"

REFUSALS: list[tuple[ServiceError, int, dict[str, Any] | None]] = [
    (errors.InvalidArgumentError("amount", "must be positive"), 400, {"field": "amount"}),
    (errors.SessionNotFoundError(), 404, None),
    (errors.SessionMismatchError(), 403, None),
    (errors.InvalidCredentialsError(), 401, None),
    (errors.TwoFactorRequiredError(("sms", "email"), "c"), 401, {"methods": ["sms", "email"], "challenge": "c"}),
    (errors.LoginThrottledError(600), 429, {"retry_after": 600}),
    (errors.BrokerUnavailableError(), 503, None),
    (errors.BotAlreadyRunningError(), 409, None),
    (errors.InsufficientFundsError(), 402, None),
    (errors.AssetClosedError(), 409, None),
    (errors.PayoutChangedError(0.86), 409, {"payout_rate": 0.86}),
    (errors.TradeNotFoundError(), 404, None),
    (errors.UnavailableError("The ledger"), 503, None),
    (InternalError("internal error"), 500, None),
]


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
async def test_request_and_answer_are_the_same_on_both_ways(rig: Rig, golden: Golden) -> None:
    rig.fake.answers[golden.rpc] = golden.response
    through = await rig.gateway.send(golden.method, golden.target, golden.body)
    direct = await rig.direct.send(golden.method, golden.target, golden.body)
    assert through.status == 200
    assert through.body == direct.body
    assert through.headers["content-type"] == "application/json"
    assert [call.rpc for call in rig.fake.calls] == [golden.rpc, golden.rpc]
    for call in rig.fake.calls:
        assert json_format.MessageToDict(call.request, preserving_proto_field_name=True) == golden.request


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
async def test_no_field_is_dropped_because_it_is_zero_or_false(rig: Rig, golden: Golden) -> None:
    rig.fake.answers[golden.rpc] = type(golden.response)()
    answer = await rig.gateway.send(golden.method, golden.target, golden.body)
    assert answer.status == 200
    assert answer.body.keys() >= golden.fields
    assert answer.body["success"] is False
    for field in golden.fields & {"balance", "profit", "win_rate", "amount", "open_trades", "expires_in"}:
        assert answer.body[field] == 0
        assert not isinstance(answer.body[field], bool | str)


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
async def test_numbers_are_numbers_and_times_are_rfc_3339(rig: Rig, golden: Golden) -> None:
    rig.fake.answers[golden.rpc] = golden.response
    answer = await rig.gateway.send(golden.method, golden.target, golden.body)
    for name, value in _leaves(answer.body):
        if name.endswith("_time"):
            assert value.startswith("2026-11-24T05:00:")
            assert value.endswith(".250Z")
        elif isinstance(value, str):
            assert not value.replace(".", "").isdigit(), name


async def test_export_is_a_file_with_its_own_content_type(rig: Rig) -> None:
    rig.fake.answers[EXPORT.rpc] = EXPORT.response
    through = await rig.gateway.send(EXPORT.method, EXPORT.target)
    direct = await rig.direct.send(EXPORT.method, EXPORT.target)
    assert (through.status, through.text) == (200, "trade_id,amount\nx,1\n") == (direct.status, direct.text)
    assert through.headers["content-type"] == direct.headers["content-type"] == "text/csv; charset=utf-8"
    assert rig.fake.calls[0].request.format == "csv"


async def test_longest_answers_arrive_whole(rig: Rig) -> None:
    rig.fake.answers["ListTrades"] = pb.ListTradesResponse(success=True, trades=[TRADE] * 500)
    rig.fake.answers["ListCandles"] = pb.ListCandlesResponse(success=True, candles=[CANDLE] * 1000)
    rows = b"9d1f9f38-0a55-4f0b-8a39-54d1b0a4c6ae,1.00\n" * 200_000
    rig.fake.answers["ExportTrades"] = pb.ExportTradesResponse(file=HttpBody(content_type="text/csv", data=rows))
    trades = await rig.gateway.send("GET", f"/api/trades?session_id={SESSION}&limit=500")
    candles = await rig.gateway.send("GET", f"/api/candles/EURUSD-OTC?session_id={SESSION}&count=1000")
    export = await rig.gateway.send("GET", EXPORT.target)
    assert (len(trades.body["trades"]), len(candles.body["candles"])) == (500, 1000)
    assert export.text.encode() == rows


@pytest.mark.parametrize(("error", "status", "info"), REFUSALS, ids=lambda value: getattr(value, "reason", None))
async def test_refusal_has_the_one_shape_on_both_ways(
    rig: Rig, error: ServiceError, status: int, info: dict[str, Any] | None
) -> None:
    rig.fake.answers["GetBalance"] = error
    through, direct = await rig.gateway.send("GET", BALANCE), await rig.direct.send("GET", BALANCE)
    expected = {"success": False, "code": error.reason, "detail": error.message}
    assert through.body == direct.body == (expected if info is None else {**expected, "info": info})
    assert through.status == direct.status == status
    assert through.headers["content-type"] == "application/json"
    assert through.headers.get("retry-after") == direct.headers.get("retry-after")
    assert not [name for name in through.headers if name.startswith(("grpc-", "x-error", "x-http", "x-envoy"))]


async def test_throttled_login_says_when_to_come_back(rig: Rig) -> None:
    rig.fake.answers["GetBalance"] = errors.LoginThrottledError(600)
    assert (await rig.gateway.send("GET", BALANCE)).headers["retry-after"] == "600"


async def test_fault_of_the_service_shows_nothing_of_itself(rig: Rig) -> None:
    rig.fake.answers["GetBalance"] = ValueError("secret stack")
    answer = await rig.gateway.send("GET", BALANCE)
    assert (answer.status, answer.body["code"]) == (500, "INTERNAL")
    assert "secret" not in answer.text


async def test_words_outside_ascii_arrive_whole(rig: Rig) -> None:
    rig.fake.answers["GetBalance"] = _OddError('Ungültig ✓ "quoted" \\ \n', word="naïve")
    body = (await rig.gateway.send("GET", BALANCE)).body
    assert body["detail"] == 'Ungültig ✓ "quoted" \\ \n'
    assert body["info"] == {"word": "naïve"}


class _OddError(ServiceError):
    reason = "ORDER_REJECTED"
    code = Code.FAILED_PRECONDITION


def _leaves(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, each in value.items() for leaf in _leaves(each, key)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in _leaves(each, name)]
    return [(name, value)]
