"""Many sessions in one broker process, each with a live 1-second candle subscription, beside bare WebSocket clients.

``python -m bench.broker_sessions [--sessions N] [--seconds S]``. Prints CPU, memory for each session, and the age of a candle
when it leaves the gRPC stream: from just before the feed writes its frame to just after the caller has read the message, so
feed, caller and scheduling are in it. Feed, caller and broker share the machine.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import psutil
import uvloop
from tradebot.broker.v1 import account_pb2, broker_service_pb2_grpc
from tradebot.broker.v1 import broker_service_pb2 as pb

from services.runtime.channel import open_channel

WARM_UP = 6.0
"""Seconds until all streams flow."""


@dataclass
class Result:
    """One row of the report."""

    name: str
    sessions: int
    cpu: float
    """Share of one core."""
    kilobytes: float
    """Resident memory for each session."""
    ages: list[float]
    """Milliseconds."""

    def row(self) -> str:
        """Return the row as text."""
        percentiles = statistics.quantiles(self.ages, n=1000) if len(self.ages) > 1 else [0.0] * 999
        p50, p99, p999 = percentiles[499], percentiles[989], percentiles[998]
        return (
            f"{self.name:<34} {self.sessions:>6} {len(self.ages):>8} {self.cpu:>6.0%} {self.kilobytes:>9.1f}"
            f" {p50:>8.2f} {p99:>8.2f} {p999:>8.2f}"
        )


HEADER = f"{'':<34} {'count':>6} {'candles':>8} {'cpu':>6} {'KB each':>9} {'p50 ms':>8} {'p99 ms':>8} {'p99.9':>8}"


@asynccontextmanager
async def process(*arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one of our modules; it is ended with us."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        env={**os.environ, "GRPC_VERBOSITY": "ERROR", **(env or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )
    try:
        yield running
    finally:
        running.kill()
        await running.wait()


async def line(stream: asyncio.StreamReader | None) -> str:
    """Read a line of a process that was started with pipes."""
    async with asyncio.timeout(120):
        return (await cast(asyncio.StreamReader, stream).readline()).decode()


async def broker(sessions: int, seconds: float, spread: float, *, accounts: bool) -> Result:
    """Measure the broker service."""
    async with process("bench.support.candle_feed", str(spread)) as feed:
        port = int(await line(feed.stdout))
        env = {
            "BROKER_IQ_WS_URL": f"ws://127.0.0.1:{port}/echo/websocket",
            "BROKER_IQ_HTTP_URL": f"http://127.0.0.1:{port}",
            "BROKER_LOG_LEVEL": "INFO",
        }
        async with process("services.broker", env=env) as service:
            served = 0
            while not served:
                event = json.loads(await line(service.stderr))
                served = event.get("port", 0) if event["event"] == "serving" else 0
            reading_log = asyncio.create_task(_swallow(service.stderr))
            usage = psutil.Process(service.pid)
            async with open_channel(f"127.0.0.1:{served}") as channel:
                stub: Any = broker_service_pb2_grpc.BrokerServiceStub(channel)
                await _connect(stub, "warm")
                async for _ in stub.WatchCandles(
                    pb.WatchCandlesRequest(session_key="warm", asset="EURUSD-OTC", timeframe=1)
                ):
                    break
                await asyncio.sleep(1)
                before = usage.memory_info().rss
                ages: list[float] = []
                readers = await _open(stub, sessions, ages, accounts=accounts)
                await asyncio.sleep(WARM_UP)
                ages.clear()
                cpu, began = sum(usage.cpu_times()[:2]), time.monotonic()
                await asyncio.sleep(seconds)
                used = (sum(usage.cpu_times()[:2]) - cpu) / (time.monotonic() - began)
                kilobytes = (usage.memory_info().rss - before) / sessions / 1024
                for reader in readers:
                    reader.cancel()
                await asyncio.wait(readers)
            reading_log.cancel()
    streams = "candles and account" if accounts else "candles"
    moment = "spread" if spread else "all at once"
    return Result(f"broker, {streams}, {moment}", sessions, used, kilobytes, ages)


async def _open(stub: Any, sessions: int, ages: list[float], *, accounts: bool) -> list[asyncio.Task[None]]:
    room = asyncio.Semaphore(50)

    async def one(key: str) -> None:
        async with room:
            await _connect(stub, key)

    await asyncio.gather(*(one(f"key-{n}") for n in range(sessions)))
    readers = []
    for n in range(sessions):
        request = pb.WatchCandlesRequest(session_key=f"key-{n}", asset="EURUSD-OTC", timeframe=1)
        readers.append(asyncio.create_task(_read(stub.WatchCandles(request), ages)))
        if accounts:
            account = stub.WatchAccount(pb.WatchAccountRequest(session_key=f"key-{n}"))
            readers.append(asyncio.create_task(_drop(account)))
    return readers


async def _connect(stub: Any, key: str) -> None:
    await stub.Connect(
        pb.ConnectRequest(
            session_key=key,
            broker=account_pb2.BROKER_IQ,
            account_type=account_pb2.ACCOUNT_TYPE_PRACTICE,
            credentials=pb.Credentials(email=f"{key}@example.com", password="x", broker_token="x"),  # noqa: S106 - the feed takes any
        )
    )


async def _read(stream: Any, ages: list[float]) -> None:
    async for message in stream:
        now = time.time()
        if not message.candle.closed:
            ages.append((now - message.candle.volume) * 1000)


async def _drop(stream: Any) -> None:
    async for _ in stream:
        pass


async def _swallow(stream: asyncio.StreamReader | None) -> None:
    while await cast(asyncio.StreamReader, stream).readline():
        pass


async def bare(sessions: int, seconds: float, spread: float) -> Result:
    """Measure bare WebSocket clients."""
    async with process("bench.support.candle_feed", str(spread)) as feed:
        port = (await line(feed.stdout)).strip()
        async with process("bench.support.bare_clients", port, "1") as one:
            await line(one.stdout)
            before = psutil.Process(one.pid).memory_info().rss
        async with process("bench.support.bare_clients", port, str(sessions)) as clients:
            await line(clients.stdout)
            questions = cast(asyncio.StreamWriter, clients.stdin)
            usage = psutil.Process(clients.pid)
            await asyncio.sleep(WARM_UP)
            questions.write(b"\n")
            await line(clients.stdout)
            cpu, began = sum(usage.cpu_times()[:2]), time.monotonic()
            await asyncio.sleep(seconds)
            used = (sum(usage.cpu_times()[:2]) - cpu) / (time.monotonic() - began)
            kilobytes = (usage.memory_info().rss - before) / sessions / 1024
            questions.write(b"\n")
            ages = json.loads(await line(clients.stdout))
    moment = "spread" if spread else "all at once"
    return Result(f"bare websockets clients, {moment}", sessions, used, kilobytes, ages)


async def main(sessions: int, seconds: float) -> None:
    """Run all rows."""
    print(HEADER, flush=True)
    for measure in (
        broker(sessions, seconds, 1.0, accounts=False),
        broker(sessions, seconds, 1.0, accounts=True),
        bare(sessions, seconds, 1.0),
        broker(sessions, seconds, 0.0, accounts=False),
        bare(sessions, seconds, 0.0),
    ):
        print((await measure).row(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(main(given.sessions, given.seconds))
