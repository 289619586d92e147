"""Rolling restarts: processes are told to end one by one, and replaced, while users call and watch."""

import asyncio
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import psutil

from local.client import ApiError
from local.probes import Probe, gateway_answers, grpc_health
from tests.support.envoy import healthy_replicas
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.traders import Trader, trading

REPLICAS: Final = {"TRADEBOT_SESSION_REPLICAS": "2"}
"""The environment of a system in which every service can be restarted under load."""
ROLLED: Final = ("session", "session-2", "broker", "agent", "bridge")
_KINDS: Final = (("iq", "PRACTICE"), ("exnova", "REAL"), ("iq", "REAL"), ("exnova", "PRACTICE"))


@dataclass(slots=True)
class Tally:
    """What became of the calls."""

    calls: Counter[str] = field(default_factory=Counter)
    """By the name of the call."""
    failed: list[str] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)
    """Seconds, by the name of the call."""
    rolling: str = "nothing"
    """What is being restarted now."""

    @asynccontextmanager
    async def one(self, name: str) -> AsyncIterator[None]:
        """Count one call; any answer but 200, and none, is a failure. There is no second attempt."""
        began = time.monotonic()
        try:
            yield
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            seconds = time.monotonic() - began
            self.failed.append(f"{name}: {type(error).__name__} {error} after {seconds:.2f} s, rolling {self.rolling}")
        finally:
            self.calls[name] += 1
            self.slowest[name] = max(self.slowest.get(name, 0.0), time.monotonic() - began)

    def __str__(self) -> str:
        slowest = ", ".join(f"{name} {seconds:.2f}" for name, seconds in sorted(self.slowest.items()))
        few = f" ({'; '.join(self.failed[:5])})" if self.failed else ""
        return f"{len(self.failed)} failed{few} of {self.calls.total()} calls; slowest in seconds: {slowest}"


async def keep_calling(trader: Trader, number: int, tally: Tally, stop: asyncio.Event, pause: float) -> None:
    """Make one call after the other until told to stop: reads, trades with and without a key, the bot, connect."""
    session = trader.session
    who = {"broker": session.broker, "account_type": session.account_type, "email": session.email}
    order = {"asset": "EURUSD-OTC", "direction": "call", "duration_seconds": 5}
    for turn in itertools.count():
        # An amount of its own: two equal orders may not be under way at once.
        amount = round(1 + turn % 50 / 100, 2)
        calls: Sequence[tuple[str, str, dict[str, Any]]] = (
            ("GET", "status", {}),
            ("GET", "balance", {}),
            ("POST", "trade", {**order, "amount": amount, "client_request_id": f"{number}-{turn}"}),
            ("GET", "assets", {}),
            ("GET", "trades", {"limit": 5}),
            ("GET", "candles/EURUSD-OTC", {"count": 20}),
            ("POST", "timeframe", {"timeframe": (60, 300)[turn % 2]}),
            ("POST", ("start", "pause", "resume", "stop")[turn % 4], {}),
            ("GET", "status", {}),
            ("POST", "trade", {**order, "direction": "put", "amount": amount}),
            ("POST", "connect", {**who, "password": "secret"}),
        )
        for method, path, fields in calls:
            if stop.is_set():
                return
            async with tally.one(f"{method} {path.partition('/')[0]}"):
                await (session.get(path, **fields) if method == "GET" else session.post(path, **fields))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)


async def roll(stack: Stack, name: str) -> float:
    """End a process as an orchestrator does, wait until its successor is in service, return the seconds it took."""
    pid = stack.facts["pids"][name]
    # Its successor listens where it did.
    probe = _probe(stack, name)
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    await stack.restarted(name, pid)

    async def serves() -> bool:
        # Whatever it raises means "not yet".
        with suppress(Exception):
            await probe()
            return True
        return False

    await eventually(serves, within=60, every=0.1)
    if name.startswith("session"):

        async def edge_sees_all() -> bool:
            return await healthy_replicas(stack.system.data / "run") == 2

        await eventually(edge_sees_all, within=30, every=0.1)
    return time.monotonic() - began


def _probe(stack: Stack, name: str) -> Probe:
    if name == "bridge":
        return gateway_answers(stack.facts["gateway"])
    service = name.partition("-")[0].upper()
    environment = psutil.Process(stack.facts["pids"][name]).environ()
    return grpc_health(f"127.0.0.1:{environment[f'{service}_PORT']}")


@dataclass(frozen=True, slots=True)
class Report:
    """How a series of restarts went."""

    tally: Tally
    restarts: int
    resumes: int
    """How often a stream was cut and opened again with its last seq."""
    events: int
    """Events that arrived on all streams together."""
    trades: int
    unknown: int
    """Trades whose answer was lost on the way; each was resolved."""
    faults: list[str]
    """What differs between the ledger, the simulator and the streams; and holes in the streams."""
    seconds: dict[str, float]
    """The longest restart of each process."""

    def __str__(self) -> str:
        seconds = ", ".join(f"{name} {longest:.1f}" for name, longest in self.seconds.items())
        return (
            f"{self.restarts} restarts: {self.tally}; {self.resumes} resumes, {self.events} events, "
            f"{self.trades} trades ({self.unknown} for a while unknown), {len(self.faults)} faults; "
            f"longest restarts in seconds: {seconds}"
        )


async def restart_in_turn(stack: Stack, *, rounds: int, users: int, pause: float, at_least: int = 0) -> Report:
    """Restart every service ``rounds`` times in turn under the calls of ``users``, then compare all that is known.

    Args:
        stack: A system with ``REPLICAS``.
        rounds: Restarts of each.
        users: Each with a session, a stream and one call at a time.
        pause: Seconds between two calls of a user.
        at_least: Calls to go on for, after the last restart.
    """
    tally, stop = Tally(), asyncio.Event()
    seconds: dict[str, float] = {}
    async with stack.gateway() as gateway, stack.simulator() as simulator, AsyncExitStack() as opened:
        traders = [
            await opened.enter_async_context(trading(gateway, *_KINDS[number % len(_KINDS)])) for number in range(users)
        ]
        async with asyncio.TaskGroup() as tasks:
            for number, trader in enumerate(traders):
                tasks.create_task(keep_calling(trader, number, tally, stop, pause))
            for _ in range(rounds):
                for name in ROLLED:
                    tally.rolling = name
                    seconds[name] = max(seconds.get(name, 0.0), await roll(stack, name))
            tally.rolling = "nothing"

            async def enough() -> bool:
                return tally.calls.total() >= at_least

            await eventually(enough, within=600, every=0.2)
            stop.set()
        for trader in traders:
            await trader.session.post("stop")
        faults = await asyncio.gather(*(trader.faults(simulator, within=150) for trader in traders))
        return Report(
            tally=tally,
            restarts=rounds * len(ROLLED),
            resumes=sum(trader.feed.reconnects for trader in traders),
            events=sum(len(trader.feed.events) for trader in traders),
            trades=sum([len(await trader.session.trades()) for trader in traders]),
            unknown=sum(len(trader.feed.of_type("trade_unknown")) for trader in traders),
            faults=[fault for of_one in faults for fault in of_one],
            seconds=seconds,
        )
