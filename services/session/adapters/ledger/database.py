"""The seam between the ledger's SQL and a driver: what a database must do, and asyncpg doing it.

The SQL uses PostgreSQL's own ``$1`` parameters. The deterministic simulation drives the same SQL over another driver.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, Literal, Protocol, Self

import asyncpg

from services.session.domain.errors import UnavailableError


class Row(Protocol):
    """One row of an answer."""

    def __getitem__(self, column: str, /) -> Any:
        """Return a column's value."""
        ...


class Connection(Protocol):
    """One transaction's connection."""

    async def fetch(self, sql: str, *arguments: object) -> Sequence[Row]:
        """Run a statement and return its rows.

        Raises:
            UniqueViolationError: The transaction is over; leave its context.
            UnavailableError: The database is away or too slow.
        """
        ...


class Database(Protocol):
    """Where transactions come from."""

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        """Open a READ COMMITTED transaction, committed at the end unless the block raises.

        Raises:
            UnavailableError: Before the block: nothing was done. At its end: whether it was done is not known.
        """
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Connection]:
        """Open a read-only transaction whose statements all see the same state."""
        ...

    async def read(self, sql: str, *arguments: object) -> Sequence[Row]:
        """Run one reading statement; once more if the connection turns out to be broken."""
        ...


class UniqueViolationError(Exception):
    """A unique index refused a row."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint
        """The index's name."""


STATEMENT_TIMEOUT: Final = 5.0
"""Seconds a statement may take; also how long to wait for a connection."""
_LOCK_TIMEOUT: Final = 2.0
# A process that freezes with a session's row locked is thrown out after this, and the next writer goes on.
_IDLE_IN_TRANSACTION_TIMEOUT: Final = 2.0
_TRANSACTION_TIMEOUT: Final = 3.0
_CONNECT_TIMEOUT: Final = 3.0

_BROKEN: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg's state machine when the server dies in the middle of an answer
)
_AWAY: Final = (
    *_BROKEN,
    TimeoutError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement timeout
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # deadlock
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.PostgresIOError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that was not promoted yet
)


_Isolation = Literal["read_committed", "repeatable_read"]


class PostgresDatabase:
    """A pool of asyncpg connections. Never repeats a write; recovers by itself when the server is back."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    @classmethod
    def at(cls, url: str, *, connections: int = 20) -> Self:
        """Describe a pool at a ``postgresql://`` URL; ``async with`` opens it, whether or not the server is there."""
        pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=connections,
            timeout=_CONNECT_TIMEOUT,
            command_timeout=STATEMENT_TIMEOUT + 1,
            reset=nothing_to_reset,
            init=_end_long_transactions,
            server_settings={
                "application_name": "tradebot-session",
                "timezone": "UTC",
                "statement_timeout": _milliseconds(STATEMENT_TIMEOUT),
                "lock_timeout": _milliseconds(_LOCK_TIMEOUT),
                "idle_in_transaction_session_timeout": _milliseconds(_IDLE_IN_TRANSACTION_TIMEOUT),
                # What was committed stays committed, whatever the server's default is.
                "synchronous_commit": "on",
            },
        )
        return cls(pool)

    async def __aenter__(self) -> Self:
        await self._pool
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open a READ COMMITTED transaction."""
        with _mapped():
            async with AsyncExitStack() as stack:
                yield await self._begin(stack, "read_committed", readonly=False)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Open a read-only transaction on one snapshot."""
        with _mapped():
            async with AsyncExitStack() as stack:
                yield await self._begin(stack, "repeatable_read", readonly=True)

    async def read(self, sql: str, *arguments: object) -> Sequence[Row]:
        """Run one reading statement; once more if the connection turns out to be broken."""
        with _mapped():
            try:
                return await self._fetch(sql, arguments)
            except TimeoutError:
                raise
            except _BROKEN:
                return await self._fetch(sql, arguments)

    async def _fetch(self, sql: str, arguments: Sequence[object]) -> Sequence[Row]:
        async with self._pool.acquire(timeout=STATEMENT_TIMEOUT) as connection:
            rows: Sequence[Row] = await connection.fetch(sql, *arguments)
            return rows

    async def _begin(self, stack: AsyncExitStack, isolation: _Isolation, *, readonly: bool) -> Connection:
        """Begin a transaction that ends with the stack; once more if the connection turns out to be broken."""
        try:
            return await self._begin_once(stack, isolation, readonly=readonly)
        except TimeoutError:
            # An OSError too, but one that has held the caller up long enough.
            raise
        except _BROKEN:
            # The pool only learns from its use that a connection died with the old server. Nothing was done on it.
            return await self._begin_once(stack, isolation, readonly=readonly)

    async def _begin_once(self, stack: AsyncExitStack, isolation: _Isolation, *, readonly: bool) -> Connection:
        async with AsyncExitStack() as begun:
            connection = await begun.enter_async_context(self._pool.acquire(timeout=STATEMENT_TIMEOUT))
            await begun.enter_async_context(connection.transaction(isolation=isolation, readonly=readonly))
            stack.push_async_exit(begun.pop_all())
        return _AsyncpgConnection(connection)


class _AsyncpgConnection:
    """A pool's connection inside a transaction."""

    def __init__(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        self._connection = connection

    async def fetch(self, sql: str, *arguments: object) -> Sequence[Row]:
        with _mapped():
            return await self._connection.fetch(sql, *arguments)


@contextmanager
def _mapped() -> Iterator[None]:
    """Turn the driver's errors into ours; a mistake in our SQL stays what it is."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise UniqueViolationError(error.constraint_name or "") from error
    except ValueError:
        # An argument of the wrong type is an InterfaceError too, but no fault of the connection.
        raise
    except _AWAY as error:
        raise UnavailableError("The ledger") from error


async def _end_long_transactions(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Bound a transaction as a whole where the server can (PostgreSQL 17).

    A process that freezes while a statement is prepared leaves the server within a statement, not idle: the timeout for
    idle transactions does not run, and the session's row stays locked until the process goes on.
    """
    if connection.get_server_version() >= (17,):
        await connection.execute(f"SET transaction_timeout = {_milliseconds(_TRANSACTION_TIMEOUT)}")


async def nothing_to_reset(_: object) -> None:
    """Take the place of a round trip at every release: no statement of ours leaves anything behind in its session."""


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
