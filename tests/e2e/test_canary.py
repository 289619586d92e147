"""No secret is written, stored or shown anywhere, whatever goes wrong around it."""

import asyncio
import base64
import json
import logging
import os
import resource
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
import redis.asyncio

from local.witness import Simulator
from services.runtime.channel import open_channel
from services.session.adapters.vault import Vault
from services.session.domain.values import SessionKey, session_key
from tests.support.canary import Searcher, forms
from tests.support.doors import Answer, DirectDoor, GatewayDoor
from tests.support.eventually import eventually
from tests.support.stack import Stack, running_stack

pytestmark = pytest.mark.slow

PASSWORD: Final = f"pw/{secrets.token_hex(12)}+ß"
"""With characters that URLs, JSON and base64 write in their own ways."""
CODE: Final = f"2fa{secrets.token_hex(8)}"
SET_BY_US: Final = {"SIMULATOR_PASSWORD": PASSWORD, "SIMULATOR_TWO_FACTOR_CODE": CODE}
"""The broker's side of the secrets; our processes inherit the variables and never look at them."""
DEBUG: Final = {f"{service}_LOG_LEVEL": "DEBUG" for service in ("SESSION", "BROKER", "AGENT", "BRIDGE")}
ORDER: Final[Mapping[str, Any]] = {"asset": "EURUSD-OTC", "direction": "call", "amount": 2, "duration_seconds": 5}
_log = logging.getLogger(__name__)
KILLED: Final = ("session", "broker", "bridge", "envoy", "agent", "redis", "postgres")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A system of its own, as talkative as it can be made, with the broker's passwords of this test."""
    with running_stack({**SET_BY_US, **DEBUG}) as running:
        yield running


@dataclass(slots=True)
class Planted:
    """The secrets by name, and every answer that a client got which is not its own credentials."""

    secrets: dict[str, str] = field(default_factory=lambda: {"password": PASSWORD, "code": CODE})
    answers: list[str] = field(default_factory=list)

    def add(self, name: str, value: str) -> str:
        self.secrets[f"{name} {len(self.secrets)}"] = value
        return value

    def token(self, token: str) -> None:
        """A JWT, and its parts: the header is the same for all and no secret."""
        self.add("access_token", token)
        self.add("claims of the access_token", token.split(".")[1])
        self.add("signature of the access_token", token.split(".")[2])


class Client:
    """A user who makes every mistake there is."""

    def __init__(self, stack: Stack, gateway: GatewayDoor, planted: Planted, name: str) -> None:
        self.stack = stack
        self.gateway = gateway
        self.planted = planted
        self.who = {
            "broker": "iq", "account_type": "PRACTICE", "password": PASSWORD,
            "email": f"{name}-{secrets.token_hex(4)}@example.com",
        }  # fmt: skip
        self.session_id = ""
        self.jwt = ""

    async def connect(self, **fields: Any) -> Answer:
        answer = await self.gateway.send("POST", "/api/connect", {**self.who, **fields})
        if answer.status == 200:
            self.session_id, self.jwt = answer.body["session_id"], answer.body["access_token"]
            self.planted.add("session_id", self.session_id)
            self.planted.token(self.jwt)
            await self.note_broker_token()
        else:
            self.refused(answer)
        return answer

    def refused(self, answer: Answer) -> None:
        """Remember an answer that may hold no secret at all."""
        assert answer.status >= 400
        self.planted.answers.append(f"{dict(answer.headers)} {answer.text}")

    async def note_broker_token(self) -> None:
        """Read the broker's session token where it is sealed, as the service does."""
        vault = Vault.from_file(self.stack.system.data / "keys" / "kek")
        key: SessionKey = session_key(self.session_id)
        connection = await asyncpg.connect(self.stack.facts["postgres"])
        try:
            sealed = await connection.fetchval("SELECT broker_token FROM credentials WHERE session_key = $1", key)
        finally:
            await connection.close()
        self.planted.add("broker token", vault.open(key, "broker_token", sealed).reveal())

    async def wrong(self, method: str, target: str, body: Any = None, **headers: str) -> None:
        """Make a call that must be refused; a body of text goes as it is."""
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.refused(await self.gateway.send_raw(method, target, data, names))

    async def use(self) -> None:
        """Do what users do."""
        assert (await self.connect()).status == 200
        assert (await self.connect(session_id=self.session_id)).body["reconnected"] is True
        for path, fields in (("start", {}), ("pause", {}), ("resume", {}), ("trade", ORDER), ("stop", {})):
            answer = await self.gateway.send("POST", f"/api/{path}", {"session_id": self.session_id, **fields})
            assert answer.status == 200, answer.text
        for path in ("status", "balance", "trades", "trades/export", "assets", "candles/EURUSD-OTC"):
            answer = await self.gateway.send("GET", f"/api/{path}?session_id={self.session_id}")
            assert answer.status == 200, answer.text

    async def misuse(self) -> None:
        """Put every secret where it does not belong."""
        secret_ones = (PASSWORD, self.session_id, self.jwt, CODE)
        for value in secret_ones:
            own = {"session_id": self.session_id}
            written = "".join(f"%{byte:02X}" for byte in value.encode())
            for name in ("amount", "direction", "instrument_type", "duration", "duration_seconds"):
                await self.wrong("POST", "/api/trade", {**ORDER, **own, name: value})
            for name in ("broker", "account_type", "two_factor"):
                await self.wrong("POST", "/api/connect", {**self.who, name: value})
            for name in ("timeframe", "max_trades", "model", "min_payout"):
                await self.wrong("POST", "/api/start", {**own, name: value})
            for name in ("status", "limit", "page_token"):
                await self.wrong("GET", f"/api/trades?session_id={self.session_id}&{name}={written}x")
            await self.wrong("GET", f"/api/trades/{written}?session_id={self.session_id}")
            await self.wrong("GET", f"/api/status?session_id={written}x")
            await self.wrong("GET", f"/api/status?password={written}&access_token={written}")
            await self.wrong("GET", f"/api/{written}")
            await self.wrong("GET", f"/{written}?{written}={written}")
            await self.wrong("GET", f"/ws/{written}")
            await self.wrong("POST", "/api/status", {"session_id": value})
            await self.wrong("POST", "/api/stop", {"session_id": [value]})
            await self.wrong("POST", "/api/stop", {value: [value]})
            await self.wrong("POST", "/api/connect", f'{{"password": "{value}", "email": ')
            await self.wrong("POST", "/api/connect", f'{{"password": {value}}}')
            await self.wrong("POST", "/api/connect", {**self.who, "password": value * 300})
            await self.wrong("POST", "/api/connect", {**self.who, "email": value * 200})
            plain = value.encode("ascii", "ignore").decode()
            self.planted.add("without its umlaut", plain)
            await self.wrong(
                "GET", "/api/status", authorization=f"Bearer {plain}", cookie=f"ssid={plain}", x_session_id=plain,
                x_request_id=plain, referer=f"http://localhost/?{plain}", user_agent=plain, x_forwarded_for=plain,
                grpc_status=plain, traceparent=plain, baggage=plain, x_error_body=plain,
            )  # fmt: skip

    async def misuse_sockets(self) -> None:
        """Say secrets to the bridge."""
        async with aiohttp.ClientSession() as http:
            url = f"{self.stack.facts['gateway']}/ws"
            for query in ({"session_id": str(uuid4()), "access_token": self.jwt}, {"session_id": PASSWORD}, {}):
                await self._closed(http, url, query)
            for text in (
                PASSWORD,
                json.dumps({"type": PASSWORD}),
                json.dumps({"type": "resume", "last_seq": self.jwt}),
            ):
                await self._closed(http, url, {"session_id": self.session_id, "access_token": self.jwt}, text)
            async with http.ws_connect(url, params={"session_id": self.session_id}) as socket:
                assert json.loads((await socket.receive(10)).data)["session_id"] == self.session_id

    async def _closed(self, http: aiohttp.ClientSession, url: str, query: dict[str, str], text: str = "") -> None:
        async with http.ws_connect(url, params=query, protocols=("bearer", "x")) as socket:
            if text:
                await socket.send_str(text)
            async with asyncio.timeout(10):
                message = await socket.receive()
                while message.type not in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}:
                    message = await socket.receive()
            self.planted.answers.append(f"{socket.close_code} {message.extra}")
            assert socket.close_code in {4400, 4404}

    async def misuse_grpc(self) -> None:
        """Make mistakes straight at the session service, whose port is on loopback only."""
        async with open_channel(self.stack.facts["grpc"]["session"]) as channel:
            door = DirectDoor(channel)
            for fields in ({"session_id": PASSWORD}, {"session_id": self.session_id, "direction": PASSWORD}):
                self.refused(await door.send("POST", "/api/trade", {**ORDER, **fields}))
            self.refused(await door.send("POST", "/api/connect", {**self.who, "password": f"{PASSWORD}x"}))

    async def fail_at_the_broker(self, simulator: Simulator) -> None:
        """Meet every way in which the broker refuses."""
        wrong = self.planted.add("wrong password", f"wrong-{secrets.token_hex(12)}")
        fresh = {**self.who, "email": f"other-{secrets.token_hex(4)}@example.com"}
        for _ in range(7):  # until logins are throttled
            self.refused(await self.gateway.send("POST", "/api/connect", {**fresh, "password": wrong}))
        mismatch = {**self.who, "session_id": self.session_id, "password": wrong}
        self.refused(await self.gateway.send("POST", "/api/connect", mismatch))
        await self.second_factor(simulator)
        await self.fault(simulator, kind="outage", brand="exnova", seconds=60)
        self.refused(await self.gateway.send("POST", "/api/connect", {**self.who, "broker": "exnova"}))
        for kind in ("malformed", "unknown_frame", "duplicate"):
            await self.fault(simulator, kind=kind, text=None, times=5)
        await self.fault(simulator, kind="token_expired", times=1)
        for path in ("assets", "candles/EURUSD-OTC"):
            # Whether it is answered is chance; what is logged about it counts.
            await self.gateway.send("GET", f"/api/{path}?session_id={self.session_id}")
        await simulator.call("DELETE", "/faults")

    async def second_factor(self, simulator: Simulator) -> None:
        email = f"second-{secrets.token_hex(4)}@example.com"
        await self.fault(simulator, kind="two_factor", email=email)
        user = Client(self.stack, self.gateway, self.planted, "second")
        user.who["email"] = email
        info = (await self.gateway.send("POST", "/api/connect", user.who)).body["info"]
        # The challenge is the user's to know; nobody else may see it.
        challenge = self.planted.add("challenge", info["challenge"])
        step = {"challenge": challenge, "method": info["methods"][0]}
        bad = self.planted.add("wrong code", f"bad{secrets.token_hex(8)}")
        await user.connect(two_factor={**step, "code": bad})
        info = (await self.gateway.send("POST", "/api/connect", user.who)).body["info"]
        step["challenge"] = self.planted.add("challenge", info["challenge"])
        assert (await user.connect(two_factor={**step, "code": CODE})).status == 200

    async def fault(self, simulator: Simulator, **rule: Any) -> None:
        rule = {name: value for name, value in rule.items() if value is not None}
        await simulator.call("POST", "/faults", json=rule)


async def answers_again(stack: Stack, name: str, gateway: GatewayDoor) -> None:
    """Kill a process and wait until users are served again."""
    await stack.restarted(name, stack.kill(name))

    async def served() -> bool:
        with suppress(aiohttp.ClientError):
            probe = {"email": f"probe-{secrets.token_hex(4)}@example.com", "password": PASSWORD, "broker": "iq"}
            return (await gateway.send("POST", "/api/connect", probe)).status == 200
        return False

    await eventually(served, within=60, every=0.2)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.mark.timeout(600)
async def test_no_secret_is_anywhere_after_everything_went_wrong(stack: Stack, planted: Planted) -> None:
    async with AsyncExitStack() as exits:
        gateway = GatewayDoor(await exits.enter_async_context(aiohttp.ClientSession()), stack.facts["gateway"])
        simulator = await exits.enter_async_context(stack.simulator())
        stays = Client(stack, gateway, planted, "stays")
        await stays.use()
        for number, name in enumerate(KILLED):
            await answers_again(stack, name, gateway)
            if number % 3 == 0:
                client = Client(stack, gateway, planted, f"user{number}")
                await client.use()
                await client.misuse()
                await client.misuse_sockets()
                await client.misuse_grpc()
                await client.fail_at_the_broker(simulator)
                await gateway.send("POST", "/api/disconnect", {"session_id": client.session_id})
        # One session lives through it all: its runner logs in again from what is stored.
        await stays.connect(session_id=stays.session_id)
        searcher = Searcher(planted.secrets)
        for answer in planted.answers:
            searcher.search("answers", answer)
        await searcher.system(stack.system.data, [stack.system.pid], set_by_us=SET_BY_US)
        assert searcher.hits == set()
        # It did look: at all kinds of places, and at what it says.
        places = " ".join(searcher.searched)
        for place in ("answers", "logs/session.log", "logs/envoy.log", "pg_wal/", "appendonly", "admin config_dump"):
            assert place in places
        for place in ("table public.credentials", "redis values", "environ", "run.json"):
            assert place in places
    # What was written at the very end lies in files now.
    await asyncio.to_thread(stack.system.stop)
    assert not (stack.system.data / "run.json").exists()
    await asyncio.to_thread(searcher.files, stack.system.data, (stack.system.data / "simulator",))
    assert searcher.hits == set()
    looked = f"{len(planted.answers)} answers, {len(searcher.searched)} places, {sum(searcher.searched.values())} bytes"
    _log.info("%d secrets, %s: 0 hits", len(planted.secrets), looked)


@pytest.fixture
async def running() -> AsyncIterator[Stack]:
    with running_stack() as stack:
        yield stack


def core_limit(pid: int) -> list[str]:
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[4:6] for line in limits if line.startswith("Max core file size"))


@pytest.mark.timeout(600)
async def test_processes_leave_no_core_behind(running: Stack) -> None:
    for name, pid in running.facts["pids"].items():
        assert core_limit(pid) == ["0", "0"], name
    assert resource.getrlimit(resource.RLIMIT_CORE)[1] != 0, "the test would show nothing"
    old = running.facts["pids"]["session"]
    os.kill(old, signal.SIGABRT)
    await running.restarted("session", old)


@pytest.mark.timeout(600)
async def test_the_search_finds_what_is_planted_at_each_place(running: Stack) -> None:
    places = ("log", "text", "bytes", "redis", "environ", "cmdline", "answer")
    marks = {place: f"mark/{secrets.token_hex(12)}" for place in places}
    # Nothing can be put into Envoy's pages from outside; this stands there.
    marks["edge"] = running.facts["grpc"]["session"]
    data = running.system.data
    with (data / "logs" / "session.log").open("a") as log:
        log.write(json.dumps({"event": base64.b64encode(b"?" + marks["log"].encode()).decode()}) + "\n")
    connection = await asyncpg.connect(running.facts["postgres"])
    await connection.execute("CREATE TABLE planted (words text, raw bytea)")
    await connection.execute("INSERT INTO planted VALUES ($1, $2)", marks["text"], marks["bytes"].encode())
    await connection.close()
    async with redis.asyncio.Redis.from_url(running.facts["redis"]) as client:
        await client.hset("planted", "field", marks["redis"])
    sleeper = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "input()", marks["cmdline"]),
        env={"SOMETHING": marks["environ"]},
        stdin=asyncio.subprocess.PIPE,
    )
    try:
        searcher = Searcher(marks)
        searcher.search("answers", f"detail: {marks['answer']}")

        async def written() -> bool:
            # The append-only file is flushed within a second.
            await searcher.system(data, [sleeper.pid])
            found: dict[str, set[str]] = {}
            for place, name in searcher.hits:
                found.setdefault(name, set()).add(place)
            assert found.keys() == marks.keys()
            assert found["log"] == {"logs/session.log"}
            assert {"table public.planted"} < found["text"]
            assert any("pg_wal" in place for place in found["text"] & found["bytes"])
            assert "admin clusters" in found["edge"]
            assert {"redis values"} < found["redis"]
            assert any("appendonly" in place for place in found["redis"])
            return True

        await eventually(written, within=60, every=0.5)
    finally:
        sleeper.kill()
        await sleeper.wait()


@pytest.mark.parametrize(
    "secret",
    [
        'pw/+ß&=?"',
        "0f3c2c57-61b5-4a63-9d8e-1b7f4a52c0de",
        "9b1e5c0a7d3f4826b0c4e8f2a6d10357",
        "eyJhbGciOi.payload-_x.sig",
    ],
)
def test_a_secret_is_found_however_it_is_written(secret: str) -> None:
    raw = secret.encode()
    ways = [raw, raw.hex().encode(), raw.hex().upper().encode(), json.dumps(secret).encode(), raw[::-1]]
    ways += [base64.b64encode(b"x" * before + raw + b"y") for before in range(4)]
    ways += [base64.urlsafe_b64encode(b"x" * before + raw + b"y") for before in range(4)]
    known = forms(secret)
    for way in ways:
        assert any(form in way for form in known), way
    assert not any(form in Path(__file__).read_bytes() for form in forms(str(uuid4())))
