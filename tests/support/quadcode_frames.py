"""Frames of the platform as the protocol notes describe them. All of them are synthetic; ids and amounts are invented."""

import copy
import json
import random
from typing import Any, Final

USER_ID: Final = 100_001
BALANCE_ID: Final = 1_000_014

OPTION: Final = {
    "option_id": 14_000_000_025,
    "result": "win",
    "amount": 1.0,
    "profit_amount": 1.87,
    "direction": "call",
    "open_time": 1_795_489_795,
    "open_time_millisecond": 1_795_489_795_877,
    "expiration_time": 1_795_489_860,
    "option_type_id": 3,
    "profit_percent": 187,
}
DIGITAL: Final = {
    "id": 14_000_000_028,
    "order_ids": [14_000_000_027],
    "instrument_dir": "put",
    "instrument_expiration": 1_795_489_860_000,
    "pnl_realized": 1.9,
}
POSITION: Final = {
    "version": 2,
    "id": "cf07bf80dfee1f75a9b9084feb03583f",
    "external_id": 14_000_000_025,
    "user_id": USER_ID,
    "user_balance_id": BALANCE_ID,
    "active_id": 76,
    "source": "binary-options",
    "instrument_type": "turbo-option",
    "status": "closed",
    "open_time": 1_795_489_795_877,
    "open_quote": 1.175283,
    "invest": 1.0,
    "close_quote": 1.1754,
    "close_reason": "win",
    "close_time": 1_795_489_860_000,
    "close_profit": 1.87,
    "pnl": 0.87,
    "raw_event": {"binary_options_option_changed1": OPTION},
}
OPEN_POSITION: Final = {
    key: value for key, value in POSITION.items() if not key.startswith("close_") and key != "pnl"
} | {"version": 1, "status": "open", "expected_profit": 1.87, "pnl": -0.05}
DIGITAL_POSITION: Final = POSITION | {
    "external_id": 14_000_000_028,
    "source": "digital-options",
    "instrument_type": "digital-option",
    "close_reason": "expired",
    "pnl": 0.9,
    "raw_event": {"digital_options_position_changed1": DIGITAL},
}
CANDLE: Final = {
    "active_id": 76,
    "size": 60,
    "id": 3212,
    "from": 1_795_489_260,
    "to": 1_795_489_320,
    "at": 1_795_489_272_361_000_000,
    "open": 1.171,
    "close": 1.1711,
    "min": 1.1709,
    "max": 1.1713,
    "volume": 0,
    "phase": "T",
}
ACTIVE: Final = {
    "id": 76,
    "name": "front.EURUSD-OTC",
    "description": "front.EUR/USD-OTC",
    "enabled": True,
    "is_suspended": False,
    "minimal_bet": 1,
    "maximal_bet": 20_000,
    "deadtime": 30,
    "is_buyback": 1,
    "buyback_deadtime": 15,
    "schedule": [[1_795_392_000, 1_795_478_340], [1_795_478_400, 1_795_564_740]],
    "option": {"profit": {"commission": 13, "refund_min": 0}, "expiration_times": [60], "count": 5, "special": {}},
}
BLITZ: Final = ACTIVE | {"option": {"profit": {"commission": 13}, "expiration_times": [5, 10, 30], "count": 1}}
INITIALIZATION: Final = {
    "turbo": {"list": [], "actives": {"76": ACTIVE}},
    "binary": {"list": [], "actives": {"76": ACTIVE}},
    "blitz": {"list": [], "actives": {"76": BLITZ}},
    "currency": "USD",
}
UNDERLYINGS: Final = {
    "type": "digital-option",
    "underlying": [
        {
            "active_id": 76,
            "underlying": "EURUSD-OTC",
            "name": "EURUSD-OTC",
            "is_enabled": True,
            "is_suspended": False,
            "schedule": [{"open": 1_795_392_000, "close": 1_795_564_740}],
        }
    ],
}
INSTRUMENT: Final = {
    "index": 17_954_892,
    "asset_id": 76,
    "expiration": 1_795_490_280,
    "period": 60,
    "deadtime": 30,
    "data": [
        {"strike": "SPT", "symbol": "do76A20261124D031100T1MCSPT", "direction": "call"},
        {"strike": "SPT", "symbol": "do76A20261124D031100T1MPSPT", "direction": "put"},
    ],
}

PUSHES: Final[dict[str, Any]] = {
    "position-changed": POSITION,
    "candle-generated": CANDLE,
    "balance-changed": {
        "id": BALANCE_ID,
        "user_id": USER_ID,
        "current_balance": {"id": BALANCE_ID, "type": 4, "amount": 9999.0, "currency": "USD"},
    },
    "option-closed": OPTION | {"balance_id": BALANCE_ID, "user_id": USER_ID, "active_id": 76},
    "order-changed": {
        "instrument_type": "digital-option",
        "status": "rejected",
        "user_id": USER_ID,
        "raw_event": {"digital_options_order_changed1": {"id": 14_000_000_027}},
    },
    "commission-changed": {"instrument_type": "turbo-option", "active_id": 76, "commission": {"value": 14}},
    "digital-option-client-price-generated": {
        "instrument_index": 17_954_892,
        "prices": [{"strike": "SPT", "call": {"symbol": "c", "ask": 52.6, "bid": 47}, "put": {"ask": 50}}],
    },
}
OTHER_FRAMES: Final[list[dict[str, Any]]] = [
    {"name": "timeSync", "msg": 1_795_489_222_841},
    {"name": "heartbeat", "msg": 1_795_489_222_841},
    {"name": "authenticated", "msg": True, "request_id": "1"},
    {"name": "front", "msg": "ws04.example", "session_id": "1"},
    {"name": "result", "request_id": "2", "msg": {"success": True}},
    {"name": "option", "request_id": "3", "status": 2000, "msg": {"id": 14_000_000_025, "exp": 1_795_489_860}},
    {"name": "option", "request_id": "4", "status": 4117, "msg": {"message": "…", "result": {}}},
    {"name": "profile", "request_id": "5", "status": 0, "msg": {"result": {"user_id": USER_ID}}},
]


def push(name: str, msg: Any) -> bytes:
    return json.dumps({"name": name, "microserviceName": "x", "msg": msg}).encode()


def corpus() -> list[bytes]:
    """All frames that a socket may bring."""
    extra = [push("position-changed", OPEN_POSITION), push("position-changed", DIGITAL_POSITION)]
    return [push(name, msg) for name, msg in PUSHES.items()] + extra + [json.dumps(f).encode() for f in OTHER_FRAMES]


NASTY: Final[list[Any]] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 1e308, -1e308, 1e-320, 0.1, "", "0", "NaN",
    "Infinity", "-1", "1e400", "x" * 2_000, "\ud800", "\x00", [], {}, [[]], [None], {"": None}, [1, "a", {}],
]  # fmt: skip


def mutated(frame: bytes, rng: random.Random) -> bytes:
    """Break a frame: by its structure, mostly, or by its bytes."""
    if rng.random() < 0.3:
        return _break_bytes(frame, rng)
    tree = json.loads(frame)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        _break_tree(tree, rng)
    text = json.dumps(tree, allow_nan=True)
    return text.encode()


def _break_bytes(frame: bytes, rng: random.Random) -> bytes:
    data = bytearray(frame)
    match rng.randrange(6):
        case 0:
            del data[rng.randrange(len(data)) :]
        case 1:
            data[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            at = rng.randrange(len(data))
            data[at:at] = rng.randbytes(rng.randrange(1, 8))
        case 3:
            start = rng.randrange(len(data))
            del data[start : start + rng.randrange(1, 20)]
        case 4:
            data = bytearray(b"[" * rng.randrange(1, 5_000)) + data
        case _:
            data += data[: rng.randrange(len(data))]
    return bytes(data)


def _break_tree(tree: Any, rng: random.Random) -> None:
    places: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in list(items):
            places.append((node, key))
            if isinstance(value, dict | list):
                stack.append(value)
    if not places:
        return
    node, key = rng.choice(places)
    match rng.randrange(4):
        case 0 if isinstance(node, dict):
            del node[key]
        case 1:
            other, other_key = rng.choice(places)
            if (isinstance(other, dict) and other_key in other) or (isinstance(other, list) and other_key < len(other)):
                node[key] = copy.deepcopy(other[other_key])
        case _:
            node[key] = copy.deepcopy(rng.choice(NASTY))
