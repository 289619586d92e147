from pathlib import Path
from typing import Literal

import pytest
import yaml

from local.folder import DataFolder
from local.ports import PortBlock
from local.process import Process
from local.settings import LocalSettings
from local.system import describe


@pytest.mark.parametrize("replicas", [1, 3])
def test_all_replicas_are_run_and_both_ways_lead_to_all_of_them(tmp_path: Path, replicas: int) -> None:
    processes = described(tmp_path, replicas)
    sessions = [process for name, process in processes.items() if name.startswith("session")]
    ports = [process.env["SESSION_PORT"] for process in sessions]
    assert len(set(ports)) == replicas
    targets = [f"127.0.0.1:{port}" for port in ports]
    assert processes["bridge"].env["BRIDGE_SESSION_TARGET"] == f"ipv4:{','.join(targets)}"
    assert envoy_targets(tmp_path) == targets
    assert {process.name for process in sessions} < set(processes["bridge"].needs)


def test_at_the_real_brokers_nothing_of_the_simulator_is_left(tmp_path: Path) -> None:
    processes = described(tmp_path / "real", brokers="real")
    assert "simulator" not in processes
    assert not {name for name in processes["broker"].env if name.endswith("_URL")} - {"BROKER_REDIS_URL"}
    assert processes["broker"].needs == ("redis",)
    assert "127.0.0.1" in described(tmp_path / "simulator")["broker"].env["BROKER_IQ_HTTP_URL"]


def described(data: Path, replicas: int = 1, brokers: Literal["simulator", "real"] = "simulator") -> dict[str, Process]:
    with DataFolder(data) as folder, PortBlock.claim() as ports:
        settings = LocalSettings(port=ports.pick(), data=data, session_replicas=replicas, brokers=brokers)
        return {process.name: process for process in describe(settings, folder, ports).processes}


def envoy_targets(data: Path) -> list[str]:
    clusters = yaml.safe_load((data / "run" / "envoy.yaml").read_text())["static_resources"]["clusters"]
    (session,) = (cluster for cluster in clusters if cluster["name"] == "session")
    (group,) = session["load_assignment"]["endpoints"]
    places = [one["endpoint"]["address"]["socket_address"] for one in group["lb_endpoints"]]
    return [f"{place['address']}:{place['port_value']}" for place in places]
