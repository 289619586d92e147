"""What the connector does when the broker says what it should never say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from services.broker.bootstrap import client_session, connector_factory, login_breaker
from services.broker.domain.errors import (
    AccountMismatchError,
    BrokerUnavailableError,
    NotConnectedError,
    OrderRejectedError,
)
from services.broker.domain.ports import Connector
from services.broker.domain.values import AccountType, Broker, ConnectionState, OrderState, Outcome
from services.broker.settings import Settings
from services.runtime.clock import SystemClock
from services.runtime.secret import Secret
from tests.support.brokers import Watcher, an_order, credentials
from tests.support.eventually import eventually
from tests.support.scripted_broker import Reply, ScriptedBroker, scripted_broker


@dataclass
class Stage:
    """A scripted broker and connectors to it."""

    broker: ScriptedBroker
    make: Any
    connectors: list[Connector] = field(default_factory=list)

    async def connected(
        self, account_type: AccountType = AccountType.PRACTICE, token: Secret | None = None
    ) -> Connector:
        connector: Connector = self.make(Broker.IQ, account_type, credentials("user@example.com"))
        self.connectors.append(connector)
        await connector.connect(token, None)
        return connector


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(scripted_broker())
        settings = Settings(
            iq_http_url=broker.url,
            iq_ws_url=broker.url.replace("http", "ws") + "/echo/websocket",
            settlement_grace=0.2,
        )
        clock = SystemClock()
        http = await stack.enter_async_context(client_session())
        breaker = await login_breaker(settings, clock, stack)
        stage = Stage(broker, connector_factory(settings, http, breaker, clock))
        yield stage
        for connector in stage.connectors:
            await connector.close(NotConnectedError())


async def in_state(connector: Connector, state: ConnectionState) -> None:
    async def reached() -> bool:
        return connector.state is state

    # Five attempts with the back-off between them take 10 s and more.
    await eventually(reached, within=40.0)


def position(**changes: Any) -> dict[str, Any]:
    option = {"direction": "call", "expiration_time": 2_000_000_000, "profit_percent": 187}
    return {
        "external_id": 5,
        "user_id": 7,
        "user_balance_id": 74,
        "active_id": 76,
        "instrument_type": "turbo-option",
        "status": "open",
        "version": 1,
        "invest": 1.0,
        "open_time": 1_999_999_000_000,
        "raw_event": {"binary_options_option_changed1": option},
    } | changes


def booked(body: Any) -> Reply:
    return "option", {
        "id": 5,
        "exp": body["expired"],
        "created": body["expired"] - 60,
        "value": 1.1,
        "profit_income": 187,
    }


async def test_no_balance_of_the_type_is_a_mismatch_and_never_another_balance(stage: Stage) -> None:
    with pytest.raises(AccountMismatchError):
        await stage.connected(AccountType.REAL)


async def test_another_users_balance_is_not_taken(stage: Stage) -> None:
    stage.broker.balances[0]["user_id"] = 8
    with pytest.raises(AccountMismatchError):
        await stage.connected()


async def test_another_user_after_a_reconnect_is_refused_for_good(stage: Stage) -> None:
    connector = await stage.connected()
    stage.broker.user_id = 8
    await stage.broker.cut()
    await in_state(connector, ConnectionState.REFUSED)
    with pytest.raises(BrokerUnavailableError):
        await connector.place_order(an_order())
    assert stage.broker.called("open-option") == []


async def test_another_balance_after_a_reconnect_is_refused_for_good(stage: Stage) -> None:
    connector = await stage.connected()
    stage.broker.balances = [{"id": 75, "type": 4, "amount": 100, "currency": "USD", "user_id": 7}]
    await stage.broker.cut()
    await in_state(connector, ConnectionState.REFUSED)


async def test_five_fresh_tokens_refused_in_a_row_end_in_refused(stage: Stage) -> None:
    connector = await stage.connected()
    assert stage.broker.logins == 1
    stage.broker.accepts_token = lambda _token: False
    await stage.broker.cut()
    await in_state(connector, ConnectionState.REFUSED)
    assert stage.broker.logins == 1 + 5


async def test_one_connect_asks_for_one_login(stage: Stage) -> None:
    stage.broker.accepts_token = lambda _token: False
    with pytest.raises(BrokerUnavailableError):
        await stage.connected(token=Secret("old"))
    assert stage.broker.logins == 1


async def test_subscriptions_are_renewed_after_a_reconnect(stage: Stage) -> None:
    connector = await stage.connected()
    stream = connector.watch_candles("EURUSD-OTC", 60)
    candle = {"active_id": 76, "size": 60, "from": 1_795_489_260, "open": 1.0, "close": 1.0, "min": 1.0, "max": 1.0}
    waiting = asyncio.ensure_future(anext(stream))

    async def pushed() -> bool:
        await stage.broker.push("candle-generated", candle)
        return waiting.done()

    await eventually(pushed)
    await stage.broker.cut()
    await in_state(connector, ConnectionState.RECONNECTING)
    await in_state(connector, ConnectionState.CONNECTED)
    waiting = asyncio.ensure_future(anext(stream))
    await eventually(pushed)
    await stream.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (5000, "internal error", OrderState.SUBMITTED),
        (5003, "", OrderState.SUBMITTED),
        (4000, "any other word", None),
    ],
)
async def test_a_fault_of_the_broker_is_unknown_and_a_refusal_is_a_refusal(
    stage: Stage, status: int, text: str, expected: OrderState | None
) -> None:
    stage.broker.replies["open-option"] = lambda _: ("option", {"message": text}, status)
    connector = await stage.connected()
    if expected is None:
        with pytest.raises(OrderRejectedError):
            await connector.place_order(an_order())
    else:
        assert (await connector.place_order(an_order())).state is expected
    assert len(stage.broker.called("open-option")) == 1


async def test_an_answer_that_cannot_be_read_is_unknown(stage: Stage) -> None:
    stage.broker.replies["open-option"] = lambda _: ("option", {"id": "?"})
    connector = await stage.connected()
    assert (await connector.place_order(an_order())).state is OrderState.SUBMITTED


async def test_a_caller_that_goes_away_does_not_stop_the_order(stage: Stage) -> None:
    stage.broker.replies["open-option"] = booked
    connector = await stage.connected()
    wanted = an_order("kept")
    call = asyncio.ensure_future(connector.place_order(wanted))

    async def sent() -> bool:
        return bool(connector.in_flight())

    await eventually(sent, every=0.0)
    call.cancel()
    await asyncio.wait({call})
    order = await connector.place_order(wanted)
    assert (order.state, order.broker_order_id) == (OrderState.OPEN, "5")
    assert len(stage.broker.called("open-option")) == 1


async def test_closing_while_an_order_is_under_way_leaves_it_unknown(stage: Stage) -> None:
    connector = await stage.connected()
    call = asyncio.ensure_future(connector.place_order(an_order()))

    async def sent() -> bool:
        return bool(stage.broker.called("open-option"))

    await eventually(sent)
    await connector.close(NotConnectedError())
    assert (await call).state is OrderState.SUBMITTED


async def test_positions_of_others_are_dropped(stage: Stage) -> None:
    connector = await stage.connected()
    watcher = Watcher(connector)
    await stage.broker.push("position-changed", position(external_id=1, user_id=8))
    await stage.broker.push("position-changed", position(external_id=2, user_balance_id=75))
    await stage.broker.push("position-changed", position(external_id=3))
    seen = await watcher.seen(lambda _: True)
    assert seen.broker_order_id == "3"
    assert len(watcher.orders()) == 1
    await watcher.stop()


async def test_an_event_that_was_overtaken_changes_nothing(stage: Stage) -> None:
    connector = await stage.connected()
    watcher = Watcher(connector)
    end = {"status": "closed", "close_reason": "loose", "pnl": -1.0, "close_time": 1_999_999_060_000}
    await stage.broker.push("position-changed", position(version=2, **end))
    await stage.broker.push("position-changed", position(version=1))
    await stage.broker.push("position-changed", position(version=2, **end))
    await stage.broker.push("position-changed", position(external_id=6))
    await watcher.seen(lambda order: order.broker_order_id == "6")
    (order,) = [order for order in watcher.orders() if order.broker_order_id == "5"]
    assert (order.state, order.outcome, order.profit) == (OrderState.CLOSED, Outcome.LOST, Decimal(-1))
    await watcher.stop()


async def test_a_list_with_an_unreadable_entry_is_not_complete(stage: Stage) -> None:
    entries = [position(), {"external_id": "?"}]
    stage.broker.replies["get-positions"] = lambda _: ("positions", {"positions": entries, "total": 2, "limit": 100})
    connector = await stage.connected()
    listed = await connector.list_orders(datetime.now(UTC))
    assert [order.broker_order_id for order in listed.orders] == ["5"]
    assert not listed.complete


async def test_a_list_that_shrank_while_it_was_read_is_not_complete(stage: Stage) -> None:
    def page(body: Any) -> Reply:
        first = [position(external_id=n) for n in range(1, 101)]
        rest = [position(external_id=n) for n in range(102, 150)]
        return "positions", {"positions": first if body["offset"] == 0 else rest, "total": 149, "limit": 100}

    stage.broker.replies["get-positions"] = page
    connector = await stage.connected()
    listed = await connector.list_orders(datetime.now(UTC))
    assert len(listed.orders) == 148
    assert not listed.complete


async def test_a_list_with_an_order_on_an_asset_without_a_name_is_not_complete(stage: Stage) -> None:
    """An order is searched by its asset's name: one that cannot be named may be the one that is searched."""
    entries = [position(), position(external_id=6, active_id=999)]
    stage.broker.replies["get-positions"] = lambda _: ("positions", {"positions": entries, "total": 2, "limit": 100})
    connector = await stage.connected()
    listed = await connector.list_orders(datetime.now(UTC))
    assert [order.broker_order_id for order in listed.orders] == ["5"]
    assert not listed.complete


async def test_noise_harms_nothing(stage: Stage) -> None:
    connector = await stage.connected()
    for text in (
        "",
        "{",
        "[]",
        "null",
        '{"name":7}',
        '{"name":"candle-generated","msg":{"from":"x"}}',
        "\x00",
        '{"name":"result"}',
    ):
        await stage.broker.push_raw(text)
    await stage.broker.push("never-heard-of", {"a": [1, 2, {"b": None}]})
    assert (await connector.get_account()).balance == 100
    assert connector.state is ConnectionState.CONNECTED


async def test_a_balance_is_money_to_the_last_digit(stage: Stage) -> None:
    stage.broker.balances[0]["amount"] = 9999.870000000001
    connector = await stage.connected()
    assert str(connector.account.balance) == "9999.87"
