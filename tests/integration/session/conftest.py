"""The ledger on a real PostgreSQL and live state on a real Valkey: one of each per test process, cleared per test."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from services.runtime.redis_client import connect
from services.session.adapters.ledger import database as database_module
from services.session.adapters.ledger.database import PostgresDatabase
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.migrate import migrate
from tests.support.engines import Engine, postgres, redis
from tests.support.ledgers import Published, a_ledger


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Engine]:
    with postgres() as engine:
        asyncio.run(migrate(engine.url))
        yield engine


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Engine]:
    with redis() as engine:
        yield engine


@pytest.fixture
async def database(postgres_server: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PostgresDatabase]:
    # A machine that stalls for some seconds is no frozen process. What the real ones do: test_ledger_faults.
    for timeout in ("STATEMENT_TIMEOUT", "_LOCK_TIMEOUT", "_IDLE_IN_TRANSACTION_TIMEOUT", "_TRANSACTION_TIMEOUT"):
        monkeypatch.setattr(database_module, timeout, 60.0)
    async with PostgresDatabase.at(postgres_server.url) as database:
        async with database.transaction() as connection:
            await connection.fetch("TRUNCATE sessions CASCADE")
        yield database


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def ledger(database: PostgresDatabase, published: Published) -> PostgresLedger:
    return a_ledger(database, publish=published)


@pytest.fixture
async def live(redis_server: Engine) -> AsyncIterator[Redis]:
    async with connect(redis_server.url) as client:
        await client.flushall()
        yield client


@pytest.fixture
def own_redis() -> Iterator[Engine]:
    """A Redis that the test may kill."""
    with redis() as engine:
        yield engine


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Engine]:
    """A PostgreSQL that the module's tests may kill."""
    with postgres() as engine:
        asyncio.run(migrate(engine.url))
        yield engine
