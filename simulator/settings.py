"""Settings of the simulator, read from the environment with the prefix ``SIMULATOR_``."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """All that can be configured; every default suits a test."""

    model_config = SettingsConfigDict(env_prefix="SIMULATOR_", frozen=True)

    host: str = "127.0.0.1"
    iq_port: int = 0
    """Port of HTTP and WebSocket for brand ``iq``; 0 picks a free one."""
    exnova_port: int = 0
    control_port: int = 0
    run_file: Path | None = None
    """Where the addresses are written, as JSON, once all ports listen; removed at the end."""
    data_dir: Path | None = None
    """Where accounts, logins and orders are kept over a restart; without it they live in memory."""
    seed: int = 1
    market: str = "replay"
    """What EURUSD-OTC follows: ``replay`` or a name of ``markets.catalogue.standard_markets``."""
    asset_markets: dict[str, str] = {}
    """What other assets follow instead of their own markets, by ticker, as JSON; names as above."""
    fault_file: Path | None = None
    """JSON list of fault rules to begin with."""
    ack_delay: float = Field(default=0.02, ge=0.005)
    """Seconds between a request and its acknowledgement; clients in the field break below 5 ms."""
    login_attempts: int = Field(default=5, ge=1)
    """Wrong passwords in a row, per identifier and address, before logins are throttled."""
    login_ban: float = 600.0
    """Seconds that a throttled login stays refused."""
    password: str = "secret"  # noqa: S105  # the documented password of every simulated account
    two_factor_email: str = "twofa@example.com"
    two_factor_code: str = "123456"
    init_data_bytes: int = 0
    """Pad the initialization data with suspended assets up to about this size (the brokers send several MB)."""
    tls_certificate: Path | None = None
    """PEM file; with it and ``tls_key`` the brands serve https and wss."""
    tls_key: Path | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
