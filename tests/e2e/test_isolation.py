"""Nothing of one session can be had from another: every way into the session service times every field that names something.

The matrix is made of the protos. A new rpc, a new field of a request or a new route of the edge fails here until it is
said what it is.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import quote, urlencode
from uuid import uuid4

import aiohttp
import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import Descriptor
from tradebot.session.v1 import session_service_pb2 as pb
from tradebot.session.v1 import session_service_pb2_grpc
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.envoy.config import SERVICE
from gateway.envoy.routes import Binding, bindings, routes
from local.settings import CHECKOUT
from local.witness import Simulator
from services.runtime.channel import open_channel
from tests.support.doors import DESCRIPTORS, Answer, DirectDoor, Door, GatewayDoor
from tests.support.eventually import eventually
from tests.support.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

RPCS: Final = {method.name: method for method in pb.DESCRIPTOR.services_by_name["SessionService"].methods}
BINDINGS: Final = bindings(DESCRIPTORS, SERVICE)
ORDER: Final[Mapping[str, Any]] = {
    "asset": "EURUSD-OTC",
    "direction": "call",
    "amount": 2,
    "instrument_type": "binary",
    "duration": 120,
}
"""Long enough to be open until the last test has looked."""
MODEL: Final = min(path.name for path in (CHECKOUT / "models").iterdir() if path.is_dir())

REQUESTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Connect": {"broker": "iq", "account_type": "PRACTICE", "password": "secret"},
    "Disconnect": {},
    "StartBot": {},
    "StopBot": {},
    "PauseBot": {},
    "ResumeBot": {},
    "GetStatus": {},
    "GetBalance": {},
    "PlaceTrade": ORDER,
    "ListTrades": {},
    "GetTrade": {},
    "CloseTrade": {},
    "ExportTrades": {},
    "ListAssets": {},
    "ListCandles": {"asset": "EURUSD-OTC"},
    "ListModels": {},
    "GetModel": {"model": MODEL},
    "SetTimeframe": {"timeframe": 60},
    "WatchEvents": {},
}
"""Every rpc with a request that is right but for the fields that name something of a session."""
FOREIGN: Final = frozenset(
    {"session_id", "trade_id", "client_request_id", "page_token", "last_seq", "two_factor.challenge"}
)
"""Every field that names something of a session or of a user."""
PLAIN: Final = frozenset(
    {
        "account_type", "amount", "asset", "broker", "count", "daily_loss_limit", "direction", "duration",
        "duration_seconds", "email", "evidence_gate", "format", "instrument_type", "limit", "max_consecutive_losses", "max_trades",
        "min_payout", "model", "password", "status", "stop_loss", "take_profit", "timeframe", "two_factor",
        "two_factor.code", "two_factor.method", "version",
    }
)  # fmt: skip
"""Every field that names nothing of anybody, or that is a credential itself."""
SOCKETS: Final = frozenset({"GET /ws", "GET /ws/{session_id}"})
"""The routes to WatchEvents."""
LOCAL: Final = frozenset({"preflight", "GET /healthz", "not found"})
"""The routes that know no session."""


def fields_of(message: Descriptor, prefix: str = "") -> set[str]:
    """The paths of all fields of a request, those inside messages included."""
    found = set()
    for field in message.fields:
        found.add(prefix + field.name)
        if field.message_type is not None:
            found |= fields_of(field.message_type, f"{prefix}{field.name}.")
    return found


async def test_every_rpc_field_and_route_is_classified() -> None:
    assert set(RPCS) == set(REQUESTS)
    assert not FOREIGN & PLAIN
    assert set().union(*(fields_of(method.input_type) for method in RPCS.values())) == FOREIGN | PLAIN
    assert {binding.rpc for binding in BINDINGS} == set(RPCS) - {"WatchEvents"}
    table = {str(route["name"]) for route in routes(BINDINGS)}
    calls = {f"{binding.verb} {binding.path}" for binding in BINDINGS}
    assert {name for name in table if not name.startswith("wrong method ")} == calls | SOCKETS | LOCAL


class Person:
    """A user with a session, and all that identifies what is theirs."""

    def __init__(self, door: Door, name: str) -> None:
        self.door = door
        self.email = f"trader-{name}-{secrets.token_hex(6)}@example.com"
        self.session_id = ""
        self.trade: dict[str, Any] = {}
        self.bought = 0
        self.marks: set[str] = {self.email}

    async def connect(self) -> None:
        answer = await self.door.send("POST", "/api/connect", {**REQUESTS["Connect"], "email": self.email})
        assert answer.status == 200, answer.text
        self.session_id, self.start = answer.body["session_id"], answer.body["balance"]
        self.marks |= {self.session_id, answer.body["access_token"]}

    async def buy(self) -> None:
        order = {**ORDER, "session_id": self.session_id, "client_request_id": secrets.token_hex(8)}
        answer = await self.door.send("POST", "/api/trade", order)
        assert answer.status == 200, answer.text
        self.trade = answer.body
        self.bought += 1

        async def paid() -> bool:
            # After this nothing happens to the user by itself until the trade expires.
            return bool((await self.get("status"))["balance"] == self.start - self.bought * ORDER["amount"])

        await eventually(paid)
        self.marks |= {answer.body[name] for name in ("trade_id", "client_request_id", "broker_order_id")}

    async def get(self, path: str) -> Any:
        answer = await self.door.send("GET", f"/api/{path}?session_id={self.session_id}")
        assert answer.status == 200, answer.text
        return answer.body

    async def state(self, simulator: Simulator) -> tuple[Any, ...]:
        """All that can be known of this user, but for the time that is left."""
        status = {name: value for name, value in (await self.get("status")).items() if name != "expires_in"}
        return status, await self.get("trades"), await simulator.ledger(self.email)


class World:
    """Two users and one who has left, at one door."""

    def __init__(self, door: Door, simulator: Simulator) -> None:
        self.door = door
        self.simulator = simulator
        self.victim, self.thief, self.gone = Person(door, "a"), Person(door, "b"), Person(door, "c")

    async def open(self) -> None:
        for person in (self.victim, self.thief, self.gone):
            await person.connect()
        await self.victim.buy()
        await self.door.send("POST", "/api/disconnect", {"session_id": self.gone.session_id})

    async def close(self) -> None:
        for person in (self.victim, self.thief):
            await self.door.send("POST", "/api/disconnect", {"session_id": person.session_id})

    def body(self, binding: Binding, **fields: Any) -> dict[str, Any]:
        """A right request of the thief with these fields instead."""
        found: dict[str, Any] = {**REQUESTS[binding.rpc], "session_id": self.thief.session_id, **fields}
        if binding.rpc == "Connect":
            found = {"email": self.thief.email, **found}
        if "{trade_id}" in binding.path:
            found.setdefault("trade_id", str(uuid4()))
        return found

    async def send(self, binding: Binding, fields: Mapping[str, Any], query: str = "") -> Answer:
        rest = dict(fields)
        path = binding.path
        for name in tuple(rest):
            if f"{{{name}}}" in path:
                path = path.replace(f"{{{name}}}", quote(str(rest.pop(name)), safe=""))
        if binding.verb == "POST":
            return await self.door.send("POST", path + (f"?{query}" if query else ""), rest)
        return await self.door.send("GET", f"{path}?{urlencode(rest)}" + (f"&{query}" if query else ""))

    def tells_of_the_victim(self, text: str, sent: Iterable[str] = ()) -> set[str]:
        """What of the victim's an answer holds beside what the asker said himself."""
        return {mark for mark in self.victim.marks - set(sent) if mark in text}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["direct", "gateway"])
async def world(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[World]:
    async with AsyncExitStack() as exits:
        if request.param == "direct":
            channel = await exits.enter_async_context(open_channel(stack.facts["grpc"]["session"]))
            door: Door = DirectDoor(channel)
        else:
            http = await exits.enter_async_context(aiohttp.ClientSession())
            door = GatewayDoor(http, stack.facts["gateway"])
        world = World(door, await exits.enter_async_context(stack.simulator()))
        await world.open()
        yield world
        await world.close()


def shape(value: Any) -> Any:
    """The structure of an answer without its values."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return type(value).__name__


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers cannot be told apart: to the byte if they refuse, in status and structure if they do not."""
    if one.status != other.status or one.headers["content-type"] != other.headers["content-type"]:
        return False
    if one.status != 200:
        return one.text == other.text
    if not one.headers["content-type"].startswith("application/json"):
        return True
    return bool(shape(one.body) == shape(other.body))


def named(binding: Binding) -> str:
    return f"{binding.verb} {binding.path}"


WITH_SESSION: Final = [binding for binding in BINDINGS if binding.rpc != "Connect"]
PAIRS: Final = [
    (binding, field)
    for binding in BINDINGS
    for field in sorted((fields_of(RPCS[binding.rpc].input_type) & FOREIGN) - {"session_id"})
]


@pytest.mark.parametrize(("binding", "field"), PAIRS, ids=[f"{named(b)} {f}" for b, f in PAIRS])
async def test_what_is_anothers_is_answered_like_what_nobody_has(world: World, binding: Binding, field: str) -> None:
    theirs, nobodys = await values(world, field)
    before = await world.victim.state(world.simulator)
    answers = []
    for value in (theirs, nobodys):
        outer, _, inner = field.partition(".")
        given = {inner: value, "method": "sms", "code": "123456"} if inner else value
        answer = await world.send(binding, world.body(binding, **{outer: given}))
        assert world.tells_of_the_victim(answer.text, [value]) == set()
        answers.append(answer)
    assert same(*answers), answers
    if field == "trade_id":
        assert (answers[0].status, answers[0].body["code"]) == (404, "TRADE_NOT_FOUND")
    if field == "client_request_id":
        # The victim's key is the thief's own to use: with another order it is no repetition either.
        assert answers[0].status == 200
        again = await world.send(binding, world.body(binding, client_request_id=theirs))
        assert again.body["trade_id"] == answers[0].body["trade_id"] != world.victim.trade["trade_id"]
    assert await world.victim.state(world.simulator) == before


async def values(world: World, field: str) -> tuple[str, str]:
    """The victim's value of a field, and one of the same form that is nobody's."""
    match field:
        case "trade_id":
            return world.victim.trade["trade_id"], str(uuid4())
        case "client_request_id":
            await world.victim.buy()
            key = world.victim.trade["client_request_id"]
            # From now on it is the thief's as well.
            world.victim.marks.discard(key)
            return key, secrets.token_hex(8)
        case "page_token":
            await world.victim.buy()
            page = await world.door.send("GET", f"/api/trades?session_id={world.victim.session_id}&limit=1")
            token = page.body["next_page_token"]
            return token, str(int(token) + 1_000_000)
        case "two_factor.challenge":
            who = {**REQUESTS["Connect"], "email": "twofa@example.com"}
            refused = await world.door.send("POST", "/api/connect", who)
            assert refused.body["code"] == "TWO_FACTOR_REQUIRED", refused.text
            challenge = refused.body["info"]["challenge"]
            world.victim.marks.add(challenge)
            return challenge, secrets.token_hex(len(challenge) // 2)
        case _:
            raise NotImplementedError(f"say what {field} of another's is")


@pytest.mark.parametrize("binding", WITH_SESSION, ids=named)
async def test_a_session_that_is_over_is_answered_like_one_that_never_was(world: World, binding: Binding) -> None:
    before = await world.victim.state(world.simulator)
    answers = [
        await world.send(binding, world.body(binding, session_id=dead, **extra))
        for extra in ({}, {"trade_id": world.victim.trade["trade_id"]} if "{trade_id}" in binding.path else {})
        for dead in (str(uuid4()), world.gone.session_id, "nobody")
    ]
    for answer in answers:
        assert (answer.status, answer.body["code"]) == (404, "SESSION_NOT_FOUND")
        assert same(answer, answers[0])
        assert world.tells_of_the_victim(answer.text) == set()
    assert await world.victim.state(world.simulator) == before


async def test_an_id_opens_nothing_without_its_credentials(world: World) -> None:
    before = await world.victim.state(world.simulator)
    binding = next(binding for binding in BINDINGS if binding.rpc == "Connect")
    answer = await world.send(binding, world.body(binding, session_id=world.victim.session_id))
    assert (answer.status, answer.body["code"]) == (403, "SESSION_MISMATCH")
    assert world.tells_of_the_victim(answer.text) == set()
    assert await world.victim.state(world.simulator) == before
    for dead in (str(uuid4()), world.gone.session_id):
        newcomer = f"trader-new-{secrets.token_hex(6)}@example.com"
        answer = await world.send(binding, world.body(binding, session_id=dead, email=newcomer))
        assert (answer.status, answer.body["reconnected"]) == (200, False)
        assert answer.body["session_id"] not in {dead, world.victim.session_id}
        await world.door.send("POST", "/api/disconnect", {"session_id": answer.body["session_id"]})


@pytest.mark.parametrize("binding", WITH_SESSION, ids=named)
async def test_a_second_session_id_in_the_query_opens_no_second_session(world: World, binding: Binding) -> None:
    if isinstance(world.door, DirectDoor):
        return  # a message has the field once
    before = await world.victim.state(world.simulator)
    for name in ("session_id", "sessionId"):
        answers = []
        for other in (world.victim.session_id, str(uuid4())):
            if binding.rpc == "Disconnect":
                await world.thief.connect()
            answers.append(await world.send(binding, world.body(binding), query=f"{name}={other}"))
            assert world.tells_of_the_victim(answers[-1].text) == set()
        assert same(*answers), answers
    if binding.rpc == "Disconnect":
        await world.thief.connect()
    assert await world.victim.state(world.simulator) == before


async def frames_of(url: str, count: int) -> tuple[list[dict[str, Any]], int | None]:
    """The first frames of a socket, and the code that it was closed with, if it was."""
    frames: list[dict[str, Any]] = []
    async with connect(url) as socket:
        try:
            while len(frames) < count:
                frames.append(json.loads(await socket.recv()))
        except ConnectionClosed as closed:
            return frames, closed.rcvd.code if closed.rcvd else None
    return frames, None


@pytest.mark.parametrize("path", sorted(SOCKETS))
async def test_a_socket_shows_its_own_session_only(stack: Stack, path: str) -> None:
    url = stack.facts["gateway"].replace("http", "ws", 1) + path.removeprefix("GET ").partition("{")[0]

    def target(session_id: str, more: str = "") -> str:
        return f"{url}{session_id}?{more}" if "{" in path else f"{url}?session_id={session_id}&{more}"

    async with aiohttp.ClientSession() as http, stack.simulator() as simulator:
        world = World(GatewayDoor(http, stack.facts["gateway"]), simulator)
        await world.open()
        before = await world.victim.state(simulator)
        dead_ones = [
            target(dead, more)
            for dead in (str(uuid4()), world.gone.session_id, "nobody")
            for more in ("", "last_seq=0", f"last_seq={before[0]['seq']}")
        ]
        for refused in await asyncio.gather(*(frames_of(dead, 1) for dead in dead_ones)):
            assert refused == ([], 4404)
        await world.thief.buy()
        seq = before[0]["seq"]
        assert seq > 0
        for last_seq in (0, seq, seq + 1_000_000):
            frames, closed = await frames_of(target(world.thief.session_id, f"last_seq={last_seq}"), 1)
            assert closed is None
            assert {frame["session_id"] for frame in frames} == {world.thief.session_id}
            assert world.tells_of_the_victim(json.dumps(frames)) == set()
        if "{" in path:
            both = target(world.thief.session_id, f"session_id={world.victim.session_id}")
            assert await frames_of(both, 1) == ([], 4400)
        assert await world.victim.state(simulator) == before
        await world.close()


async def test_a_stream_over_grpc_shows_its_own_session_only(stack: Stack) -> None:
    async with open_channel(stack.facts["grpc"]["session"]) as channel, stack.simulator() as simulator:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        world = World(DirectDoor(channel), simulator)
        await world.open()
        await world.thief.buy()
        for dead in (str(uuid4()), world.gone.session_id, "nobody"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await anext(aiter(stub.WatchEvents(pb.WatchEventsRequest(session_id=dead, last_seq=0))))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        for last_seq in (0, 1_000_000):
            call = stub.WatchEvents(pb.WatchEventsRequest(session_id=world.thief.session_id, last_seq=last_seq))
            event = (await anext(aiter(call))).event
            call.cancel()
            assert event.session_id == world.thief.session_id
            assert world.tells_of_the_victim(str(event)) == set()
        await world.close()
