"""What the agent is told by its environment."""

from pathlib import Path
from typing import Annotated

from pydantic import field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from services.runtime.settings import ServerSettings

_SERVICE = Path(__file__).resolve().parent


class AgentSettings(ServerSettings):
    """Settings from ``AGENT_…``; every one has a default that serves the shipped models."""

    model_config = SettingsConfigDict(env_prefix="AGENT_", extra="ignore", frozen=True)

    models: Path = _SERVICE.parents[1] / "models"
    """Folder of ``<name>/<version>/`` and ``selection.json``."""
    trusted_keys: Annotated[tuple[Path, ...], NoDecode] = (_SERVICE / "trusted_keys",)
    """Folders of Ed25519 public keys in PEM, separated by colons, that may have signed a model."""
    poll_interval: float = 1.0
    """Seconds between two looks at the models' folder."""

    @field_validator("trusted_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(":") if part) if isinstance(value, str) else value
