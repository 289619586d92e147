"""Steps of iqoptionapi 0.5 against the simulator. Only its hosts are replaced, as the protocol notes say: two attributes."""

import json
import time
from typing import Any

import requests
from iqoptionapi.api import IQOptionAPI

from tests.interop.steps import (
    BRAND,
    HTTP,
    SETTLED,
    WS,
    clear_of_deadtime,
    control,
    end_trade,
    finish,
    ledger,
    ledger_order,
    step,
    until,
)

EMAIL = "trader.oldest@example.com"
ACTIVE = 76


def client_for(email: str, password: str = "secret") -> Any:  # noqa: S107  # the simulator's documented password
    api = IQOptionAPI("iqoption.com", email, password)
    api.https_url, api.wss_url = HTTP + "/api", WS
    return api


@step("wrong password")
def _() -> object:
    try:
        client_for(EMAIL, "wrong").connect()
    except requests.HTTPError as error:
        return error.response.status_code
    raise AssertionError("a wrong password was taken")


api = client_for(EMAIL)
received: list[dict[str, Any]] = []


def named(name: str) -> list[dict[str, Any]]:
    return [message for message in received if message["name"] == name]


@step("login")
def _() -> object:
    api.connect()
    # The client itself reads three messages only; everything is noted here to see what else comes.
    handler = api.websocket.on_message

    def noted(wss: Any, message: str) -> None:
        received.append(json.loads(message))
        handler(wss, message)

    api.websocket.on_message = noted
    until(lambda: api.profile.balance is not None)
    return api.timesync.server_datetime


@step("balance")
def _() -> object:
    assert api.profile.balance == 10000, api.profile.balance
    return api.getprofile().json()["result"]["balances"]


@step("candles")
def _() -> object:
    api.getcandles(ACTIVE, 60)
    until(lambda: api.candles.candles_data is not None)
    current = api.candles.current_candle
    assert len(api.candles.candles_data) == 3
    assert current.candle_time % 60 == 0
    assert current.candle_low <= current.candle_close <= current.candle_high
    return api.candles.candles_data


@step("live prices")
def _() -> object:
    api.setactives([ACTIVE])
    charts = until(lambda: named("newChartData"))
    return charts[0]["msg"]


bought: dict[str, int] = {}


@step("turbo buy")
def _() -> object:
    clear_of_deadtime()
    api.buy(7, ACTIVE, "turbo", "call")
    answers = until(lambda: named("buyComplete"))
    assert answers[0]["msg"]["isSuccessful"] is True, answers
    bought["id"] = answers[0]["msg"]["result"]["id"]
    seen = ledger_order(EMAIL, bought["id"])
    assert (seen["amount"], seen["account_type"], seen["expiry"] % 60) == (7, "PRACTICE", 0)
    return seen["expiry"] - time.time()


end_trade(bought["id"])


@step("result by listInfoData", SETTLED)
def _() -> object:
    def results() -> list[dict[str, Any]]:
        return [m["msg"][0] for m in received if m["name"] == "listInfoData" and m["msg"][0]["game_state"] == 1]

    found = until(results, within=SETTLED)
    assert found[0]["id"] == bought["id"]
    assert found[0]["win"] == ledger_order(EMAIL, bought["id"])["broker_outcome"]
    return found[0]["win"]


@step("switch to REAL")
def _() -> object:
    real = next(b["id"] for b in api.getprofile().json()["result"]["balances"] if b["type"] == 1)
    assert api.changebalance(real).json()["isSuccessful"] is True
    received.clear()
    clear_of_deadtime()
    api.buy(2, ACTIVE, "turbo", "put")
    answers = until(lambda: named("buyComplete"))
    order = ledger_order(EMAIL, answers[0]["msg"]["result"]["id"])
    assert order["account_type"] == "REAL"
    assert order["balance_id"] == real
    return None


@step("insufficient funds")
def _() -> object:
    received.clear()
    clear_of_deadtime()
    api.buy(5000, ACTIVE, "turbo", "put")
    answers = until(lambda: named("buyComplete"))
    assert answers[0]["msg"]["isSuccessful"] is False, answers
    assert ledger(EMAIL)[-1]["reason"] == "no_money"
    return answers[0]["msg"]["message"]


@step("reconnect after a revoked token")
def _() -> object:
    control("/revoke", {"brand": BRAND, "email": EMAIL})
    again = client_for(EMAIL)
    again.profile.balance = None
    again.connect()
    assert until(lambda: again.profile.balance is not None)
    return None


finish()
