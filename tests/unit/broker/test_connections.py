"""Who is connected under which key."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from services.broker.connections import Connect, Connections
from services.broker.domain.errors import (
    AccountMismatchError,
    BrokerError,
    BrokerUnavailableError,
    InvalidCredentialsError,
    NotConnectedError,
)
from services.broker.domain.values import Account, AccountType, Broker, ConnectionState, Credentials, Order
from services.runtime.secret import Secret
from tests.support.brokers import credentials
from tests.support.clocks import ManualClock


class FakeConnector:
    """Does what it is told about connecting and closing."""

    def __init__(self, log: list[str], error: BrokerError | None = None) -> None:
        self.state = ConnectionState.CONNECTING
        self.account = Account(Broker.IQ, AccountType.PRACTICE, 7, 74, Decimal(1), "USD")
        self.broker_token = Secret("token")
        self.closed: list[tuple[BrokerError, bool]] = []
        self.orders: list[asyncio.Future[Order]] = []
        self._log, self._error = log, error
        self.happens: asyncio.Queue[ConnectionState] = asyncio.Queue()

    async def connect(self, _token: Any, _two_factor: Any) -> None:
        self._log.append("connect")
        await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        self.state = ConnectionState.CONNECTED

    async def close(self, reason: BrokerError, *, log_out: bool = False) -> None:
        self._log.append("close")
        self.closed.append((reason, log_out))

    async def watch_account(self) -> AsyncIterator[ConnectionState]:
        while True:
            yield await self.happens.get()

    def in_flight(self) -> Sequence[Awaitable[Order]]:
        return self.orders


class Stage:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.made: list[FakeConnector] = []
        self.error: BrokerError | None = None
        self.clock = ManualClock()
        self.connections = Connections(self._make, self.clock)  # type: ignore[arg-type]  # only what connections use is faked

    def _make(self, _broker: Broker, _account_type: AccountType, _credentials: Credentials) -> FakeConnector:
        self.made.append(FakeConnector(self.log, self.error))
        return self.made[-1]


def wish(key: str = "key", **changes: Any) -> Connect:
    fields: dict[str, Any] = {
        "session_key": key,
        "broker": Broker.IQ,
        "account_type": AccountType.PRACTICE,
        "credentials": credentials("user@example.com"),
        "broker_token": None,
        "two_factor": None,
    }
    return Connect(**(fields | changes))


async def test_one_key_has_one_connection_however_many_ask_at_once() -> None:
    stage = Stage()
    connectors = await asyncio.gather(*(stage.connections.connect(wish()) for _ in range(10)))
    assert len(stage.made) == len(set(map(id, connectors))) == 1


async def test_different_keys_do_not_wait_for_each_other_and_share_nothing() -> None:
    stage = Stage()
    await asyncio.gather(*(stage.connections.connect(wish(f"key-{n}")) for n in range(10)))
    assert len(stage.made) == len(stage.connections) == 10


@pytest.mark.parametrize(
    "other",
    [
        wish(credentials=credentials("user@example.com", "wrong")),
        wish(account_type=AccountType.REAL),
        wish(broker=Broker.EXNOVA),
        wish(credentials=credentials("other@example.com")),
    ],
)
async def test_a_standing_connection_is_not_taken_over(other: Connect) -> None:
    stage = Stage()
    standing = await stage.connections.connect(wish())
    with pytest.raises(AccountMismatchError):
        await stage.connections.connect(other)
    assert stage.connections.get("key") is standing
    assert stage.made[0].closed == []


async def test_a_failed_connection_leaves_nothing() -> None:
    stage = Stage()
    stage.error = InvalidCredentialsError()
    with pytest.raises(InvalidCredentialsError):
        await stage.connections.connect(wish())
    with pytest.raises(NotConnectedError):
        stage.connections.get("key")
    assert stage.connections._seats == {}


async def test_a_refused_connection_is_replaced() -> None:
    stage = Stage()
    await stage.connections.connect(wish())
    stage.made[0].state = ConnectionState.REFUSED
    await stage.connections.connect(wish())
    assert stage.log == ["connect", "close", "connect"]
    assert stage.connections.get("key") is stage.made[1]  # type: ignore[comparison-overlap]


async def test_closing_is_idempotent_and_may_log_out() -> None:
    stage = Stage()
    await stage.connections.connect(wish())
    await stage.connections.close("key", log_out=True)
    await stage.connections.close("key", log_out=True)
    ((reason, log_out),) = stage.made[0].closed
    assert isinstance(reason, NotConnectedError)
    assert log_out
    assert stage.connections._seats == {}


async def test_draining_takes_nothing_new_and_waits_for_answers() -> None:
    stage = Stage()
    await stage.connections.connect(wish())
    answer: asyncio.Future[Order] = asyncio.get_running_loop().create_future()
    stage.made[0].orders.append(answer)
    draining = asyncio.create_task(stage.connections.drain(5.0))
    await asyncio.sleep(0)
    with pytest.raises(BrokerUnavailableError):
        stage.connections.get_for_order("key")
    with pytest.raises(BrokerUnavailableError):
        await stage.connections.connect(wish("other"))
    assert stage.made[0].closed == []
    answer.cancel()
    await draining
    ((reason, log_out),) = stage.made[0].closed
    assert isinstance(reason, BrokerUnavailableError)
    assert not log_out


async def test_a_connection_that_nobody_follows_is_closed_but_not_logged_out() -> None:
    stage = Stage()
    followed = await stage.connections.connect(wish("followed"))
    await stage.connections.connect(wish("left over"))
    events = stage.connections.watch_account("followed")
    stage.made[0].happens.put_nowait(ConnectionState.CONNECTED)
    await anext(events)
    sweeping = asyncio.create_task(stage.connections.keep_sweeping(300))
    await asyncio.sleep(0)
    await stage.clock.advance(299)
    assert len(stage.connections) == 2
    await stage.clock.advance(100)
    assert [closed for _, closed in stage.made[1].closed] == [False]
    assert stage.connections.get("followed") is followed
    await events.aclose()  # type: ignore[attr-defined]  # an async generator
    await stage.clock.advance(400)
    assert len(stage.connections) == 0
    sweeping.cancel()


async def test_a_connection_with_an_order_under_way_is_never_swept() -> None:
    stage = Stage()
    await stage.connections.connect(wish())
    stage.made[0].orders.append(asyncio.get_running_loop().create_future())
    sweeping = asyncio.create_task(stage.connections.keep_sweeping(300))
    await asyncio.sleep(0)
    await stage.clock.advance(1_000)
    assert len(stage.connections) == 1
    stage.made[0].orders.clear()
    await stage.clock.advance(400)
    assert len(stage.connections) == 0
    sweeping.cancel()
