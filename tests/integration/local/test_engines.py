"""The embedded engines under the real supervisor: what was acknowledged survives kill -9."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from local.folder import DataFolder
from local.ports import PortBlock
from local.postgres import Cluster
from local.supervisor import Supervisor
from local.valkey import valkey
from tests.support.eventually import eventually


class Silent:
    """A reporter that tells nobody."""

    def starting(self, *_: object, **__: object) -> None: ...
    def ready(self, *_: object, **__: object) -> None: ...
    def died(self, *_: object, **__: object) -> None: ...
    def stopping(self, *_: object, **__: object) -> None: ...


class Engines:
    def __init__(self, folder: DataFolder, ports: PortBlock) -> None:
        self.cluster = Cluster(folder.postgres, ports.pick(), folder.password("postgres"))
        process, self.redis_url = valkey(folder.redis, ports.pick(), folder.password("redis"), folder.run)
        self.supervisor = Supervisor(
            [self.cluster.process(), process],
            logs=folder.logs,
            cwd=folder.root,
            reporter=Silent(),
            on_spawn=lambda _: None,
        )

    async def kill(self, name: str) -> None:
        """Kill one and wait until there is another."""
        pid = self.supervisor.pids[name]
        os.kill(pid, signal.SIGKILL)

        async def another() -> bool:
            return self.supervisor.pids.get(name, pid) != pid

        await eventually(another)


@asynccontextmanager
async def running(folder: DataFolder) -> AsyncIterator[Engines]:
    stop, ready = asyncio.Event(), asyncio.Event()
    with PortBlock.claim() as ports:
        engines = Engines(folder, ports)
        task = asyncio.create_task(engines.supervisor.run(stop, ready.set))
        try:
            await asyncio.wait_for(ready.wait(), 60)
            yield engines
        finally:
            stop.set()
            await task


@pytest.fixture
def folder() -> Iterator[DataFolder]:
    root = Path(tempfile.mkdtemp(prefix="tradebot test "))
    with DataFolder(root) as taken:
        yield taken
    shutil.rmtree(root, ignore_errors=True)


async def query(engines: Engines, statement: str, *arguments: object) -> object:
    """Run one statement, also while the server comes back."""

    async def once() -> list[object]:
        try:
            connection = await asyncpg.connect(engines.cluster.url, timeout=5)
        except (OSError, asyncpg.PostgresError) as error:
            raise AssertionError("not back yet") from error
        try:
            return [await connection.fetchval(statement, *arguments, timeout=5)]
        finally:
            await connection.close(timeout=5)

    (value,) = await eventually(once, within=20)
    return value


async def test_committed_rows_survive_kill_9_and_a_restart_of_everything(folder: DataFolder) -> None:
    async with running(folder) as engines:
        await query(engines, "CREATE TABLE kept (number int)")
        await query(engines, "INSERT INTO kept VALUES (7)")
        await engines.kill("postgres")
        assert await query(engines, "SELECT number FROM kept") == 7
    # The pid file of a killed server may name a stranger by the next start: us.
    (folder.postgres / "postmaster.pid").write_text(f"{os.getpid()}\n")
    async with running(folder) as engines:
        assert await query(engines, "SELECT number FROM kept") == 7


async def test_the_ledgers_role_is_no_superuser_and_nobody_else_gets_in(folder: DataFolder) -> None:
    async with running(folder) as engines:
        assert await query(engines, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        for url in (
            engines.cluster.url.replace(engines.cluster.password, "guess"),
            engines.cluster.url.replace("//tradebot", "//postgres"),
        ):
            with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
                await asyncpg.connect(url, timeout=5)


async def test_acknowledged_writes_survive_kill_9_of_redis_and_a_guess_is_refused(folder: DataFolder) -> None:
    async with running(folder) as engines:
        async with redis.asyncio.Redis.from_url(engines.redis_url) as client:
            await client.set("kept", "7")
        await engines.kill("redis")

        async def back() -> bool:
            async with redis.asyncio.Redis.from_url(engines.redis_url, retry=Retry(NoBackoff(), 0)) as client:
                try:
                    return bool(await client.get("kept") == b"7")
                except (redis.asyncio.ConnectionError, redis.asyncio.BusyLoadingError) as error:
                    raise AssertionError("not back yet") from error

        await eventually(back)
        guess = engines.redis_url.replace(folder.password("redis"), "guess")
        async with redis.asyncio.Redis.from_url(guess) as client:
            with pytest.raises(redis.asyncio.AuthenticationError):
                await client.get("kept")
