"""Assets, candles and live prices over the wire."""

import time
from itertools import pairwise

import pytest

from simulator.server import Simulator
from simulator.settings import Settings
from tests.integration.simulator.client import connected, control

STRIKES = {"type": "digital-option", "underlying": "EURUSD-OTC", "expiration": 1_795_489_260_000, "period": 60}


async def test_initialization_data_lists_all_three_kinds_with_payout_and_schedule(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        data = (await client.call("binary-options.get-initialization-data", {}, "3.0"))["msg"]
        await client.send("api_option_init_all", "", "x")
        legacy = await client.wait(lambda f: f["name"] == "api_option_init_all_result")
    for kind in ("turbo", "binary", "blitz"):
        active = data[kind]["actives"]["76"]
        assert active["name"] == "front.EURUSD-OTC"
        assert active["option"]["profit"]["commission"] == 13
        assert any(opens <= time.time() < closes for opens, closes in active["schedule"])
    assert data["blitz"]["actives"]["76"]["option"]["expiration_times"] == [5, 10, 15, 30, 45, 60, 120, 180, 300]
    assert data["turbo"]["actives"]["1"]["is_suspended"] is True
    assert not any(o <= time.time() < c for o, c in data["turbo"]["actives"]["78"]["schedule"])
    for answer in (legacy["msg"]["result"], data):
        for active in answer["turbo"]["actives"].values():
            assert active["option"].pop("start_time") % 60 == 0  # that of the minute in which it was asked for
    assert legacy["msg"]["result"]["turbo"] == data["turbo"]


async def test_initialization_data_is_as_large_as_one_wants() -> None:
    async with Simulator(Settings(init_data_bytes=4_000_000)) as simulator, connected(simulator) as client:
        data = (await client.call("get-initialization-data", {}, "4.0"))["msg"]
        fillers = [a for a in data["turbo"]["actives"].values() if a["ticker"].startswith("FILLER")]
        assert len(fillers) > 1000
        assert all(a["is_suspended"] for a in fillers)


async def test_changed_conditions_are_told_and_listed(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        await client.subscribe("commission-changed", instrument_type="turbo-option")
        await client.subscribe("digital-option-instruments.underlying-list-changed", "3.0")
        await control(simulator, "/assets", {"asset": "EURUSD-OTC", "payout": 71, "suspended": True})
        changed = await client.wait(lambda f: f["name"] == "commission-changed")
        assert changed["msg"] == {"instrument_type": "turbo-option", "active_id": 76, "commission": {"value": 29}}
        assert (await client.wait(lambda f: f["name"] == "underlying-list-changed"))["msg"]["underlying"]
        data = (await client.call("get-initialization-data", {}, "4.0"))["msg"]
        active = data["turbo"]["actives"]["76"]
        assert (active["option"]["profit"]["commission"], active["is_suspended"]) == (29, True)


@pytest.mark.parametrize("size", [5, 60, 300])
async def test_thousand_candles_by_end_and_count_by_times_and_by_numbers_are_the_same(
    simulator: Simulator, size: int
) -> None:
    end = int(time.time()) // size * size
    async with connected(simulator) as client:
        asks = [
            {"to": end, "count": 1000},
            {"from": end - 1000 * size, "to": end},
            {"from_id": end // size - 1000, "to_id": end // size - 1},
        ]
        answers = [
            (await client.call("quotes-history.get-candles", {"active_id": "85", "size": size, "": 1} | ask, "2.0"))[
                "msg"
            ]["candles"]
            for ask in asks
        ]
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0]) == 1000
    assert all((b["id"], b["from"]) == (a["id"] + 1, a["to"]) for a, b in pairwise(answers[0]))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"count": 1001}, "count"),
        ({"count": 0}, "count"),
        ({"from": 9_999_999_999}, "from"),
        ({"size": 7}, "size"),
        ({"active_id": 5}, "active_id"),
    ],
)
async def test_candles_that_cannot_be_had_are_refused_by_field(
    simulator: Simulator, body: dict[str, int], field: str
) -> None:
    async with connected(simulator) as client:
        answer = await client.call(
            "get-candles", {"active_id": 76, "size": 60, "to": time.time(), "count": 10} | body, "2.0"
        )
        assert answer["status"] == 4220
        assert list(answer["msg"]) == [field]


async def test_history_of_years_ago_is_there_and_ends_at_its_beginning(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        first = (await client.call("get-first-candles", {"active_id": 76}))["msg"]["candles_by_size"]
        assert len(first) == 19
        oldest = first["86400"]["from"]
        days = await client.call(
            "get-candles", {"active_id": 76, "size": 86400, "from": 0, "to": oldest + 3 * 86400}, "2.0"
        )
        assert [c["from"] for c in days["msg"]["candles"]] == [oldest + n * 86400 for n in range(3)]


async def test_candle_that_is_forming_is_the_last_and_the_future_is_not_shown(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        for ahead in (0, 0.4, 3_600):
            began = time.time()
            answer = await client.call(
                "get-candles", {"active_id": 76, "size": 60, "to": began + ahead, "count": 3}, "2.0"
            )
            assert (began - 1) // 60 <= answer["msg"]["candles"][-1]["id"] <= time.time() // 60


async def test_live_candles_agree_with_history(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        await client.subscribe("candle-generated", active_id="76", size=1)
        await client.subscribe("candle-generated", active_id="76", size=1)
        last = await client.wait(lambda f: f["name"] == "candle-generated" and f["msg"]["from"] >= time.time() - 1)
        await client.wait(lambda f: f["name"] == "candle-generated" and f["msg"]["id"] >= last["msg"]["id"] + 2)
        live = [f["msg"] for f in client.frames if f["name"] == "candle-generated"]
        answer = await client.call("get-candles", {"active_id": 76, "size": 1, "to": time.time(), "count": 100}, "2.0")
    ids = [c["id"] for c in live]
    assert ids == sorted(set(ids)), "one stream, and each tick once"
    closes = {c["from"]: c["close"] for c in answer["msg"]["candles"]}
    assert all(closes[c["from"]] == c["close"] for c in live)


async def test_live_prices_of_every_form(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        await client.subscribe("quote-generated", "2.0", active_id=76)
        await client.subscribe("candles-generated", active_id=76)
        await client.subscribe("traders-mood-changed", asset_id=76, instrument="turbo-option")
        await client.subscribe("digital-option-instruments.instrument-generated", "3.0", asset_id=76)
        await client.subscribe("price-splitter.client-price-generated", instrument_type="digital-option", asset_id=76)
        await client.send("setActives", {"actives": [76]})
        for name in (
            "quote-generated",
            "candles-generated",
            "traders-mood-changed",
            "instrument-generated",
            "client-price-generated",
            "newChartData",
        ):
            await client.wait(lambda f, name=name: f["name"] == name)  # type: ignore[misc]  # mypy cannot infer a default in a lambda
    every = next(f["msg"] for f in client.frames if f["name"] == "candles-generated")
    assert len(every["candles"]) == 19
    price = next(f["msg"] for f in client.frames if f["name"] == "client-price-generated")["prices"][0]
    assert (100 - price["call"]["ask"]) * 100 / price["call"]["ask"] == pytest.approx(87, abs=1e-4)


async def test_unsubscribed_stream_ends(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        await client.subscribe("quote-generated", "2.0", active_id=76)
        await client.wait(lambda f: f["name"] == "quote-generated")
        msg = {"name": "quote-generated", "version": "2.0", "params": {"routingFilters": {"active_id": 76}}}
        await client.send("unsubscribeMessage", msg, "u")
        await client.wait(lambda f: f.get("request_id") == "u")
        seen = len(client.frames)
        await client.wait(lambda f: f["name"] == "timeSync", skip=seen)
        await client.wait(lambda f: f["name"] == "timeSync", skip=len(client.frames))
    assert not [f for f in client.frames[seen:] if f["name"] == "quote-generated"]


@pytest.mark.parametrize(
    ("method", "version", "body", "reply"),
    [
        ("get-underlying-list", "2.0", {"type": "digital-option"}, "underlying-list"),
        ("digital-option-instruments.get-underlying-list", "3.0", {"filter_suspended": True}, "underlying-list"),
        ("get-instruments", "4.0", {"type": "forex"}, "instruments"),
        ("digital-option-instruments.get-instruments", "3.0", {"asset_id": 76}, "instruments"),
        ("get-active", "5.0", {"id": 76}, "active"),
        ("get-currency", "5.0", {"name": "USD"}, "currency"),
        ("get-top-assets", "3.0", {}, "top-assets"),
        ("get-traders-mood", "1.0", {"asset_id": 76, "instrument": "turbo-option"}, "traders-mood"),
        ("features.get-features", "2.0", {"category": "client-sdk-js"}, "features"),
        ("get-financial-information", "1.0", {"variables": {"activeId": 76}}, "financial-information"),
        ("get-strike-list", "4.0", STRIKES, "strike-list"),
        ("portfolio.get-orders", "2.0", {"kind": "deferred"}, "orders"),
        ("set-user-settings", "1.0", {"name": "x", "version": 3, "config": {}}, "set-user-settings-reply"),
        ("get-options", "1.0", {"limit": 10, "instrument_type": "binary,turbo"}, "options"),
        ("get-users-availability", "1.0", {}, "users-availability"),
    ],
)
async def test_method_of_the_catalogue_is_answered_by_its_name(
    simulator: Simulator, method: str, version: str, body: dict[str, object], reply: str
) -> None:
    async with connected(simulator) as client:
        answer = await client.call(method, body, version)
        assert (answer["name"], answer["status"]) == (reply, 2000)


async def test_strikes_of_an_expiry_in_milliseconds_are_those_of_that_expiry(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        answer = (await client.call("get-strike-list", STRIKES, "4.0"))["msg"]
    assert answer["expiration"] == 1_795_489_260
    assert answer["strike"][0]["call"]["id"] == "doEURUSD-OTC202611240301PT1MCSPT"


async def test_unknown_method_is_refused_and_not_ignored(simulator: Simulator) -> None:
    async with connected(simulator) as client:
        assert (await client.call("no-such-service.do-it", {}))["status"] == 4000
