"""From the wire's words to ours."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from services.broker.connectors.quadcode.messages import BalanceEntry, CandleMessage, OptionClosed, Position
from services.broker.connectors.quadcode.parsing import (
    ParseError,
    choose_balance,
    order_refusal,
    parse_history,
    parse_money,
    parse_option_closed,
    parse_position,
)
from services.broker.domain.errors import (
    AssetClosedError,
    InsufficientFundsError,
    OrderRejectedError,
    PayoutChangedError,
    PurchaseWindowClosedError,
)
from services.broker.domain.values import Account, AccountType, Broker, Direction, InstrumentType, OrderState, Outcome
from tests.support.quadcode_frames import (
    BALANCE_ID,
    CANDLE,
    DIGITAL,
    DIGITAL_POSITION,
    OPEN_POSITION,
    OPTION,
    POSITION,
    USER_ID,
)

ACCOUNT = Account(Broker.IQ, AccountType.PRACTICE, USER_ID, BALANCE_ID, Decimal(1), "USD")


def decoded(position: dict[str, Any]) -> Position:
    return msgspec.json.decode(json.dumps(position), type=Position)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def test_a_settled_option_is_read_as_the_broker_settled_it() -> None:
    order = parse_position(decoded(POSITION), ACCOUNT, "EURUSD-OTC")
    assert (order.state, order.outcome, order.profit) == (OrderState.CLOSED, Outcome.WON, Decimal("0.87"))
    assert (order.broker_order_id, order.balance_id, order.asset) == ("14000000025", BALANCE_ID, "EURUSD-OTC")
    assert (order.instrument_type, order.direction) == (InstrumentType.TURBO, Direction.CALL)
    assert (order.amount, order.payout_rate) == (Decimal(1), 0.87)
    assert (order.open_price, order.close_price) == (1.175283, 1.1754)
    assert order.open_time == datetime(2026, 11, 24, 3, 9, 55, 877_000, UTC)
    assert order.expiry_time == order.close_time == datetime(2026, 11, 24, 3, 11, tzinfo=UTC)
    assert order.client_order_id == ""


def test_an_open_position_has_no_result() -> None:
    order = parse_position(decoded(OPEN_POSITION), ACCOUNT, "EURUSD-OTC")
    assert order.state is OrderState.OPEN
    assert (order.outcome, order.profit, order.close_time) == (None, None, None)


@pytest.mark.parametrize(
    ("reason", "pnl", "outcome"),
    [
        ("win", 0.87, Outcome.WON),
        ("loose", -1, Outcome.LOST),
        ("equal", 0, Outcome.TIED),
        ("sold", -0.4, Outcome.SOLD),
        ("default", 0.3, Outcome.SOLD),
        ("expired", 0.9, Outcome.WON),
        ("expired", -1, Outcome.LOST),
        ("expired", 0, Outcome.TIED),
        ("a word never seen", -1, Outcome.LOST),
        (None, 0.5, Outcome.WON),
    ],
)
def test_outcome_words_and_for_others_the_brokers_money(reason: str | None, pnl: float, outcome: Outcome) -> None:
    order = parse_position(decoded(POSITION | {"close_reason": reason, "pnl": pnl}), ACCOUNT, "EURUSD-OTC")
    assert (order.outcome, order.profit) == (outcome, Decimal(str(pnl)))


def test_a_digital_position_is_read_by_its_own_part() -> None:
    order = parse_position(decoded(DIGITAL_POSITION), ACCOUNT, "EURUSD-OTC")
    assert (order.instrument_type, order.direction) == (InstrumentType.DIGITAL, Direction.PUT)
    assert order.expiry_time.timestamp() * 1000 == DIGITAL["instrument_expiration"]
    assert (order.outcome, order.profit) == (Outcome.WON, Decimal("0.9"))
    still_open = DIGITAL_POSITION | {"status": "open", "expected_profit": 1.9}
    assert parse_position(decoded(still_open), ACCOUNT, "EURUSD-OTC").payout_rate == 0.9


def test_without_pnl_the_credit_less_the_stake_counts() -> None:
    position = {key: value for key, value in POSITION.items() if key != "pnl"}
    assert parse_position(decoded(position), ACCOUNT, "EURUSD-OTC").profit == Decimal("0.87")


@pytest.mark.parametrize(
    "change",
    [
        {"status": "pending"},
        {"instrument_type": "forex"},
        {"raw_event": {}},
        {"raw_event": {"binary_options_option_changed1": OPTION | {"direction": "up"}}},
        {"raw_event": {"binary_options_option_changed1": OPTION | {"expiration_time": 0}}},
        {"raw_event": {"binary_options_option_changed1": OPTION | {"profit_percent": -1}}},
        {"open_time": 10**30},
        {"close_time": -1},
        {"pnl": None, "close_profit": None},
        {"pnl": "NaN"},
        {"invest": 1e300},
    ],
)
def test_what_cannot_be_understood_is_refused_whole(change: dict[str, Any]) -> None:
    with pytest.raises(ParseError):
        parse_position(decoded(POSITION | change), ACCOUNT, "EURUSD-OTC")


@pytest.mark.parametrize(
    ("told", "meant"),
    [("9999.87", "9999.87"), ("9999.870000000001", "9999.87"), ("10000", "10000"), ("1e3", "1000"), ("-0", "0")],
)
def test_money_loses_the_noise_of_floats_and_nothing_else(told: str, meant: str) -> None:
    assert parse_money(Decimal(told)) == Decimal(meant)


@pytest.mark.parametrize("told", ["NaN", "sNaN", "Infinity", "-Infinity", "1e13", "1e400"])
def test_no_money_is_refused(told: str) -> None:
    with pytest.raises(ParseError):
        parse_money(Decimal(told))


def test_a_balance_of_the_wanted_type_and_user_is_chosen_or_none() -> None:
    practice = BalanceEntry(id=4, type=4, amount=Decimal(1), user_id=7, currency="USD")
    real = BalanceEntry(id=1, type=1, amount=Decimal(1), user_id=7, currency="USD")
    other = BalanceEntry(id=9, type=1, amount=Decimal(1), user_id=8, currency="USD")
    tournament = BalanceEntry(id=2, type=2, amount=Decimal(1), user_id=7, currency="USD")
    entries = [tournament, other, practice, real]
    assert choose_balance(entries, AccountType.REAL, 7) is real
    assert choose_balance(entries, AccountType.PRACTICE, 7) is practice
    assert choose_balance([tournament, other, practice], AccountType.REAL, 7) is None
    assert choose_balance([real], AccountType.PRACTICE, 7) is None


def candle(start: int, **changes: Any) -> CandleMessage:
    return msgspec.json.decode(json.dumps(CANDLE | {"from": start} | changes), type=CandleMessage)


def test_history_is_ascending_without_repeats_and_the_last_may_be_forming() -> None:
    start = 1_795_489_260
    listed = [candle(start + 60), candle(start, at=(start + 60) * 10**9), candle(start, at=(start + 60) * 10**9)]
    candles = parse_history(listed, 60, start + 60.2)
    assert [(c.open_time, c.closed) for c in candles] == [(start, True), (start + 60, False)]
    candles = parse_history([candle(start, at=(start + 60) * 10**9)], 60, start + 60.0)
    assert candles[0].closed, "the broker says that it was over when it answered"
    candles = parse_history([candle(start, at=(start + 50) * 10**9)], 60, start + 60.5)
    assert not candles[0].closed, "it was not over when the broker answered"


@pytest.mark.parametrize("change", [{"min": 2.0, "max": 1.0}, {"from": -1}, {"from": 10**12}])
def test_impossible_candles_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ParseError):
        parse_history([candle(1_795_489_260, **change)], 60, 1_795_489_300.0)


def test_the_engines_own_word_is_read_for_the_cross_check() -> None:
    closed = OPTION | {"balance_id": BALANCE_ID}
    message = msgspec.json.decode(json.dumps(closed), type=OptionClosed)
    assert parse_option_closed(message) == (Outcome.WON, Decimal("0.87"))


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (4117, "The option has not been purchased because of the profit rate change.", PayoutChangedError),
        (4000, "... profit rate change ...", PayoutChangedError),
        (4119, "Cannot purchase an option (active is suspended)", AssetClosedError),
        (4103, "Cannot purchase an option (the asset is not available at the moment).", AssetClosedError),
        (4999, "Cannot purchase an option (the asset is not available at the moment).", AssetClosedError),
        (4112, "Insufficient funds for this transaction.", InsufficientFundsError),
        (4001, "Insufficient funds for this transaction.", InsufficientFundsError),
        (4008, "create order: user_id: 1 not enough money", InsufficientFundsError),
        (4104, "Time for purchasing options is over, please try again later.", PurchaseWindowClosedError),
        (4120, "active_suspended: rejected by risks", OrderRejectedError),
        (5000, "invalid instrument", PurchaseWindowClosedError),
        (5000, "quotesApplication.ConsumeQuoteByTime: invalid instrument: do76A", PurchaseWindowClosedError),
        (4000, "", OrderRejectedError),
        (5000, "internal server error", None),
        (5030, "", None),
        (5003, "Service is not available", None),
        (4000, "request timeout", None),
    ],
)
def test_refusals_are_told_apart_by_status_and_text(status: int, text: str, error: type[Exception] | None) -> None:
    refused = order_refusal(status, raw({"message": text, "result": {}}), "EURUSD-OTC")
    assert type(refused) is (error or type(None))


def test_a_changed_payout_is_named_if_the_broker_names_it() -> None:
    result = {"actual_commission": {"active_id": 76, "commission": 14, "option_type": 12}}
    refused = order_refusal(4117, raw({"message": "", "result": result}), "EURUSD-OTC")
    assert isinstance(refused, PayoutChangedError)
    assert refused.payout_rate == 0.86


def test_field_faults_become_words() -> None:
    refused = order_refusal(4220, raw({"price": ["too small"], "from": "must not be in the future"}), "EURUSD-OTC")
    assert isinstance(refused, OrderRejectedError)
    assert refused.facts["message"] == "too small; must not be in the future"
