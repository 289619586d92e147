"""A broker that says exactly what a test tells it to: for words that the simulator, being faithful, never says."""

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import WSMsgType, web

ASSETS: Final = {
    "turbo": {
        "actives": {
            "76": {
                "id": 76,
                "name": "front.EURUSD-OTC",
                "description": "front.EUR/USD-OTC",
                "deadtime": 30,
                "schedule": [[0, 4_000_000_000]],
                "option": {"profit": {"commission": 13}, "expiration_times": [60], "count": 5},
            }
        }
    },
    "binary": {"actives": {}},
    "blitz": {"actives": {}},
}

Reply = tuple[str, Any] | tuple[str, Any, int] | None
"""Name, msg and status of a reply; None for silence."""


class ScriptedBroker:
    """Answers a connector's opening like a broker would; a test overrides replies by method and pushes what it likes."""

    def __init__(self) -> None:
        self.url = ""
        self.user_id = 7
        self.balances: list[dict[str, Any]] = [{"id": 74, "type": 4, "amount": 100, "currency": "USD", "user_id": 7}]
        self.accepts_token: Callable[[str], bool] = lambda _token: True
        self.logins = 0
        self.requests: list[tuple[str, Any]] = []
        """Every method that was called, with its body."""
        self.replies: dict[str, Callable[[Any], Reply]] = {
            "get-profile": lambda _: ("profile", {"result": {"user_id": self.user_id, "group_id": 1}}),
            "get-balances": lambda _: ("balances", self.balances),
            "get-initialization-data": lambda _: ("initialization-data", ASSETS),
            "get-underlying-list": lambda _: ("underlying-list", {"underlying": []}),
            "get-positions": lambda _: ("positions", {"positions": [], "total": 0, "limit": 100}),
            "get-history-positions": lambda _: ("history-positions", {"positions": [], "limit": 100}),
        }
        self.sockets: set[web.WebSocketResponse] = set()

    async def push(self, name: str, msg: Any) -> None:
        """Send an event to all sockets."""
        await self.push_raw(json.dumps({"name": name, "microserviceName": "x", "msg": msg}))

    async def push_raw(self, text: str) -> None:
        """Send any text to all sockets."""
        for socket in list(self.sockets):
            await socket.send_str(text)

    async def cut(self) -> None:
        """Close all sockets."""
        for socket in list(self.sockets):
            await socket.close()

    def called(self, method: str) -> list[Any]:
        """Return the bodies that a method was called with."""
        return [body for name, body in self.requests if name == method]

    async def _login(self, _request: web.Request) -> web.Response:
        self.logins += 1
        return web.json_response({"code": "success", "ssid": f"token-{self.logins}", "user_id": self.user_id})

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"name": "timeSync", "msg": int(time.time() * 1000)})
        self.sockets.add(socket)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and not await self._answer(socket, json.loads(message.data)):
                    break
        finally:
            self.sockets.discard(socket)
        return socket

    async def _answer(self, socket: web.WebSocketResponse, frame: dict[str, Any]) -> bool:
        request_id, msg = frame["request_id"], frame["msg"]
        if frame["name"] == "authenticate":
            accepted = self.accepts_token(msg["ssid"])
            await socket.send_json({"name": "authenticated", "msg": accepted, "request_id": request_id})
            return accepted
        await socket.send_json({"name": "result", "request_id": request_id, "msg": {"success": True}})
        if frame["name"] == "sendMessage":
            method = msg["name"].rsplit(".", 1)[-1]
            self.requests.append((method, msg["body"]))
            reply = self.replies[method](msg["body"]) if method in self.replies else None
            if reply is not None:
                name, data, status = (*reply, 2000)[:3]
                await socket.send_json({"name": name, "request_id": request_id, "msg": data, "status": status})
        return True


@asynccontextmanager
async def scripted_broker() -> AsyncIterator[ScriptedBroker]:
    """Run a scripted broker on a free port; ``url`` is its origin."""
    broker = ScriptedBroker()
    app = web.Application()
    app.router.add_post("/v2/login", broker._login)
    app.router.add_get("/echo/websocket", broker._websocket)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        broker.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield broker
    finally:
        await broker.cut()
        await runner.cleanup()
