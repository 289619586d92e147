"""What the client scripts share: named steps with a deadline each, told to the test as JSON lines.

Runs inside the environment of a community client, so it uses the standard library only, as ``eventually`` does. The clients
wait in endless loops when an answer does not come; a step that does not end in time is reported, and its thread is left behind.
"""

import asyncio
import json
import os
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.support.eventually import eventually

HTTP = os.environ["SIMULATOR_HTTP"]
WS = os.environ["SIMULATOR_WS"]
BRAND = os.environ["SIMULATOR_BRAND"]
CONTROL = os.environ["SIMULATOR_CONTROL"]
WAIT_FOR_EXPIRY = os.environ["INTEROP_FORM"] == "full"
"""Whether trades run to their real expiry; otherwise the control endpoint settles them early."""
SETTLED = 120.0 if WAIT_FOR_EXPIRY else 60.0
"""Seconds within which a trade has its result."""


def step(name: str, seconds: float = 60.0) -> Callable[[Callable[[], Any]], None]:
    """Run a function as a step, at once."""

    def run(action: Callable[[], Any]) -> None:
        result: dict[str, Any] = {"step": name, "ok": False, "detail": f"no answer within {seconds} s"}

        def attempt() -> None:
            try:
                result["detail"] = repr(action())[:300]
                result["ok"] = True
            except Exception:  # noqa: BLE001  # whatever it was, it is what the step has to report
                result["detail"] = traceback.format_exc()

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(seconds)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()

    return run


def until(probe: Callable[[], Any], within: float = 30.0) -> Any:
    """Ask until the answer is true and return it.

    Raises:
        AssertionError: It did not become true.
    """

    async def asked() -> Any:
        return probe()

    return asyncio.run(eventually(asked, within=within, every=0.1))


def control(path: str, body: Any = None) -> Any:
    """Call the simulator's control endpoint: GET, or POST if there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(CONTROL + path, data=data)  # noqa: S310  # the simulator's own address
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # as above
        return json.load(answer)


def ledger(email: str) -> list[dict[str, Any]]:
    """Return the orders of an account as the simulator saw them."""
    orders: list[dict[str, Any]] = control(f"/ledger?email={email}&broker={BRAND}")["orders"]
    return orders


def ledger_order(email: str, order_id: int) -> dict[str, Any]:
    """Return one order of the ledger by the broker's id."""
    return next(order for order in ledger(email) if order["broker_order_id"] == order_id)


def end_trade(order_id: int) -> None:
    """Settle a trade now, unless trades are to run to their expiry."""
    if not WAIT_FOR_EXPIRY:
        control("/settle", {"order_id": order_id, "brand": BRAND})


def clear_of_deadtime() -> None:
    """Wait until no expiry is about to leave the purchase window.

    The clients take the time from the last ``timeSync``, up to a second ago, and would ask for an expiry that has just gone.
    """
    until(lambda: not 28.5 <= time.time() % 60 <= 31.5)


def finish() -> None:
    """Leave, whatever threads the client has left behind."""
    sys.stdout.flush()
    os._exit(0)
