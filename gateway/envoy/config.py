"""Renders Envoy's configuration from its template."""

import json
from pathlib import Path
from string import Template
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.envoy import replies
from gateway.envoy.routes import bindings, lua_pattern, request_fields, routes
from gateway.envoy.settings import GatewaySettings

_HERE = Path(__file__).parent
SERVICE = "tradebot.session.v1.SessionService"
"""The only service the gateway talks to."""


def render(settings: GatewaySettings) -> str:
    """Return the whole configuration as YAML.

    Raises:
        FileNotFoundError: There is no descriptor set; ``make gen`` writes it.
        ValueError: A target is not ``host:port``, or an annotation is of a kind the gateway does not know.
    """
    descriptors = FileDescriptorSet.FromString(settings.descriptor.read_bytes())
    calls = bindings(descriptors, SERVICE)
    fields = request_fields(descriptors, SERVICE)
    lua = Template((_HERE / "rest.lua").read_text()).substitute(
        fixed_bodies=replies.lua_table(),
        session_not_found=json.dumps(replies.SESSION_NOT_FOUND),
        fields=_lua_table({name: kind for each in fields.values() for name, kind in sorted(each.items())}),
        bodies=_lua_bodies({call.path: fields[call.rpc] for call in calls if call.verb == "POST"}),
    )
    values: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "admin_port": settings.admin_port,
        "max_connections": settings.max_connections,
        "max_body": settings.max_body,
        "descriptor": str(settings.descriptor.resolve()),
        "services": [SERVICE],
        "session_endpoints": _endpoints(settings.session_targets),
        "bridge_endpoints": _endpoints(settings.bridge_targets),
        "cors_origins": _origins(settings.cors_origins),
        "reply_mappers": replies.mappers(),
        "reply_format": replies.body(500),
        "routes": routes(calls),
        "lua": lua,
    }
    template = Template((_HERE / "envoy.yaml").read_text())
    return template.substitute({name: json.dumps(value) for name, value in values.items()})


def _lua_table(fields: dict[str, str]) -> str:
    return "{" + ", ".join(f'["{name}"] = "{kind}"' for name, kind in fields.items()) + "}"


def _lua_bodies(fields_of: dict[str, dict[str, str]]) -> str:
    # A path's parameters are in the path: in the body they are as unknown as anything else.
    rows = []
    for path, fields in fields_of.items():
        in_body = {name: kind for name, kind in fields.items() if f"{{{name}}}" not in path}
        # Where a stake is set, a limit that is lost in a slip of the pen is money.
        strict = "true" if "amount" in in_body else "false"
        rows.append(f'{{path = "{lua_pattern(path)}", strict = {strict}, fields = {_lua_table(in_body)}}}')
    return "{" + ", ".join(rows) + "}"


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _endpoints(targets: str) -> list[dict[str, Any]]:
    endpoints = []
    for target in _split(targets):
        host, _, port = target.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"{target!r} is not host:port")
        address = {"socket_address": {"address": host, "port_value": int(port)}}
        endpoints.append({"endpoint": {"address": address}})
    return endpoints


def _origins(origins: str) -> list[dict[str, Any]]:
    # A page that a developer serves on this machine; there are no cookies, so an origin alone opens nothing.
    local = {"safe_regex": {"regex": r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?"}}
    chosen = _split(origins)
    if "*" in chosen:
        return [{"safe_regex": {"regex": ".*"}}]
    return [local, *({"exact": origin} for origin in chosen)]
