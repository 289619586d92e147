"""Login over HTTP and the two openings of the WebSocket."""

import time

import aiohttp
import pytest

from simulator.server import Simulator
from simulator.settings import Settings
from tests.integration.simulator.client import connected, control, log_in, socket_of

BRANDS = ["iq", "exnova"]


@pytest.mark.parametrize("brand", BRANDS)
@pytest.mark.parametrize("path", ["/api/v2/login", "/v2/login"])
@pytest.mark.parametrize("form", [True, False])
async def test_login_is_taken_as_form_and_as_json_with_cookie_and_body(
    simulator: Simulator, brand: str, path: str, form: bool
) -> None:
    fields = {"identifier": "user@example.com", "password": "secret"}
    url = simulator.addresses[brand]["http"] + path
    async with aiohttp.ClientSession() as http:
        answer = await http.post(url, data=fields) if form else await http.post(url, json=fields)
        body = await answer.json()
    assert answer.status == 200
    assert body["code"] == "success"
    assert answer.cookies["ssid"].value == body["ssid"]
    assert answer.cookies["ssid"]["domain"] == ""
    assert not answer.cookies["ssid"]["secure"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"{", b'{"identifier": {}, "password": 1}', b'{"identifier": "a@x"}']
)
async def test_whatever_is_wrong_with_a_login_is_answered_with_a_code(simulator: Simulator, body: bytes) -> None:
    async with aiohttp.ClientSession() as http:
        answer = await http.post(simulator.addresses["iq"]["http"] + "/api/v2/login", data=body)
        assert (answer.status, (await answer.json())["code"]) == (401, "invalid_credentials")


async def test_guessing_is_throttled_for_that_identifier_alone(simulator: Simulator) -> None:
    statuses = [(await log_in(simulator, "a@example.com", password="x"))[0] for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    status, body = await log_in(simulator, "a@example.com")
    assert (status, body["code"]) == (429, "requests_limit_exceeded")
    assert 590 <= body["ttl"] <= 600
    assert (await log_in(simulator, "b@example.com"))[0] == 200


async def test_second_factor_is_needed_and_its_tokens_are_good_once(simulator: Simulator) -> None:
    status, first = await log_in(simulator, "twofa@example.com")
    assert (status, first["code"], first["available_methods"]) == (200, "verify", ["sms", "email"])
    verify = simulator.addresses["iq"]["http"] + "/api/v2/verify/2fa"
    login = simulator.addresses["iq"]["http"] + "/api/v2/login"
    fields = {"identifier": "twofa@example.com", "password": "secret"}
    async with aiohttp.ClientSession() as http:
        sent = await (await http.post(verify, json={"method": "sms", "token": first["token"]})).json()
        wrong = await (await http.post(verify, json={"code": "000000", "token": sent["token"]})).json()
        passed = await (await http.post(verify, json={"code": "123456", "token": sent["token"]})).json()
        again = await (await http.post(verify, json={"code": "123456", "token": sent["token"]})).json()
        done = await (await http.post(login, json=fields | {"token": passed["token"]})).json()
        reused = await (await http.post(login, json=fields | {"token": passed["token"]})).json()
        push = await (await http.post(verify, json={"method": "push", "token": first["token"]})).json()
    assert [b["code"] for b in (sent, wrong, passed, again, done, reused)] == [
        "success",
        "invalid_code",
        "success",
        "invalid_code",
        "success",
        "verify",
    ]
    assert "not supported" in push["message"]


async def test_obsolete_logins_answer_in_their_own_ways(simulator: Simulator) -> None:
    origin = simulator.addresses["iq"]["http"]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        v1 = await http.post(origin + "/api/v1.0/login", data={"email": "a@example.com", "password": "secret"})
        v0 = await http.post(origin + "/api/login", data={"email": "a@example.com", "password": "secret"})
        profile = await http.get(origin + "/api/getprofile")
        refused_v1 = await http.post(origin + "/api/v1.0/login", data={"email": "a@example.com", "password": "x"})
        refused_v0 = await http.post(origin + "/api/login", data={"email": "a@example.com", "password": "x"})
        assert (await v1.json())["data"]["ssid"] == v1.cookies["ssid"].value
        assert (v0.status, bool(v0.cookies["ssid"].value)) == (200, True)
        assert (await profile.json())["result"]["email"] == "a@example.com"
        assert (refused_v1.status, (await refused_v1.json())["errors"][0]["code"]) == (403, 202)
        assert refused_v0.status == 403
    async with aiohttp.ClientSession() as stranger:
        assert (await stranger.get(origin + "/api/getprofile")).status == 403


async def test_clock_starts_before_the_login(simulator: Simulator) -> None:
    async with socket_of(simulator) as client:
        assert (await client.wait(lambda f: f["name"] == "timeSync"))["msg"] > 1_700_000_000_000


async def test_modern_opening(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        opened = await client.wait(lambda f: f["name"] == "authenticated")
        assert (opened["msg"], opened["request_id"]) == (True, "auth")
        assert (await client.wait(lambda f: f["name"] == "front"))["session_id"]
        profile = await client.call("core.get-profile", {})
        assert (profile["status"], profile["msg"]["result"]["email"]) == (0, "trader@example.com")


async def test_legacy_opening_pushes_the_profile_with_its_balances(simulator: Simulator) -> None:
    _, body = await log_in(simulator, "trader@example.com", "exnova")
    async with socket_of(simulator, "exnova") as client:
        await client.send("ssid", body["ssid"], 84937)
        profile = await client.wait(lambda f: f["name"] == "profile")
    assert profile["request_id"] == "84937"
    assert {b["type"]: b["amount"] for b in profile["msg"]["balances"]} == {1: 1000, 4: 10000}
    assert profile["msg"]["company_id"] == 15


@pytest.mark.parametrize(("opening", "answer"), [("authenticate", "authenticated"), ("ssid", "profile")])
@pytest.mark.parametrize("token", ["nonsense", "other brand", "logged out"])
async def test_worthless_token_is_refused_and_the_socket_closed(
    simulator: Simulator, opening: str, answer: str, token: str
) -> None:
    if token == "other brand":
        token = (await log_in(simulator, "a@example.com", "exnova"))[1]["ssid"]
    if token == "logged out":
        token = (await log_in(simulator, "a@example.com"))[1]["ssid"]
        async with aiohttp.ClientSession(cookies={"ssid": token}) as http:
            left = await http.post(simulator.addresses["iq"]["http"] + "/api/v1.0/logout")
            assert left.status == 200
    async with socket_of(simulator) as client:
        await client.send(opening, token if opening == "ssid" else {"ssid": token, "protocol": 3}, "1")
        assert (await client.wait(lambda f: f["name"] == answer))["msg"] is False
        await client.closed.wait()


async def test_nothing_is_answered_before_the_login(simulator: Simulator) -> None:
    async with socket_of(simulator) as client:
        await client.ask("get-balances", {})
        refused = await client.wait(lambda f: f["name"] == "result")
        assert refused["msg"]["success"] is False


async def test_accounts_of_the_brands_are_apart(simulator: Simulator) -> None:
    async with connected(simulator, brand="iq") as here, connected(simulator, brand="exnova") as there:
        assert here.user_id != there.user_id
        bought = await here.blitz(user_balance_id=there.practice)
        assert bought["status"] >= 4000
    accounts = (await control(simulator, "/accounts?email=trader@example.com"))["accounts"]
    assert [a["broker"] for a in accounts] == ["iq", "exnova"]
    assert all(a["balances"]["PRACTICE"]["amount"] == 10_000 for a in accounts)


async def test_password_is_configurable_and_the_second_factor_belongs_to_one_address() -> None:
    async with Simulator(Settings(password="other", two_factor_email="x@x")) as simulator:
        assert (await log_in(simulator, "a@x", password="secret"))[0] == 401
        assert (await log_in(simulator, "twofa@example.com", password="other"))[1]["code"] == "success"


async def test_every_attempt_to_log_in_is_witnessed(simulator: Simulator) -> None:
    await log_in(simulator, "A@example.com")
    await log_in(simulator, "a@example.com", password="x")
    attempts = (await control(simulator, "/logins?email=a@example.com"))["attempts"]
    assert [(a["broker"], a["result"]) for a in attempts] == [("iq", "LoggedIn"), ("iq", "InvalidCredentials")]


async def test_login_can_be_slow(simulator: Simulator) -> None:
    await control(simulator, "/faults", {"kind": "latency", "on": "login", "seconds": 0.3})
    began = time.monotonic()
    assert (await log_in(simulator, "a@example.com"))[0] == 200
    assert time.monotonic() - began >= 0.3
