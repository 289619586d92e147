"""The connections of a process: who is connected under which session key, and nothing of what they do."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.broker.domain.errors import AccountMismatchError, BrokerError, BrokerUnavailableError, NotConnectedError
from services.broker.domain.ports import Connector, ConnectorFactory
from services.broker.domain.values import AccountEvent, AccountType, Broker, ConnectionState, Credentials, TwoFactor
from services.runtime.clock import Clock
from services.runtime.secret import Secret

_SWEEPS: Final = 4
"""How often nobody's connections are looked for within the time after which they are closed."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Connect:
    """What a caller wants to be connected to."""

    session_key: str
    broker: Broker
    account_type: AccountType
    credentials: Credentials
    broker_token: Secret | None
    two_factor: TwoFactor | None


@dataclass(slots=True)
class _Seat:
    """One session key's place: at most one connector, and one change at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    connector: Connector | None = None
    wish: Connect | None = None
    watchers: int = 0
    unwatched_since: float = 0.0
    """Monotonic time since which nobody follows the account, if nobody does."""


class Connections:
    """Owns all connectors: makes them, finds them, and closes them.

    Args:
        factory: Makes a connector that is not connected yet.
        clock: Time.
    """

    def __init__(self, factory: ConnectorFactory, clock: Clock) -> None:
        self._factory = factory
        self._clock = clock
        self._seats: dict[str, _Seat] = {}
        self._draining = False

    def __len__(self) -> int:
        return sum(seat.connector is not None for seat in self._seats.values())

    async def connect(self, wish: Connect) -> Connector:
        """Return the standing connection of this key if it is the wanted one, or make one.

        Raises:
            AccountMismatchError: Another connection stands under this key; it is left alone.
            BrokerError: As ``Connector.connect``; nothing is kept then.
        """
        if self._draining:
            raise BrokerUnavailableError("the service is stopping")
        seat = self._seats.setdefault(wish.session_key, _Seat())
        seat.waiting += 1
        try:
            async with seat.lock:
                return await self._sit_down(seat, wish)
        finally:
            seat.waiting -= 1
            self._tidy(wish.session_key, seat)

    def get(self, session_key: str) -> Connector:
        """Return the connection under a key.

        Raises:
            NotConnectedError: There is none.
        """
        seat = self._seats.get(session_key)
        if seat is None or seat.connector is None:
            raise NotConnectedError
        return seat.connector

    def get_for_order(self, session_key: str) -> Connector:
        """Return the connection under a key for something new to be sent.

        Raises:
            NotConnectedError: There is none.
            BrokerUnavailableError: The service is stopping.
        """
        if self._draining:
            raise BrokerUnavailableError("the service is stopping")
        return self.get(session_key)

    async def watch_account(self, session_key: str) -> AsyncIterator[AccountEvent]:
        """Follow the account under a key; see ``Connector.watch_account``.

        Raises:
            NotConnectedError: There is no connection.
        """
        connector = self.get(session_key)
        seat = self._seats[session_key]
        seat.watchers += 1
        try:
            async for event in connector.watch_account():
                yield event
        finally:
            seat.watchers -= 1
            seat.unwatched_since = self._clock.monotonic()

    async def keep_sweeping(self, patience: float) -> None:
        """Close connections that nobody has followed for a time, until cancelled.

        Whoever runs a session follows its account. A connection that is left over, because a caller hung up while it was
        made or because its session now lives elsewhere, would stay logged in for ever. Nobody is logged out: the session
        may go on with the same token at another place.

        Args:
            patience: Seconds without a follower.
        """
        while True:
            await self._clock.sleep(patience / _SWEEPS)
            before = self._clock.monotonic() - patience
            for key, seat in list(self._seats.items()):
                if seat.connector is None or seat.watchers or seat.waiting or seat.unwatched_since > before:
                    continue
                if not seat.connector.in_flight():
                    _log.info("connection_of_nobody", session_key=key)
                    await self.close(key, log_out=False)

    async def close(self, session_key: str, *, log_out: bool) -> None:
        """Close the connection under a key, if there is one."""
        await self._close(session_key, NotConnectedError(), log_out=log_out)

    async def _close(self, session_key: str, reason: BrokerError, *, log_out: bool) -> None:
        seat = self._seats.get(session_key)
        if seat is None:
            return
        seat.waiting += 1
        try:
            async with seat.lock:
                connector, seat.connector, seat.wish = seat.connector, None, None
                if connector is not None:
                    await connector.close(reason, log_out=log_out)
        finally:
            seat.waiting -= 1
            self._tidy(session_key, seat)

    async def drain(self, patience: float) -> None:
        """Take nothing new, wait for the answers of orders under way, then close everything.

        Args:
            patience: Seconds to wait at most.
        """
        self._draining = True
        connectors = [seat.connector for seat in self._seats.values() if seat.connector is not None]
        in_flight = [asyncio.ensure_future(result) for connector in connectors for result in connector.in_flight()]
        if in_flight:
            _log.info("waiting_for_answers", orders=len(in_flight))
            await asyncio.wait(in_flight, timeout=patience)
        stopping = BrokerUnavailableError("the service is stopping")
        async with asyncio.TaskGroup() as tasks:
            for key in list(self._seats):
                tasks.create_task(self._close(key, stopping, log_out=False))

    async def _sit_down(self, seat: _Seat, wish: Connect) -> Connector:
        if seat.connector is not None and seat.wish is not None:
            if not _same_account(seat.wish, wish):
                raise AccountMismatchError("another connection stands under this session key")
            if seat.connector.state is not ConnectionState.REFUSED:
                return seat.connector
            # It cannot heal itself; the user has come back with what it may lack.
            await seat.connector.close(NotConnectedError())
            seat.connector = None
        connector = self._factory(wish.broker, wish.account_type, wish.credentials)
        # The connector's own tasks begin here and log under this name as long as they live.
        with structlog.contextvars.bound_contextvars(session_key=wish.session_key):
            await connector.connect(wish.broker_token, wish.two_factor)
        if self._draining:
            stopping = BrokerUnavailableError("the service is stopping")
            await connector.close(stopping)
            raise stopping
        seat.connector, seat.wish, seat.unwatched_since = connector, wish, self._clock.monotonic()
        return connector

    def _tidy(self, session_key: str, seat: _Seat) -> None:
        if seat.connector is None and not seat.waiting:
            self._seats.pop(session_key, None)


def _same_account(standing: Connect, wish: Connect) -> bool:
    """Whether two wishes mean the same account proven with the same credentials."""
    return (
        (standing.broker, standing.account_type) == (wish.broker, wish.account_type)
        and standing.credentials.email.strip().lower() == wish.credentials.email.strip().lower()
        and standing.credentials.password == wish.credentials.password
    )
