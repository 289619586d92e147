"""Orders of every kind over the wire, their pushes, their end, and the ledger."""

import asyncio
import time

import pytest

from simulator.exchange.instruments import expiries_on_offer, instrument_id, old_instrument_id
from simulator.exchange.orders import Direction
from simulator.server import Simulator
from tests.integration.simulator.client import BrokerClient, Frame, connected, control, ledger, log_in, socket_of

EMAIL = "trader@example.com"


def named(name: str, **fields: object) -> object:
    """Return a predicate for frames of a name whose msg has these fields."""

    def fits(frame: Frame) -> bool:
        msg = frame.get("msg")
        return frame["name"] == name and isinstance(msg, dict) and all(msg.get(k) == v for k, v in fields.items())

    return fits


async def closed_position(client: BrokerClient, external_id: int) -> Frame:
    frame = await client.wait(named("position-changed", status="closed", external_id=external_id))  # type: ignore[arg-type]  # a predicate
    msg: Frame = frame["msg"]
    return msg


def turbo_expiry() -> int:
    return (int(time.time()) // 60 + 2) * 60


async def digital_order(client: BrokerClient, amount: str = "2", side: Direction = Direction.CALL) -> Frame:
    expiry, period = list(expiries_on_offer(time.time()))[1]
    body = {
        "user_balance_id": client.practice,
        "instrument_id": instrument_id(76, expiry, period, side),
        "instrument_index": 1,
        "asset_id": 76,
        "amount": amount,
    }
    return await client.call("digital-options.place-digital-option", body, "3.0")


@pytest.mark.parametrize("brand", ["iq", "exnova"])
async def test_blitz_option_from_order_to_money_agrees_everywhere(simulator: Simulator, brand: str) -> None:
    async with connected(simulator, EMAIL, brand) as client:
        option = await client.blitz(10, "put")
        assert option["status"] == 2000
        option_id = option["msg"]["id"]
        position = await closed_position(client, option_id)
        closed = await client.wait(named("option-closed", option_id=option_id))  # type: ignore[arg-type]  # a predicate
        socket = await client.wait(named("socket-option-closed", id=option_id))  # type: ignore[arg-type]  # a predicate
        opened = await client.wait(named("option-opened", option_id=option_id))  # type: ignore[arg-type]  # a predicate
        balances = await client.call("get-balances", {})
        history = await client.call("portfolio.get-history-positions", {"external_id": option_id, "limit": 5}, "2.0")
    (entry,) = [o for o in await ledger(simulator, EMAIL) if o["broker"] == brand]
    assert entry["status"] == "closed"
    assert (entry["balance_id"], entry["account_type"], entry["user_id"]) == (
        client.practice,
        "PRACTICE",
        client.user_id,
    )
    assert entry["open_price"] == option["msg"]["value"] == position["open_quote"] == opened["msg"]["value"]
    assert entry["close_price"] == position["close_quote"] == closed["msg"]["expiration_value"]
    assert entry["broker_outcome"] == position["close_reason"] == closed["msg"]["result"] == socket["msg"]["win"]
    assert entry["profit"] == position["pnl"] == pytest.approx(closed["msg"]["profit_amount"] - 10)
    assert entry["credit"] == {"won": 18.7, "lost": 0, "tied": 10}[entry["outcome"]]
    assert socket["msg"]["win_amount"] == 18.7
    practice = next(b for b in balances["msg"] if b["type"] == 4)
    assert practice["amount"] == entry["balance_after"] == 9990 + entry["credit"]
    assert history["msg"]["positions"][0]["pnl"] == entry["profit"]
    assert entry["settle_time"] - entry["booked_time"] == pytest.approx(5, abs=1)
    assert entry["booked_time"] - entry["received_time"] >= 0.004


async def test_settlement_is_at_the_price_that_candles_show(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        option_id = (await client.blitz())["msg"]["id"]
        await closed_position(client, option_id)
        candles = await client.call("get-candles", {"active_id": 76, "size": 1, "to": time.time(), "count": 100}, "2.0")
    (entry,) = await ledger(simulator, EMAIL)
    close_of = {c["from"]: c["close"] for c in candles["msg"]["candles"]}
    assert close_of[int(entry["booked_time"])] == entry["open_price"]
    assert close_of[entry["expiry"]] == entry["close_price"]


async def test_pushes_of_an_order_come_after_its_answer_and_in_their_order(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        option_id = (await client.blitz(seconds=300))["msg"]["id"]
        await control(simulator, "/settle", {"order_id": option_id, "outcome": "won"})
        await client.wait(
            lambda f: f["name"] == "balance-changed" and f["msg"]["current_balance"]["amount"] == 10_000.87
        )
    names = [f["name"] for f in client.frames if f["name"] not in ("timeSync", "heartbeat", "result")]
    assert names[names.index("option") :] == [
        "option",
        "balance-changed",
        "option-opened",
        "socket-option-opened",
        "position-changed",
        "option-closed",
        "socket-option-closed",
        "listInfoData",
        "position-changed",
        "balance-changed",
    ]
    versions = [f["msg"]["version"] for f in client.frames if f["name"] == "position-changed"]
    assert versions == [1, 2]
    unnamed = {"timeSync", "heartbeat", "listInfoData", "result", "front", "authenticated"}
    assert all("microserviceName" in f or f["name"] in unnamed or "request_id" in f for f in client.frames)


async def test_acknowledgement_comes_first_and_never_at_once(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        began = time.monotonic()
        request_id = await client.ask("get-balances", {})
        await client.wait(lambda f: f.get("request_id") == request_id)
        assert time.monotonic() - began >= 0.005
        await client.wait(lambda f: f.get("request_id") == request_id and f["name"] == "balances")
    answers = [f["name"] for f in client.frames if f.get("request_id") == request_id]
    assert answers == ["result", "balances"]


@pytest.mark.parametrize(("type_id", "kind"), [(3, "turbo"), (1, "binary")])
async def test_turbo_and_binary_options_run_to_a_whole_minute(simulator: Simulator, type_id: int, kind: str) -> None:
    now = int(time.time())
    expiry = turbo_expiry() if kind == "turbo" else (now // 900 + 2) * 900
    async with connected(simulator, EMAIL) as client:
        option = await client.blitz(option_type_id=type_id, expired=expiry, expiration_size=None)
        assert (option["msg"]["type"], option["msg"]["exp"], option["msg"]["profit_income"]) == (kind, expiry, 187)
        positions = await client.call(
            "portfolio.get-positions", {"instrument_types": [f"{kind}-option"], "limit": 30}, "4.0"
        )
        (position,) = positions["msg"]["positions"]
        assert position["raw_event"]["binary_options_option_changed1"]["result"] == "opened"
        assert (position["expected_profit"], position["status"]) == (1.87, "open")
    (entry,) = await ledger(simulator, EMAIL)
    assert (entry["instrument_type"], entry["expiry"], entry["settle_time"]) == (kind, expiry, expiry)


async def test_digital_option_from_order_to_money(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        placed = await digital_order(client)
        order_id = placed["msg"]["id"]
        opened = await client.wait(lambda f: f["name"] == "position-changed")
        raw = opened["msg"]["raw_event"]["digital_options_position_changed1"]
        assert raw["order_ids"] == [order_id]
        assert opened["msg"]["external_id"] != order_id
        assert (await client.wait(lambda f: f["name"] == "order-changed"))["msg"]["status"] == "filled"
        await control(simulator, "/settle", {"order_id": order_id, "outcome": "won"})
        closed = await closed_position(client, opened["msg"]["external_id"])
        assert (closed["close_reason"], closed["close_profit"], closed["pnl"]) == ("expired", 3.74, 1.74)
        asked = await client.call("digital-options.get-position", {"position_id": opened["msg"]["external_id"]})
        assert asked["msg"]["position"]["pnl_realized"] == 3.74
    (entry,) = await ledger(simulator, EMAIL)
    assert (entry["instrument_type"], entry["broker_order_id"], entry["outcome"]) == ("digital", order_id, "won")


async def test_digital_order_without_funds_is_accepted_and_rejected_afterwards(simulator: Simulator) -> None:
    async with connected(simulator, "poor@example.com") as client:
        await control(
            simulator, "/balance", {"brand": "iq", "email": "poor@example.com", "account_type": "PRACTICE", "amount": 1}
        )
        placed = await digital_order(client, "2")
        assert placed["status"] == 2000
        changed = await client.wait(lambda f: f["name"] == "order-changed")
        assert changed["msg"]["status"] == "rejected"
        assert not [f for f in client.frames if f["name"] == "position-changed"]
    (entry,) = await ledger(simulator, "poor@example.com")
    assert (entry["status"], entry["reason"], entry["booked_time"]) == ("refused", "no_money", None)


@pytest.mark.parametrize("bad", ["do76A20200101D000000T1MCSPT", "nonsense"])
async def test_digital_instrument_that_is_none_is_refused(simulator: Simulator, bad: str) -> None:
    async with connected(simulator) as client:
        body = {"user_balance_id": client.practice, "instrument_id": bad, "amount": "1"}
        placed = await client.call("digital-options.place-digital-option", body)
        assert (placed["status"], placed["msg"]["message"]) == (5000, "invalid instrument")


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"price": 10_001}, 4112, "no_money"),
        ({"price": 1e30}, 4112, "no_money"),
        ({"price": 0.5}, 4000, "invalid_amount"),
        ({"price": 1.005}, 4000, "invalid_amount"),
        ({"profit_percent": 86}, 4117, "payout_changed"),
        ({"active_id": 1, "option_type_id": 3}, 4119, "suspended"),
        ({"active_id": 78}, 4103, "closed"),
        ({"active_id": 999_999}, 4103, "closed"),
        ({"option_type_id": 99}, 4103, "closed"),
        ({"expiration_size": 7}, 4000, "invalid_expiry"),
        ({"direction": "up"}, 4000, "invalid_direction"),
        ({"user_balance_id": 1}, 4000, "invalid_balance"),
        ({"option_type_id": 3, "expired": 1_795_521_630}, 4104, "too_late"),
    ],
)
async def test_refused_order_costs_nothing_and_is_in_the_ledger(
    simulator: Simulator, change: Frame, status: int, reason: str
) -> None:
    if "expired" in change:
        change = change | {"expired": int(time.time()) // 60 * 60}
    async with connected(simulator, EMAIL) as client:
        option = await client.blitz(**change)
        assert option["status"] == status, option
        assert isinstance(option["msg"]["message"], str)
        balances = await client.call("get-balances", {})
    (entry,) = await ledger(simulator, EMAIL)
    assert (entry["status"], entry["reason"], entry["booked_time"]) == ("refused", reason, None)
    assert next(b for b in balances["msg"] if b["type"] == 4)["amount"] == 10_000


async def test_older_version_of_the_order_is_not_held_to_a_payout(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        option = await client.call("binary-options.open-option", client.blitz_body(profit_percent=10), "1.0")
        assert option["status"] == 2000


async def test_real_and_practice_money_are_apart(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        option = await client.blitz(100, seconds=300, user_balance_id=client.real)
        await control(simulator, "/settle", {"order_id": option["msg"]["id"], "outcome": "lost"})
        await closed_position(client, option["msg"]["id"])
        amounts = {b["type"]: b["amount"] for b in (await client.call("get-balances", {}))["msg"]}
    assert amounts == {1: 900, 4: 10_000}
    (entry,) = await ledger(simulator, EMAIL)
    assert (entry["account_type"], entry["balance_id"]) == ("REAL", client.real)


async def test_turbo_option_can_be_sold_early_and_blitz_cannot(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        turbo = await client.blitz(option_type_id=3, expired=turbo_expiry() + 60)
        sold = await client.call("binary-options.sell-options", {"options_ids": [turbo["msg"]["id"]]}, "3.0")
        position = await closed_position(client, turbo["msg"]["id"])
        blitz = await client.blitz()
        kept = await client.call("sell-options", {"options_ids": [blitz["msg"]["id"]]}, "2.0")
        again = await client.call("sell-options", {"options_ids": [turbo["msg"]["id"]]}, "2.0")
    assert position["close_reason"] == "sold"
    assert position["close_profit"] == sold["msg"]["result"][0]["sold_amount"] > 0
    assert kept["status"] >= 4000
    assert again["status"] >= 4000
    entry = (await ledger(simulator, EMAIL))[0]
    assert (entry["outcome"], entry["credit"]) == ("sold", position["close_profit"])


async def test_nobody_can_touch_another_user_s_position(simulator: Simulator) -> None:
    async with connected(simulator, "a@example.com") as mine, connected(simulator, "b@example.com") as other:
        option_id = (await mine.blitz(option_type_id=3, expired=turbo_expiry() + 60))["msg"]["id"]
        sold = await other.call("sell-options", {"options_ids": [option_id]}, "2.0")
        assert sold["status"] >= 4000
        assert (await other.call("portfolio.get-positions", {"limit": 30}, "4.0"))["msg"]["positions"] == []
        await mine.wait(lambda f: f["name"] == "position-changed")
        assert not [f for f in other.frames if f["name"] in ("position-changed", "option-opened", "balance-changed")]


async def test_every_socket_of_a_user_hears_his_events_in_the_form_it_subscribed(simulator: Simulator) -> None:
    _, body = await log_in(simulator, EMAIL)
    async with connected(simulator, ssid=body["ssid"]) as modern, socket_of(simulator) as legacy:
        await legacy.send("ssid", body["ssid"], "")
        await legacy.wait(lambda f: f["name"] == "profile")
        await legacy.subscribe(
            "portfolio.position-changed", "2.0", instrument_type="blitz-option", user_balance_id=str(modern.practice)
        )
        await modern.blitz()
        flat = await legacy.wait(lambda f: f["name"] == "position-changed")
        nested = await modern.wait(lambda f: f["name"] == "position-changed")
        assert await legacy.wait(lambda f: f["name"] == "balance-changed")
    assert flat["msg"]["raw_event"] == nested["msg"]["raw_event"]["binary_options_option_changed1"]


async def test_practice_balance_can_be_reset(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        await client.blitz(50)
        body = {"user_balance_id": client.practice, "amount": 10_000}
        answer = await client.call("internal-billing.reset-training-balance", body, "4.0")
        assert answer["msg"] == {"isSuccessful": True}
        await client.wait(lambda f: f["name"] == "balance-changed" and f["msg"]["current_balance"]["amount"] == 10_000)


async def test_fifty_orders_at_once_are_fifty_orders_and_the_money_adds_up(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        options = await asyncio.gather(*(client.blitz(n + 1) for n in range(50)))
        assert len({o["msg"]["id"] for o in options}) == 50
        for option in options:
            await closed_position(client, option["msg"]["id"])
        amounts = {b["type"]: b["amount"] for b in (await client.call("get-balances", {}))["msg"]}
    entries = await ledger(simulator, EMAIL)
    assert len(entries) == 50
    assert amounts[4] == pytest.approx(10_000 + sum(e["profit"] for e in entries))
    assert {e["broker_order_id"]: e["amount"] for e in entries} == {o["msg"]["id"]: o["msg"]["price"] for o in options}


async def test_old_digital_instrument_ids_are_traded_too(simulator: Simulator) -> None:
    async with connected(simulator, EMAIL) as client:
        expiry, period = list(expiries_on_offer(time.time()))[1]
        body = {
            "user_balance_id": client.practice,
            "instrument_id": old_instrument_id("EURUSD-OTC", expiry, period, Direction.PUT),
            "amount": "1",
        }
        placed = await client.call("digital-options.place-digital-option", body)
        position = await client.wait(lambda f: f["name"] == "position-changed")
        sold = await client.call("digital-options.close-position", {"position_id": position["msg"]["external_id"]})
        closed = await closed_position(client, position["msg"]["external_id"])
    assert placed["status"] == sold["status"] == 2000
    assert closed["close_reason"] == "default"
