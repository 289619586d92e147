"""``python -m services.session.migrate``: brings the ledger's schema up to date; any number may run at once."""

import asyncio
from pathlib import Path

import asyncpg
import structlog
from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from services.runtime.logging import configure_logging


class MigrationSettings(BaseSettings):
    """Where the ledger is."""

    model_config = SettingsConfigDict(env_prefix="SESSION_", extra="ignore", frozen=True)

    postgres_url: SecretStr
    """``postgresql://…``; ``?host=/folder`` names a socket's folder."""


async def migrate(postgres_url: str) -> None:
    """Apply every migration that is missing.

    Raises:
        OSError, asyncpg.PostgresError: The server is away or refuses; nothing was changed.
    """
    # SQLAlchemy only carries Alembic's statements; asyncpg reads the URL, as it does for the ledger itself.
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(postgres_url, timeout=10), poolclass=NullPool
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade)
            await connection.commit()
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    command.upgrade(config, "head")


def main() -> None:
    """Migrate the database that the environment names."""
    configure_logging("session-migrate")
    settings = MigrationSettings()  # type: ignore[call-arg]  # the environment gives the rest
    asyncio.run(migrate(settings.postgres_url.get_secret_value()))
    structlog.get_logger().info("ledger_migrated")


if __name__ == "__main__":
    main()
