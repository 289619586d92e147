"""The system on one machine: which processes it has, how they find each other, and what tools are told about it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from local.folder import DataFolder
from local.ports import PortBlock
from local.postgres import Cluster
from local.probes import http_status
from local.process import Process
from local.settings import LocalSettings
from local.valkey import valkey

# There is no load balancer here that would have to look away first.
_NO_DRAIN_DELAY: Final = "0"


@dataclass(frozen=True, slots=True)
class System:
    """A described system, not yet running."""

    processes: tuple[Process, ...]
    gateway: str
    """The URL that users call."""
    addresses: Mapping[str, Any] = field(repr=False)
    """Where everything is, as in ``run.json``; holds the engines' passwords."""

    def facts(self, pids: Mapping[str, int]) -> dict[str, Any]:
        """Return the content of ``run.json``."""
        return {"gateway": self.gateway, **self.addresses, "pids": dict(pids)}


def describe(settings: LocalSettings, folder: DataFolder, ports: PortBlock) -> System:
    """Choose the ports, make the keys, and describe every process.

    Raises:
        PortTakenError: A port that was asked for is taken.
    """
    cluster = Cluster(folder.postgres, ports.pick(settings.postgres_port), folder.password("postgres"))
    redis, redis_url = valkey(folder.redis, ports.pick(settings.redis_port), folder.password("redis"), folder.run)
    iq, exnova, control = (
        ports.pick(wanted)
        for wanted in (settings.simulator_iq_port, settings.simulator_exnova_port, settings.simulator_control_port)
    )
    processes = (
        cluster.process(),
        redis,
        _simulator(folder, iq, exnova, control),
    )
    addresses = {
        "simulator": {"iq": _brand(iq), "exnova": _brand(exnova), "control": f"http://127.0.0.1:{control}"},
        "redis": redis_url,
        "postgres": cluster.url,
    }
    return System(processes, f"http://localhost:{settings.port}", addresses)


def _brand(port: int) -> dict[str, str]:
    return {"http": f"http://127.0.0.1:{port}", "ws": f"ws://127.0.0.1:{port}/echo/websocket"}


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _simulator(folder: DataFolder, iq: int, exnova: int, control: int) -> Process:
    return Process(
        name="simulator",
        argv=_python("simulator"),
        env={
            "SIMULATOR_IQ_PORT": str(iq),
            "SIMULATOR_EXNOVA_PORT": str(exnova),
            "SIMULATOR_CONTROL_PORT": str(control),
            # Accounts, orders and their outcomes outlive a restart, as they do at a broker.
            "SIMULATOR_DATA_DIR": str(folder.simulator),
            "SIMULATOR_RUN_FILE": str(folder.run / "simulator.json"),
        },
        ready=http_status(f"http://127.0.0.1:{control}/health"),
    )
