"""What the bridge is told by its environment."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class BridgeSettings(BaseSettings):
    """Settings of the WebSocket bridge, from ``BRIDGE_*``. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="BRIDGE_", extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 50080
    """Port to listen on; 0 picks a free one."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    session_target: str = "127.0.0.1:50051"
    """The session service, ``host:port``."""
    heartbeat: float = 30.0
    """Between two heartbeat frames, and between two WebSocket pings that find dead peers."""
    resume_grace: float = 0.1
    """How long a new socket may take to say ``resume`` before it is sent a snapshot."""
    max_sockets: int = 10
    """Most sockets on one session."""
    max_queue: int = 512
    """Most frames that wait for one slow socket before it is closed."""
    close_timeout: float = 5.0
    """How long a client may take to answer a close."""
    retry_first: float = 0.1
    """Back-off after the first broken stream to the session service; doubles up to ``retry_most``."""
    retry_most: float = 3.0
    """Longest back-off."""
