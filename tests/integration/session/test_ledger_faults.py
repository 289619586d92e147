"""The ledger's server dies, freezes, and loses answers: nothing is written twice, nothing lost, and it comes back by itself."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from services.runtime.clock import SystemClock
from services.session.adapters.event_log import RedisEventLog
from services.session.adapters.ledger import sql
from services.session.adapters.ledger.database import Connection, PostgresDatabase
from services.session.adapters.ledger.events import EventReader
from services.session.domain.bot import ServiceLimits
from services.session.domain.errors import LimitReachedError, UnavailableError
from services.session.domain.events import LogWritten
from services.session.domain.trade import TradeState
from services.session.domain.values import CloseReason
from services.session.migrate import migrate
from tests.support.engines import Engine, postgres
from tests.support.eventually import eventually
from tests.support.ledgers import LIMITS, a_ledger, a_request, a_session, a_trade_id
from tests.support.running import running

SOON = timedelta(seconds=3)


@pytest.fixture
async def mortal(own_postgres: Engine) -> AsyncIterator[PostgresDatabase]:
    async with PostgresDatabase.at(own_postgres.url) as database:
        yield database


class LosesCommits(PostgresDatabase):
    """Commits, and then loses the connection before the answer: the caller cannot know."""

    losing = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with super().transaction() as connection:
            yield connection
        if self.losing:
            raise UnavailableError("The ledger")


async def test_many_replicas_may_migrate_at_once() -> None:
    with postgres() as engine:

        async def migrate_as_a_process() -> int:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.session.migrate"),
                env={**os.environ, "SESSION_POSTGRES_URL": engine.url},
                stderr=asyncio.subprocess.DEVNULL,
            )
            return await process.wait()

        assert await asyncio.gather(*(migrate_as_a_process() for _ in range(4))) == [0, 0, 0, 0]
        await migrate(engine.url)
        async with PostgresDatabase.at(engine.url) as database:
            (row,) = await database.read("SELECT version_num FROM alembic_version")
            assert row["version_num"] == "0002"
            await a_session(a_ledger(database))


async def test_a_killed_server_is_unavailable_and_comes_back_without_a_restart_of_ours(
    own_postgres: Engine, mortal: PostgresDatabase
) -> None:
    ledger = a_ledger(mortal)
    key = await a_session(ledger)
    trade, _ = await ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None)
    await asyncio.gather(*(ledger.session(key) for _ in range(20)))  # every connection of the pool is open
    own_postgres.kill()
    for call in (
        ledger.session(key),
        ledger.status(key),
        ledger.emit(key, LogWritten("info", "x")),
        ledger.begin_send(trade.trade_id, datetime.now(UTC) + SOON, epoch=None),
    ):
        with pytest.raises(UnavailableError):
            await call
    own_postgres.start()
    found = await ledger.trade(key, trade.trade_id)
    assert found == trade
    sending = await ledger.begin_send(trade.trade_id, datetime.now(UTC) + SOON, epoch=None)
    assert sending.state is TradeState.SENDING


async def test_a_frozen_server_holds_nobody_up_for_long(own_postgres: Engine, mortal: PostgresDatabase) -> None:
    ledger = a_ledger(mortal)
    key = await a_session(ledger)
    own_postgres.freeze_all()
    try:
        async with asyncio.timeout(60):
            with pytest.raises(UnavailableError):
                await ledger.emit(key, LogWritten("info", "x"))
    finally:
        own_postgres.thaw_all()

    async def back() -> bool:
        try:
            return await ledger.session(key) is not None
        except UnavailableError:
            return False

    assert await eventually(back)


@pytest.mark.parametrize("within", ["a transaction", "a statement"])
async def test_a_process_that_freezes_with_a_session_locked_is_thrown_out(
    mortal: PostgresDatabase, within: str
) -> None:
    """Within a statement, as while asyncpg prepares one: the server is not idle, it waits for the rest of it."""
    ledger = a_ledger(mortal)
    key = await a_session(ledger)
    frozen = asyncio.Event()

    async def freeze() -> None:
        async with mortal._pool.acquire() as connection, connection.transaction():
            await connection.fetch(sql.LOCK_SESSION, key)
            if within == "a statement":
                await connection.prepare("SELECT 41 + 1")
            frozen.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(freeze())
    await frozen.wait()

    async def written() -> bool:
        try:
            return await ledger.emit(key, LogWritten("info", "x")) is not None
        except UnavailableError:
            return False

    assert await eventually(written, within=30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_when_the_answer_to_a_commit_is_lost_the_sender_does_not_send_and_nobody_else_can(
    postgres_server: Engine, database: PostgresDatabase
) -> None:
    async with LosesCommits.at(postgres_server.url) as lossy:
        ledger = a_ledger(lossy)
        key = await a_session(ledger)
        trade, _ = await ledger.reserve(a_request(key, idempotency_key="r"), a_trade_id(), LIMITS, epoch=None)
        lossy.losing = True
        with pytest.raises(UnavailableError):
            await ledger.begin_send(trade.trade_id, datetime.now(UTC) + SOON, epoch=None)
        lossy.losing = False
        found = await ledger.trade(key, trade.trade_id)
        assert found is not None
        assert found.state is TradeState.SENDING
        lossy.losing = True
        with pytest.raises(UnavailableError):
            await ledger.reserve(a_request(key, idempotency_key="s"), a_trade_id(), LIMITS, epoch=None)
        lossy.losing = False
        _, new = await ledger.reserve(a_request(key, idempotency_key="s"), a_trade_id(), LIMITS, epoch=None)
        assert not new


async def test_a_limit_holds_across_a_kill_of_the_server(own_postgres: Engine, mortal: PostgresDatabase) -> None:
    ledger = a_ledger(mortal)
    key = await a_session(ledger)
    limits = ServiceLimits(max_open_trades=4)
    for _ in range(3):
        await ledger.reserve(a_request(key), a_trade_id(), limits, epoch=None)
    own_postgres.kill()
    own_postgres.start()
    answers = await asyncio.gather(
        *(ledger.reserve(a_request(key), a_trade_id(), limits, epoch=None) for _ in range(50)), return_exceptions=True
    )
    assert sum(isinstance(answer, tuple) for answer in answers) == 1
    assert sum(isinstance(answer, LimitReachedError) for answer in answers) == 49


async def test_the_server_is_killed_again_and_again_while_events_are_written_and_read(
    own_postgres: Engine, mortal: PostgresDatabase, live: Redis
) -> None:
    here = RedisEventLog(live, EventReader(mortal), clock=SystemClock(), name="here")
    there = RedisEventLog(live, EventReader(mortal), clock=SystemClock(), name="there")
    ledger = a_ledger(mortal, publish=here.publish)
    key = await a_session(ledger)
    done = asyncio.Event()
    written = 0

    async def one_more() -> bool:
        nonlocal written
        try:
            await ledger.emit(key, LogWritten("info", "x"))
        except UnavailableError:
            return False
        written += 1
        return True

    async def write() -> None:
        while not done.is_set():
            await eventually(one_more, within=60)

    async def written_on(before: int) -> None:
        async def probe() -> bool:
            return written >= before + 100

        await eventually(probe, within=60)

    async def closed() -> bool:
        try:
            record = await ledger.session(key)
            return record is not None and (
                record.close_reason is not None or await ledger.close_session(key, CloseReason.EXPIRED) is not None
            )
        except UnavailableError:
            return False

    async def read(log: RedisEventLog) -> list[int]:
        async with asyncio.timeout(60), log.subscribe(key, 0) as events:
            return [event.seq async for event in events]

    async with running(here, there):
        readers = [asyncio.create_task(read(log)) for log in (here, there)]
        writers = [asyncio.create_task(write()) for _ in range(3)]
        for _ in range(3):
            await written_on(written)
            own_postgres.kill()
            await asyncio.to_thread(own_postgres.start)
        done.set()
        await asyncio.gather(*writers)
        await eventually(closed)
        seen = await asyncio.gather(*readers)
    stored = [event.seq for event in await ledger.events_after(key, 0, 100_000)]
    assert stored == list(range(1, len(stored) + 1))
    assert seen == [stored, stored]
