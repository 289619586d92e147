import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.envoy.config import SERVICE, render
from gateway.envoy.routes import Binding, bindings, lua_pattern, request_fields, routes
from gateway.envoy.settings import GatewaySettings
from tests.support.envoy import BINARY, write_config

DESCRIPTORS = FileDescriptorSet.FromString(Path("gen/tradebot.binpb").read_bytes())
BINDINGS = bindings(DESCRIPTORS, SERVICE)

DOCUMENTED = {
    ("POST", "/api/connect"),
    ("POST", "/api/disconnect"),
    ("POST", "/api/start"),
    ("POST", "/api/stop"),
    ("POST", "/api/pause"),
    ("POST", "/api/resume"),
    ("POST", "/api/trade"),
    ("GET", "/api/balance"),
    ("GET", "/api/status"),
    ("GET", "/api/trades"),
    ("GET", "/api/trades/{trade_id}"),
    ("POST", "/api/trades/{trade_id}/close"),
    ("GET", "/api/trades/export"),
    ("GET", "/api/assets"),
    ("GET", "/api/candles/{asset}"),
    ("POST", "/api/timeframe"),
    ("GET", "/api/models"),
    ("GET", "/api/models/{model}"),
    ("POST", "/api/bot/start"),
    ("POST", "/api/bot/stop"),
    ("POST", "/api/balance"),
}


def config(**settings: Any) -> Any:
    return yaml.safe_load(render(GatewaySettings.model_validate(settings)))


def route(name: str) -> Any:
    return next(each for each in routes(BINDINGS) if each["name"] == name)


@pytest.mark.parametrize(
    "settings",
    [{}, {"session_targets": "a.example:1, b.example:2", "cors_origins": "*"}, {"cors_origins": "https://x.example"}],
)
def test_envoy_accepts_the_configuration(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = write_config(tmp_path, GatewaySettings.model_validate(settings))
    command: list[str | Path] = [BINARY, "--mode", "validate", "-c", path, "--disable-hot-restart", "-l", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - our own file
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


def test_every_documented_call_has_a_route() -> None:
    assert {(binding.verb, binding.path) for binding in BINDINGS} >= DOCUMENTED


def test_every_binding_of_the_protos_has_a_route() -> None:
    names = {each["name"] for each in routes(BINDINGS)}
    assert {f"{binding.verb} {binding.path}" for binding in BINDINGS} <= names


def test_literal_paths_come_before_those_with_parameters() -> None:
    paths = [binding.path for binding in BINDINGS]
    assert paths.index("/api/trades/export") < paths.index("/api/trades/{trade_id}")


@pytest.mark.parametrize("binding", BINDINGS, ids=lambda binding: f"{binding.verb} {binding.path}")
def test_only_reads_may_be_repeated_once_they_were_sent(binding: Binding) -> None:
    retry_on = set(route(f"{binding.verb} {binding.path}")["route"]["retry_policy"]["retry_on"].split(","))
    never_sent = {"connect-failure", "refused-stream", "retriable-headers"}
    reads = {
        *("GetStatus", "GetBalance", "ListTrades", "GetTrade", "ExportTrades"),
        *("ListAssets", "ListCandles", "ListModels", "GetModel"),
    }
    assert retry_on == (never_sent | {"unavailable", "cancelled", "reset"} if binding.rpc in reads else never_sent)


def test_slow_calls_have_the_time_they_need() -> None:
    assert route("POST /api/connect")["route"]["timeout"] == "30s"
    assert route("POST /api/trade")["route"]["timeout"] == "25s"
    assert route("GET /ws")["route"]["timeout"] == "0s"


def test_request_fields_include_nested_ones() -> None:
    fields = request_fields(DESCRIPTORS, SERVICE)
    assert fields["PlaceTrade"]["amount"] == "number"
    assert (fields["Connect"]["two_factor"], fields["Connect"]["two_factor.code"]) == ("object", "other")


def test_pattern_of_a_path_takes_it_literally() -> None:
    assert lua_pattern("/api/a-b.c/{trade_id}/close") == "^/api/a%-b%.c/[^/]+/close$"


def test_admin_listens_on_loopback_only() -> None:
    assert config(host="0.0.0.0")["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"  # noqa: S104 - the case


def test_each_replica_is_an_endpoint() -> None:
    clusters = config(session_targets="10.0.0.1:5, 10.0.0.2:6")["static_resources"]["clusters"]
    endpoints = clusters[0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert [each["endpoint"]["address"]["socket_address"]["port_value"] for each in endpoints] == [5, 6]


@pytest.mark.parametrize("target", ["session", "session:", ":5", "session:http"])
def test_target_without_host_or_port_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        config(session_targets=target)


def test_access_log_has_neither_path_nor_query() -> None:
    manager = config()["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    fields = manager["access_log"][0]["typed_config"]["log_format"]["json_format"].values()
    assert not [field for field in fields if "PATH" in field or "QUERY" in field]
    assert [field for field in fields if "SESSION" in field] == ["%REQ(X-SESSION-ID):6%"]
