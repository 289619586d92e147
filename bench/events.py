"""Events from their commit in the ledger to the client's socket, beside a bare fan-out over the same Valkey.

``python -m bench.events [--sessions 200] [--rate 10] [--seconds 10] [--rounds 3]``.

Events are committed by a process of its own with the service's own code, as a second replica of the session service does, so
each travels the longest way: commit, XADD, the serving replica's XREAD, its fan-out in memory, gRPC, and for a WebSocket also
bridge and Envoy. Age is from just after the commit returned until the client has read the frame: on one clock, writer,
services and client on one machine. Every event is counted: what a client never got is printed as lost.

* *paced*: ``--rate`` events a second for each session, in transactions of one event and of ten; the ledger, not the way to
  the client, bounds how many transactions there can be, so a rate that was not reached is printed as it came out.
* *at full speed*: each session's next transaction begins when its last is committed.
* *bare Valkey*: one XADD an event by one process, one XREAD over all streams by another, which counts ages; nothing else.

Rounds alternate; medians over the rounds. The load that others put on the machine is printed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import uvloop
from redis.asyncio import Redis
from tradebot.session.v1 import session_service_pb2 as pb
from tradebot.session.v1 import session_service_pb2_grpc

from bench.gateway import connect
from local.client import Gateway, UserSession
from services.runtime.channel import open_channel
from services.runtime.redis_client import connect as connect_redis
from services.session.domain.values import session_key
from tests.support.eventually import eventually
from tests.support.stack import Stack, running_stack

SETTLE = 15.0
"""Seconds that late events get to arrive before they count as lost."""
Arrivals = dict[tuple[str, int], float]
"""When a client got an event, by session key and seq."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One run. Ages in milliseconds."""

    rate: float
    """Events delivered a second."""
    p50: float
    p99: float
    lost: int

    def __str__(self) -> str:
        lost = f"   {self.lost} LOST" if self.lost else ""
        return f"{self.rate:7.0f} events/s   p50 {self.p50:7.1f}  p99 {self.p99:7.1f} ms{lost}"


def figure(ages: Sequence[float], seconds: float, lost: int) -> Figure:
    """Make a figure of ages in seconds."""
    if not ages:
        return Figure(0.0, float("nan"), float("nan"), lost)
    ordered = sorted(ages)
    at = [1000 * ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.99)]
    return Figure(len(ages) / seconds, at[0], at[1], lost)


class Writer:
    """One of the writing processes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def answer(self) -> dict[str, Any]:
        """Read a line of it."""
        async with asyncio.timeout(180):
            line = await cast(asyncio.StreamReader, self._process.stdout).readline()
        return cast(dict[str, Any], json.loads(line))

    async def run(self, **asked: Any) -> dict[str, Any]:
        """Let it write once."""
        cast(asyncio.StreamWriter, self._process.stdin).write(json.dumps(asked).encode() + b"\n")
        return await self.answer()


@contextlib.asynccontextmanager
async def writer(module: str, *arguments: str) -> AsyncIterator[Writer]:
    """Run a writing process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"bench.support.{module}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=256 * 2**20,
    )
    try:
        running = Writer(process)
        await running.answer()
        yield running
    finally:
        process.kill()
        await process.wait()


async def read_grpc(stub: Any, session: UserSession, key: str, arrivals: Arrivals, ready: asyncio.Event) -> None:
    """Follow a session as the bridge does."""
    async for message in stub.WatchEvents(pb.WatchEventsRequest(session_id=session.session_id)):
        arrivals[key, message.event.seq] = time.time()
        ready.set()


async def read_socket(
    gateway: Gateway, session: UserSession, key: str, arrivals: Arrivals, ready: asyncio.Event
) -> None:
    """Follow a session as a user does."""
    async with gateway.socket(session.session_id, None) as socket:
        async for message in socket:
            now = time.time()
            frame = json.loads(message.data)
            if "seq" in frame:
                arrivals[key, frame["seq"]] = now
            ready.set()


@contextlib.asynccontextmanager
async def following(follow: Callable[..., Awaitable[None]], sessions: Sequence[UserSession]) -> AsyncIterator[Arrivals]:
    """Follow all sessions, each on a stream of its own, from its snapshot on."""
    arrivals: Arrivals = {}
    tasks: list[asyncio.Task[None]] = []
    few = asyncio.Semaphore(8)

    async def begin(session: UserSession) -> None:
        async with few:
            ready = asyncio.Event()
            task = asyncio.ensure_future(follow(session, session_key(session.session_id), arrivals, ready))
            tasks.append(task)
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
            if not ready.is_set():
                waiting.cancel()
                task.cancel()
                await task
                raise ConnectionError("a session's stream does not begin")

    try:
        await asyncio.gather(*(begin(session) for session in sessions))
        yield arrivals
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def arrived(is_all: Callable[[], bool]) -> None:
    """Wait until all is there, or late enough to call it lost."""

    async def there() -> bool:
        return is_all()

    with contextlib.suppress(AssertionError, TimeoutError):
        await eventually(there, within=SETTLE)


async def ours(committer: Writer, arrivals: Arrivals, keys: Sequence[str], **pace: float) -> Figure:
    """Commit for a while; return what arrived."""
    arrivals.clear()
    began = time.time()
    told = await committer.run(keys=list(keys), **pace)
    sent = {(key, seq): at for key, events in told["committed"].items() for seq, at in events}
    await arrived(lambda: sent.keys() <= arrivals.keys())
    got = [(at, arrivals[name]) for name, at in sent.items() if name in arrivals]
    ended = max((at for _, at in got), default=began)
    return figure([came - at for at, came in got], ended - began, len(sent) - len(got))


async def bare(streams: Writer, redis: Redis, names: Sequence[str], rate: float, seconds: float) -> Figure:
    """Write to bare streams for a while; return what one reader of them all got."""
    ages: list[float] = []
    last = 0.0

    await redis.delete(*names)

    async def read() -> None:
        nonlocal last
        places: dict[Any, Any] = dict.fromkeys(names, "0-0")
        while True:
            answer: Any = await redis.xread(places, 200, 1000)
            now = time.time()
            for stream, entries in answer:
                last = now
                places[stream.decode()] = entries[-1][0]
                ages.extend(now - float(fields[b"time"]) for _, fields in entries)

    began = time.time()
    reader = asyncio.create_task(read())
    told = await streams.run(streams=list(names), rate=rate, seconds=seconds)
    await arrived(lambda: len(ages) >= told["events"])
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    return figure(ages, max(last - began, 0.001), told["events"] - len(ages))


def show(name: str, figures: Sequence[Figure]) -> Figure:
    """Print the medians of some runs."""
    middle = Figure(
        median(each.rate for each in figures),
        median(each.p50 for each in figures),
        median(each.p99 for each in figures),
        sum(each.lost for each in figures),
    )
    print(f"  {name:<34} {middle}", flush=True)
    return middle


async def main(given: argparse.Namespace) -> None:
    """Measure all of it on a system of our own."""
    with running_stack() as stack:
        async with contextlib.AsyncExitStack() as opened:
            # First whatever makes processes, which gRPC's threads do not like.
            engines = stack.facts["postgres"], stack.facts["redis"]
            committer = await opened.enter_async_context(writer("committer", *engines))
            streams = await opened.enter_async_context(writer("stream_writer", engines[1]))
            # Our own client: a plain one can lose the cancellation of the reader, which would then never end.
            redis = connect_redis(engines[1])
            opened.push_async_callback(redis.aclose)
            gateway = await opened.enter_async_context(stack.gateway())
            sessions = await connect(gateway, given.sessions)
            await measure(stack, gateway, sessions, (committer, streams, redis), given)


async def measure(
    stack: Stack,
    gateway: Gateway,
    sessions: Sequence[UserSession],
    parts: tuple[Writer, Writer, Redis],
    given: argparse.Namespace,
) -> None:
    """Run every pace on both ways, beside the bare streams."""
    committer, streams, redis = parts
    keys = [session_key(session.session_id) for session in sessions]
    names = [f"bare:{key}" for key in keys]
    async with open_channel(stack.facts["grpc"]["session"]) as channel:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        ways: dict[str, Callable[..., Awaitable[None]]] = {
            "to the gRPC client": lambda *told: read_grpc(stub, *told),
            "to the WebSocket": lambda *told: read_socket(gateway, *told),
        }
        # What is loaded or pooled at first is not the cost of one more.
        async with following(ways["to the WebSocket"], sessions) as arrivals:
            await ours(committer, arrivals, keys, rate=1.0, at_once=1, seconds=3)
        for pace, title in ((given.rate, f"paced at {given.sessions} x {given.rate:g}/s"), (0.0, "at full speed")):
            print(f"{title}, {given.seconds:g} s a run, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            figures: dict[str, list[Figure]] = {}
            for _ in range(given.rounds):
                for way, follow in ways.items():
                    async with following(follow, sessions) as arrivals:
                        for at_once in (1, 10):
                            name = f"{way}, {at_once} a commit"
                            run = await ours(
                                committer, arrivals, keys, rate=pace, at_once=at_once, seconds=given.seconds
                            )
                            figures.setdefault(name, []).append(run)
                run = await bare(streams, redis, names, pace, given.seconds)
                figures.setdefault("bare Valkey XADD/XREAD", []).append(run)
            middles = {name: show(name, runs) for name, runs in figures.items()}
            base = middles.pop("bare Valkey XADD/XREAD")
            shares = ", ".join(f"{name} {each.rate / base.rate:.2f}" for name, each in middles.items())
            print(f"  rate as a share of bare Valkey's: {shares}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(main(parser.parse_args()))
