"""What the gateway answers by itself, and what it lets through: the negative half of the contract."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from local.ports import PortBlock
from tests.contract.rest.conftest import Rig
from tests.contract.rest.golden import BALANCE, CONNECTED, CREDENTIALS, GOLDEN, SESSION, STOPPED, TRADE
from tests.support.doors import Answer, GatewayDoor
from tests.support.envoy import running_envoy
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = "9d1f9f38-0a55-4f0b-8a39-54d1b0a4c6ae"
MARK = "e5b1c7canary"
"""In every senseless input; must be in no answer and no log."""
ORIGIN = {"origin": "http://localhost:3000"}
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}


def refused(answer: Answer, status: int, code: str, field: str | None = None) -> None:
    """Check the one shape of an error."""
    assert (answer.status, answer.body["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert answer.body["success"] is False
    assert answer.body["detail"]
    assert answer.body.keys() <= {"success", "code", "detail", "info"}
    assert answer.body.get("info") == (None if field is None else {"field": field})
    if field is not None:
        assert field in answer.body["detail"]
    assert MARK not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"session_id": "e5b1c7canary"',
        b"e5b1c7canary",
        b"[1, 2]",
        b'"e5b1c7canary"',
        b"null",
        b"7",
        b'{"session_id": "a"} e5b1c7canary',
        b'{"amount": NaN}',
        b'{"amount": -Infinity}',
        b'{"amount": 1e400}',
        b'{"session_id": "\xff\xfe"}',
        b"<html>e5b1c7canary</html>",
        b"\x00\x01\x02",
        b'{"a":' * 2000,
        b'"detail":"amount: invalid value","success"',
    ],
)
async def test_malformed_json_is_refused_without_an_echo(rig: Rig, body: bytes) -> None:
    refused(await rig.gateway.send_raw("POST", "/api/trade", body), 400, "INVALID_ARGUMENT")
    assert rig.fake.calls == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"amount": MARK}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": {"x": MARK}}, "amount"),
        ({"amount": [1]}, "amount"),
        ({"duration": 1.5}, "duration"),
        ({"duration": 2**40}, "duration"),
        ({"duration_seconds": "5 e5b1c7canary"}, "duration_seconds"),
        ({"direction": 1}, "direction"),
        ({"direction": ["call"]}, "direction"),
        ({"direction": {"is": "call"}}, "direction"),
        ({"session_id": 5}, "session_id"),
        ({"session_id": False}, "session_id"),
        ({"session_id": [SESSION]}, "session_id"),
        ({"session_id": {"$ne": None}}, "session_id"),
    ],
)
async def test_wrong_type_is_refused_by_the_name_of_the_field(rig: Rig, body: dict[str, Any], field: str) -> None:
    whole = {"session_id": SESSION, "direction": "call", "amount": 1, **body}
    refused(await rig.gateway.send("POST", "/api/trade", whole), 400, "INVALID_ARGUMENT", field)
    assert rig.fake.calls == []


@pytest.mark.parametrize(
    ("two_factor", "field"), [({"code": 5}, "two_factor.code"), (MARK, "two_factor"), ([1], "two_factor")]
)
async def test_wrong_type_inside_an_object_is_named_with_its_path(rig: Rig, two_factor: Any, field: str) -> None:
    answer = await rig.gateway.send("POST", "/api/connect", {**CREDENTIALS, "two_factor": two_factor})
    refused(answer, 400, "INVALID_ARGUMENT", field)


@pytest.mark.parametrize(
    ("target", "field"),
    [
        (f"/api/candles/EURUSD-OTC?session_id={SESSION}&count={MARK}", "count"),
        (f"/api/trades?session_id={SESSION}&limit=1.5", "limit"),
        (f"/api/balance?session_id={SESSION}&session_id={OTHER}", "session_id"),
    ],
)
async def test_wrong_type_in_the_query_is_refused_by_name(rig: Rig, target: str, field: str) -> None:
    refused(await rig.gateway.send("GET", target), 400, "INVALID_ARGUMENT", field)


async def test_field_that_only_a_client_invented_is_never_named(rig: Rig) -> None:
    body = b'{"e5b1c7canary": [1], "session_id": "a", "amount": [2]}'
    refused(await rig.gateway.send_raw("POST", "/api/trade", body), 400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("start", {"stop_los": 5}, "stop_los"),
        ("start", {"stopLos": 5}, "stop_los"),
        ("bot/start", {"max_trade": 1}, "max_trade"),
        ("trade", {"stop_loss": 5}, "stop_loss"),
        ("trade", {"ammount": 5}, "ammount"),
        ("trade", {"direktion": "call"}, "direktion"),
        ("trade", {MARK: 5}, None),
        ("trade", {"asset": "x", f"amount {MARK}": 5}, None),
        ("trade", {"": 5}, None),
        ("trade", {f'amount": 5, "{MARK}': 5}, None),
    ],
)
async def test_field_that_a_call_with_a_stake_does_not_know_is_refused_and_named_if_it_may_be(
    rig: Rig, path: str, body: dict[str, Any], field: str | None
) -> None:
    answer = await rig.gateway.send("POST", f"/api/{path}", {"session_id": SESSION, **body})
    refused(answer, 400, "INVALID_ARGUMENT", field)
    assert rig.fake.calls == []


@pytest.mark.parametrize("extra", [{"of_a_newer_client": [1]}, {"asset": "EURUSD-OTC"}, {"stop_los": "5"}])
async def test_a_call_without_a_stake_takes_what_a_newer_client_may_send(rig: Rig, extra: dict[str, Any]) -> None:
    rig.fake.answers["StopBot"] = STOPPED
    answer = await rig.gateway.send("POST", "/api/stop", {"session_id": SESSION, **extra})
    assert answer.status == 200
    assert rig.fake.calls[0].request.session_id == SESSION


async def test_what_looks_like_a_field_inside_a_text_is_text(rig: Rig) -> None:
    rig.fake.answers["Connect"] = CONNECTED
    trap = 'a\\", "stop_los": [1], {"x": '
    answer = await rig.gateway.send(
        "POST", "/api/connect", {**CREDENTIALS, "password": trap, "two_factor": {"code": trap}}
    )
    assert answer.status == 200
    request = rig.fake.calls[0].request
    assert (request.password, request.two_factor.code) == (trap, trap)


@pytest.mark.parametrize(
    "target",
    [
        "/", "/api", "/api/", f"/api/{MARK}", "/api/balance/", f"/api/balance/{MARK}", "/API/balance", "/api/trades/a/b",
        "/api/trades/a/close/b", "/tradebot.session.v1.SessionService/GetBalance", "/grpc.health.v1.Health/Check",
        f"/ws/{MARK}/x", "/stats", "/api/../..", "//",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_unknown_path_is_not_found(rig: Rig, method: str, target: str) -> None:
    refused(await rig.gateway.send_raw(method, target), 404, "NOT_FOUND")
    assert rig.fake.calls == []


ALLOWED: dict[str, set[str]] = {"/ws": {"GET"}, f"/ws/{SESSION}": {"GET"}, "/healthz": {"GET"}}
for _golden in GOLDEN:
    ALLOWED.setdefault(_golden.target.partition("?")[0], set()).add(_golden.method)


@pytest.mark.parametrize("path", ALLOWED)
async def test_wrong_method_is_refused_with_the_right_ones(rig: Rig, path: str) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - ALLOWED[path]:
        answer = await rig.gateway.send_raw(method, path, b"{}" if method == "POST" else None)
        refused(answer, 405, "METHOD_NOT_ALLOWED")
        assert set(answer.headers["allow"].split(", ")) == ALLOWED[path]
    assert rig.fake.calls == []


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api/balance", 405),
        ("/api/balance?session_id=a%20b", 405),
        ("/api/trade", 405),
        (f"/{MARK}", 404),
        ("/api/candles/a%2Fb", 400),
    ],
)
async def test_head_is_refused_without_a_body_on_the_wire(rig: Rig, target: str, status: int) -> None:
    for _ in range(2):  # on one connection, where stray bytes would be taken for the next answer
        answer = await rig.gateway.send_raw("HEAD", target)
        assert (answer.status, answer.text) == (status, "")


@pytest.mark.parametrize("size", [16_385, 40_000, 200_000])
async def test_oversized_body_is_refused(rig: Rig, size: int) -> None:
    whole = json.dumps({"session_id": SESSION, "asset": "a" * size}).encode()

    async def chunks() -> Any:
        for start in range(0, len(whole), 4096):
            yield whole[start : start + 4096]

    refused(await rig.gateway.send_raw("POST", "/api/trade", whole), 413, "PAYLOAD_TOO_LARGE")
    refused(await rig.gateway.send_raw("POST", "/api/trade", chunks()), 413, "PAYLOAD_TOO_LARGE")
    assert rig.fake.calls == []


async def test_missing_body_is_an_empty_request(rig: Rig) -> None:
    rig.fake.answers["PlaceTrade"] = TRADE
    for body in (None, b"", b"{}"):
        assert (await rig.gateway.send_raw("POST", "/api/trade", body)).status == 200
    assert all(not call.request.HasField("session_id") for call in rig.fake.calls)


async def test_null_is_absent(rig: Rig) -> None:
    rig.fake.answers["PlaceTrade"] = TRADE
    await rig.gateway.send("POST", "/api/trade", {"session_id": None, "amount": None})
    request = rig.fake.calls[0].request
    assert not request.HasField("session_id")
    assert not request.HasField("amount")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('"amount": "NaN"', "amount"),
        ('"amount":"5"', "amount"),
        ('"durationSeconds" : "5"', "duration_seconds"),
        ('"asset": "x", "duration" :\n "1"', "duration"),
    ],
    ids=["nan", "five", "camel case", "spaced"],
)
async def test_number_in_quotes_is_a_wrong_type(rig: Rig, body: str, field: str) -> None:
    answer = await rig.gateway.send_raw(
        "POST", "/api/trade", ('{"session_id": "' + SESSION + '", ' + body + "}").encode(), {}
    )
    assert (answer.status, answer.body["code"], answer.body["info"]) == (400, "INVALID_ARGUMENT", {"field": field})
    assert rig.fake.calls == []


async def test_text_that_only_looks_like_a_number_in_quotes_passes(rig: Rig) -> None:
    rig.fake.answers["PlaceTrade"] = TRADE
    trap = 'a", "amount": "1'
    answer = await rig.gateway.send("POST", "/api/trade", {"session_id": SESSION, "asset": trap, "amount": 5})
    assert answer.status == 200
    assert rig.fake.calls[0].request.asset == trap


@pytest.mark.parametrize("content_type", ["text/plain", "application/grpc", "application/grpc-web", "x", "text/html"])
async def test_body_is_json_whatever_it_is_called(rig: Rig, content_type: str) -> None:
    rig.fake.answers["GetBalance"] = BALANCE
    answer = await rig.gateway.send_raw(
        "POST", "/api/balance", json.dumps({"session_id": SESSION}).encode(), {"content-type": content_type}
    )
    assert (answer.status, answer.body["session_id"]) == (200, SESSION)
    assert rig.fake.calls[0].metadata["x-session-id"] == SESSION


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", f"/api/balance?session_id={SESSION}", None),
        ("GET", f"/api/balance?sessionId={SESSION}", None),
        ("GET", f"/api/balance?session%5Fid={SESSION}", None),
        ("GET", f"/api/balance?session_id={SESSION.replace('-', '%2D')}", None),
        ("POST", "/api/balance", {"session_id": SESSION}),
        ("POST", "/api/balance", {"sessionId": SESSION}),
        ("POST", f"/api/balance?session_id={OTHER}", {"session_id": SESSION}),
        ("POST", f"/api/balance?sessionId={OTHER}", {"session_id": SESSION}),
    ],
)
async def test_service_is_told_the_session_that_the_message_names(
    rig: Rig, method: str, target: str, body: dict[str, Any] | None
) -> None:
    rig.fake.answers["GetBalance"] = BALANCE
    assert (await rig.gateway.send(method, target, body)).status == 200
    call = rig.fake.calls[0]
    assert call.metadata["x-session-id"] == SESSION == call.request.session_id


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/api/balance", f'{{"session_id":"{SESSION}","sessionId":"{OTHER}"}}'),
        ("POST", "/api/balance", f'{{"sessionId":"{OTHER}","session_id":"{SESSION}"}}'),
        ("POST", "/api/balance", f'{{"session_id":"{SESSION}","session_id":"{OTHER}"}}'),
        ("POST", f"/api/balance?session_id={OTHER}", f'{{"sessionId":"{SESSION}"}}'),
        ("GET", f"/api/balance?session_id={SESSION}&sessionId={OTHER}", None),
        ("GET", f"/api/balance?session_id={SESSION}", f'{{"session_id":"{OTHER}"}}'),
    ],
)
async def test_two_sessions_in_one_request_are_never_both_believed(
    rig: Rig, method: str, target: str, body: str | None
) -> None:
    rig.fake.answers["GetBalance"] = BALANCE
    answer = await rig.gateway.send_raw(method, target, body.encode() if body else None)
    if answer.status == 200:
        call = rig.fake.calls[0]
        assert call.metadata["x-session-id"] == call.request.session_id
    else:
        refused(answer, 400, "INVALID_ARGUMENT", "session_id")
        assert rig.fake.calls == []


ODD_IDS = [
    "a b",
    "a\r\nx-user: root",
    "a\nb",
    "a\x00b",
    "é",
    "💩",
    "../..",
    "a;b",
    "'--",
    "a" * 65,
    "%0d%0a",
    "a,b",
    "*",
]


@pytest.mark.parametrize("session_id", ODD_IDS)
async def test_id_that_cannot_be_a_sessions_is_an_unknown_session(rig: Rig, session_id: str) -> None:
    rig.fake.answers["GetBalance"] = BALANCE
    refused(await rig.gateway.send("POST", "/api/balance", {"session_id": session_id}), 404, "SESSION_NOT_FOUND")
    quoted = "".join(f"%{byte:02x}" for byte in session_id.encode())
    refused(await rig.gateway.send("GET", f"/api/balance?session_id={quoted}"), 404, "SESSION_NOT_FOUND")
    assert rig.fake.calls == []


@pytest.mark.parametrize("session_id", ODD_IDS)
async def test_connect_with_such_an_id_goes_on_as_with_an_unknown_one(rig: Rig, session_id: str) -> None:
    rig.fake.answers["Connect"] = CONNECTED
    answer = await rig.gateway.send("POST", "/api/connect", {**CREDENTIALS, "session_id": session_id})
    assert answer.status == 200
    assert rig.fake.calls[0].request.session_id == session_id
    assert "x-session-id" not in rig.fake.calls[0].metadata


async def test_client_cannot_pass_for_the_gateway(rig: Rig) -> None:
    rig.fake.answers["GetBalance"] = BALANCE
    forged = {
        "x-session-id": OTHER,
        "grpc-timeout": "1n",
        "grpc-encoding": "gzip",
        "x-envoy-original-path": "/x",
        "x-envoy-upstream-rq-timeout-ms": "1",
    }
    answer = await rig.gateway.send_raw("GET", f"/api/balance?session_id={SESSION}", headers=forged)
    assert answer.status == 200
    metadata = rig.fake.calls[0].metadata
    assert metadata["x-session-id"] == SESSION
    assert not metadata.keys() & (forged.keys() - {"x-session-id"})
    assert not [value for value in metadata.values() if "session_id" in str(value)]


async def test_header_with_an_underscore_is_refused(rig: Rig) -> None:
    answer = await rig.gateway.send_raw("GET", "/api/balance", headers={"x_session_id": MARK})
    refused(answer, 400, "INVALID_ARGUMENT")


async def test_too_many_headers_are_refused_in_shape(rig: Rig) -> None:
    answer = await rig.gateway.send_raw("GET", "/api/balance", headers={f"x-{n}": MARK for n in range(100)})
    refused(answer, 431, "HEADERS_TOO_LARGE")


@pytest.mark.parametrize(
    ("code", "status", "word"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503, "UNAVAILABLE"),
        (grpc.StatusCode.UNIMPLEMENTED, 501, "UNIMPLEMENTED"),
        (grpc.StatusCode.UNKNOWN, 500, "INTERNAL"),
        (grpc.StatusCode.INTERNAL, 500, "INTERNAL"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "TOO_MANY_REQUESTS"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.DATA_LOSS, 500, "INTERNAL"),
    ],
)
async def test_status_without_words_gets_fixed_ones(rig: Rig, code: grpc.StatusCode, status: int, word: str) -> None:
    rig.fake.aborts["PlaceTrade"] = (code, MARK)
    refused(await rig.gateway.send("POST", "/api/trade", {"session_id": SESSION}), status, word)


async def test_trade_is_never_sent_twice_and_a_read_may_be(rig: Rig) -> None:
    rig.fake.aborts["PlaceTrade"] = rig.fake.aborts["GetBalance"] = (grpc.StatusCode.UNAVAILABLE, "down")
    assert (await rig.gateway.send("POST", "/api/trade", {"session_id": SESSION})).status == 503
    assert [call.rpc for call in rig.fake.calls] == ["PlaceTrade"]
    assert (await rig.gateway.send("GET", f"/api/balance?session_id={SESSION}")).status == 503
    assert [call.rpc for call in rig.fake.calls].count("GetBalance") == 3


async def test_page_on_this_machine_may_call_and_read_errors(rig: Rig) -> None:
    preflight = await rig.gateway.send_raw("OPTIONS", "/api/trade", headers={**ORIGIN, **PREFLIGHT})
    assert (preflight.status, preflight.text) == (200, "")
    assert preflight.headers["access-control-allow-origin"] == ORIGIN["origin"]
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "content-type" in preflight.headers["access-control-allow-headers"]
    rig.fake.answers["GetBalance"] = BALANCE
    for body in (json.dumps({"session_id": SESSION}), "{", '{"session_id":5}', '{"session_id":"a b"}'):
        answer = await rig.gateway.send_raw("POST", "/api/balance", body.encode(), ORIGIN)
        assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost.evil.example", "null"])
async def test_foreign_page_gets_no_permission(rig: Rig, origin: str) -> None:
    rig.fake.answers["GetBalance"] = BALANCE
    preflight = await rig.gateway.send_raw("OPTIONS", "/api/trade", headers={"origin": origin, **PREFLIGHT})
    answer = await rig.gateway.send_raw("GET", f"/api/balance?session_id={SESSION}", headers={"origin": origin})
    for each in (preflight, answer):
        assert "access-control-allow-origin" not in each.headers


async def test_health_is_answered_without_the_services(rig: Rig) -> None:
    answer = await rig.gateway.send("GET", "/healthz")
    assert (answer.status, answer.body, answer.headers["server"]) == (200, {"status": "ok"}, "tradebot")


async def test_service_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with PortBlock.claim() as ports:
        async with (
            running_envoy(tmp_path, session=ports.pick(), bridge=ports.pick()) as edge,
            aiohttp.ClientSession() as http,
        ):
            door = GatewayDoor(http, edge.url)
            assert (await door.send("GET", "/healthz")).status == 200
            for method, target in (("GET", f"/api/balance?session_id={SESSION}"), ("POST", "/api/trade")):
                refused(await door.send(method, target), 503, "UNAVAILABLE")
            with pytest.raises(InvalidStatus) as refusal:
                async with connect(edge.url.replace("http", "ws", 1) + f"/ws/{SESSION}"):
                    pass
            assert refusal.value.response.status_code == 503
            assert json.loads(refusal.value.response.body or b"")["code"] == "UNAVAILABLE"


async def test_access_log_holds_no_session_no_query_and_no_path(rig: Rig) -> None:
    rig.fake.answers["GetBalance"] = BALANCE
    session_id = "5a1c0fee-0000-4000-8000-000000000001"
    before = len(rig.edge.access_log.read_text())
    await rig.gateway.send("GET", f"/api/balance?session_id={session_id}&extra={MARK}")
    await rig.gateway.send("POST", "/api/balance", {"session_id": session_id})
    await rig.gateway.send("GET", f"/api/balance?session_id=x%20{MARK}")
    await rig.gateway.send("GET", f"/{MARK}")
    await rig.gateway.send("GET", f"/ws/{session_id}")
    ws = rig.edge.url.replace("http", "ws", 1)
    for target in (f"/ws/{session_id}", f"/ws?session_id={session_id}&access_token={MARK}"):
        async with connect(ws + target) as socket:
            with pytest.raises(ConnectionClosed):
                await socket.recv()

    async def lines() -> list[dict[str, Any]]:
        whole, _, _ = rig.edge.access_log.read_text()[before:].rpartition("\n")
        found = [json.loads(line) for line in whole.splitlines()]
        assert {(line["route"], line["status"]) for line in found} >= {
            ("GET /api/balance", 200),
            ("POST /api/balance", 200),
            ("GET /ws/{session_id}", 101),
            ("GET /ws", 101),
        }
        return found

    mine = [line for line in await eventually(lines) if line["session"] == session_id[:6]]
    assert {line["route"] for line in mine} == {"GET /api/balance", "POST /api/balance"}
    assert {line["method"] for line in mine if line["route"].startswith("GET")} == {"GET"}
    text = rig.edge.access_log.read_text() + rig.edge.error_log.read_text()
    assert session_id not in text
    assert MARK not in text


async def test_websocket_passes_the_edge_with_its_close_codes(rig: Rig) -> None:
    rig.fake.open(SESSION)
    ws = rig.edge.url.replace("http", "ws", 1)

    async def snapshot(target: str) -> Any:
        async with connect(ws + target) as socket:
            frame = json.loads(await asyncio.wait_for(socket.recv(), 30))
            return frame["type"], frame["session_id"]

    # At once, because Envoy leaves a closed connection open for a second.
    targets = (f"/ws?session_id={SESSION}", f"/ws/{SESSION}", f"/ws/{SESSION}?last_seq=99")
    assert set(await asyncio.gather(*map(snapshot, targets))) == {("snapshot", SESSION)}
    async with connect(f"{ws}/ws/{OTHER}") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 30)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4404, "SESSION_NOT_FOUND")


async def test_upgrade_anywhere_else_is_refused(rig: Rig) -> None:
    ws = rig.edge.url.replace("http", "ws", 1)
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(f"{ws}/nowhere"):
            pass
    assert refusal.value.response.status_code == 404


async def test_plain_request_for_a_websocket_is_told_so(rig: Rig) -> None:
    refused(await rig.gateway.send("GET", f"/ws?session_id={SESSION}"), 426, "UPGRADE_REQUIRED")
