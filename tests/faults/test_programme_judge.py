"""The judge of the fault programme finds what it must never overlook."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from local.client import Gateway, UserSession
from services.session.domain.trade import Trade, TradeState
from services.session.domain.values import (
    AccountType,
    Broker,
    Direction,
    InstrumentType,
    SessionKey,
    TradeId,
    TradeSource,
)
from tests.faults.programme.fold import Fold
from tests.faults.programme.marks import by_marks, limits_broken
from tests.faults.programme.users import Account, User
from tests.faults.programme.world import MAX_OPEN_TRADES

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
STAKE = Decimal("1.07")


@pytest.fixture
async def user() -> Any:
    async with Gateway("http://localhost") as gateway:
        session = UserSession(gateway, "one", "a@example.com", "iq", "PRACTICE", {})
        yield User(Account("a@example.com", "iq", "PRACTICE"), session, Fold(session), asked={"order-7": STAKE})


def a_trade(state: TradeState = TradeState.WON, **changes: Any) -> Trade:
    fields: dict[str, Any] = {
        "trade_id": TradeId("t"),
        "session_key": SessionKey("k"),
        "state": state,
        "source": TradeSource.MANUAL,
        "client_request_id": "order-7",
        "broker": Broker.IQ,
        "account_type": AccountType.PRACTICE,
        "balance_id": 1,
        "asset": "EURUSD-OTC",
        "instrument_type": InstrumentType.BLITZ,
        "direction": Direction.CALL,
        "amount": STAKE,
        "currency": "USD",
        "duration": timedelta(seconds=5),
        "create_time": NOW,
        "broker_order_id": "900" if state is TradeState.WON else "",
    }
    return Trade(**{**fields, **changes})


def an_order(number: int = 900, amount: float = 1.07, booked: float = 0.0, closed: float = 5.0) -> dict[str, Any]:
    return {"broker_order_id": number, "amount": amount, "booked_time": booked, "close_time": closed}


def test_a_trade_with_its_one_order_is_well(user: User) -> None:
    assert by_marks(user, [a_trade()], [an_order()]) == []
    assert by_marks(user, [a_trade(TradeState.NOT_PLACED)], []) == []


@pytest.mark.parametrize(
    ("trades", "orders", "finding"),
    [
        ([a_trade()], [an_order(900), an_order(901)], "placed 2 times"),
        ([], [an_order()], "in no ledger"),
        ([a_trade(TradeState.NOT_PLACED)], [an_order()], "its trade not_placed"),
        ([a_trade(TradeState.REJECTED)], [an_order()], "its trade rejected"),
        ([a_trade(broker_order_id="901")], [an_order(900)], "is order 900"),
        ([a_trade()], [], "the broker never had it"),
        ([a_trade(amount=Decimal("1.08"))], [an_order()], "is a trade of 1.08"),
    ],
)
def test_what_must_not_be_is_found(user: User, trades: list[Trade], orders: list[dict[str, Any]], finding: str) -> None:
    assert any(finding in found for found in by_marks(user, trades, orders))


def test_an_answered_trade_that_is_gone_is_found(user: User) -> None:
    user.answered["order-7"] = "t"
    assert by_marks(user, [], []) != []


def test_more_orders_at_once_than_allowed_are_found(user: User) -> None:
    orders = [an_order(number, booked=number / 100) for number in range(MAX_OPEN_TRADES + 1)]
    trades = [a_trade(broker_order_id=str(number)) for number in range(MAX_OPEN_TRADES + 1)]
    assert limits_broken(user, trades[1:], orders) == []
    assert any("open at once" in found for found in limits_broken(user, trades, orders))


def test_a_bot_beyond_its_limit_is_found(user: User) -> None:
    user.max_trades = 1
    trades = [a_trade(client_request_id="", amount=Decimal("1.00")) for _ in range(2)]
    assert limits_broken(user, trades[:1], []) == []
    assert any("traded 2 times" in found for found in limits_broken(user, trades, []))


def a_frame(kind: str, seq: int, **data: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "seq": seq,
        "session_id": "one",
        "account_type": "PRACTICE",
        "time": NOW.isoformat(),
        "data": data,
    }


STATUS = {"balance": 10, "status": "stopped", "broker_connection": "connected", "wins": 0, "losses": 0, "ties": 0}
TOLD = {
    "trade_id": "t",
    "status": "won",
    "asset": "EURUSD-OTC",
    "direction": "call",
    "amount": 1.07,
    "profit": 0.93,
    "broker_order_id": "900",
    "client_request_id": "order-7",
    "reason": "",
}


def test_a_fold_that_equals_the_state_is_well(user: User) -> None:
    user.feed.take(a_frame("snapshot", 3, **STATUS, open_trades=[]))
    user.feed.take(a_frame("trade_closed", 4, **TOLD))
    user.feed.take(a_frame("balance", 5, balance=10.93))
    assert user.feed.faults == []
    assert user.feed.differences({**STATUS, "balance": 10.93, "wins": 1}, [TOLD]) == []


def test_a_fold_that_differs_is_found(user: User) -> None:
    user.feed.take(a_frame("snapshot", 3, **STATUS, open_trades=[]))
    user.feed.take(a_frame("trade_closed", 4, **TOLD))
    status = {**STATUS, "wins": 1}
    assert user.feed.differences({**status, "balance": 11}, [TOLD]) != []
    assert user.feed.differences(status, [{**TOLD, "profit": 0.94}]) != []
    assert user.feed.differences(status, []) != []
    assert user.feed.differences(status, [TOLD, {**TOLD, "trade_id": "u"}]) != []
    assert user.feed.differences({**status, "wins": 2}, [TOLD]) != []


def test_a_hole_in_the_stream_is_found(user: User) -> None:
    user.feed.take(a_frame("snapshot", 3, **STATUS, open_trades=[]))
    user.feed.take(a_frame("balance", 5, balance=10.93))
    assert user.feed.faults == ["seq 5 after 3"]
