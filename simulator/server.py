"""Puts the simulator together and runs it, in its own process or inside a test."""

import asyncio
import json
import ssl
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from aiohttp import web

from simulator.brands import BRANDS
from simulator.control import ControlServer, parse_rules
from simulator.exchange.journal import FileJournal, Journal, NoJournal
from simulator.exchange.timers import Timers
from simulator.faults import FaultScript
from simulator.http import BrandServer
from simulator.market.assets import build_histories
from simulator.platform import Platform, Shared
from simulator.settings import Settings
from simulator.ticker import Ticker

log = structlog.get_logger()


class Simulator:
    """All brands and their control endpoint on one event loop.

    Used as ``async with Simulator(settings) as simulator``; within, ``addresses`` says where everything listens.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.addresses: dict[str, dict[str, str]] = {}
        """By brand: ``http`` (an origin) and ``ws`` (a URL)."""
        self.control = ""
        """URL of the control endpoint."""
        self._open = AsyncExitStack()
        self._ticker: asyncio.Task[None] | None = None
        journal: Journal = NoJournal()
        if self.settings.data_dir is not None:
            journal = FileJournal(self.settings.data_dir / "journal.jsonl")
        clock = time.time
        self.faults = FaultScript(self.settings.seed, clock)
        shared = Shared(
            settings=self.settings,
            histories=build_histories(self.settings.seed, self.settings.market, self.settings.asset_markets),
            journal=journal,
            timers=Timers(clock),
            faults=self.faults,
            clock=clock,
        )
        self._shared = shared
        self.platforms = {brand.name: Platform(brand, shared) for brand in BRANDS}

    async def __aenter__(self) -> Self:
        """Restore what was kept, then listen."""
        async with AsyncExitStack() as stack:
            stack.callback(self._shared.journal.close)
            for entry in self._shared.journal.entries():
                self.platforms[entry.brand].restore(entry)
            if self.settings.fault_file is not None:
                self.faults.add(parse_rules(self.settings.fault_file.read_bytes()))
            stack.callback(self._shared.timers.close)
            for platform in self.platforms.values():
                platform.exchange.resume()

            servers = {name: BrandServer(platform) for name, platform in self.platforms.items()}
            tls = self._tls()
            ports = {"iq": self.settings.iq_port, "exnova": self.settings.exnova_port}
            for name, server in servers.items():
                host = await self._listen(stack, server.application(), ports[name], tls)
                secure = "s" if tls else ""
                self.addresses[name] = {"http": f"http{secure}://{host}", "ws": f"ws{secure}://{host}/echo/websocket"}
            control = ControlServer(servers, self.platforms)
            self.control = "http://" + await self._listen(
                stack, control.application(), self.settings.control_port, None
            )

            self._ticker = asyncio.create_task(Ticker(list(self.platforms.values())).run(), name="ticker")
            stack.push_async_callback(_cancel, self._ticker)
            stack.callback(self._cut_all)
            if self.settings.run_file is not None:
                self._announce(self.settings.run_file)
                stack.callback(self.settings.run_file.unlink, missing_ok=True)
            self._open = stack.pop_all()
        log.info("simulator_listens", control=self.control, **{name: at["http"] for name, at in self.addresses.items()})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut the sockets and stop listening."""
        await self._open.__aexit__(kind, error, trace)

    async def run_until(self, ended: asyncio.Event) -> None:
        """Wait for the event while watching over the market's heartbeat.

        Raises:
            Exception: Whatever the heartbeat died of.
        """
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(ended.wait())
            watched = {waiting} if self._ticker is None else {waiting, self._ticker}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if self._ticker is not None and self._ticker.done():
                self._ticker.result()

    def _cut_all(self) -> None:
        for platform in self.platforms.values():
            platform.cut_sockets()

    async def _listen(self, stack: AsyncExitStack, app: web.Application, port: int, tls: ssl.SSLContext | None) -> str:
        """Serve an application and return its host:port."""
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, self.settings.host, port, ssl_context=tls, backlog=2048)
        await site.start()
        return f"{self.settings.host}:{runner.addresses[0][1]}"

    def _tls(self) -> ssl.SSLContext | None:
        if self.settings.tls_certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.settings.tls_certificate, self.settings.tls_key)
        return context

    def _announce(self, path: Path) -> None:
        """Write the addresses so that a reader sees all of them or no file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(path.name + ".part")
        half.write_text(json.dumps({**self.addresses, "control": self.control}), encoding="utf-8")
        half.replace(path)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is not None:
        raise RuntimeError("the ticker has failed") from task.exception()
