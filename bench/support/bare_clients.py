"""What a WebSocket costs by itself: many bare ``websockets`` clients that read every frame and do nothing with it.

``python -m bench.support.bare_clients PORT COUNT``: prints a line when all are connected; a line on stdin asks for the ages of
the candles since the last one, in milliseconds.
"""

import asyncio
import json
import sys
import time

import uvloop
from websockets.asyncio.client import ClientConnection, connect


async def read(socket: ClientConnection, ages: list[float]) -> None:
    """Read for ever."""
    async for text in socket:
        frame = json.loads(text)
        if frame["name"] == "candle-generated":
            now = time.time()
            ages.append((now - frame["msg"]["volume"]) * 1000)


async def main(port: int, count: int) -> None:
    """Connect all and answer questions."""
    ages: list[float] = []
    room = asyncio.Semaphore(50)

    async def one() -> None:
        async with room:
            socket = await connect(f"ws://127.0.0.1:{port}/echo/websocket?bare", compression=None, ping_interval=None)
            await socket.send(json.dumps({"name": "authenticate", "request_id": "1", "msg": {}}))
        readers.append(asyncio.create_task(read(socket, ages)))

    readers: list[asyncio.Task[None]] = []
    await asyncio.gather(*(one() for _ in range(count)))
    print("connected", flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(ages), flush=True)
        ages.clear()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), int(sys.argv[2])))
