"""Runs one gRPC service as a process: health, reflection, signals, drain."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.runtime.cores import leave_no_core
from services.runtime.interceptors import ErrorInterceptor
from services.runtime.logging import configure_logging
from services.runtime.settings import ServerSettings

_log = structlog.get_logger(__name__)

_HEALTH_INTERVAL: Final = 0.5
"""Seconds between two looks whether the application is ready."""


class Application(Protocol):
    """What a service's bootstrap builds: its servicers and how it comes to rest."""

    service_names: Sequence[str]
    """Full names of the services, for health and reflection."""
    interceptor: ErrorInterceptor
    """How its errors reach the wire."""

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicers to the server."""
        ...

    def is_ready(self) -> bool:
        """Return whether calls should come here rather than to another replica; asked twice a second."""
        ...

    async def drain(self) -> None:
        """Refuse new work, end streams, bring what is under way to a safe state. Called once, before the server stops."""
        ...


Bootstrap = Callable[[], AbstractAsyncContextManager[Application]]


class Server:
    """A running gRPC server around an application; also used in-process by tests."""

    def __init__(self, application: Application, settings: ServerSettings) -> None:
        self._application = application
        self._settings = settings
        self._server = grpc.aio.server(
            interceptors=[application.interceptor],
            options=(
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
                # By default a burst of over 1,000 calls has some of them cancelled at random, which proves nothing to the
                # caller: let them wait for their turn.
                ("grpc.server.max_pending_requests", settings.max_concurrent_streams),
                ("grpc.server.max_pending_requests_hard_limit", settings.max_concurrent_streams),
                ("grpc.max_receive_message_length", 16 * 1024 * 1024),
                # The gateway and our own channels ping idle connections; a default server would call that abuse.
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
                ("grpc.http2.max_ping_strikes", 0),
            ),
        )
        self._health = health.aio.HealthServicer()
        self._telling: asyncio.Task[None] | None = None
        self.port = 0
        """The port that was bound."""

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            RuntimeError: The address cannot be bound.
        """
        self._application.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*self._application.service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = self._server.add_insecure_port(f"{self._settings.host}:{self._settings.port}")
        await self._server.start()
        await self._tell_health()
        self._telling = asyncio.create_task(self._keep_telling())
        _log.info("serving", host=self._settings.host, port=self.port)

    async def stop(self) -> None:
        """Drain and stop: NOT_SERVING, wait for load balancers, refuse what comes now, let what is under way end, drain.

        What is refused is refused before anything was done for it, and says so: whoever asked may ask another replica.
        """
        if self._telling is not None:
            self._telling.cancel()
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._settings.drain_delay)
        await self._application.interceptor.refuse_new(self._settings.drain_calls)
        await self._application.drain()
        await self._server.stop(self._settings.drain_grace)
        _log.info("stopped")

    async def _tell_health(self) -> None:
        ready = self._application.is_ready()
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._application.service_names):
            await self._health.set(name, status)

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(_HEALTH_INTERVAL)
            await self._tell_health()


async def _serve(bootstrap: Bootstrap, settings: ServerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with bootstrap() as application:
        server = Server(application, settings)
        await server.start()
        await stop.wait()
        _log.info("draining")
        await server.stop()


def run(name: str, settings: ServerSettings, bootstrap: Bootstrap) -> None:
    """Serve until SIGTERM or SIGINT, then drain. The main function of every service process."""
    leave_no_core()
    configure_logging(name, settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(bootstrap, settings))
