"""Puts the bridge together and runs it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from gateway.bridge.hub import Hub
from gateway.bridge.settings import BridgeSettings
from gateway.bridge.socket import Sockets
from gateway.bridge.upstream import Upstream
from services.runtime.channel import open_channel
from services.runtime.clock import SystemClock

_log = structlog.get_logger(__name__)


async def _healthz(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


@asynccontextmanager
async def running(settings: BridgeSettings) -> AsyncIterator[int]:
    """Serve inside the context; gives the port. On the way out every socket is closed with 1001."""
    async with open_channel(settings.session_target) as channel:
        upstream = Upstream(channel, SystemClock(), settings.retry_first, settings.retry_most)
        async with Hub(upstream, settings.max_sockets) as hub:
            sockets = Sockets(hub, settings)
            app = web.Application()
            app.add_routes(
                [
                    web.get("/ws", sockets.handle),
                    web.get("/ws/{session_id}", sockets.handle),
                    web.get("/healthz", _healthz),
                ]
            )
            # No access log: a path or a query may hold a session id, and the edge has one already.
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await runner.setup()
            try:
                site = web.TCPSite(runner, settings.host, settings.port)
                await site.start()
                port: int = runner.addresses[0][1]
                _log.info("serving", host=settings.host, port=port)
                yield port
            finally:
                # First: the runner, once it shuts down, reads no more, and so would never see a client's answer.
                await sockets.close()
                await runner.cleanup()


async def serve(settings: BridgeSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings):
        await stop.wait()
    _log.info("stopped")
