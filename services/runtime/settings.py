"""What every process is told by its environment."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class ServerSettings(BaseSettings):
    """Settings that every gRPC process shares; a service adds its own and its prefix."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 0
    """Port to listen on; 0 picks a free one."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    drain_delay: float = 1.5
    """Seconds between NOT_SERVING and the first refusal, for load balancers to look away; the edge needs
    up to one second (two looks)."""
    drain_calls: float = 2.0
    """Seconds that calls under way get to end before the application is drained, which cuts them short."""
    drain_grace: float = 5.0
    """Seconds that calls in flight get to end."""
    max_concurrent_streams: int = 20_000
    """HTTP/2 streams per connection; the gateway sends everything over one."""
