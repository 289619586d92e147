import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import aiohttp
import pytest
from tradebot.session.v1 import event_pb2, market_pb2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.bridge.app import running
from gateway.bridge.settings import BridgeSettings
from tests.support.eventually import eventually
from tests.support.session_fake import FakeSession, serving

SESSION = "0b0e8f0a-8a7c-4a57-9a3e-2f0f4e4f2b61"
OTHER = "9d1f9f38-0a55-4f0b-8a39-54d1b0a4c6ae"
NOBODY = "f3a5b7c9-1111-4222-8333-444455556666"


class Rig:
    """A bridge before a fake session service."""

    def __init__(self, fake: FakeSession, port: int) -> None:
        self.fake = fake
        self.port = port

    def connect(self, target: str) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}{target}", compression=None)

    def log(self, message: str, session_id: str = SESSION) -> None:
        self.fake.publish(session_id, log=event_pb2.Log(level="info", message=message))

    def candle(self, price: float) -> None:
        update = event_pb2.CandleUpdate(asset="EURUSD-OTC", timeframe=60, candle=market_pb2.Candle(close=price))
        self.fake.publish(SESSION, candle=update)


@asynccontextmanager
async def rigged(**settings: Any) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        fake = FakeSession()
        fake.open(SESSION)
        fake.open(OTHER)
        service = await stack.enter_async_context(serving(fake))
        defaults = {"port": 0, "session_target": f"127.0.0.1:{service}", "resume_grace": 0.0, "retry_first": 0.01}
        chosen = BridgeSettings.model_validate({**defaults, "retry_most": 0.05, "close_timeout": 1.0, **settings})
        port = await stack.enter_async_context(running(chosen))
        yield Rig(fake, port)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with rigged() as rig:
        yield rig


async def receive(ws: ClientConnection) -> Any:
    async with asyncio.timeout(30):
        return json.loads(await ws.recv())


async def receive_until(ws: ClientConnection, message: str) -> list[Any]:
    """Read frames up to the log event with that message; gives them all."""
    frames: list[Any] = []
    while not frames or frames[-1]["data"].get("message") != message:
        frames.append(await receive(ws))
    return frames


async def close_code(ws: ClientConnection) -> int | None:
    """Read to the end; gives the code the server closed with."""
    async with asyncio.timeout(30):
        try:
            while True:
                await ws.recv()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None


def seqs(frames: list[Any]) -> list[int]:
    return [frame["seq"] for frame in frames]


@pytest.mark.parametrize("target", [f"/ws?session_id={SESSION}", f"/ws/{SESSION}"])
async def test_snapshot_comes_first_and_then_every_event(rig: Rig, target: str) -> None:
    rig.log("before")
    async with rig.connect(target) as ws:
        snapshot = await receive(ws)
        assert (snapshot["type"], snapshot["seq"], snapshot["session_id"]) == ("snapshot", 1, SESSION)
        assert snapshot["data"]["balance"] == 0
        assert snapshot["data"]["running"] is False
        rig.log("after")
        frame = await receive(ws)
    assert frame["seq"] == 2
    assert frame["data"] == {"level": "info", "message": "after"}
    assert datetime.fromisoformat(frame["time"]).tzinfo is not None


async def test_last_seq_replays_everything_after_it_without_a_snapshot(rig: Rig) -> None:
    for number in range(1, 6):
        rig.log(f"{number}")
    async with rig.connect(f"/ws?session_id={SESSION}&last_seq=2") as ws:
        rig.log("6")
        frames = await receive_until(ws, "6")
    assert seqs(frames) == [3, 4, 5, 6]


async def test_last_seq_of_now_replays_nothing(rig: Rig) -> None:
    rig.log("1")
    async with rig.connect(f"/ws?session_id={SESSION}&last_seq=1") as ws:
        await eventually(lambda: _true(rig.fake.open_streams[SESSION] == 1))
        rig.log("2")
        assert (await receive(ws))["seq"] == 2


async def test_last_seq_that_the_session_has_not_reached_gives_a_snapshot(rig: Rig) -> None:
    rig.log("1")
    async with rig.connect(f"/ws?session_id={SESSION}&last_seq=99") as ws:
        snapshot = await receive(ws)
        rig.log("2")
        assert (snapshot["type"], snapshot["seq"], (await receive(ws))["seq"]) == ("snapshot", 1, 2)


async def test_replay_longer_than_the_queue_arrives_whole() -> None:
    async with rigged(max_queue=8) as rig:
        for number in range(1, 500):
            rig.log(f"{number}")
        async with rig.connect(f"/ws?session_id={SESSION}&last_seq=0") as ws:
            frames = await receive_until(ws, "499")
    assert seqs(frames) == list(range(1, 500))


async def test_log_that_no_longer_reaches_back_gives_gap_and_snapshot(rig: Rig) -> None:
    for number in range(1, 6):
        rig.log(f"{number}")
    rig.fake.logs[SESSION].trimmed = 4
    async with rig.connect(f"/ws?session_id={SESSION}&last_seq=1") as ws:
        gap, snapshot = await receive(ws), await receive(ws)
        rig.log("6")
        event = await receive(ws)
    assert (gap["type"], gap["data"]) == ("gap", {"from_seq": 2, "to_seq": 4})
    assert "seq" not in gap
    assert (snapshot["type"], snapshot["seq"], event["seq"]) == ("snapshot", 5, 6)


async def test_resume_as_first_message_equals_last_seq() -> None:
    async with rigged(resume_grace=60.0) as rig:
        for number in range(1, 4):
            rig.log(f"{number}")
        async with rig.connect(f"/ws?session_id={SESSION}") as ws:
            await ws.send('{"type":"resume","last_seq":1}')
            rig.log("4")
            frames = await receive_until(ws, "4")
    assert seqs(frames) == [2, 3, 4]


async def test_resume_after_the_snapshot_starts_again_where_it_says(rig: Rig) -> None:
    for number in range(1, 4):
        rig.log(f"{number}")
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        assert (await receive(ws))["seq"] == 3
        await ws.send('{"type":"resume","last_seq":0}')
        frames = await receive_until(ws, "3")
        rig.log("4")
        frames += await receive_until(ws, "4")
    assert seqs(frames) == [1, 2, 3, 4]


async def test_ping_is_answered_with_pong(rig: Rig) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        await receive(ws)
        await ws.send('{"type":"ping"}')
        assert await receive(ws) == {"type": "pong"}


async def test_heartbeat_carries_the_latest_seq() -> None:
    async with rigged(heartbeat=2.0) as rig:
        rig.log("1")
        async with rig.connect(f"/ws?session_id={SESSION}") as ws:
            await receive(ws)
            first = await receive(ws)
            while first["seq"] == 0:
                # It was due before the snapshot was there, and waited for it.
                first = await receive(ws)
            second = await receive(ws)
    assert first.keys() == {"type", "time", "seq"}
    assert [(beat["type"], beat["seq"]) for beat in (first, second)] == [("heartbeat", 1)] * 2


async def test_every_socket_of_a_session_gets_every_event_from_one_stream(rig: Rig) -> None:
    rig.log("1")
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(rig.connect(f"/ws?session_id={SESSION}")) for _ in range(3)]
        late = await stack.enter_async_context(rig.connect(f"/ws?session_id={SESSION}&last_seq=0"))
        for ws in sockets:
            assert (await receive(ws))["type"] == "snapshot"
        assert (await receive(late))["seq"] == 1
        await eventually(lambda: _true(rig.fake.open_streams[SESSION] == 1))
        rig.log("2")
        for ws in (*sockets, late):
            assert (await receive(ws))["seq"] == 2


async def test_stream_is_closed_with_the_last_socket(rig: Rig) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        await receive(ws)
        assert rig.fake.open_streams[SESSION] == 1
    await eventually(lambda: _true(rig.fake.open_streams[SESSION] == 0))


async def test_no_event_reaches_another_sessions_socket(rig: Rig) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as mine, rig.connect(f"/ws?session_id={OTHER}") as theirs:
        await receive(mine)
        await receive(theirs)
        for number in range(20):
            rig.log(f"{number}", OTHER if number % 2 else SESSION)
        for ws, session_id, last in ((mine, SESSION, "18"), (theirs, OTHER, "19")):
            frames = await receive_until(ws, last)
            assert {frame["session_id"] for frame in frames} == {session_id}
            assert seqs(frames) == list(range(1, 11))


async def test_foreign_event_on_the_stream_ends_the_socket_unseen(rig: Rig) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        await receive(ws)
        rig.log("secret")
        rig.fake.logs[SESSION].events[-1].session_id = OTHER
        async with asyncio.timeout(30):
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011


async def test_clients_do_not_notice_that_the_stream_broke(rig: Rig) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        await receive(ws)
        for number in range(1, 6):
            rig.log(f"a{number}")
            rig.fake.break_streams()
            rig.log(f"b{number}")
        frames = await receive_until(ws, "b5")
    assert seqs(frames) == list(range(1, 11))
    assert {frame["type"] for frame in frames} == {"log"}


async def test_events_of_an_outage_arrive_after_it(rig: Rig) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        await receive(ws)
        rig.fake.down = True
        rig.fake.break_streams()
        opened = len(rig.fake.streams)
        await eventually(lambda: _true(len(rig.fake.streams) > opened + 2))
        rig.log("1")
        rig.fake.down = False
        assert (await receive(ws))["seq"] == 1


async def test_socket_opened_during_an_outage_is_served_after_it(rig: Rig) -> None:
    rig.log("1")
    rig.fake.down = True
    async with rig.connect(f"/ws?session_id={SESSION}") as fresh, rig.connect(f"/ws/{SESSION}?last_seq=0") as late:
        await eventually(lambda: _true(len(rig.fake.streams) > 2))
        rig.fake.down = False
        assert (await receive(fresh))["type"] == "snapshot"
        assert (await receive(late))["type"] == "log"


async def test_hole_in_the_stream_is_read_again(rig: Rig) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        await receive(ws)
        rig.fake.skip = 2
        for number in range(1, 5):
            rig.log(f"{number}")
        frames = await receive_until(ws, "4")
    assert seqs(frames) == [1, 2, 3, 4]


async def test_slow_consumer_is_closed_and_can_resume() -> None:
    async with rigged(max_queue=16) as rig:
        async with (
            connect(f"ws://127.0.0.1:{rig.port}/ws?session_id={SESSION}", compression=None, max_queue=1) as slow,
            rig.connect(f"/ws?session_id={SESSION}") as quick,
        ):
            await receive(slow)
            await receive(quick)
            total = 0
            while rig.fake.open_streams[SESSION] and total < 400:
                total += 1
                rig.log("x" * 60_000)
                assert (await receive(quick))["seq"] == total
            last, code = 0, None
            try:
                while True:
                    last = json.loads(await slow.recv())["seq"]
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else None
        assert code == 4409
        assert last < total
        async with rig.connect(f"/ws?session_id={SESSION}&last_seq={last}") as again:
            assert (await receive(again))["seq"] == last + 1


async def test_candles_are_sent_without_seq_and_do_not_number_events(rig: Rig) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        await receive(ws)
        rig.candle(1.5)
        candle = await receive(ws)
        rig.log("1")
        assert (await receive(ws))["seq"] == 1
    assert candle["type"] == "candle"
    assert "seq" not in candle
    assert candle["data"]["candle"]["close"] == 1.5


@pytest.mark.parametrize(("reason", "code"), [("disconnected", 1000), ("expired", 4408)])
async def test_end_of_the_session_is_told_and_then_closes(rig: Rig, reason: str, code: int) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        await receive(ws)
        rig.log("1")
        rig.fake.publish(SESSION, session_closed=event_pb2.SessionClosed(reason=reason))
        assert (await receive(ws))["type"] == "log"
        assert (await receive(ws))["type"] == "session_closed"
        assert await close_code(ws) == code


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/ws", 4400),
        ("/ws?session_id=", 4400),
        (f"/ws/{OTHER}?session_id={SESSION}", 4400),
        (f"/ws?session_id={SESSION}&last_seq=-1", 4400),
        (f"/ws?session_id={SESSION}&last_seq=x", 4400),
        (f"/ws?session_id={SESSION}&last_seq=", 4400),
        (f"/ws?session_id={NOBODY}", 4404),
        (f"/ws/{NOBODY}", 4404),
        (f"/ws/{NOBODY}?last_seq=5", 4404),
        ("/ws?session_id=a%0d%0ab", 4404),
        ("/ws?session_id=%F0%9F%92%A9", 4404),
        (f"/ws?session_id={'a' * 65}", 4404),
    ],
)
async def test_refusal_comes_as_close_code_after_the_upgrade(rig: Rig, target: str, code: int) -> None:
    async with rig.connect(target) as ws:
        assert await close_code(ws) == code


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        "[]",
        "{}",
        '{"type":5}',
        '{"type":"trade"}',
        '{"type":"resume"}',
        '{"type":"resume","last_seq":-1}',
        '{"type":"resume","last_seq":"1"}',
        b"\x00",
    ],
)
async def test_senseless_message_closes_with_bad_request(rig: Rig, message: str | bytes) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        await ws.send(message)
        assert await close_code(ws) == 4400


async def test_resume_later_than_first_is_senseless(rig: Rig) -> None:
    async with rig.connect(f"/ws?session_id={SESSION}") as ws:
        await ws.send('{"type":"ping"}')
        await ws.send('{"type":"resume","last_seq":0}')
        assert await close_code(ws) == 4400


async def test_one_socket_too_many_is_refused_and_a_closed_one_makes_room() -> None:
    async with rigged(max_sockets=2) as rig, rig.connect(f"/ws/{SESSION}") as first:
        async with rig.connect(f"/ws/{SESSION}") as second:
            await receive(first)
            await receive(second)
            async with rig.connect(f"/ws/{SESSION}") as third:
                assert await close_code(third) == 4429
            async with rig.connect(f"/ws/{OTHER}") as other:
                assert (await receive(other))["type"] == "snapshot"

        async def fits() -> bool:
            async with rig.connect(f"/ws/{SESSION}") as again:
                try:
                    return bool((await receive(again))["type"] == "snapshot")
                except ConnectionClosed:
                    return False

        await eventually(fits)


async def test_going_away_is_told_to_every_socket_and_waits_only_for_their_answers() -> None:
    async with asyncio.timeout(30), AsyncExitStack() as clients:
        async with rigged(close_timeout=60) as rig:
            sockets = [await clients.enter_async_context(rig.connect(f"/ws/{each}")) for each in (SESSION, OTHER)]
            for ws in sockets:
                await receive(ws)
            codes = asyncio.gather(*(close_code(ws) for ws in sockets))
        assert await codes == [1001, 1001]


async def test_health_is_answered_and_plain_http_is_told_to_upgrade(rig: Rig) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{rig.port}") as http:
        async with http.get("/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        async with http.get(f"/ws?session_id={SESSION}") as answer:
            assert answer.status == 426
            assert (await answer.json())["code"] == "UPGRADE_REQUIRED"


async def _true(value: bool) -> bool:
    return value
