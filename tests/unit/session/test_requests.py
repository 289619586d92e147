"""What callers may send: every field's presence and range, named in the refusal, never echoed."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from tradebot.session.v1 import session_service_pb2 as pb

from services.session import requests
from services.session.domain.bot import BotSettings
from services.session.domain.errors import InvalidArgumentError, TradeNotFoundError
from services.session.domain.values import AccountType, Broker, InstrumentType, session_key

SID = "0a4c7e0e-7d53-4b61-9a52-8a9b0c1d2e3f"
KEY = session_key(SID)
CONNECT: dict[str, Any] = {"broker": "iq", "email": "ann@example.com", "password": "secret"}
TRADE: dict[str, Any] = {"session_id": SID, "direction": "call", "amount": 10}


def _connect(**changes: Any) -> Any:
    return requests.connect(pb.ConnectRequest(**{**CONNECT, **changes}), {})


def _trade(**changes: Any) -> Any:
    return requests.trade(pb.PlaceTradeRequest(**{**TRADE, **changes}), KEY)


def _bot(**changes: Any) -> BotSettings:
    return requests.bot_settings(pb.StartBotRequest(session_id=SID, **changes))


@pytest.mark.parametrize(
    ("read", "changes", "field"),
    [
        (_connect, {"broker": None}, "broker"),
        (_connect, {"broker": "IQ"}, "broker"),
        (_connect, {"account_type": "real"}, "account_type"),
        (_connect, {"account_type": ""}, "account_type"),
        (_connect, {"email": None}, "email"),
        (_connect, {"email": ""}, "email"),
        (_connect, {"email": "a" * 255}, "email"),
        (_connect, {"email": "ann\n@example.com"}, "email"),
        (_connect, {"password": None}, "password"),
        (_connect, {"password": "x" * 257}, "password"),
        (_connect, {"two_factor": pb.TwoFactor(method="sms", code="1")}, "two_factor.challenge"),
        (_connect, {"two_factor": pb.TwoFactor(challenge="c", code="1")}, "two_factor.method"),
        (_trade, {"amount": None}, "amount"),
        (_trade, {"amount": 0}, "amount"),
        (_trade, {"amount": -1}, "amount"),
        (_trade, {"amount": 0.001}, "amount"),
        (_trade, {"amount": 1.005}, "amount"),
        (_trade, {"amount": 1e300}, "amount"),
        (_trade, {"amount": float("nan")}, "amount"),
        (_trade, {"amount": float("inf")}, "amount"),
        (_trade, {"direction": None}, "direction"),
        (_trade, {"direction": "CALL"}, "direction"),
        (_trade, {"direction": "up"}, "direction"),
        (_trade, {"instrument_type": "cfd"}, "instrument_type"),
        (_trade, {"asset": ""}, "asset"),
        (_trade, {"asset": "A" * 65}, "asset"),
        (_trade, {"client_request_id": ""}, "client_request_id"),
        (_trade, {"client_request_id": "x" * 65}, "client_request_id"),
        (_trade, {"client_request_id": "a\x00b"}, "client_request_id"),
        (_trade, {"duration": 0}, "duration"),
        (_trade, {"duration": -1}, "duration"),
        (_trade, {"duration": 1441}, "duration"),
        (_trade, {"duration": 1, "duration_seconds": 60}, "duration_seconds"),
        (_trade, {"duration_seconds": 4}, "duration_seconds"),
        (_trade, {"duration_seconds": 301}, "duration_seconds"),
        (_trade, {"duration_seconds": 90, "instrument_type": "turbo"}, "duration_seconds"),
        (_trade, {"duration": 6, "instrument_type": "turbo"}, "duration"),
        (_trade, {"duration": 6, "instrument_type": "blitz"}, "duration"),
        (_trade, {"duration": 2, "instrument_type": "digital"}, "duration"),
        (_bot, {"timeframe": 7}, "timeframe"),
        (_bot, {"timeframe": 0}, "timeframe"),
        (_bot, {"amount": 0}, "amount"),
        (_bot, {"max_trades": 0}, "max_trades"),
        (_bot, {"max_trades": -5}, "max_trades"),
        (_bot, {"stop_loss": 0}, "stop_loss"),
        (_bot, {"stop_loss": -20}, "stop_loss"),
        (_bot, {"take_profit": float("nan")}, "take_profit"),
        (_bot, {"daily_loss_limit": float("-inf")}, "daily_loss_limit"),
        (_bot, {"max_consecutive_losses": 0}, "max_consecutive_losses"),
        (_bot, {"min_payout": -0.1}, "min_payout"),
        (_bot, {"min_payout": 87}, "min_payout"),
        (_bot, {"min_payout": float("nan")}, "min_payout"),
        (_bot, {"duration_seconds": 4}, "duration_seconds"),
        (_bot, {"model": "m" * 65}, "model"),
    ],
)
def test_a_bad_field_is_refused_by_name(read: Callable[..., Any], changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        read(**changes)
    assert error.value.facts == {"field": field}


def test_a_refusal_never_repeats_what_was_sent() -> None:
    canary = "c4nary-value"
    for read, changes in (
        (_connect, {"broker": canary}),
        (_connect, {"email": canary * 30}),
        (_trade, {"direction": canary}),
        (_trade, {"asset": canary + "\n"}),
        (_bot, {"model": canary * 10}),
    ):
        with pytest.raises(InvalidArgumentError) as error:
            read(**changes)
        assert canary not in f"{error.value.message} {error.value.facts} {error.value!r}"


@pytest.mark.parametrize("amount", [0.01, 0.07, 1, 1.1, 10.29, 19_999.99, 0.3])
def test_an_amount_is_exactly_what_was_written(amount: float) -> None:
    assert _trade(amount=amount).amount == Decimal(str(amount))


def test_the_default_account_is_practice() -> None:
    assert _connect().account_type is AccountType.PRACTICE
    assert _connect(account_type="REAL").account_type is AccountType.REAL
    assert _connect(broker="exnova").broker is Broker.EXNOVA


def test_an_absent_or_empty_session_id_asks_for_a_new_session() -> None:
    assert _connect().session_id is None
    assert _connect(session_id="").session_id is None
    assert _connect(session_id=SID).session_id.reveal() == SID


@pytest.mark.parametrize(
    ("changes", "duration", "kind"),
    [
        ({}, timedelta(minutes=1), InstrumentType.TURBO),
        ({"duration": 5}, timedelta(minutes=5), InstrumentType.TURBO),
        ({"duration": 15}, timedelta(minutes=15), InstrumentType.BINARY),
        ({"duration_seconds": 5}, timedelta(seconds=5), InstrumentType.BLITZ),
        ({"duration_seconds": 60, "instrument_type": "turbo"}, timedelta(minutes=1), InstrumentType.TURBO),
        ({"duration": 5, "instrument_type": "digital"}, timedelta(minutes=5), InstrumentType.DIGITAL),
        ({"duration": 1, "instrument_type": "blitz"}, timedelta(minutes=1), InstrumentType.BLITZ),
    ],
)
def test_how_long_an_option_lives_says_what_kind_it_is(
    changes: dict[str, Any], duration: timedelta, kind: InstrumentType
) -> None:
    request = _trade(**changes)
    assert (request.duration, request.instrument_type) == (duration, kind)


def test_a_bot_without_settings_gets_the_contracts_defaults() -> None:
    settings = _bot()
    assert settings == BotSettings(
        asset="EURUSD-OTC",
        timeframe=60,
        amount=Decimal(1),
        duration=timedelta(minutes=1),
        instrument_type=InstrumentType.TURBO,
    )
    assert (settings.max_trades, settings.stop_loss, settings.min_payout) == (None, None, None)


def test_a_session_id_other_than_the_one_the_gateway_saw_is_refused() -> None:
    request = pb.GetStatusRequest(session_id=SID)
    assert requests.key_of(request, {"x-session-id": SID}) == KEY
    assert requests.key_of(request, {}) == KEY
    with pytest.raises(InvalidArgumentError):
        requests.key_of(request, {"x-session-id": "another"})
    with pytest.raises(InvalidArgumentError):
        requests.connect(pb.ConnectRequest(**CONNECT, session_id=SID), {"x-session-id": "another"})


@pytest.mark.parametrize("request_", [pb.GetStatusRequest(), pb.GetStatusRequest(session_id="")])
def test_a_session_id_is_required(request_: Any) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        requests.key_of(request_, {})
    assert error.value.facts == {"field": "session_id"}


def test_lists_are_bounded() -> None:
    assert requests.trades_limit(pb.ListTradesRequest()) == 50
    assert requests.trades_limit(pb.ListTradesRequest(limit=9999)) == 500
    assert requests.candle_count(pb.ListCandlesRequest()) == 100
    for bad in (pb.ListCandlesRequest(count=0), pb.ListCandlesRequest(count=1001), pb.ListCandlesRequest(count=-1)):
        with pytest.raises(InvalidArgumentError):
            requests.candle_count(bad)
    for limit in (0, -1):
        with pytest.raises(InvalidArgumentError):
            requests.trades_limit(pb.ListTradesRequest(limit=limit))
    with pytest.raises(InvalidArgumentError):
        requests.trades_status(pb.ListTradesRequest(status="intent"))


def test_what_is_no_uuid_is_nobodys_trade() -> None:
    with pytest.raises(TradeNotFoundError):
        requests.trade_id("../../etc/passwd")


def test_an_export_is_csv() -> None:
    requests.export_format(pb.ExportTradesRequest())
    requests.export_format(pb.ExportTradesRequest(format="csv"))
    with pytest.raises(InvalidArgumentError):
        requests.export_format(pb.ExportTradesRequest(format="xlsx"))
