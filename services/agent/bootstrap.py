"""Builds the agent service out of its parts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
from tradebot.agent.v1 import agent_service_pb2, agent_service_pb2_grpc

from services.agent.decider import Decider
from services.agent.onnx_model import OnnxModel
from services.agent.registry.signature import load_trusted_keys
from services.agent.registry.watcher import Registry
from services.agent.servicer import AgentServicer
from services.agent.settings import AgentSettings
from services.runtime.interceptors import ErrorInterceptor

DOMAIN = "agent.tradebot"


class AgentApplication:
    """The service as ``runtime.server`` runs it."""

    service_names: Sequence[str] = (agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,)

    def __init__(self, servicer: AgentServicer) -> None:
        self._servicer = servicer
        self.interceptor = ErrorInterceptor(DOMAIN)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer."""
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(self._servicer, server)

    def is_ready(self) -> bool:
        """Return True: it needs nobody else."""
        return True

    async def drain(self) -> None:
        """End the streams."""
        await self._servicer.drain()


@asynccontextmanager
async def agent(settings: AgentSettings) -> AsyncIterator[AgentApplication]:
    """Build the service and keep its registry up to date while it runs.

    Raises:
        ModelNotFoundError: No model could be verified, or the default one could not: it does not start without.
        ValueError: There is no trusted key.
    """
    registry = Registry(settings.models, load_trusted_keys(settings.trusted_keys), OnnxModel)
    await asyncio.to_thread(registry.refresh)
    registry.catalogue.resolve("", "")
    decider = Decider(lambda: registry.catalogue)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(registry.watch(settings.poll_interval))
        try:
            yield AgentApplication(AgentServicer(decider, lambda: registry.catalogue))
        finally:
            watching.cancel()
