"""The least that a fan-out over Valkey can be, its writing half: one XADD an event into each of many streams.

``python -m bench.support.stream_writer REDIS_URL``: then one JSON line on stdin for each run, ``streams``, ``rate`` (events a
second for each, 0: as fast as it goes) and ``seconds``. Answers with ``events`` and ``seconds``. An event carries the time
just before it was written.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import uvloop
from redis.asyncio import BlockingConnectionPool, Redis

CONNECTIONS = 20
PAYLOAD = b"x" * 60
"""About as long as an event of a balance."""


async def write(redis: Redis, streams: Sequence[str], rate: float, seconds: float) -> int:
    """Write for a while; returns how many events."""
    began = time.monotonic()
    counts = [0] * len(streams)

    async def one(number: int) -> None:
        period = 1 / rate if rate else 0.0
        due = began + period * number / len(streams)
        while time.monotonic() - began < seconds:
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            due += period
            fields: dict[Any, Any] = {"time": repr(time.time()), "payload": PAYLOAD}
            await redis.xadd(streams[number], fields, maxlen=1000, approximate=True)
            counts[number] += 1

    await asyncio.gather(*(one(number) for number in range(len(streams))))
    return sum(counts)


async def main(url: str) -> None:
    """Serve runs until stdin ends."""
    redis = Redis.from_pool(BlockingConnectionPool.from_url(url, protocol=2, max_connections=CONNECTIONS))
    loop = asyncio.get_running_loop()
    print(json.dumps({"event": "ready"}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked: dict[str, Any] = json.loads(line)
        began = time.monotonic()
        count = await write(redis, asked["streams"], asked["rate"], asked["seconds"])
        print(json.dumps({"events": count, "seconds": time.monotonic() - began}), flush=True)
    await redis.aclose()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1]))
