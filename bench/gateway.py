"""The gateway before the whole system, beside the same Envoy before a bare gRPC echo.

Requests a second and latency of ``GET /api/balance`` and ``POST /api/trade``; the time from a broker's settlement to its
WebSocket frame; memory of each process for each connected session. The generator shares the machine with everything else.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
import uvloop

from bench.support.load import Load, request, run
from local.client import Gateway, UserSession
from tests.support.envoy import free_port, running_envoy
from tests.support.eventually import eventually
from tests.support.stack import Stack, running_stack

CONNECTIONS = (1, 32, 128)
SECONDS = 3.0
SESSIONS = 128
WARM = 32
SETTLEMENTS = 100
ORDER = {"asset": "EURUSD-OTC", "direction": "call", "amount": 1, "duration_seconds": 5}


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    """Run the echo behind an Envoy of its own; gives Envoy's port."""
    port = free_port()
    echo = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.support.echo", str(port))
    try:
        with tempfile.TemporaryDirectory() as directory:
            async with running_envoy(Path(directory), session=port) as edge:
                edge_port = int(edge.url.rpartition(":")[2])

                async def answers() -> bool:
                    return not (await run(edge_port, balances(["x"]), 0.05)).errors

                await eventually(answers)
                yield edge_port
    finally:
        echo.kill()
        await echo.wait()


def balances(session_ids: Sequence[str]) -> list[bytes]:
    """One ``GET /api/balance`` for each session."""
    return [request("GET", f"/api/balance?session_id={each}") for each in session_ids]


def trades(session_ids: Sequence[str]) -> list[bytes]:
    """One ``POST /api/trade`` for each session."""
    return [request("POST", "/api/trade", json.dumps({"session_id": each, **ORDER}).encode()) for each in session_ids]


def show(call: str, connections: int, figure: Load, baseline: Load) -> None:
    """Print a figure beside its baseline."""

    def one(load: Load) -> str:
        failed = f" ({load.errors} refused)" if load.errors else ""
        return f"{load.rate:7.0f}/s  p50 {load.percentile(0.5):6.1f}  p99 {load.percentile(0.99):6.1f} ms{failed}"

    print(f"{call:<18} {connections:>3} conn   {one(figure)}   | echo {one(baseline)}", flush=True)


async def throughput(port: int, sessions: Sequence[UserSession]) -> None:
    """Measure both calls at every number of connections; one session a connection."""
    ids = [session.session_id for session in sessions]
    async with echoing() as echo:
        for call, write in (("GET /api/balance", balances), ("POST /api/trade", trades)):
            for connections in CONNECTIONS:
                messages = write(ids[:connections])
                baseline = await run(echo, messages, SECONDS)
                show(call, connections, await run(port, messages, SECONDS), baseline)


async def settlement_latency(stack: Stack, session: UserSession) -> None:
    """Measure from the moment the broker closes a trade to the frame in the client."""
    arrived: dict[str, float] = {}
    seen = asyncio.Event()

    async def listen(socket: Any) -> None:
        async for message in socket:
            frame = json.loads(message.data)
            if frame["type"] == "trade_closed":
                arrived[frame["data"]["broker_order_id"]] = time.time()
            if frame["type"] in {"snapshot", "trade_closed"}:
                seen.set()

    delays = []
    async with stack.simulator() as simulator, session.gateway.socket(session.session_id, None) as socket:
        listener = asyncio.create_task(listen(socket))
        try:
            await asyncio.wait_for(seen.wait(), 10)
            for _ in range(SETTLEMENTS):
                seen.clear()
                await session.post("trade", **{**ORDER, "duration_seconds": 60})
                settled = await simulator.call("POST", "/settle", json={"email": session.email})
                await asyncio.wait_for(seen.wait(), 10)
                order = settled["orders"][0]
                delays.append(1000 * (arrived[str(order["broker_order_id"])] - order["close_time"]))
        finally:
            listener.cancel()
    print(f"broker event to WebSocket frame   p50 {median(delays):.1f}  p99 {quantiles(delays, n=100)[98]:.1f} ms")


def memory(stack: Stack) -> dict[str, int]:
    """Return the private memory of every process and its children, bytes."""
    sizes = {}
    for name, pid in stack.facts["pids"].items():
        process = psutil.Process(pid)
        sizes[name] = sum(each.memory_full_info().uss for each in (process, *process.children(recursive=True)))
    return sizes


async def main() -> None:
    """Measure all of it on a system of our own."""
    with running_stack() as stack:
        port = int(stack.facts["gateway"].rpartition(":")[2])
        async with stack.gateway() as gateway, contextlib.AsyncExitStack() as sockets:
            # What is loaded or pooled with the first sessions is not the cost of one more.
            await watched(gateway, sockets, WARM)
            before = memory(stack)
            sessions = await watched(gateway, sockets, SESSIONS)
            after = memory(stack)
            await settlement_latency(stack, (await connect(gateway, 1))[0])
            await throughput(port, sessions)
        print(f"memory for each connected session with an open socket, KiB ({SESSIONS} sessions):")
        print("  " + "  ".join(f"{name} {(after[name] - before[name]) / SESSIONS / 1024:.0f}" for name in after))


async def watched(gateway: Gateway, sockets: contextlib.AsyncExitStack, count: int) -> list[UserSession]:
    """Open sessions with a socket each, and let them come to rest."""
    sessions = await connect(gateway, count)
    for session in sessions:
        socket = await sockets.enter_async_context(gateway.socket(session.session_id, None))
        await socket.receive(timeout=10)
    await asyncio.sleep(3)
    return sessions


async def connect(gateway: Gateway, count: int) -> list[UserSession]:
    """Open sessions, a few at a time."""
    limit = asyncio.Semaphore(8)

    async def one(number: int) -> UserSession:
        async with limit:
            email = f"bench-{number}-{time.time_ns()}@example.com"
            return await gateway.connect(broker="iq", account_type="PRACTICE", email=email, password="secret")  # noqa: S106 - the simulator's

    return await asyncio.gather(*(one(number) for number in range(count)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
