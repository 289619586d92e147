"""What clients may send without harm, and how many of them there may be."""

import json
import random

import pytest

from simulator.server import Simulator
from tests.integration.simulator.client import connected, control, ledger

SEEDS = [
    {"name": "sendMessage", "request_id": "1", "msg": {"name": "get-candles", "version": "2.0", "body": {"active_id": 76, "size": 60, "to": 1_795_489_260, "count": 10}}},
    {"name": "sendMessage", "request_id": "2", "msg": {"name": "binary-options.open-option", "version": "2.0", "body": {"user_balance_id": 14, "active_id": 76, "option_type_id": 12, "direction": "call", "expired": 0, "price": 1.5, "profit_percent": 87, "expiration_size": 5}}},
    {"name": "sendMessage", "request_id": "3", "msg": {"name": "digital-options.place-digital-option", "version": "3.0", "body": {"user_balance_id": 14, "instrument_id": "do76A20261124D031100T1MCSPT", "amount": "1"}}},
    {"name": "sendMessage", "request_id": "4", "msg": {"name": "portfolio.get-history-positions", "version": "2.0", "body": {"instrument_types": ["turbo-option"], "limit": 5, "offset": 0, "start": 0, "end": 0}}},
    {"name": "sendMessage", "request_id": "5", "msg": {"name": "get-strike-list", "version": "4.0", "body": {"type": "digital-option", "underlying": "EURUSD-OTC", "expiration": 1_795_489_260_000, "period": 60}}},
    {"name": "sendMessage", "request_id": "6", "msg": {"name": "digital-options.close-position-batch", "body": {"position_ids": [[1, 2]]}}},
    {"name": "subscribeMessage", "request_id": "7", "msg": {"name": "candle-generated", "params": {"routingFilters": {"active_id": "76", "size": 60}}}},
    {"name": "setActives", "msg": {"actives": [76]}},
    {"name": "candles", "msg": {"active_id": 76, "duration": 60, "chunk_size": 25, "from": 1.5, "till": 2.5}},
    {"name": "buyV2", "msg": {"price": 1.0, "act": 76, "exp": 1_795_489_860.5, "type": "turbo", "direction": "call", "time": 1.5}},
    {"name": "api_game_betinfo", "msg": {"currency": "USD", "id[0]": 14_000_000_025}},
    {"name": "heartbeat", "request_id": "8", "msg": {"msg": {"heartbeatTime": 1, "userTime": 2}}},
]  # fmt: skip
ODD = [
    "null",
    "-1",
    "1e999",
    "1E-999",
    "99999999999999999999999",
    '"x"',
    '""',
    "[]",
    "{}",
    "true",
    "[" * 2000,
    '"\\ud800"',
    "0.1",
]
FRAMES = 6_000


def mutate(text: str, rng: random.Random) -> str:
    """Replace a value, cut, double or scramble."""
    for _ in range(rng.randint(1, 3)):
        where, length = rng.randrange(len(text) + 1), rng.randrange(1, 12)
        match rng.randrange(4):
            case 0:
                text = text[:where] + rng.choice(ODD) + text[where + length :]
            case 1:
                text = text[:where] + text[where + length :]
            case 2:
                text = text[:where] + text[where : where + length] * 2 + text[where + length :]
            case _:
                colon = text.find(":", where)
                if colon > 0:
                    end = min((e for e in (text.find(",", colon), text.find("}", colon)) if e > 0), default=len(text))
                    text = text[: colon + 1] + rng.choice(ODD) + text[end:]
    return text


async def test_mangled_frames_harm_nobody(simulator: Simulator) -> None:
    rng = random.Random(20_261_124)
    async with (
        connected(simulator, "victim@example.com") as victim,
        connected(simulator, "mangler@example.com") as client,
    ):
        for n in range(FRAMES):
            text = mutate(json.dumps(rng.choice(SEEDS)).replace("14,", f"{client.practice},"), rng)
            await client.send_raw(
                text.encode("utf-8", "replace") if rng.random() < 0.2 else text.encode("utf-8", "replace").decode()
            )
            if n % 300 == 0:
                assert (await client.call("get-balances", {}))["msg"]
        assert (await client.call("get-balances", {}))["msg"], "its own socket still works"
        assert (await victim.blitz())["status"] == 2000
    assert len(await ledger(simulator, "victim@example.com")) == 1
    await control(simulator, "/settle", {})
    (account,) = (await control(simulator, "/accounts?email=mangler@example.com"))["accounts"]
    booked = [o for o in await ledger(simulator, "mangler@example.com") if o["booked_time"]]
    assert booked
    assert account["balances"]["PRACTICE"]["amount"] == pytest.approx(10_000 + sum(o["profit"] for o in booked))


async def test_binary_garbage_and_huge_frames_cost_only_the_one_who_sends_them(simulator: Simulator) -> None:
    async with connected(simulator, "a@example.com") as client, connected(simulator, "b@example.com") as other:
        await client.send_raw(b"\xff\xfe\x00")
        assert (await client.call("get-balances", {}))["msg"]
        await client.send_raw("x" * 3_000_000)
        await client.closed.wait()
        assert (await other.call("get-balances", {}))["msg"]


async def test_flood_of_requests_is_answered_in_order(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        ids = [await client.ask("get-balances", {}) for _ in range(500)]
        await client.wait(lambda f: f.get("request_id") == ids[-1] and f["name"] == "balances")
    assert [f["request_id"] for f in client.frames if f["name"] == "balances"] == ids
