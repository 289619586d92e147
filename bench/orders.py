"""Orders through the whole system: how fast one gets onto the wire, how many a second, and what memory does meanwhile.

``python -m bench.orders [--seconds 600] [--sessions 200] [--rate 50] [--rounds 3] [--full-seconds 600]`` (30 s where
nothing is said, a third of that at full speed).

* *paced*: ``--rate`` trades a second over all sessions for ``--seconds``, whatever the answers do. Intent to wire is from
  just before the caller writes its gRPC call to the session service until the simulator has read the order from its socket,
  so caller, both services and the simulator's queue are in it; the stages are the ledger's own times of the same trades
  (from the wire to the answer is mostly the simulator's own pace). Beside it, before and after: the same SQL statements on bare asyncpg at the same pace, and a bare gRPC echo.
* *at full speed*: every session sends its next trade when the last is answered; in rounds, each directly beside the same
  statements on bare asyncpg and the echo at the same concurrency. Medians over the rounds.
* *memory*: of each process during both, at the start, each minute, and the end. The simulator keeps every order it ever booked.

Generator, simulator, engines and services share the machine; the load that others put on it is printed.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import asyncpg
import grpc
import structlog
import uvloop
from tradebot.session.v1 import session_service_pb2 as pb
from tradebot.session.v1 import session_service_pb2_grpc

from bench.gateway import connect, memory
from bench.support.statements import BareLedger, bare_ledger
from local.client import UserSession
from services.runtime.channel import open_channel
from tests.support.envoy import free_port
from tests.support.eventually import eventually
from tests.support.stack import Stack, running_stack

DURATION = 5
"""Seconds an order lives: it settles within the run, so that the settlement's work is in the figures."""
Trade = Callable[[int], Awaitable[None]]
"""Places one trade of the numbered session; adds to its own figures."""


@dataclass(slots=True)
class Figures:
    """What a number of trades came to. Times in milliseconds."""

    seconds: float = 0.0
    done: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    wire: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Trades a second."""
        return self.done / self.seconds

    def row(self, name: str) -> str:
        """Return one line of the report."""
        wire = f"to wire p50 {at(self.wire, 0.5):7.1f} p99 {at(self.wire, 0.99):7.1f} ms" if self.wire else " " * 36
        whole = f"answer p50 {at(self.whole, 0.5):7.1f} p99 {at(self.whole, 0.99):7.1f} ms"
        return f"{name:<26} {self.rate:7.1f}/s   {wire}   {whole}   {self.failed or ''}"


def at(values: Sequence[float], share: float) -> float:
    """Return the value that this share does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


class Orders:
    """Our own trades, called as the gateway calls them."""

    def __init__(self, stack: Stack, stub: Any, sessions: Sequence[UserSession]) -> None:
        self._stack = stack
        self._stub = stub
        self._sessions = sessions
        self._placed: list[tuple[str, str, float, float]] = []
        self.figures = Figures()

    async def trade(self, number: int) -> None:
        """Place one trade."""
        session = self._sessions[number % len(self._sessions)]
        request = pb.PlaceTradeRequest(
            session_id=session.session_id, asset="EURUSD-OTC", direction="call", amount=1, duration_seconds=DURATION
        )
        began = time.time()
        try:
            trade = await self._stub.PlaceTrade(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            name = error.code().name
            self.figures.failed[name] = self.figures.failed.get(name, 0) + 1
            return
        ended = time.time()
        self.figures.done += 1
        self.figures.whole.append(1000 * (ended - began))
        self._placed.append((trade.trade_id, trade.broker_order_id, began, ended))

    async def received(self) -> dict[str, float]:
        """Return when the simulator read each order."""
        times: dict[str, float] = {}
        async with self._stack.simulator() as simulator:
            for session in self._sessions:
                body = await simulator.call("GET", "/ledger", params={"email": session.email})
                times |= {str(order["broker_order_id"]): order["received_time"] for order in body["orders"]}
        return times

    async def take(self) -> tuple[Figures, list[tuple[float, float, float, float]]]:
        """Return the figures since the last call, and each trade's stages: reserved, marked, on the wire, answered."""
        figures, self.figures, placed, self._placed = self.figures, Figures(), self._placed, []
        received = await self.received()
        ledger = await asyncpg.connect(self._stack.facts["postgres"])
        rows = await ledger.fetch("SELECT trade_id, create_time, send_time FROM trades")
        await ledger.close()
        marks = {row["trade_id"]: (row["create_time"].timestamp(), row["send_time"]) for row in rows}
        stages = []
        for trade_id, order_id, began, ended in placed:
            reserved, marked = marks[trade_id]
            wire = received[order_id]
            figures.wire.append(1000 * (wire - began))
            steps = (began, reserved, marked.timestamp(), wire, ended)
            stages.append(tuple(1000 * (steps[i + 1] - steps[i]) for i in range(4)))
        return figures, stages  # type: ignore[return-value]  # four times each


class Bare:
    """The same statements on bare asyncpg."""

    def __init__(self, ledger: BareLedger) -> None:
        self._ledger = ledger
        self.figures = Figures()

    async def trade(self, number: int) -> None:
        """Play one trade's statements."""
        wire, whole = await self._ledger.trade(number)
        self.figures.done += 1
        self.figures.wire.append(1000 * wire)
        self.figures.whole.append(1000 * whole)

    async def take(self) -> Figures:
        """Return the figures since the last call."""
        figures, self.figures = self.figures, Figures()
        return figures


class Echo:
    """The same call on a service that does nothing."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self.figures = Figures()

    async def trade(self, number: int) -> None:
        """Make one call."""
        request = pb.PlaceTradeRequest(session_id=str(number), asset="EURUSD-OTC", direction="call", amount=1)
        began = time.perf_counter()
        await self._stub.PlaceTrade(request, timeout=30)
        self.figures.done += 1
        self.figures.whole.append(1000 * (time.perf_counter() - began))

    async def take(self) -> Figures:
        """Return the figures since the last call."""
        figures, self.figures = self.figures, Figures()
        return figures


async def paced(source: "Orders | Bare | Echo", rate: float, sessions: int, seconds: float) -> None:
    """Begin trades at a steady rate, the sessions in turn, and wait for the last one's end."""
    began = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(began + number / rate - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(source.trade(number % sessions)))
    await asyncio.gather(*tasks)
    source.figures.seconds = time.perf_counter() - began


async def flat_out(source: "Orders | Bare | Echo", sessions: int, seconds: float) -> None:
    """Let every session trade again as soon as its last trade is answered."""
    began = time.perf_counter()

    async def one(number: int) -> None:
        while time.perf_counter() - began < seconds:
            await source.trade(number)

    await asyncio.gather(*(one(number) for number in range(sessions)))
    source.figures.seconds = time.perf_counter() - began


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[Any]:
    """Run the echo; gives a stub."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.support.echo", str(port))
    try:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            stub = session_service_pb2_grpc.SessionServiceStub(channel)

            async def answers() -> bool:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await stub.PlaceTrade(pb.PlaceTradeRequest(), timeout=1)
                    return True
                return False

            await eventually(answers)
            yield stub
    finally:
        process.kill()
        await process.wait()


class MemoryLog:
    """Memory of each process over time."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    @contextlib.asynccontextmanager
    async def during(self, seconds: float) -> AsyncIterator[None]:
        """Look each minute of a run of so many seconds, and print what was seen when it is over."""
        began = time.monotonic()
        samples: list[tuple[float, dict[str, int]]] = []

        def sample() -> None:
            samples.append((time.monotonic() - began, memory(self._stack)))

        async def look() -> None:
            while True:
                sample()
                await asyncio.sleep(min(60.0, seconds / 3))

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
        sample()
        self._show(samples)

    @staticmethod
    def _show(samples: Sequence[tuple[float, dict[str, int]]]) -> None:
        """Print all looks, and the change from the middle, when pools and caches are full, to the end."""
        names = list(samples[0][1])
        print("  memory, MiB:  second " + " ".join(f"{name:>9}" for name in names))
        for second, sizes in samples:
            print(f"                {second:6.0f} " + " ".join(f"{sizes[name] / 2**20:9.1f}" for name in names))
        middle, end = samples[len(samples) // 2][1], samples[-1][1]
        changes = " ".join(f"{100 * (end[name] / middle[name] - 1):+8.1f}%" for name in names)
        print(f"                2nd half {changes[1:]}", flush=True)


def show_stages(stages: Sequence[Sequence[float]]) -> None:
    """Print where the time of our trades went."""
    names = ("call to reserved", "reserved to SENDING", "SENDING to wire", "wire to answer")
    parts = (f"{name} {at([stage[i] for stage in stages], 0.5):.1f}" for i, name in enumerate(names))
    print("  stages, p50 ms: " + ", ".join(parts), flush=True)


async def run_paced(orders: Orders, bare: Bare, echo: Echo, log: MemoryLog, given: argparse.Namespace) -> None:
    """Print the paced part."""
    for other, name in ((bare, "bare SQL, before"), (echo, "bare gRPC echo, before")):
        await paced(other, given.rate, given.sessions, min(given.seconds, 10))
        print((await other.take()).row(name), flush=True)
    async with log.during(given.seconds):
        await paced(orders, given.rate, given.sessions, given.seconds)
    figures, stages = await orders.take()
    print(figures.row("tradebot"), flush=True)
    show_stages(stages)
    for other, name in ((bare, "bare SQL, after"), (echo, "bare gRPC echo, after")):
        await paced(other, given.rate, given.sessions, min(given.seconds, 10))
        print((await other.take()).row(name), flush=True)


def full_seconds(given: argparse.Namespace) -> float:
    """Return how long a run at full speed is."""
    return float(given.full_seconds or given.seconds / 3)


async def run_flat_out(orders: Orders, bare: Bare, echo: Echo, log: MemoryLog, given: argparse.Namespace) -> None:
    """Print the part at full speed."""
    rates: dict[str, list[float]] = {"tradebot": [], "bare SQL": [], "bare gRPC echo": []}
    seconds = full_seconds(given)
    for number in range(given.rounds):
        print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}")
        for source, name in ((orders, "tradebot"), (bare, "bare SQL"), (echo, "bare gRPC echo")):
            # A trade of the sampled time may still settle: let it, so that no part pays for another.
            await asyncio.sleep(DURATION + 2 if source is bare else 0)
            if source is orders:
                async with log.during(seconds):
                    await flat_out(orders, given.sessions, seconds)
            else:
                await flat_out(source, given.sessions, min(seconds, 60))
            taken = await source.take()
            figures = taken[0] if isinstance(taken, tuple) else taken
            rates[name].append(figures.rate)
            print(figures.row(f"  {name}"), flush=True)
    ours = median(rates["tradebot"])
    print("median rates: " + ", ".join(f"{name} {median(each):.1f}/s" for name, each in rates.items()))
    print(f"tradebot at {100 * ours / median(rates['bare SQL']):.0f} % of its own SQL on bare asyncpg", flush=True)


async def main(given: argparse.Namespace) -> None:
    """Measure all of it on a system of our own."""
    with running_stack() as stack:
        async with contextlib.AsyncExitStack() as opened:
            # First whatever makes processes, which gRPC's threads do not like.
            script, ledger = await opened.enter_async_context(bare_ledger(given.sessions))
            echo = Echo(await opened.enter_async_context(echoing()))
            gateway = await opened.enter_async_context(stack.gateway())
            channel = await opened.enter_async_context(open_channel(stack.facts["grpc"]["session"]))
            sessions = await connect(gateway, given.sessions)
            orders, bare = Orders(stack, session_service_pb2_grpc.SessionServiceStub(channel), sessions), Bare(ledger)
            print(
                f"SQL of one trade: {script.trips()} round trips in {script.transactions()} transactions, of these"
                f" {script.trips(script.before_wire)} before the order leaves"
            )
            # What is loaded or pooled with the first trades is not the cost of one more.
            for source in (orders, bare, echo):
                await paced(source, given.rate, given.sessions, 5)
                await source.take()
            log = MemoryLog(stack)
            print(f"paced, {given.rate:.0f} trades/s for {given.seconds:.0f} s, {given.sessions} sessions,", end=" ")
            print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            await run_paced(orders, bare, echo, log, given)
            if given.rounds:
                print(f"at full speed, {given.sessions} sessions, {full_seconds(given):.0f} s each")
                await run_flat_out(orders, bare, echo, log, given)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument(
        "--full-seconds", type=float, help="of each run at full speed; a third of --seconds if not said"
    )
    parser.add_argument("--rounds", type=int, default=3)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(main(parser.parse_args()))
