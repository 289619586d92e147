"""Between the proto's messages and ours."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from tradebot.broker.v1 import account_pb2, order_pb2
from tradebot.broker.v1 import broker_service_pb2 as pb

from services.broker import codec
from services.broker.domain.errors import InvalidArgumentError
from services.broker.domain.values import (
    AccountType,
    Broker,
    ConnectionState,
    Direction,
    InstrumentType,
    Order,
    OrderState,
    Outcome,
)
from services.runtime.secret import Secret

MOMENT = datetime(2026, 11, 24, 3, 11, 0, 123_000, UTC)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("1", "1.00"),
        ("0", "0.00"),
        ("-1", "-1.00"),
        ("0.87", "0.87"),
        ("0.9831", "0.9831"),
        ("1E+4", "10000.00"),
        ("12.5", "12.50"),
    ],
)
def test_money_has_at_least_two_decimals_and_loses_none(amount: str, text: str) -> None:
    assert codec.money(Decimal(amount)) == text


@given(st.decimals(-1_000_000, 1_000_000, places=6))
def test_money_survives_the_wire(amount: Decimal) -> None:
    assert Decimal(codec.money(amount)) == amount


def test_every_word_of_ours_has_one_of_the_proto() -> None:
    assert set(codec.BROKERS.values()) == set(Broker)
    assert set(codec.ACCOUNT_TYPES.values()) == set(AccountType)
    assert set(codec.INSTRUMENT_TYPES.values()) == set(InstrumentType)
    assert set(codec.DIRECTIONS.values()) == set(Direction)
    assert {codec.state_to_proto(state) for state in ConnectionState} == set(account_pb2.ConnectionState.values()) - {0}


def an_order(**changes: object) -> Order:
    fields: dict[str, object] = {
        "client_order_id": "mine",
        "broker_order_id": "5",
        "state": OrderState.CLOSED,
        "account_type": AccountType.REAL,
        "balance_id": 1,
        "asset": "EURUSD-OTC",
        "instrument_type": InstrumentType.BLITZ,
        "direction": Direction.PUT,
        "amount": Decimal(1),
        "payout_rate": 0.87,
        "open_price": 1.1,
        "open_time": MOMENT,
        "expiry_time": MOMENT,
        "outcome": Outcome.TIED,
        "profit": Decimal(0),
        "close_price": 1.1,
        "close_time": MOMENT,
    }
    return Order(**(fields | changes))  # type: ignore[arg-type]


def test_a_tie_says_its_zero_profit_and_an_open_order_says_none() -> None:
    closed = codec.order_to_proto(an_order())
    assert (closed.outcome, closed.profit) == (order_pb2.OUTCOME_TIED, "0.00")
    assert closed.close_time.ToDatetime(UTC) == MOMENT
    still_open = codec.order_to_proto(an_order(state=OrderState.OPEN, outcome=None, profit=None, close_time=None))
    assert (still_open.outcome, still_open.profit) == (order_pb2.OUTCOME_UNSPECIFIED, "")
    assert not still_open.HasField("close_time")


def test_every_event_finds_its_place() -> None:
    assert codec.event_to_proto(ConnectionState.REFUSED).connection_state == account_pb2.CONNECTION_STATE_REFUSED
    assert codec.event_to_proto(an_order()).order.broker_order_id == "5"
    assert codec.event_to_proto(Secret("token")).broker_token == "token"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"session_key": ""}, "session_key"),
        ({"session_key": "x" * 65}, "session_key"),
        ({"broker": 0}, "broker"),
        ({"account_type": 0}, "account_type"),
        ({"credentials": pb.Credentials(email="", password="x")}, "credentials.email"),
        ({"credentials": pb.Credentials(email="x", password="")}, "credentials.password"),
        ({"two_factor": pb.TwoFactor(method="sms")}, "two_factor.challenge"),
    ],
)
def test_a_bad_connect_names_the_field(changes: dict[str, object], field: str) -> None:
    fields: dict[str, object] = {
        "session_key": "key",
        "broker": account_pb2.BROKER_IQ,
        "account_type": account_pb2.ACCOUNT_TYPE_PRACTICE,
        "credentials": pb.Credentials(email="user@example.com", password="secret"),
    }
    codec.connect_from_proto(pb.ConnectRequest(**fields))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError) as refused:
        codec.connect_from_proto(pb.ConnectRequest(**(fields | changes)))  # type: ignore[arg-type]
    assert refused.value.facts == {"field": field}


def test_secrets_do_not_show() -> None:
    request = pb.ConnectRequest(
        session_key="key",
        broker=account_pb2.BROKER_IQ,
        account_type=account_pb2.ACCOUNT_TYPE_REAL,
        credentials=pb.Credentials(email="user@example.com", password="hidden", broker_token="hidden"),
        two_factor=pb.TwoFactor(challenge="hidden", method="sms", code="hidden"),
    )
    shown = repr(codec.connect_from_proto(request))
    assert "hidden" not in shown
    assert "user@example.com" not in shown


def test_an_impossible_time_is_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        codec.closed_since(pb.ListOrdersRequest(closed_since=Timestamp(seconds=10**15)), MOMENT)
