"""The fault script over real sockets."""

import asyncio
import time

import pytest

from simulator.server import Simulator
from tests.integration.simulator.client import WITHIN, Frame, connected, control, ledger, log_in, socket_of
from tests.support.eventually import eventually

EMAIL = "trader@example.com"
ORDER = "open-option"


async def fault(simulator: Simulator, kind: str, **fields: object) -> None:
    await control(simulator, "/faults", {"kind": kind, **fields})


async def test_lost_reply_leaves_a_booked_order_and_only_an_acknowledgement(simulator: Simulator) -> None:
    await fault(simulator, "lost", on="reply", name=ORDER)
    async with connected(simulator, EMAIL) as client:
        request_id = await client.ask("binary-options.open-option", client.blitz_body(seconds=300), "2.0")
        await client.wait(lambda f: f["name"] == "position-changed")
        answers = [f["name"] for f in client.frames if f.get("request_id") == request_id]
    assert answers == ["result"]
    assert [o["status"] for o in await ledger(simulator, EMAIL)] == ["open"]


async def test_lost_acknowledgement_leaves_the_reply(simulator: Simulator) -> None:
    await fault(simulator, "lost", on="ack", name=ORDER)
    async with connected(simulator, EMAIL) as client:
        option = await client.blitz()
        answers = [f["name"] for f in client.frames if f.get("request_id") == option["request_id"]]
    assert answers == ["option"]


async def test_late_reply_is_overtaken_by_what_follows(simulator: Simulator) -> None:
    await fault(simulator, "late", on="reply", name=ORDER, seconds=0.5)
    async with connected(simulator, EMAIL) as client:
        await client.blitz()
        names = [f["name"] for f in client.frames]
    assert names.index("option-opened") < names.index("option")


async def test_duplicate_reply_is_one_order(simulator: Simulator) -> None:
    await fault(simulator, "duplicate", on="reply", name=ORDER, count=2)
    async with connected(simulator, EMAIL) as client:
        await client.blitz()
        await client.wait(lambda f: f["name"] == "position-changed")
        assert [f["name"] for f in client.frames].count("option") == 3
    assert len(await ledger(simulator, EMAIL)) == 1


async def test_settlement_pushes_can_be_dropped_while_history_tells(simulator: Simulator) -> None:
    for name in ("option-closed", "socket-option-closed", "position-changed", "listInfoData", "balance-changed"):
        await fault(simulator, "lost", on="push", name=name)
    async with connected(simulator, EMAIL) as client:
        option_id = (await client.blitz())["msg"]["id"]
        await control(simulator, "/settle", {"order_id": option_id})
        history = await client.call("portfolio.get-history-positions", {"external_id": option_id}, "2.0")
        assert history["msg"]["positions"][0]["status"] == "closed"
        assert not [f for f in client.frames if f["name"] in ("option-closed", "position-changed", "balance-changed")]


async def test_events_can_come_out_of_order(simulator: Simulator) -> None:
    await fault(simulator, "out_of_order", on="push", name="option-opened", seconds=5)
    async with connected(simulator, EMAIL) as client:
        await client.blitz()
        await client.wait(lambda f: f["name"] == "position-changed")
        names = [f["name"] for f in client.frames]
    assert names.index("socket-option-opened") < names.index("option-opened")


@pytest.mark.parametrize(
    ("kind", "status", "booked"), [("disconnect_before", "dropped", False), ("disconnect_after", "open", True)]
)
async def test_socket_is_cut_before_or_after_the_order_is_booked(
    simulator: Simulator, kind: str, status: str, booked: bool
) -> None:
    await fault(simulator, kind, name=ORDER, times=1)
    async with connected(simulator, EMAIL) as client:
        await client.ask("binary-options.open-option", client.blitz_body(seconds=300), "2.0")
        await asyncio.wait_for(client.closed.wait(), WITHIN)
        assert not [f for f in client.frames if f["name"] in ("option", "option-opened")]
    (entry,) = await ledger(simulator, EMAIL)
    assert (entry["status"], entry["booked_time"] is not None) == (status, booked)
    async with connected(simulator, EMAIL, ssid=client.ssid) as again:
        positions = await again.call("portfolio.get-positions", {"limit": 30}, "4.0")
        assert len(positions["msg"]["positions"]) == int(booked)


async def test_order_that_was_sent_before_the_client_left_is_carried_out(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        await client.ask("binary-options.open-option", client.blitz_body(seconds=300), "2.0")
        await client.disconnect()

    async def booked() -> bool:
        return [o["status"] for o in await ledger(simulator, EMAIL)] == ["open"]

    await eventually(booked)


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("payout_changed", 4117, "payout_changed"),
        ("suspended", 4119, "suspended"),
        ("closed", 4103, "closed"),
        ("no_money", 4112, "no_money"),
        ("too_late", 4104, "too_late"),
        ("rejected_by_risks", 4120, "rejected_by_risks"),
    ],
)
async def test_refusal_can_be_ordered_for_one_account(
    simulator: Simulator, kind: str, status: int, reason: str
) -> None:
    await fault(simulator, kind, email=EMAIL, times=1)
    async with connected(simulator, EMAIL) as client, connected(simulator, "other@example.com") as other:
        assert (await other.blitz())["status"] == 2000
        assert (await client.blitz())["status"] == status
        assert (await client.blitz())["status"] == 2000
    assert [o["reason"] for o in await ledger(simulator, EMAIL)] == [reason, None]


@pytest.mark.parametrize(("outcome", "word"), [("won", "win"), ("lost", "loose"), ("tied", "equal")])
async def test_outcome_and_early_end_can_be_ordered(simulator: Simulator, outcome: str, word: str) -> None:
    await fault(simulator, "forced_outcome", outcome=outcome)
    await fault(simulator, "early_settlement", seconds=0.2)
    async with connected(simulator, EMAIL) as client:
        await client.blitz(seconds=300)
        closed = await client.wait(lambda f: f["name"] == "option-closed", within=60)
    assert closed["msg"]["result"] == word
    opened, expired = closed["msg"]["value"], closed["msg"]["expiration_value"]
    assert {"won": expired > opened, "lost": expired < opened, "tied": expired == opened}[outcome]


async def test_login_can_be_throttled_and_a_second_factor_demanded(simulator: Simulator) -> None:
    await fault(simulator, "login_throttled", email=EMAIL, ttl=77, times=1)
    status, body = await log_in(simulator, EMAIL)
    assert (status, body["ttl"]) == (429, 77)
    await fault(simulator, "two_factor", email=EMAIL)
    assert (await log_in(simulator, EMAIL))[1]["code"] == "verify"
    assert (await log_in(simulator, "other@example.com"))[1]["code"] == "success"


async def test_token_can_expire_in_the_middle(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        await fault(simulator, "token_expired", email=EMAIL, times=1)
        await client.ask("get-balances", {})
        await asyncio.wait_for(client.closed.wait(), WITHIN)
    async with socket_of(simulator) as again:
        await again.send("authenticate", {"ssid": client.ssid}, "1")
        assert (await again.wait(lambda f: f["name"] == "authenticated"))["msg"] is False
    async with connected(simulator, EMAIL):
        pass


async def test_clock_can_be_off_for_one_account(simulator: Simulator) -> None:
    await fault(simulator, "clock_skew", email=EMAIL, seconds=-30)
    async with connected(simulator, EMAIL) as client, connected(simulator, "other@example.com") as other:
        seen = []
        for one in (client, other):
            frame = await one.wait(lambda f: f["name"] == "timeSync", skip=len(one.frames))
            seen.append(frame["msg"] / 1000 - time.time())
    assert seen == [pytest.approx(-30, abs=10), pytest.approx(0, abs=10)]


async def test_broken_and_unknown_frames_can_be_mixed_in(simulator: Simulator) -> None:
    await fault(simulator, "malformed", on="push", name="option-opened")
    await fault(simulator, "unknown_frame", on="reply", name=ORDER)
    async with connected(simulator, EMAIL) as client:
        await client.blitz()
        await client.wait(lambda f: f["name"] == "position-changed")
        assert len(client.broken) == 1
        assert [f for f in client.frames if f["name"] == "some-future-event"]


async def test_outage_cuts_sockets_and_refuses_everything_until_it_is_over(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL, "iq") as client, connected(simulator, EMAIL, "exnova") as there:
        await fault(simulator, "outage", id="down", brand="iq")
        await asyncio.wait_for(client.closed.wait(), WITHIN)
        assert not there.closed.is_set()
        assert (await there.blitz())["status"] == 2000
    with pytest.raises(Exception, match="503"):
        async with connected(simulator, EMAIL, ssid=client.ssid):
            pass
    await control(simulator, "/faults?id=down", method="DELETE")
    async with connected(simulator, EMAIL, ssid=client.ssid):
        pass


async def test_latency_delays_the_booking(simulator: Simulator) -> None:
    await fault(simulator, "latency", name=ORDER, seconds=0.4)
    async with connected(simulator, EMAIL) as client:
        await client.blitz()
    (entry,) = await ledger(simulator, EMAIL)
    assert entry["booked_time"] - entry["received_time"] >= 0.4


async def test_rules_can_be_read_with_how_often_they_struck(simulator: Simulator) -> None:
    await fault(simulator, "lost", id="a", on="reply", name=ORDER)
    async with connected(simulator, EMAIL) as client:
        await client.ask("open-option", client.blitz_body(), "2.0")
        await client.wait(lambda f: f["name"] == "position-changed")
    (rule,) = (await control(simulator, "/faults"))["faults"]
    assert (rule["id"], rule["struck"]) == ("a", 1)


async def test_reset_forgets_everything(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        await client.blitz()
        await control(simulator, "/reset", {})
        await asyncio.wait_for(client.closed.wait(), WITHIN)
    empty: list[Frame] = []
    assert await ledger(simulator, EMAIL) == empty
    assert (await control(simulator, "/accounts"))["accounts"] == empty
