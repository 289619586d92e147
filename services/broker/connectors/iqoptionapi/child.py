"""Runs ``iqoptionapi.stable_api`` for one session, in a process of its own.

Started as a script, by the interpreter of an environment in which the library (api-iqoption-faria 7.1.2 with
websocket-client 0.53 to 0.57) is installed. The library keeps login and balance in module globals, waits in busy loops without deadlines, and does not verify TLS. So:
one process per session; the parent puts a deadline on everything and ends the process when it passes; the library never
sees a password, only the session token; TLS is verified; and it may not log in or reconnect by itself.

Lines of JSON: the first one in says where and who, the others are ``{"id", "do", "with"}``; out go ``{"id", "ok"}`` or
``{"id", "error"}`` and, unasked, ``{"push", "msg"}`` and ``{"answer", "status", "msg"}`` (what the broker says to an order, by
its request id). Nothing else of this repository is imported here.
"""

import json
import os
import ssl
import sys
import threading
import time
from typing import Any

import iqoptionapi.api as library
import iqoptionapi.global_value as state
import iqoptionapi.ws.client as wire
import requests
import websocket
from iqoptionapi import constants
from iqoptionapi.stable_api import IQ_Option

REPLY_TIME = 30.0
"""Seconds for the waits that are ours; the parent's deadlines are shorter."""
PUSHES = {
    "time_sync": "timeSync",
    "position_changed": "position-changed",
    "balance_changed": "balance-changed",
    "option_closed": "option-closed",
    "candle_generated_realtime": "candle-generated",
    "commission_changed": "commission-changed",
}
"""The library's handlers whose messages the parent wants as well."""
ANSWERS = {"option": "option", "digital_option_placed": "digital-option-placed"}
"""Handlers of answers to orders: the library's own waiting for them loses some and mixes up late ones."""


class RefusedError(Exception):
    """The broker said no, in these words."""


class TooLateError(Exception):
    """The order's time to be sent is over."""


class TokenRefusedError(Exception):
    """The broker does not accept the token."""


class Output:
    """The one writer of lines; many threads."""

    def __init__(self) -> None:
        # The library prints: that goes to stderr from now on.
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def write(self, message: dict[str, Any]) -> None:
        """Write a line."""
        line = json.dumps(message)
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()


def redirect(ws: str) -> None:
    """Point the library at the broker that we mean, in memory: it has no setting for it."""
    init = library.IQOptionAPI.__init__

    def init_here(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.wss_url = ws

    library.IQOptionAPI.__init__ = init_here


def harden() -> None:
    """Take away what the library must not do: go on without TLS verification, log in, log out."""
    run = websocket.WebSocketApp.run_forever
    authorities = requests.certs.where()

    def run_verified(self: Any, **kwargs: Any) -> Any:
        kwargs["sslopt"] = {"cert_reqs": ssl.CERT_REQUIRED, "check_hostname": True, "ca_certs": authorities}
        return run(self, **kwargs)

    def refuse(_self: Any) -> None:
        raise TokenRefusedError

    websocket.WebSocketApp.run_forever = run_verified
    library.IQOptionAPI.get_ssid = refuse
    library.IQOptionAPI.logout = property(lambda _self: lambda *_args: None)


def tee(output: Output) -> None:
    """Send the parent a copy of what the library hears."""

    def copy(handler: Any, name: str) -> Any:
        def handle(api: Any, message: Any, *rest: Any) -> None:
            if message["name"] == name:
                output.write({"push": name, "msg": message["msg"]})
            handler(api, message, *rest)

        return handle

    def copy_answer(handler: Any, name: str) -> Any:
        def handle(api: Any, message: Any, *rest: Any) -> None:
            if message["name"] == name:
                known = {"status": message.get("status"), "msg": message["msg"]}
                output.write({"answer": message.get("request_id"), **known})
            handler(api, message, *rest)

        return handle

    for attribute, name in PUSHES.items():
        setattr(wire, attribute, copy(getattr(wire, attribute), name))
    for attribute, name in ANSWERS.items():
        setattr(wire, attribute, copy_answer(getattr(wire, attribute), name))


def wait_for(ready: Any) -> Any:
    """Wait for something to turn up, without spinning."""
    end = time.monotonic() + REPLY_TIME
    while time.monotonic() < end:
        found = ready()
        if found is not None:
            return found
        time.sleep(0.005)
    raise TimeoutError


class Session:
    """The library, logged in, and what the parent may ask of it."""

    def __init__(self, token: str, account_type: str) -> None:
        state.SSID = token
        self._client = IQ_Option("", "")
        ok, reason = self._client.connect()
        if not ok:
            raise ConnectionError(str(reason))
        # From now on a lost connection is the parent's affair: reconnects inside of getters storm the login.
        self._client.connect = self._lost
        wanted = {"REAL": 1, "PRACTICE": 4}[account_type]
        profile = self._client.get_profile_ansyc()
        ids = [balance["id"] for balance in profile["balances"] if balance["type"] == wanted]
        if ids:
            self._client.change_balance(account_type)
        # Without such a balance the parent finds it out and gives up; until then nothing may be ordered.
        self._balance_id = ids[0] if ids else None

    def _lost(self, *_args: Any, **_kwargs: Any) -> None:
        raise ConnectionError("the connection was lost")

    def connected(self) -> bool:
        """Tell whether the socket is up."""
        return bool(self._client.check_connect())

    def profile(self) -> Any:
        """Return the profile."""
        return self._client.get_profile_ansyc()

    def balances(self) -> Any:
        """Return the balances."""
        return self._client.get_balances()["msg"]

    def initialization(self) -> Any:
        """Return the options' assets, and teach the library their numbers: its own table is old."""
        data = self._client.get_all_init_v2()
        for kind in ("turbo", "binary"):
            for active in data[kind]["actives"].values():
                constants.ACTIVES[str(active["name"]).split(".", 1)[-1]] = int(active["id"])
        return data

    def underlyings(self) -> Any:
        """Return the digital options' assets."""
        return self._client.get_digital_underlying_list_data()

    def candles(self, asset: str, size: int, count: int, to: int) -> Any:
        """Return candles."""
        self._active_id(asset)
        return self._client.get_candles(asset, size, count, to)

    def watch_candles(self, asset: str, size: int) -> None:
        """Begin live candles."""
        active_id = self._active_id(asset)
        self._client.api.real_time_candles_maxdict_table[asset][size] = 2
        self._client.api.subscribe(active_id, size)

    def leave_candles(self, asset: str, size: int) -> None:
        """End live candles."""
        self._client.api.unsubscribe(self._active_id(asset), size)

    def watch_payouts(self, kind: str) -> None:
        """Begin pushes of payouts."""
        self._client.subscribe_commission_changed(kind)

    def digital_payout(self, asset: str, seconds: int) -> int:
        """Return what a digital option pays, in percent; 0 if it is not told."""
        return int(self._client.get_digital_payout(asset, seconds))

    def buy(self, request_id: str, order: dict[str, Any], end: float) -> None:
        """Send an order for a turbo or binary option; the answer comes by its request id."""
        active_id = self._active_id(order["asset"])
        self._check_order(end)
        self._client.api.buyv3_by_raw_expired(
            order["amount"], active_id, order["direction"], order["kind"], order["expiry"], request_id=request_id
        )

    def buy_digital(self, instrument_id: str, amount: str, end: float) -> str:
        """Send an order for a digital option; returns the request id that its answer will have."""
        self._check_order(end)
        return str(self._client.api.place_digital_option(instrument_id, amount))

    def _active_id(self, asset: str) -> int:
        if asset not in constants.ACTIVES:
            raise RefusedError("the asset is not available at the moment")
        return int(constants.ACTIVES[asset])

    def _check_order(self, end: float) -> None:
        if time.time() >= end:
            raise TooLateError
        if self._balance_id is None or state.balance_id != self._balance_id:
            raise RefusedError("the balance is another one")

    def sell(self, option_id: int) -> Any:
        """Offer a turbo or binary option back."""
        answer = self._client.sell_option([option_id])
        if answer.get("status", 2000) >= 4000:
            raise RefusedError(str(answer["msg"].get("message")))
        return answer["msg"]

    def sell_digital(self, position_id: int) -> Any:
        """Offer a digital option back."""
        api = self._client.api
        api.sold_digital_options_respond = None
        api.close_digital_option(position_id)
        answer = wait_for(lambda: api.sold_digital_options_respond)
        if answer.get("status", 2000) >= 4000:
            raise RefusedError(str(answer["msg"].get("message")))
        return answer["msg"]

    def positions(self, kind: str, limit: int, offset: int) -> Any:
        """Return what is open of a kind. The stable interface lists only the first page, the one below it all."""
        api = self._client.api
        api.positions = None
        api.portfolio("sendMessage", "portfolio.get-positions", kind, "", limit, offset)
        listed = wait_for(lambda: api.positions)
        if listed.get("status", 2000) >= 4000:
            raise RefusedError("the positions are not listed")
        return listed["msg"]

    def history(self, kind: str, limit: int, offset: int) -> Any:
        """Return what has ended of a kind, newest first."""
        ok, listed = self._client.get_position_history_v2(kind, limit, offset, 0, 0)
        if not ok:
            raise RefusedError("the history is not listed")
        return listed


COMMANDS = frozenset(name for name, value in vars(Session).items() if callable(value) and not name.startswith("_"))


def serve(session: Session, output: Output) -> None:
    """Do what the parent asks, one thing at a time, until it goes away."""
    for line in sys.stdin:
        command = json.loads(line)
        output.write({"id": command["id"], **done(session, command["do"], command["with"])})


def done(session: Session, name: str, arguments: list[Any]) -> dict[str, Any]:
    """Do one thing and return what came of it. "refused" and "too_late" of an order mean that nothing was sent."""
    if name not in COMMANDS:
        return {"error": {"kind": "refused", "text": "no such command"}}
    try:
        return {"ok": getattr(session, name)(*arguments)}
    except RefusedError as refusal:
        return {"error": {"kind": "refused", "text": str(refusal)}}
    except TooLateError:
        return {"error": {"kind": "too_late", "text": ""}}
    except Exception as error:  # noqa: BLE001  # the library raises anything; the parent decides what it means
        return {"error": {"kind": "failed", "text": type(error).__name__}}


def main() -> None:
    """Log in and serve."""
    output = Output()
    given = json.loads(sys.stdin.readline())
    redirect(given["ws"])
    harden()
    tee(output)
    try:
        session = Session(given["token"], given["account_type"])
    except TokenRefusedError:
        output.write({"opened": False})
        return
    output.write({"opened": True})

    def watch() -> None:
        while session.connected():
            time.sleep(0.1)
        # Whatever the main thread spins on, it will not come: the parent starts another process.
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    serve(session, output)
    os._exit(0)


if __name__ == "__main__":
    main()
