"""What the edge is told by its environment."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """Settings of the Envoy configuration, from ``GATEWAY_*``. Lists are comma-separated."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", extra="ignore", frozen=True)

    host: str = "0.0.0.0"  # noqa: S104 - the edge is what the world may reach
    """Address to listen on."""
    port: int = 8000
    """Port to listen on."""
    admin_port: int = 9901
    """Port of Envoy's admin interface, always on loopback."""
    session_targets: str = "127.0.0.1:50051"
    """The session service's replicas, ``host:port``."""
    bridge_targets: str = "127.0.0.1:50080"
    """The WebSocket bridges, ``host:port``."""
    descriptor: Path = Path("gen/tradebot.binpb")
    """The protos' descriptor set, as ``make gen`` writes it."""
    cors_origins: str = ""
    """Origins of web pages that may call, besides those on this machine; ``*`` lets every page call."""
    max_body: int = 16_384
    """Largest request body, bytes."""
    max_connections: int = 20_000
    """Most connections from clients at once."""
