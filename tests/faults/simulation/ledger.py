"""The real SQL on the real PostgreSQL, from inside a simulated world.

asyncpg has a loop of its own and the world stands still while a statement runs. Transactions take
simulated time between their statements, so that processes interleave there; one writes at a time, as the lock of the
session's row would have it. What a process that dies or freezes leaves open is rolled back, as the server would.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from typing import Any, Final, TypeVar

import asyncpg

from services.session.adapters.ledger import sql
from services.session.adapters.ledger.database import Connection, PostgresDatabase, Row, nothing_to_reset
from services.session.domain.errors import UnavailableError
from tests.faults.simulation.faults import Fate
from tests.faults.simulation.loop import Process, SimLoop

T = TypeVar("T")

_IDLE_LIMIT: Final = 2.0
_SILENCE: Final = 6.0
"""Seconds until a process that cannot reach the server gives up a call at the latest."""
"""Seconds after which the server ends the transaction of a client that is silent."""


class Inner:
    """A PostgreSQL database, called without awaiting: a loop of its own runs inside the world's while that stands still."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self.database = self.call(self._open(url))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self._loop.run_until_complete(work)
        finally:
            asyncio._set_running_loop(outer)

    async def _open(self, url: str) -> PostgresDatabase:
        # Without the timeouts of production, which count real time.
        pool = asyncpg.create_pool(
            url,
            min_size=1,
            max_size=8,
            reset=nothing_to_reset,
            server_settings={"timezone": "UTC", "synchronous_commit": "off"},
        )
        return await PostgresDatabase(pool).__aenter__()

    def rows(self, statement: str, *arguments: object) -> Sequence[Row]:
        """Run one statement on its own."""
        return self.call(self.database.read(statement, *arguments))


class Transaction:
    """An open transaction of a simulated process."""

    def __init__(self, inner: Inner, context: AbstractAsyncContextManager[Connection]) -> None:
        self._inner = inner
        self._context = context
        self._connection = inner.call(context.__aenter__())
        self.open = True
        self.statements: list[tuple[str, tuple[object, ...]]] = []

    def run(self, statement: str, arguments: tuple[object, ...]) -> Sequence[Row]:
        if not self.open:
            raise UnavailableError("The ledger")
        rows = self._inner.call(self._connection.fetch(statement, *arguments))
        self.statements.append((statement, arguments))
        return rows

    def commit(self) -> None:
        self.open = False
        self._inner.call(self._context.__aexit__(None, None, None))

    def roll_back(self) -> None:
        if self.open:
            self.open = False
            error = UnavailableError("The ledger")
            try:
                self._inner.call(self._context.__aexit__(UnavailableError, error, None))
            except UnavailableError:
                return


class SimServer:
    """The database as all processes of a world share it."""

    def __init__(self, inner: Inner, loop: SimLoop, fate: Fate) -> None:
        self.inner = inner
        self.loop = loop
        self.fate = fate
        self.at_commit: list[Callable[[Process, Transaction], None]] = []
        self._writing: tuple[Process, Transaction] | None = None
        self._waiting: list[asyncio.Future[None]] = []

    async def begin(self, process: Process) -> Transaction:
        """Begin a transaction when nobody else writes."""
        while self._writing is not None:
            turn = self.loop.create_future()
            self._waiting.append(turn)
            await turn
        transaction = Transaction(self.inner, self.inner.database.transaction())
        self._writing = process, transaction
        # In no process: it is the server's own timer and runs while the client is frozen.
        self.loop.call_at(self.loop.time() + _IDLE_LIMIT, self.end, transaction, context=Context())
        return transaction

    def commit(self, process: Process, transaction: Transaction) -> None:
        """Commit, if it is still open."""
        if not transaction.open:
            raise UnavailableError("The ledger")
        transaction.commit()
        for look in self.at_commit:
            look(process, transaction)
        self.end(transaction)

    def end(self, transaction: Transaction) -> None:
        """Roll back what is open and let the next writer in."""
        transaction.roll_back()
        if self._writing is not None and self._writing[1] is transaction:
            self._writing = None
            waiting, self._waiting = self._waiting, []
            for turn in waiting:
                if not turn.done():
                    turn.set_result(None)

    def close(self) -> None:
        """Roll back whatever is open when the world ends: the next one begins by clearing the tables."""
        if self._writing is not None:
            self.end(self._writing[1])

    def connection_lost(self, process: Process) -> None:
        """Roll back what a dead process left open."""
        if self._writing is not None and self._writing[0] is process:
            self.end(self._writing[1])


class SimDatabase:
    """The ``Database`` seam of one simulated process."""

    def __init__(self, server: SimServer, process: Process) -> None:
        self._server = server
        self._process = process
        self.silent_until = 0.0
        """Until when this process alone cannot reach the server."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open a transaction that may fail before, within, or at its commit with the outcome unknown."""
        await self._travel()
        transaction = await self._server.begin(self._process)
        try:
            yield _SimConnection(self, transaction)
            await self._travel()
            faults = self._server.fate.faults
            lost = self._server.fate.strikes(faults.ambiguous_commits)
            if not lost or self._server.fate.strikes(0.5):
                self._server.commit(self._process, transaction)
            if lost:
                raise UnavailableError("The ledger")
        finally:
            self._server.end(transaction)
        await asyncio.sleep(self._server.fate.pause(0.0001, 0.002))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Open a snapshot."""
        await self._travel()
        transaction = Transaction(self._server.inner, self._server.inner.database.snapshot())
        try:
            yield _InstantConnection(transaction)
        finally:
            transaction.roll_back()
        await self._travel()

    async def read(self, statement: str, *arguments: object) -> Sequence[Row]:
        """Run one reading statement."""
        await self._travel()
        rows = self._server.inner.rows(statement, *arguments)
        await asyncio.sleep(self._server.fate.pause(0.0001, 0.002))
        return rows

    async def run(self, transaction: Transaction, statement: str, arguments: tuple[object, ...]) -> Sequence[Row]:
        """Run a statement of a transaction."""
        await self._travel()
        return transaction.run(statement, arguments)

    async def _travel(self) -> None:
        await asyncio.sleep(self._server.fate.pause(0.0001, 0.003))
        if self._server.loop.time() < self.silent_until:
            await asyncio.sleep(self._server.fate.pause(0.0, _SILENCE))
            raise UnavailableError("The ledger")
        if self._server.fate.strikes(self._server.fate.faults.failing_ledger / 3):
            raise UnavailableError("The ledger")


class _SimConnection:
    def __init__(self, database: SimDatabase, transaction: Transaction) -> None:
        self._database = database
        self._transaction = transaction

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Row]:
        return await self._database.run(self._transaction, statement, arguments)


class _InstantConnection:
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Row]:
        return self._transaction.run(statement, arguments)


def moves_of(transaction: Transaction) -> list[tuple[str, str, str]]:
    """Return trade, old and new state of every move that a transaction made."""
    return [
        (str(arguments[0]), str(arguments[1]), str(arguments[2]))
        for statement, arguments in transaction.statements
        if statement == sql.MOVE_TRADE
    ]
