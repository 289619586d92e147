"""What a person may choose about the system on one machine, by environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

CHECKOUT = Path(__file__).resolve().parent.parent
"""The root of this checkout."""


class LocalSettings(BaseSettings):
    """Settings of ``make up``; every port that is 0 is picked free."""

    model_config = SettingsConfigDict(env_prefix="TRADEBOT_", extra="ignore", frozen=True)

    port: int = Field(default=8000, ge=1, le=65535)
    """The gateway's port, the only fixed one."""
    host: str = "127.0.0.1"
    """The address the gateway listens on; there is no TLS here, so only this machine by default."""
    data: Path = CHECKOUT / ".data"
    """All state, logs and keys; removing the folder is a clean start."""
    brokers: Literal["simulator", "real"] = "simulator"
    """Who the sessions log in at. A data folder belongs to the one or the other for good."""
    session_replicas: int = Field(default=1, ge=1, le=4)
    """Replicas of the session service; they share the sessions and take over from each other."""
    postgres_port: int = 0
    redis_port: int = 0
    simulator_iq_port: int = 0
    simulator_exnova_port: int = 0
    simulator_control_port: int = 0
    session_port: int = 0
    broker_port: int = 0
    agent_port: int = 0
    bridge_port: int = 0
    envoy_admin_port: int = 0

    @field_validator("data")
    @classmethod
    def _whole_path(cls, data: Path) -> Path:
        return data.expanduser().resolve()
