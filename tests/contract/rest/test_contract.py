"""The documented contract on the whole system, asked straight at the session service and through the gateway."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from services.runtime.channel import open_channel
from tests.support.doors import Answer, DirectDoor, Door, GatewayDoor
from tests.support.eventually import eventually
from tests.support.stack import Stack, running_stack

PASSWORD = "secret"
NOBODYS = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
ORDER = {"asset": "EURUSD-OTC", "direction": "call", "amount": 2, "duration_seconds": 5}
CONNECTED = {
    "success", "session_id", "balance", "broker", "account_type", "currency", "reconnected", "running", "expires_in",
    "access_token",
}  # fmt: skip
STATUS = {
    "success", "session_id", "broker", "account_type", "connected", "running", "status", "balance", "currency",
    "profit", "win_rate", "wins", "losses", "ties", "total_trades", "active_trades", "asset", "timeframe", "model",
    "limits", "expires_in", "broker_connection",
}  # fmt: skip
TRADE = {
    "success", "trade_id", "client_request_id", "status", "asset", "direction", "amount", "currency", "payout_rate",
    "entry_price", "open_time", "expiry_time", "account_type", "broker",
}  # fmt: skip

Call = Callable[..., Awaitable[Answer]]


@pytest.fixture(params=["direct", "gateway"])
async def door(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[Door]:
    async with AsyncExitStack() as exits:
        if request.param == "direct":
            yield DirectDoor(await exits.enter_async_context(open_channel(stack.facts["grpc"]["session"])))
        else:
            yield GatewayDoor(await exits.enter_async_context(aiohttp.ClientSession()), stack.facts["gateway"])


class User:
    """Credentials, and the session they opened."""

    def __init__(self, door: Door, *, broker: str = "iq", account_type: str = "PRACTICE", name: str = "trader") -> None:
        self.door = door
        self.credentials = {
            "broker": broker,
            "account_type": account_type,
            "email": f"{name}-{secrets.token_hex(6)}@example.com",
            "password": PASSWORD,
        }
        self.session_id = ""

    async def connect(self, **fields: Any) -> Answer:
        answer = await self.door.send("POST", "/api/connect", {**self.credentials, **fields})
        if answer.status == 200:
            self.session_id = answer.body["session_id"]
        return answer

    async def post(self, path: str, **fields: Any) -> Answer:
        return await self.door.send("POST", f"/api/{path}", {"session_id": self.session_id, **fields})

    async def get(self, path: str, **query: Any) -> Answer:
        pairs = "".join(f"&{name}={quote(str(value), safe='')}" for name, value in query.items())
        return await self.door.send("GET", f"/api/{path}?session_id={self.session_id}{pairs}")


@pytest.fixture
async def user(door: Door) -> AsyncIterator[User]:
    user = User(door)
    assert (await user.connect()).status == 200
    yield user
    await user.post("disconnect")


def accepted(answer: Answer, fields: set[str], **values: Any) -> Any:
    assert answer.status == 200, answer.text
    assert answer.body["success"] is True
    assert answer.body.keys() >= fields
    assert {name: answer.body[name] for name in values} == values
    return answer.body


def refused(answer: Answer, status: int, code: str, /, **info: Any) -> Any:
    assert (answer.status, answer.body.get("code")) == (status, code), answer.text
    assert answer.body["success"] is False
    assert answer.body["detail"]
    assert answer.body.keys() <= {"success", "code", "detail", "info"}
    assert {name: answer.body.get("info", {}).get(name) for name in info} == info
    assert answer.headers["content-type"] == "application/json"
    return answer.body


@pytest.mark.parametrize(
    ("broker", "account_type", "name", "balance"),
    [
        ("exnova", "PRACTICE", "somebody", 10_000),
        ("iq", "REAL", "trader", 1_000),
        ("exnova", "REAL", "trader", 1_000),
        ("iq", "REAL", "somebody", 0),
    ],
)
async def test_connect_opens_a_session_of_its_own(
    door: Door, broker: str, account_type: str, name: str, balance: float
) -> None:
    user = User(door, broker=broker, account_type=account_type, name=name)
    body = accepted(
        await user.connect(session_id=None),
        CONNECTED,
        broker=broker,
        account_type=account_type,
        balance=balance,
        currency="USD",
        reconnected=False,
        running=False,
        expires_in=3600,
    )
    assert UUID(body["session_id"]).version == 4
    assert body["access_token"].count(".") == 2
    accepted(await user.get("balance"), set(), balance=balance, broker=broker, account_type=account_type)
    accepted(await user.post("disconnect"), set())


async def test_page_that_reloads_finds_its_session_as_it_was(user: User) -> None:
    first = user.session_id
    accepted(await user.post("start", duration_seconds=5), set())
    body = accepted(await user.connect(session_id=first), CONNECTED, session_id=first, reconnected=True, running=True)
    assert body["expires_in"] == 3600
    accepted(await user.post("stop"), set())


@pytest.mark.parametrize(
    "session_id", [str(uuid4()), "", "stale", "a b", "💩"], ids=["uuid", "empty", "word", "odd", "wild"]
)
async def test_connect_with_an_id_that_lives_no_more_opens_a_new_session(door: Door, session_id: str) -> None:
    user = User(door)
    body = accepted(await user.connect(session_id=session_id), CONNECTED, reconnected=False)
    assert body["session_id"] != session_id
    await user.post("disconnect")


@pytest.mark.parametrize(
    "change",
    [
        {"password": "guessed"},
        {"email": "somebody-else@example.com"},
        {"broker": "exnova"},
        {"account_type": "REAL"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_knowing_an_id_opens_no_session_without_its_credentials(user: User, change: dict[str, str]) -> None:
    thief = User(user.door)
    thief.credentials = {**user.credentials, **change}
    refused(await thief.connect(session_id=user.session_id), 403, "SESSION_MISMATCH")
    accepted(await user.get("status"), set(), session_id=user.session_id, broker="iq", account_type="PRACTICE")


async def test_wrong_password_is_invalid_credentials(door: Door) -> None:
    user = User(door)
    refused(await user.connect(password="wrong"), 401, "INVALID_CREDENTIALS")


@pytest.mark.parametrize("field", ["broker", "email", "password"])
async def test_connect_names_the_field_that_is_missing(door: Door, field: str) -> None:
    user = User(door)
    del user.credentials[field]
    refused(await user.connect(), 400, "INVALID_ARGUMENT", field=field)


@pytest.mark.parametrize(
    ("field", "value"), [("broker", "deriv"), ("broker", "IQ"), ("account_type", "DEMO"), ("account_type", "")]
)
async def test_connect_names_the_field_that_is_out_of_range(door: Door, field: str, value: str) -> None:
    body = refused(await User(door).connect(**{field: value}), 400, "INVALID_ARGUMENT", field=field)
    assert not value or value not in body["detail"].replace('"iq"', "")


async def test_second_factor_is_a_step_of_connect(door: Door) -> None:
    user = User(door)
    user.credentials["email"] = "twofa@example.com"
    body = refused(await user.connect(), 401, "TWO_FACTOR_REQUIRED")
    method, challenge = body["info"]["methods"][0], body["info"]["challenge"]
    wrong = {"challenge": challenge, "method": method, "code": "000000"}
    refused(await user.connect(two_factor=wrong), 401, "TWO_FACTOR_INVALID")
    body = refused(await user.connect(), 401, "TWO_FACTOR_REQUIRED")
    right = {"challenge": body["info"]["challenge"], "method": method, "code": "123456"}
    accepted(await user.connect(two_factor=right), CONNECTED, reconnected=False)
    await user.post("disconnect")


SESSION_CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "disconnect", {}),
    ("POST", "start", {}),
    ("POST", "bot/start", {}),
    ("POST", "stop", {}),
    ("POST", "bot/stop", {}),
    ("POST", "pause", {}),
    ("POST", "resume", {}),
    ("POST", "trade", ORDER),
    ("POST", "balance", {}),
    ("POST", "timeframe", {"timeframe": 60}),
    ("POST", f"trades/{NOBODYS}/close", {}),
    ("GET", "balance", {}),
    ("GET", "status", {}),
    ("GET", "trades", {}),
    ("GET", f"trades/{NOBODYS}", {}),
    ("GET", "trades/export", {}),
    ("GET", "assets", {}),
    ("GET", "candles/EURUSD-OTC", {}),
]


@pytest.mark.parametrize(
    ("method", "path", "fields"), SESSION_CALLS, ids=[f"{m} {p[:14]}" for m, p, _ in SESSION_CALLS]
)
async def test_every_call_wants_a_live_session(door: Door, method: str, path: str, fields: dict[str, Any]) -> None:
    user = User(door)
    for session_id in (str(uuid4()), "nobody", "a b", "x" * 200):
        user.session_id = quote(session_id) if method == "GET" else session_id
        answer = await (user.post(path, **fields) if method == "POST" else user.get(path))
        refused(answer, 404, "SESSION_NOT_FOUND")
    if method == "POST":
        refused(await door.send("POST", f"/api/{path}", fields), 400, "INVALID_ARGUMENT", field="session_id")
    else:
        refused(await door.send("GET", f"/api/{path}"), 400, "INVALID_ARGUMENT", field="session_id")


async def test_disconnect_ends_the_session_for_good(door: Door) -> None:
    user = User(door)
    await user.connect()
    accepted(await user.post("disconnect"), set())
    for _ in range(2):
        refused(await user.get("balance"), 404, "SESSION_NOT_FOUND")
        refused(await user.post("disconnect"), 404, "SESSION_NOT_FOUND")


@pytest.mark.parametrize("prefix", ["", "bot/"])
async def test_start_and_stop_are_idempotent(user: User, prefix: str) -> None:
    for _ in range(2):
        # No market pays its whole stake, so that no candle that closes meanwhile makes it trade.
        settings = {"amount": 2.5, "min_payout": 1}
        body = accepted(await user.post(f"{prefix}start", **settings), set(), running=True, status="running")
        assert (
            body["settings"].items() >= {"asset": "EURUSD-OTC", "timeframe": 60, "amount": 2.5, "duration": 1}.items()
        )
    accepted(await user.get("status"), STATUS, running=True, status="running")
    refused(await user.post(f"{prefix}start", amount=3), 409, "BOT_ALREADY_RUNNING")
    for _ in range(2):
        accepted(await user.post(f"{prefix}stop"), set(), running=False, status="stopped", open_trades=0)
    accepted(await user.get("status"), STATUS, running=False, status="stopped")


async def test_pause_and_resume_keep_the_run(user: User) -> None:
    refused(await user.post("pause"), 409, "BOT_NOT_RUNNING", status="stopped")
    refused(await user.post("resume"), 409, "BOT_NOT_RUNNING", status="stopped")
    accepted(await user.post("start"), set())
    for _ in range(2):
        accepted(await user.post("pause"), set(), running=False, status="paused")
    accepted(await user.get("status"), set(), running=False, status="paused")
    for _ in range(2):
        accepted(await user.post("resume"), set(), running=True, status="running")
    accepted(await user.post("stop"), set())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeframe", 7), ("timeframe", 0), ("amount", 0), ("amount", -1), ("amount", "NaN"), ("amount", 1.234),
        ("duration", 0), ("duration_seconds", 4), ("duration_seconds", 301), ("max_trades", 0), ("stop_loss", -1),
        ("take_profit", "Infinity"), ("daily_loss_limit", "NaN"), ("max_consecutive_losses", -1), ("min_payout", 11),
        ("min_payout", "NaN"), ("asset", ""),
    ],
)  # fmt: skip
async def test_start_names_the_setting_that_is_out_of_range(user: User, field: str, value: Any) -> None:
    refused(await user.post("start", **{field: value}), 400, "INVALID_ARGUMENT", field=field)
    accepted(await user.get("status"), set(), running=False)


async def test_unknown_model_is_not_found(user: User) -> None:
    refused(await user.post("start", model="no-such-model"), 404, "MODEL_NOT_FOUND")


async def test_trade_answers_at_acceptance_and_is_settled_later(user: User) -> None:
    body = accepted(
        await user.post("trade", **ORDER, client_request_id="first"),
        TRADE,
        status="open",
        asset="EURUSD-OTC",
        direction="call",
        amount=2,
        currency="USD",
        client_request_id="first",
        account_type="PRACTICE",
        broker="iq",
        profit=0,
    )
    assert body["payout_rate"] > 0
    assert body["entry_price"] > 0
    assert body["open_time"] < body["expiry_time"]

    async def settled() -> Any:
        trade = accepted(await user.get(f"trades/{body['trade_id']}"), TRADE)
        return trade if trade["status"] in {"won", "lost", "tied"} else None

    trade = await eventually(settled, within=20, every=0.2)
    expected = {"won": 2 * trade["payout_rate"], "lost": -2, "tied": 0}[trade["status"]]
    assert trade["profit"] == pytest.approx(expected, abs=0.005)
    status = accepted(await user.get("status"), STATUS, total_trades=1, active_trades=0)
    assert status["wins"] + status["losses"] + status["ties"] == 1
    refused(await user.post(f"trades/{body['trade_id']}/close"), 409, "NOT_SELLABLE")


async def test_same_client_request_id_never_places_a_second_trade(user: User) -> None:
    first = accepted(await user.post("trade", **ORDER, client_request_id="k"), TRADE)
    again = accepted(await user.post("trade", **ORDER, client_request_id="k"), TRADE)
    assert again["trade_id"] == first["trade_id"]
    refused(
        await user.post("trade", **{**ORDER, "amount": 3}, client_request_id="k"),
        409,
        "REQUEST_ID_REUSED",
        field="client_request_id",
    )
    listed = accepted(await user.get("trades"), {"trades", "next_page_token"})
    assert [trade["trade_id"] for trade in listed["trades"]] == [first["trade_id"]]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", -1), ("amount", 0), ("amount", "NaN"), ("amount", "Infinity"), ("amount", "-Infinity"),
        ("amount", 1.005), ("amount", 1e18), ("amount", None), ("direction", "up"), ("direction", "CALL"),
        ("direction", None), ("direction", ""), ("duration_seconds", 4), ("duration_seconds", 301),
        ("duration_seconds", -5), ("instrument_type", "forex"), ("client_request_id", ""),
        ("client_request_id", "x" * 65),
    ],
)  # fmt: skip
async def test_trade_names_the_field_that_is_missing_or_out_of_range(user: User, field: str, value: Any) -> None:
    order = {name: each for name, each in {**ORDER, field: value}.items() if each is not None}
    refused(await user.post("trade", **order), 400, "INVALID_ARGUMENT", field=field)
    assert accepted(await user.get("trades"), set())["trades"] == []


async def test_trade_without_funds_is_refused_and_leaves_a_balance_of_zero(door: Door) -> None:
    user = User(door, account_type="REAL", name="somebody")
    await user.connect()
    refused(await user.post("trade", **ORDER), 402, "INSUFFICIENT_FUNDS")
    accepted(await user.get("balance"), set(), balance=0, account_type="REAL")
    await user.post("disconnect")


async def test_trade_on_an_asset_that_nobody_offers_is_refused(user: User) -> None:
    refused(await user.post("trade", **{**ORDER, "asset": "NOSUCH"}), 400, "INVALID_ARGUMENT", field="asset")


async def test_trades_are_listed_newest_first_and_page_by_page(user: User) -> None:
    placed = [accepted(await user.post("trade", **ORDER), TRADE)["trade_id"] for _ in range(3)]
    first = accepted(await user.get("trades", limit=2), set())
    second = accepted(await user.get("trades", limit=2, page_token=first["next_page_token"]), set(), next_page_token="")
    assert [trade["trade_id"] for trade in first["trades"] + second["trades"]] == placed[::-1]
    for field, value in (("limit", 0), ("status", "lucky"), ("page_token", "x")):
        refused(await user.get("trades", **{field: value}), 400, "INVALID_ARGUMENT", field=field)


async def test_trade_of_another_session_is_not_found(user: User) -> None:
    trade_id = accepted(await user.post("trade", **ORDER), TRADE)["trade_id"]
    other = User(user.door)
    await other.connect()
    for path in (f"trades/{trade_id}", f"trades/{uuid4()}", "trades/x"):
        refused(await other.get(path), 404, "TRADE_NOT_FOUND")
        refused(await other.post(f"{path}/close"), 404, "TRADE_NOT_FOUND")
    assert accepted(await other.get("trades"), set())["trades"] == []
    await other.post("disconnect")


async def test_export_is_a_csv_file_with_every_trade(user: User) -> None:
    trade_id = accepted(await user.post("trade", **ORDER), TRADE)["trade_id"]
    answer = await user.get("trades/export", format="csv")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/csv")
    header, row = answer.text.splitlines()
    assert "trade_id" in header
    assert trade_id in row
    assert user.session_id not in answer.text
    refused(await user.get("trades/export", format="xlsx"), 400, "INVALID_ARGUMENT", field="format")


async def test_assets_carry_their_payouts(user: User) -> None:
    assets = accepted(await user.get("assets"), {"assets"})["assets"]
    eurusd = next(asset for asset in assets if asset["asset"] == "EURUSD-OTC")
    assert eurusd.keys() >= {"asset", "name", "instrument_types", "open", "payout_rate", "min_amount", "max_amount"}
    assert eurusd["open"] is True
    assert 0 < eurusd["payout_rate"] < 1
    assert {"turbo", "binary", "blitz"} <= set(eurusd["instrument_types"])


async def test_candles_ascend(user: User) -> None:
    candles = accepted(await user.get("candles/EURUSD-OTC", timeframe=60, count=50), {"candles"})["candles"]
    assert len(candles) == 50
    times = [candle["open_time"] for candle in candles]
    assert times == sorted(set(times))
    for candle in candles:
        assert candle.keys() >= {"open_time", "close_time", "open", "high", "low", "close", "volume"}
        assert candle["low"] <= min(candle["open"], candle["close"])
    for field, value in (("count", 0), ("count", 1001), ("timeframe", 7)):
        answer = await user.get("candles/EURUSD-OTC", **{field: value})
        refused(answer, 400, "INVALID_ARGUMENT", field=field)


async def test_timeframe_is_kept(user: User) -> None:
    accepted(await user.post("timeframe", timeframe=300), set(), timeframe=300)
    accepted(await user.get("status"), set(), timeframe=300)
    refused(await user.post("timeframe", timeframe=7), 400, "INVALID_ARGUMENT", field="timeframe")
    refused(await user.post("timeframe"), 400, "INVALID_ARGUMENT", field="timeframe")


async def test_three_users_share_nothing(door: Door) -> None:
    users = [
        User(door, broker="exnova", account_type="PRACTICE"),
        User(door, broker="iq", account_type="REAL"),
        User(door, broker="exnova", account_type="REAL"),
    ]
    await asyncio.gather(*(user.connect() for user in users))
    assert len({user.session_id for user in users}) == 3
    await users[0].post("start")
    accepted(await users[1].post("trade", **ORDER), TRADE, broker="iq", account_type="REAL")
    seen = [accepted(await user.get("status"), STATUS) for user in users]
    assert [(s["broker"], s["account_type"], s["running"]) for s in seen] == [
        ("exnova", "PRACTICE", True), ("iq", "REAL", False), ("exnova", "REAL", False),
    ]  # fmt: skip
    assert [s["total_trades"] for s in seen][1:] == [1, 0]
    for user in users:
        await user.post("disconnect")


async def frames_until(socket: Any, kind: str) -> list[Any]:
    frames: list[Any] = []
    async with asyncio.timeout(20):
        while not frames or frames[-1]["type"] != kind:
            frames.append(json.loads(await socket.recv()))
    return frames


@pytest.mark.parametrize("path", ["/ws?session_id={}", "/ws/{}"])
async def test_socket_tells_a_trades_story_and_can_resume_it(stack: Stack, path: str) -> None:
    url = stack.facts["gateway"].replace("http", "ws", 1)
    async with aiohttp.ClientSession() as http:
        user = User(GatewayDoor(http, stack.facts["gateway"]))
        await user.connect()
        target = url + path.format(user.session_id)
        async with connect(target) as socket:
            snapshot = json.loads(await asyncio.wait_for(socket.recv(), 10))
            assert snapshot["type"] == "snapshot"
            assert snapshot["data"].keys() >= STATUS | {"open_trades"}
            trade = accepted(await user.post("trade", **{**ORDER, "duration_seconds": 60}), TRADE)
            async with stack.simulator() as simulator:
                await simulator.call("POST", "/settle", json={"email": user.credentials["email"], "outcome": "won"})
            frames = [frame for frame in await frames_until(socket, "trade_closed") if frame["type"] != "candle"]
            assert [frame["seq"] for frame in frames] == [snapshot["seq"] + n for n in range(1, len(frames) + 1)]
            assert {frame["session_id"] for frame in frames} == {user.session_id}
            assert {frame["account_type"] for frame in frames} == {"PRACTICE"}
            opened = next(frame for frame in frames if frame["type"] == "trade_opened")
            assert opened["data"]["trade_id"] == frames[-1]["data"]["trade_id"] == trade["trade_id"]
        joint = "&" if "?" in target else "?"
        async with connect(f"{target}{joint}last_seq={snapshot['seq']}") as again:
            replayed = [frame for frame in await frames_until(again, "trade_closed") if frame["type"] != "candle"]
            assert replayed == frames
            accepted(await user.post("disconnect"), set())
            ended = await frames_until(again, "session_closed")
            assert ended[-1]["data"] == {"reason": "disconnected"}
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(again.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
        async with connect(target) as late:
            with pytest.raises(ConnectionClosed) as gone:
                await asyncio.wait_for(late.recv(), 10)
        assert gone.value.rcvd is not None
        assert gone.value.rcvd.code == 4404


@pytest.mark.timeout(600)
async def test_system_that_stops_tells_every_socket_to_come_back() -> None:
    with running_stack() as stack:
        async with stack.gateway() as gateway:
            who = {"broker": "iq", "account_type": "PRACTICE", "email": "leaver@example.com", "password": PASSWORD}
            session = await gateway.connect(**who)
            async with session.gateway.socket(session.session_id, None) as socket:
                assert json.loads((await socket.receive(60)).data)["type"] == "snapshot"
                stopping = asyncio.create_task(asyncio.to_thread(stack.system.stop))
                async with asyncio.timeout(60):
                    async for _ in socket:
                        pass
                assert socket.close_code == 1001
                await stopping


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"asset": "NOSUCH"}, "asset"),
        ({"duration_seconds": 7}, "duration_seconds"),
        ({"evidence_gate": "perhaps"}, "evidence_gate"),
        ({"evidence_gate": ""}, "evidence_gate"),
    ],
)
async def test_terms_that_nobody_can_trade_are_refused_at_the_start(
    user: User, settings: dict[str, Any], field: str
) -> None:
    refused(await user.post("start", **settings), 400, "INVALID_ARGUMENT", field=field)
    accepted(await user.get("status"), set(), running=False)


async def test_bot_that_its_model_lets_hold_for_ever_runs_as_it_was_told(user: User) -> None:
    body = accepted(await user.post("start", timeframe=60, duration=5), set(), running=True)
    assert (body["settings"]["timeframe"], body["settings"]["duration"]) == (60, 5)


async def test_candle_length_that_is_not_named_is_the_models(user: User) -> None:
    body = accepted(await user.post("start", duration_seconds=5), set(), running=True)
    assert body["settings"]["timeframe"] == 5
    accepted(await user.post("start", duration_seconds=5), set(), running=True, settings=body["settings"])


@pytest.mark.parametrize(
    ("account_type", "said", "mode", "state"),
    [
        ("REAL", {}, "on", "closed"),
        ("PRACTICE", {}, "off", "open"),
        ("REAL", {"evidence_gate": "off"}, "off", "open"),
        ("PRACTICE", {"evidence_gate": "on"}, "on", "closed"),
    ],
)
async def test_evidence_gate_is_set_at_the_start_and_seen_in_the_status(
    door: Door, account_type: str, said: dict[str, str], mode: str, state: str
) -> None:
    user = User(door, account_type=account_type)
    accepted(await user.connect(), CONNECTED)
    assert accepted(await user.post("start", **said), set())["settings"]["evidence_gate"] == mode
    gate = accepted(await user.get("status"), STATUS)["evidence_gate"]
    assert (gate["mode"], gate["state"], gate["shadow_decisions"], gate["hit_rate"]) == (mode, state, 0, 0)
    assert gate["words"] == "no evidence of an edge: 0 shadow decisions"
    accepted(await user.post("stop"), set())
    # What was said once does not hold for the next run.
    default = "on" if account_type == "REAL" else "off"
    assert accepted(await user.post("start"), set())["settings"]["evidence_gate"] == default
    await user.post("disconnect")


async def test_models_are_listed_and_shown_with_their_cards(user: User) -> None:
    models = accepted(await user.get("models"), {"models"})["models"]
    assert models == accepted(await user.door.send("GET", "/api/models"), {"models"})["models"]
    (default,) = [model for model in models if model["is_default"] and model["state"] == "active"]
    body = accepted(await user.get(f"models/{default['model']}"), {"card", "versions"}, model=default)
    assert body["card"].startswith("#")
    assert default in body["versions"]
    accepted(await user.get(f"models/{default['model']}", version=default["version"]), set(), model=default)
    refused(await user.get("models/nosuch"), 404, "MODEL_NOT_FOUND")
    refused(await user.get(f"models/{default['model']}", version="0.0.0"), 404, "MODEL_NOT_FOUND")
    refused(await user.door.send("GET", f"/api/models?session_id={NOBODYS}"), 404, "SESSION_NOT_FOUND")


async def test_candles_of_an_asset_that_nobody_has_are_refused_by_name(user: User) -> None:
    refused(await user.get("candles/NOSUCH"), 400, "INVALID_ARGUMENT", field="asset")
