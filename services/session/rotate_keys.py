"""``python -m services.session.rotate_keys``: wraps every stored credential's data key with the key file's first key.

To change the key: put a new first line into the key file and keep the old one below it, restart every replica, run this,
then remove the old line. It may be interrupted and repeated; it says how many it has changed.
"""

import asyncio
from pathlib import Path

import structlog
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime.logging import configure_logging
from services.session.adapters.ledger.database import PostgresDatabase
from services.session.adapters.ledger.rotation import rewrap_credentials
from services.session.adapters.vault import Vault


class RotationSettings(BaseSettings):
    """Where the ledger and the keys are."""

    model_config = SettingsConfigDict(env_prefix="SESSION_", extra="ignore", frozen=True)

    postgres_url: SecretStr
    kek_file: Path


async def rotate(settings: RotationSettings) -> int:
    """Re-wrap until nothing is left to do; returns how many sessions' credentials changed."""
    vault = Vault.from_file(settings.kek_file)
    changed = 0
    async with PostgresDatabase.at(settings.postgres_url.get_secret_value(), connections=2) as database:
        # Once more after every pass that found something: a token may have been stored meanwhile.
        while now := await rewrap_credentials(database, vault):
            changed += now
    return changed


def main() -> None:
    """Rotate the keys of the database that the environment names."""
    configure_logging("session-rotate-keys")
    settings = RotationSettings()  # type: ignore[call-arg]  # the environment gives the rest
    structlog.get_logger().info("keys_rotated", sessions=asyncio.run(rotate(settings)))


if __name__ == "__main__":
    main()
