"""The least a broker can be: opens any socket and pushes a candle and a clock tick a second to it, each at its own moment.

``python -m bench.support.candle_feed SPREAD``: prints its port. SPREAD 1 spreads the sockets' moments over the second, 0
pushes to all at once. A candle's ``volume`` is the time of its sending, so that whoever gets it knows its age.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any

import uvloop
from aiohttp import WSMsgType, web

ACTIVE = {
    "id": 76,
    "name": "front.EURUSD-OTC",
    "deadtime": 30,
    "schedule": [[0, 4_000_000_000]],
    "option": {"profit": {"commission": 13}, "expiration_times": [60], "count": 5},
}
EMPTY: dict[str, Any] = {"actives": {}}
REPLIES: dict[str, Any] = {
    "get-initialization-data": {"turbo": {"actives": {"76": ACTIVE}}, "binary": EMPTY, "blitz": EMPTY},
    "get-underlying-list": {"underlying": []},
    "get-positions": {"positions": [], "total": 0, "limit": 100},
    "get-history-positions": {"positions": [], "limit": 100},
    "get-candles": {"candles": []},
}


class Feed:
    """All sockets."""

    def __init__(self, spread: float) -> None:
        self._spread = spread
        self._users = 0

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one socket for as long as it lives."""
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self._users += 1
        user = self._users
        pushing = asyncio.create_task(asyncio.sleep(0))
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            frame = json.loads(message.data)
            if frame["name"] == "authenticate":
                await socket.send_json({"name": "authenticated", "msg": True, "request_id": frame["request_id"]})
                pushing = asyncio.create_task(self._push(socket, candles="bare" in request.query))
                continue
            await self._answer(socket, frame, user)
            if frame["name"] == "subscribeMessage" and frame["msg"]["name"] == "candle-generated":
                pushing.cancel()
                pushing = asyncio.create_task(self._push(socket, candles=True))
        pushing.cancel()
        await asyncio.wait({pushing})
        return socket

    async def _answer(self, socket: web.WebSocketResponse, frame: dict[str, Any], user: int) -> None:
        request_id = frame["request_id"]
        await socket.send_json({"name": "result", "request_id": request_id, "msg": {"success": True}})
        if frame["name"] != "sendMessage":
            return
        method = frame["msg"]["name"].rsplit(".", 1)[-1]
        if method == "get-profile":
            name, msg = "profile", {"result": {"user_id": user, "group_id": 1}}
        elif method == "get-balances":
            name, msg = "balances", [{"id": user * 10, "type": 4, "amount": 1, "currency": "USD", "user_id": user}]  # type: ignore[assignment]
        else:
            name, msg = method, REPLIES[method]
        await socket.send_json({"name": name, "request_id": request_id, "msg": msg, "status": 2000})

    async def _push(self, socket: web.WebSocketResponse, *, candles: bool) -> None:
        due = time.time()
        await socket.send_str(tick(due))
        due = int(due) + 1 + random.random() * self._spread
        while not socket.closed:
            await asyncio.sleep(max(due - time.time(), 0.0))
            await socket.send_str(tick(due))
            if candles:
                await socket.send_str(candle(int(due), time.time()))
            due += 1.0


def tick(now: float) -> str:
    """Write a tick of the clock."""
    return f'{{"name":"timeSync","msg":{int(now * 1000)}}}'


def candle(start: int, now: float) -> str:
    """Write the candle of a second."""
    return (
        '{"name":"candle-generated","microserviceName":"quotes","msg":{"active_id":76,"size":1,"id":3212,'
        f'"from":{start},"to":{start + 1},"at":{int(now * 1e9)},"open":1.171,"close":1.1711,"min":1.1709,'
        f'"max":1.1713,"ask":1.17112,"bid":1.17108,"volume":{now:.6f},"phase":"T"}}}}'
    )


async def main(spread: float) -> None:
    """Serve until killed."""
    app = web.Application()
    app.router.add_get("/echo/websocket", Feed(spread).serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(main(float(sys.argv[1])))
