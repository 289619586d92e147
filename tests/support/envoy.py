"""Runs a real Envoy with our configuration."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from gateway.envoy.config import render
from gateway.envoy.settings import GatewaySettings
from local.ports import PortBlock
from tests.support.eventually import eventually

BINARY = Path(sys.prefix) / "bin/envoy"
OPTIONS = ("--concurrency", "1", "--disable-hot-restart", "--file-flush-interval-msec", "50", "-l", "warning")


def free_port() -> int:
    """Return a port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Edge:
    """A running Envoy."""

    url: str
    """Of the REST contract."""
    access_log: Path
    """Its stdout."""
    error_log: Path
    """Its stderr."""


def write_config(directory: Path, settings: GatewaySettings) -> Path:
    """Render the configuration into a folder."""
    path = directory / "envoy.yaml"
    path.write_text(render(settings), encoding="utf-8")
    return path


@asynccontextmanager
async def running_envoy(directory: Path, *, session: int, bridge: int = 1, **settings: object) -> AsyncIterator[Edge]:
    """Run Envoy before a session service and a bridge, given by their ports on loopback."""
    with PortBlock.claim() as ports:
        chosen = GatewaySettings.model_validate(
            {
                "host": "127.0.0.1",
                "port": ports.pick(),
                "admin_port": ports.pick(),
                "session_targets": f"127.0.0.1:{session}",
                "bridge_targets": f"127.0.0.1:{bridge}",
                **settings,
            }
        )
        config = write_config(directory, chosen)
        edge = Edge(f"http://127.0.0.1:{chosen.port}", directory / "access.log", directory / "envoy.log")
        with edge.access_log.open("wb") as out, edge.error_log.open("wb") as err:
            process = await asyncio.create_subprocess_exec(BINARY, "-c", config, *OPTIONS, stdout=out, stderr=err)
        try:

            async def answers() -> bool:
                if process.returncode is not None:
                    raise RuntimeError(edge.error_log.read_text())
                try:
                    async with aiohttp.ClientSession() as http, http.get(f"{edge.url}/healthz") as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(answers, within=60)
            yield edge
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def healthy_replicas(run: Path) -> int:
    """Return how many replicas of the session service the health checks of a system's Envoy find healthy.

    Args:
        run: Where its rendered configuration is.
    """
    config = yaml.safe_load((run / "envoy.yaml").read_text())
    port = config["admin"]["address"]["socket_address"]["port_value"]
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/clusters", params={"format": "json"}) as answer,
    ):
        clusters = (await answer.json())["cluster_statuses"]
    hosts = next(cluster["host_statuses"] for cluster in clusters if cluster["name"] == "session")
    return sum(not host["health_status"].get("failed_active_health_check") for host in hosts)
