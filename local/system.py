"""The system on one machine: which processes it has, how they find each other, and what tools are told about it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.envoy.config import render
from gateway.envoy.settings import GatewaySettings
from local.folder import DataFolder, write_private
from local.ports import PortBlock
from local.postgres import Cluster
from local.probes import gateway_answers, grpc_health, http_status
from local.process import Process
from local.programs import package_folder
from local.settings import CHECKOUT, LocalSettings
from local.valkey import valkey

_ENVOY: Final = package_folder("envoy") / "_bin" / "envoy"
_DRAIN: Final = {
    # There is no load balancer here that would have to look away first.
    "DRAIN_DELAY": "0",
    "DRAIN_GRACE": "3",
}
_LOOK_AWAY: Final = {"SESSION_DRAIN_DELAY": "1.5"}
"""Where there are several replicas, the edge has to notice that one ends: two looks, half a second apart."""


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


@dataclass(frozen=True, slots=True)
class _Ports:
    """Every port but the gateway's."""

    postgres: int
    redis: int
    simulator_iq: int
    simulator_exnova: int
    simulator_control: int
    session: int
    broker: int
    agent: int
    bridge: int
    envoy_admin: int


def describe(settings: LocalSettings, folder: DataFolder, block: PortBlock) -> System:
    """Choose the ports, make the keys, and describe every process.

    Raises:
        PortTakenError: A port that was asked for is taken.
    """
    ports = _Ports(**{name: block.pick(getattr(settings, f"{name}_port")) for name in _Ports.__dataclass_fields__})
    cluster = Cluster(folder.postgres, ports.postgres, folder.password("postgres"))
    redis, redis_url = valkey(folder.redis, ports.redis, folder.password("redis"), folder.run)
    url = f"http://localhost:{settings.port}"
    session_env = _session_env(folder, ports, cluster.url, redis_url)
    replicas = {"session": ports.session} | {
        f"session-{number}": block.pick() for number in range(2, settings.session_replicas + 1)
    }
    if len(replicas) > 1:
        session_env |= _LOOK_AWAY
    simulated = settings.brokers == "simulator"
    processes = (
        cluster.process(),
        redis,
        *((_simulator(folder, ports),) if simulated else ()),
        Process(name="migrate", argv=_python("services.session.migrate"), env=session_env, needs=("postgres",)),
        _service("agent", ports.agent, _agent_env(folder)),
        _service(
            "broker",
            ports.broker,
            {"BROKER_REDIS_URL": redis_url} | (_simulated_brands(ports) if simulated else {}),
            needs=("redis", "simulator") if simulated else ("redis",),
        ),
        *(
            _service("session", port, session_env, needs=("migrate", "redis", "broker", "agent"), name=name)
            for name, port in replicas.items()
        ),
        _envoy(settings, folder, ports, url, replicas),
        _bridge(ports, url, replicas),
    )
    simulator = {
        "iq": _brand(ports.simulator_iq),
        "exnova": _brand(ports.simulator_exnova),
        "control": f"http://{_at(ports.simulator_control)}",
    }
    addresses = {
        **({"simulator": simulator} if simulated else {}),
        "grpc": {"session": _at(ports.session), "broker": _at(ports.broker), "agent": _at(ports.agent)},
        "redis": redis_url,
        "postgres": cluster.url,
    }
    return System(processes, url, addresses)


def _at(port: int) -> str:
    return f"127.0.0.1:{port}"


def _brand(port: int) -> dict[str, str]:
    return {"http": f"http://{_at(port)}", "ws": f"ws://{_at(port)}/echo/websocket"}


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module)


def _service(
    service: str, port: int, env: Mapping[str, str], needs: tuple[str, ...] = (), name: str | None = None
) -> Process:
    prefix = service.upper()
    drain = {f"{prefix}_{setting}": value for setting, value in _DRAIN.items()}
    return Process(
        name=name or service,
        argv=_python(f"services.{service}"),
        env={**drain, **env, f"{prefix}_PORT": str(port)},
        ready=grpc_health(_at(port)),
        needs=needs,
    )


def _session_env(folder: DataFolder, ports: _Ports, postgres_url: str, redis_url: str) -> dict[str, str]:
    return {
        "SESSION_POSTGRES_URL": postgres_url,
        "SESSION_REDIS_URL": redis_url,
        "SESSION_BROKER_TARGET": _at(ports.broker),
        "SESSION_AGENT_TARGET": _at(ports.agent),
        "SESSION_KEK_FILE": str(folder.encryption_key()),
        "SESSION_JWT_KEY_FILE": str(folder.signing_key()),
        "SESSION_DRAIN_PATIENCE": "4",
    }


def _agent_env(folder: DataFolder) -> dict[str, str]:
    # The shipped models' key, and the one that `make train` signs with on this machine.
    trusted = (CHECKOUT / "services" / "agent" / "trusted_keys", folder.root / "signing" / "trusted")
    return {"AGENT_TRUSTED_KEYS": ":".join(map(str, trusted))}


def _simulated_brands(ports: _Ports) -> dict[str, str]:
    iq, exnova = _brand(ports.simulator_iq), _brand(ports.simulator_exnova)
    return {
        "BROKER_IQ_HTTP_URL": iq["http"],
        "BROKER_IQ_WS_URL": iq["ws"],
        "BROKER_EXNOVA_HTTP_URL": exnova["http"],
        "BROKER_EXNOVA_WS_URL": exnova["ws"],
    }


def _simulator(folder: DataFolder, ports: _Ports) -> Process:
    return Process(
        name="simulator",
        argv=_python("simulator"),
        env={
            "SIMULATOR_IQ_PORT": str(ports.simulator_iq),
            "SIMULATOR_EXNOVA_PORT": str(ports.simulator_exnova),
            "SIMULATOR_CONTROL_PORT": str(ports.simulator_control),
            # Accounts, orders and their outcomes outlive a restart, as they do at a broker.
            "SIMULATOR_DATA_DIR": str(folder.simulator),
            "SIMULATOR_RUN_FILE": str(folder.run / "simulator.json"),
        },
        ready=http_status(f"http://{_at(ports.simulator_control)}/health"),
    )


def _bridge(ports: _Ports, url: str, replicas: Mapping[str, int]) -> Process:
    targets = ",".join(_at(port) for port in replicas.values())
    return Process(
        name="bridge",
        argv=_python("gateway.bridge"),
        # gRPC's own way to name several: it stays with the first that answers.
        env={"BRIDGE_PORT": str(ports.bridge), "BRIDGE_SESSION_TARGET": f"ipv4:{targets}"},
        ready=gateway_answers(url),
        # The edge stands while the bridge stops, so that clients are told why their socket closes.
        needs=(*replicas, "envoy"),
    )


def _envoy(
    settings: LocalSettings, folder: DataFolder, ports: _Ports, url: str, replicas: Mapping[str, int]
) -> Process:
    configuration = folder.run / "envoy.yaml"
    gateway = GatewaySettings(
        host=settings.host,
        port=settings.port,
        admin_port=ports.envoy_admin,
        session_targets=",".join(_at(port) for port in replicas.values()),
        bridge_targets=_at(ports.bridge),
        descriptor=CHECKOUT / "gen" / "tradebot.binpb",
    )
    write_private(configuration, render(gateway))
    return Process(
        name="envoy",
        # Several systems on one machine would share the sockets of hot restart, which nobody here uses.
        argv=(str(_ENVOY), "-c", str(configuration), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"),
        ready=http_status(f"{url}/healthz"),
        needs=tuple(replicas),
    )
