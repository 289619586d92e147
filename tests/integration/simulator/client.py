"""An independent client of the brokers' protocol, as plain as can be: frames in a list, waits with a deadline."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import websockets

from simulator.server import Simulator

Frame = dict[str, Any]
WITHIN = 60.0


async def log_in(simulator: Simulator, email: str, brand: str = "iq", password: str = "secret") -> tuple[int, Frame]:  # noqa: S107  # the documented password
    """Log in over HTTP and return status and body."""
    url = simulator.addresses[brand]["http"] + "/api/v2/login"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json={"identifier": email, "password": password}) as answer,
    ):
        body: Frame = await answer.json()
        return answer.status, body


async def control(simulator: Simulator, path: str, body: Any = None, method: str | None = None) -> Frame:
    """Call the control endpoint: POST if there is a body."""
    method = method or ("GET" if body is None else "POST")
    async with aiohttp.ClientSession() as http, http.request(method, simulator.control + path, json=body) as answer:
        result: Frame = await answer.json()
        assert answer.status == 200, result
        return result


async def ledger(simulator: Simulator, email: str) -> list[Frame]:
    """Return an account's orders from the ledger."""
    orders: list[Frame] = (await control(simulator, f"/ledger?email={email}"))["orders"]
    return orders


class BrokerClient:
    """A logged-in socket."""

    def __init__(self, socket: websockets.ClientConnection, ssid: str) -> None:
        self.ssid = ssid
        self.frames: list[Frame] = []
        self.broken: list[str] = []
        """Frames that were no JSON."""
        self.closed = asyncio.Event()
        self._socket = socket
        self._ids = itertools.count(1)
        self._arrived = asyncio.Condition()
        self.user_id = 0
        self.practice = 0
        self.real = 0

    async def listen(self) -> None:
        """Collect frames until the socket ends."""
        with suppress(websockets.ConnectionClosed):
            async for text in self._socket:
                async with self._arrived:
                    try:
                        self.frames.append(json.loads(text))
                    except ValueError:
                        self.broken.append(str(text))
                    self._arrived.notify_all()
        self.closed.set()

    async def wait(self, fits: Callable[[Frame], bool], *, within: float = WITHIN, skip: int = 0) -> Frame:
        """Return the first frame that fits, from among those that came and those that will."""

        def found() -> Frame | None:
            return next((frame for frame in self.frames[skip:] if fits(frame)), None)

        async with asyncio.timeout(within), self._arrived:
            frame = await self._arrived.wait_for(found)
        assert frame is not None
        return frame

    async def send(self, name: str, msg: Any, request_id: Any = None) -> None:
        """Send a top-level frame."""
        frame = {"name": name, "msg": msg}
        if request_id is not None:
            frame["request_id"] = request_id
        await self._socket.send(json.dumps(frame))

    async def send_raw(self, text: str | bytes) -> None:
        """Send whatever it is."""
        await self._socket.send(text)

    async def call(self, method: str, body: Any, version: str = "1.0", *, within: float = WITHIN) -> Frame:
        """Send a request and return its data frame."""
        request_id = await self.ask(method, body, version)
        return await self.wait(lambda f: f.get("request_id") == request_id and f["name"] != "result", within=within)

    async def ask(self, method: str, body: Any, version: str = "1.0") -> str:
        """Send a request without waiting and return its id."""
        request_id = f"r{next(self._ids)}"
        await self.send("sendMessage", {"name": method, "version": version, "body": body}, request_id)
        return request_id

    async def subscribe(self, name: str, version: str = "1.0", **filters: Any) -> None:
        """Subscribe and wait for the acknowledgement."""
        request_id = f"s{next(self._ids)}"
        msg = {"name": name, "version": version, "params": {"routingFilters": filters}}
        await self.send("subscribeMessage", msg, request_id)
        await self.wait(lambda f: f.get("request_id") == request_id)

    async def blitz(self, amount: float = 1, direction: str = "call", seconds: int = 5, **other: Any) -> Frame:
        """Buy a blitz option on EURUSD-OTC on the practice balance."""
        return await self.call(
            "binary-options.open-option", self.blitz_body(amount, direction, seconds, **other), "2.0"
        )

    def blitz_body(self, amount: float = 1, direction: str = "call", seconds: int = 5, **other: Any) -> Frame:
        return {
            "user_balance_id": self.practice,
            "active_id": 76,
            "option_type_id": 12,
            "direction": direction,
            "expired": 0,
            "price": amount,
            "profit_percent": 87,
            "expiration_size": seconds,
        } | other

    async def disconnect(self) -> None:
        await self._socket.close()


@asynccontextmanager
async def socket_of(simulator: Simulator, brand: str = "iq", ssid: str = "") -> AsyncIterator[BrokerClient]:
    """Open a socket that is not logged in yet."""
    async with websockets.connect(simulator.addresses[brand]["ws"], max_size=None, ping_interval=None) as socket:
        client = BrokerClient(socket, ssid)
        listening = asyncio.create_task(client.listen())
        try:
            yield client
        finally:
            await socket.close()
            await listening


@asynccontextmanager
async def connected(
    simulator: Simulator, email: str = "trader@example.com", brand: str = "iq", ssid: str | None = None
) -> AsyncIterator[BrokerClient]:
    """Log in and open the modern way, with the user's events subscribed."""
    if ssid is None:
        status, body = await log_in(simulator, email, brand)
        assert status == 200, body
        ssid = str(body["ssid"])
    async with socket_of(simulator, brand, ssid) as client:
        await client.send(
            "authenticate", {"ssid": ssid, "protocol": 3, "session_id": "", "client_session_id": ""}, "auth"
        )
        assert (await client.wait(lambda f: f["name"] == "authenticated"))["msg"] is True
        await client.send("setOptions", {"sendResults": True}, "options")
        balances = (await client.call("balances.get-available-balances", {"types_ids": [1, 4]}))["msg"]
        by_type = {balance["type"]: balance["id"] for balance in balances}
        client.practice, client.real = by_type[4], by_type[1]
        client.user_id = balances[0]["user_id"]
        await client.subscribe("portfolio.position-changed", "3.0", user_id=client.user_id)
        await client.subscribe("portfolio.order-changed", "2.0", user_id=client.user_id)
        await client.subscribe("balances.balance-changed")
        yield client
