"""Steps of api-iqoption-faria 7.1.2 against the simulator. Only its hosts are replaced, in memory."""

import itertools
import re
import time
from typing import Any

import iqoptionapi.api as library
import iqoptionapi.global_value as library_state
from iqoptionapi.stable_api import IQ_Option

from tests.interop.steps import (
    BRAND,
    HTTP,
    SETTLED,
    WAIT_FOR_EXPIRY,
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

EMAIL = "trader.faria@example.com"
ASSET = "EURUSD-OTC"

_init = library.IQOptionAPI.__init__
_send = library.IQOptionAPI.send_http_request_v2


def _init_here(self: Any, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    self.https_url, self.wss_url = HTTP + "/api", WS


def _send_here(self: Any, url: str, **kwargs: Any) -> Any:
    return _send(self, url=re.sub(r"^https://[^/]+", HTTP, url), **kwargs)


library.IQOptionAPI.__init__ = _init_here
library.IQOptionAPI.send_http_request_v2 = _send_here


def forget_login() -> None:
    """The library keeps the login in module globals; a second account needs them gone."""
    library_state.SSID = None
    library_state.balance_id = None


def profit_in_ledger(order_id: int) -> float:
    return float(ledger_order(EMAIL, order_id)["profit"])


@step("wrong password")
def _() -> object:
    ok, reason = IQ_Option(EMAIL, "wrong").connect()
    assert ok is False
    assert "invalid_credentials" in reason
    return reason


forget_login()
client = IQ_Option(EMAIL, "secret")


@step("login")
def _() -> object:
    ok, reason = client.connect()
    assert ok is True, reason
    assert client.check_connect()
    return client.get_balance_id()


@step("balances")
def _() -> object:
    amounts = {b["type"]: b["amount"] for b in client.get_balances()["msg"]}
    assert amounts == {1: 1000, 4: 10000}, amounts
    assert client.get_currency() == "USD"
    return amounts


@step("switch to REAL and back")
def _() -> object:
    seen = []
    for mode, amount in (("REAL", 1000), ("PRACTICE", 10000)):
        client.change_balance(mode)
        assert client.get_balance_mode() == mode
        assert client.get_balance() == amount
        seen.append(client.get_balance_id())
    return seen


@step("candles")
def _() -> object:
    candles = client.get_candles(ASSET, 60, 100, time.time())
    assert len(candles) == 100
    assert all(b["from"] - a["from"] == 60 and b["id"] == a["id"] + 1 for a, b in itertools.pairwise(candles))
    assert all(c["min"] <= min(c["open"], c["close"]) <= max(c["open"], c["close"]) <= c["max"] for c in candles)
    assert len(client.get_candles(ASSET, 1, 1000, time.time())) == 1000
    return candles[-1]


@step("live candles")
def _() -> object:
    began = int(time.time())
    assert client.start_candles_stream(ASSET, 1, 20) is None
    assert until(lambda: max(client.get_realtime_candles(ASSET, 1), default=0) >= began + 3)
    live = client.get_realtime_candles(ASSET, 1)
    history = {c["from"]: c for c in client.get_candles(ASSET, 1, 20, time.time())}
    both = [t for t in live if t in history and t < time.time() - 1]
    assert both
    assert all(live[t]["close"] == history[t]["close"] for t in both)
    client.stop_candles_stream(ASSET, 1)
    return len(both)


@step("live candles of all sizes")
def _() -> object:
    client.start_candles_stream(ASSET, "all", 5)
    live = client.get_realtime_candles(ASSET, 60)
    client.stop_candles_stream(ASSET, "all")
    return max(live)


@step("open times and payouts")
def _() -> object:
    times = client.get_all_open_time()
    assert times["turbo"][ASSET]["open"]
    assert times["binary"][ASSET]["open"]
    assert times["digital"][ASSET]["open"]
    assert not times["digital"]["USDCHF-OTC"]["open"]
    assert not times["turbo"]["EURUSD"]["open"]
    assert client.get_all_profit()[ASSET]["turbo"] == 0.87
    return client.get_all_profit()[ASSET]


@step("digital payout")
def _() -> object:
    assert client.get_digital_payout(ASSET, 10) == 87
    return None


@step("digital strikes and current profit")
def _() -> object:
    client.subscribe_strike_list(ASSET, 5)
    _, strikes = client.get_strike_list(ASSET, 5)
    assert len(strikes) == 1
    profit = until(lambda: client.get_digital_current_profit(ASSET, 5))
    assert 86.9 < profit < 87.1, profit
    return strikes, client.get_realtime_strike_list(ASSET, 5)


@step("traders' mood")
def _() -> object:
    client.start_mood_stream(ASSET)
    assert 0 < client.get_traders_mood(ASSET) < 1
    return None


@step("commission changes")
def _() -> object:
    client.subscribe_commission_changed("turbo-option")
    client.get_balances()  # answered on the same socket after the subscription
    control("/assets", {"asset": ASSET, "brand": BRAND, "payout": 80, "instrument_type": "turbo"})
    seen = until(lambda: list(client.get_commission_change("turbo-option")[ASSET].values()))
    control("/assets", {"asset": ASSET, "brand": BRAND, "payout": 87, "instrument_type": "turbo"})
    assert seen == [20], seen
    return None


turbo: dict[str, int] = {}
binary: dict[str, int] = {}
digital: dict[str, int] = {}


@step("turbo buy")
def _() -> object:
    clear_of_deadtime()
    # Still open when the steps below look, however long they take. The fifth minute could be a binary option's.
    ok, turbo["id"] = client.buy(10, ASSET, "call", 1 if WAIT_FOR_EXPIRY else 4)
    assert ok is True, turbo
    seen = ledger_order(EMAIL, turbo["id"])
    assert (seen["instrument_type"], seen["direction"], seen["amount"]) == ("turbo", "call", 10)
    assert seen["balance_id"] == client.get_balance_id()
    assert seen["account_type"] == "PRACTICE"
    return seen["expiry"] - time.time()


@step("binary buy")
def _() -> object:
    clear_of_deadtime()
    ok, binary["id"] = client.buy(5, ASSET, "put", 30)
    assert ok is True, binary
    assert ledger_order(EMAIL, binary["id"])["instrument_type"] == "binary"
    return None


@step("digital buy")
def _() -> object:
    clear_of_deadtime()
    ok, digital["id"] = client.buy_digital_spot(ASSET, 4, "call", 1)
    assert ok is True, digital
    assert ledger_order(EMAIL, digital["id"])["instrument_type"] == "digital"
    return None


@step("digital buy, new ids")
def _() -> object:
    clear_of_deadtime()
    ok, digital["second"] = client.buy_digital_spot_v2(ASSET, 3, "put", 5)
    assert ok is True, digital
    assert ledger_order(EMAIL, digital["second"])["expiry"] % 300 == 0
    return None


@step("several buys at once")
def _() -> object:
    clear_of_deadtime()
    ids = client.buy_multi([1, 2, 3], [ASSET] * 3, ["call", "put", "call"], [5, 5, 5])
    assert [ledger_order(EMAIL, i)["amount"] for i in ids] == [1, 2, 3]
    for order_id in ids:
        control("/settle", {"order_id": order_id, "outcome": "tied"})
    return ids


@step("open orders as pushed")
def _() -> object:
    state = client.get_async_order(turbo["id"])
    assert state["option-opened"]["msg"]["option_id"] == turbo["id"]
    assert state["position-changed"]["msg"]["status"] == "open"
    assert client.get_async_order(digital["id"])["position-changed"]["msg"]["raw_event"]["order_ids"] == [digital["id"]]
    return None


@step("open digital positions")
def _() -> object:
    ok, positions = client.get_positions("digital-option")
    assert (ok, positions["total"]) == (True, 2), positions
    assert client.get_digital_position(digital["id"])["msg"]["position"]["status"] == "open"
    return None


@step("early sale of a binary option")
def _() -> object:
    answer = client.sell_option(binary["id"])
    assert (answer["status"], answer["msg"]["isSuccessful"]) == (2000, True), answer
    assert ledger_order(EMAIL, binary["id"])["outcome"] == "sold"
    return None


@step("early sale of a digital option")
def _() -> object:
    assert client.close_digital_option(digital["second"]) is True
    assert until(lambda: client.check_win_digital_v2(digital["second"])[0])
    result = client.check_win_digital_v2(digital["second"])
    assert abs(result[1] - profit_in_ledger(digital["second"])) < 1e-9, result
    return result


end_trade(turbo["id"])
end_trade(digital["id"])


@step("result by check_win", SETTLED)
def _() -> object:
    word = client.check_win(turbo["id"])
    assert word == ledger_order(EMAIL, turbo["id"])["broker_outcome"]
    return word


@step("result by check_win_v2")
def _() -> object:
    assert abs(client.check_win_v2(turbo["id"], 0.5) - profit_in_ledger(turbo["id"])) < 1e-9
    return None


@step("result by check_win_v4")
def _() -> object:
    word, profit = client.check_win_v4(turbo["id"])
    assert abs(profit - profit_in_ledger(turbo["id"])) < 1e-9
    return word, profit


@step("result by option-closed")
def _() -> object:
    order = client.check_binary_order(turbo["id"])
    assert abs(order["profit_amount"] - order["amount"] - profit_in_ledger(turbo["id"])) < 1e-9
    return None


@step("result by position-changed")
def _() -> object:
    state = client.get_async_order(turbo["id"])["position-changed"]["msg"]
    assert state["status"] == "closed"
    assert abs(state["pnl"] - profit_in_ledger(turbo["id"])) < 1e-9
    return None


@step("result by option info")
def _() -> object:
    closed = client.get_optioninfo(10)["msg"]["result"]["closed_options"]
    assert [turbo["id"]] in [o["id"] for o in closed]
    return None


@step("result of the digital option", SETTLED)
def _() -> object:
    assert until(lambda: client.check_win_digital_v2(digital["id"])[0], within=SETTLED)
    result = client.check_win_digital_v2(digital["id"])
    assert abs(result[1] - profit_in_ledger(digital["id"])) < 1e-9
    assert abs(client.check_win_digital(digital["id"], 0.1) - profit_in_ledger(digital["id"])) < 1e-9
    return result


@step("history")
def _() -> object:
    for kind, order_id in (("turbo-option", turbo["id"]), ("binary-option", binary["id"])):
        ok, history = client.get_position_history_v2(kind, 10, 0, 0, 0)
        assert ok
        assert order_id in [p["external_id"] for p in history["positions"]], history
    ok, history = client.get_position_history_v2("digital-option", 10, 0, 0, 0)
    assert ok
    assert {digital["id"], digital["second"]} == {p["raw_event"]["order_ids"][0] for p in history["positions"]}
    ok, old = client.get_position_history("turbo-option")
    assert ok
    assert old["positions"]
    return None


@step("the balance is the ledger's")
def _() -> object:
    booked = [o for o in ledger(EMAIL) if o["booked_time"] and o["account_type"] == "PRACTICE"]
    expected = 10000 + sum(o["profit"] for o in booked)
    assert abs(client.get_balance() - expected) < 1e-6
    return expected


@step("insufficient funds")
def _() -> object:
    client.change_balance("REAL")
    clear_of_deadtime()
    ok, reason = client.buy(1500, ASSET, "call", 1)
    assert (ok, reason) == (False, "Insufficient funds for this transaction.")
    client.change_balance("PRACTICE")
    assert ledger(EMAIL)[-1]["reason"] == "no_money"
    assert ledger(EMAIL)[-1]["account_type"] == "REAL"
    return None


@step("suspended asset")
def _() -> object:
    control("/assets", {"asset": ASSET, "brand": BRAND, "suspended": True})
    clear_of_deadtime()
    ok, reason = client.buy(1, ASSET, "call", 1)
    digital_ok, digital_reason = client.buy_digital_spot(ASSET, 1, "call", 1)
    control("/assets", {"asset": ASSET, "brand": BRAND, "suspended": False})
    assert ok is False
    assert "suspended" in reason
    assert digital_ok is False, digital_reason
    return reason, digital_reason


@step("practice balance reset")
def _() -> object:
    assert client.reset_practice_balance() is True
    assert client.get_balance() == 10000
    return None


@step("reconnect after a revoked token")
def _() -> object:
    before = library_state.SSID
    control("/revoke", {"brand": BRAND, "email": EMAIL})
    assert until(lambda: not client.check_connect())
    ok, reason = client.connect()
    assert ok is True, reason
    assert before != library_state.SSID
    clear_of_deadtime()
    ok, order_id = client.buy(1, ASSET, "call", 5)
    assert ok is True
    assert ledger_order(EMAIL, order_id)["status"] == "open"
    return None


@step("second factor")
def _() -> object:
    forget_login()
    second = IQ_Option("twofa@example.com", "secret")
    ok, reason = second.connect()
    assert (ok, reason) == (False, "2FA"), reason
    ok, reason = second.connect_2fa("000000")
    assert ok is False, "a wrong code was taken"
    ok, reason = second.connect_2fa("123456")
    assert ok is True, reason
    return second.get_balance()


finish()
