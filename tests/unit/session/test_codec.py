"""What leaves the service: messages, stored events, exports and tokens."""

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import get_args

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tradebot.session.v1 import event_pb2

from services.session import codec, jwks
from services.session.adapters.tokens import AUDIENCE, ISSUER, JwtTokens, SigningKey
from services.session.domain.bot import BotSettings, Usage
from services.session.domain.events import (
    BalanceChanged,
    BrokerConnectionChanged,
    Event,
    FaultHappened,
    LimitWasReached,
    LogWritten,
    SessionEnded,
    SessionStatus,
    SessionWillExpire,
    SignalMade,
    StatusUpdate,
    Totals,
    TradeClosed,
    TradeOpened,
    TradeRejected,
    TradeUnknown,
)
from services.session.domain.trade import Trade, TradeState
from services.session.domain.values import (
    AccountType,
    BotStatus,
    Broker,
    BrokerConnection,
    CloseReason,
    Direction,
    InstrumentType,
    TradeId,
    TradeSource,
    session_key,
)
from services.session.use_cases.export import trades_to_csv
from tests.support.clocks import ManualClock
from tests.support.fakes import a_candle

NOW = datetime(2026, 11, 24, 5, tzinfo=UTC)
TRADE = Trade(
    trade_id=TradeId("6f1c1a4e-0000-4000-8000-000000000000"),
    session_key=session_key("x"),
    state=TradeState.OPEN,
    source=TradeSource.MANUAL,
    client_request_id="click",
    broker=Broker.IQ,
    account_type=AccountType.REAL,
    balance_id=7,
    asset="EURUSD-OTC",
    instrument_type=InstrumentType.TURBO,
    direction=Direction.CALL,
    amount=Decimal("10.29"),
    currency="USD",
    duration=timedelta(minutes=1),
    create_time=NOW,
)
STATUS = SessionStatus(
    broker=Broker.IQ,
    account_type=AccountType.REAL,
    bot_status=BotStatus.PAUSED,
    balance=Decimal(0),
    currency="USD",
    asset="EURUSD-OTC",
    timeframe=60,
    settings=BotSettings(max_trades=3, stop_loss=Decimal("20.00")),
    usage=Usage(run_trades=2),
    totals=Totals(
        wins=3, losses=1, ties=1, total_trades=5, profit=Decimal("16.1"), staked=Decimal(50), payout_sum=3.48
    ),
    broker_connection=BrokerConnection.RECONNECTING,
    last_seen=NOW,
    seq=17,
    open_trades=(TRADE,),
    active_trades=1,
)
EVENTS: list[Event] = [
    StatusUpdate(STATUS),
    BalanceChanged(Decimal("9.99"), "USD"),
    SignalMade("CALL", 0.6, "edge", "1", "EURUSD-OTC", 60, 0.6, 0.53, 0.12, "", NOW),
    TradeOpened(TRADE),
    TradeClosed(replace(TRADE, state=TradeState.LOST, profit=Decimal("-10.29"))),
    TradeRejected(TRADE),
    TradeUnknown(TRADE),
    LogWritten("warning", "words"),
    FaultHappened("CODE", "words"),
    BrokerConnectionChanged(BrokerConnection.REFUSED),
    LimitWasReached("max_trades", 3, 3, "words"),
    SessionWillExpire(300),
    SessionEnded(CloseReason.EXPIRED),
]


def test_every_kind_of_event_is_covered_here() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_is_stored_under_its_contracts_name_without_the_secret_id(event: Event) -> None:
    message = event_pb2.Event.FromString(codec.encode_event(event, 5, NOW, AccountType.REAL))
    assert (message.WhichOneof("data"), message.seq, message.account_type) == (event.type, 5, "REAL")
    assert (message.session_id, message.time.ToDatetime(UTC)) == ("", NOW)


def test_a_stored_event_gets_its_sessions_id_on_the_stream() -> None:
    payload = codec.encode_event(StatusUpdate(STATUS), 5, NOW, AccountType.REAL)
    event = codec.stored_event(payload, session_id="secret-id", expires_in=3600).event
    assert (event.session_id, event.status_update.session_id, event.status_update.expires_in) == (
        "secret-id",
        "secret-id",
        3600,
    )


def test_a_status_says_what_the_session_is() -> None:
    status = codec.status_to_proto(STATUS, session_id="secret-id", expires_in=12)
    assert (status.success, status.connected, status.running, status.status) == (True, False, False, "paused")
    assert (status.balance, status.win_rate, status.total_trades, status.active_trades) == (0, 0.75, 5, 1)
    assert (status.limits.max_trades, status.limits.trades, status.limits.HasField("take_profit")) == (3, 2, False)
    assert [trade.status for trade in status.open_trades] == ["open"]
    assert status.seq == 17


def test_statistics_are_those_of_the_payouts_really_offered() -> None:
    statistics = codec.status_to_proto(STATUS).statistics
    assert statistics.hit_rate == 0.75
    assert statistics.break_even == pytest.approx(1 / 1.87)
    assert statistics.hit_rate_low < 0.75 < statistics.hit_rate_high
    assert "too few to say" in statistics.verdict


def test_blitz_settings_are_told_in_seconds_and_others_in_minutes() -> None:
    blitz = codec.settings_to_proto(BotSettings(duration=timedelta(seconds=5), instrument_type=InstrumentType.BLITZ))
    turbo = codec.settings_to_proto(BotSettings())
    assert (blitz.duration_seconds, blitz.HasField("duration")) == (5, False)
    assert (turbo.duration, turbo.HasField("duration_seconds")) == (1, False)


@pytest.mark.parametrize("state", list(TradeState))
def test_a_trade_is_told_in_the_contracts_words(state: TradeState) -> None:
    trade = codec.trade_to_proto(replace(TRADE, state=state))
    assert trade.status in {
        "pending", "open", "won", "lost", "tied", "sold", "rejected", "unknown", "not_placed",
    }  # fmt: skip
    assert (trade.success, trade.amount, trade.account_type, trade.HasField("open_time")) == (
        True,
        10.29,
        "REAL",
        False,
    )


def test_a_candle_frame_has_no_seq() -> None:
    payload = codec.encode_candle("EURUSD-OTC", 60, a_candle(NOW), closed=True, time=NOW, account_type=AccountType.REAL)
    event = event_pb2.Event.FromString(payload)
    assert (event.seq, event.candle.closed, event.candle.timeframe) == (0, True, 60)
    assert event.candle.candle.close_time.ToDatetime(UTC) == NOW


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_an_export_is_a_formula(start: str) -> None:
    evil = replace(TRADE, client_request_id=f'{start}HYPERLINK("http://evil","x")')
    (row,) = csv.DictReader(io.StringIO(trades_to_csv([evil]).decode()))
    assert row["client_request_id"] == f"'{evil.client_request_id}"


def test_an_export_keeps_exact_money_and_quotes_what_needs_it() -> None:
    trade = replace(TRADE, client_request_id='a,"b"\nc', profit=Decimal("-10.29"))
    (row,) = csv.DictReader(io.StringIO(trades_to_csv([trade]).decode(), newline=""))
    assert (row["amount"], row["profit"], row["client_request_id"]) == ("10.29", "-10.29", 'a,"b"\nc')
    assert (row["create_time"], row["open_time"]) == ("2026-11-24T05:00:00Z", "")


def test_a_token_is_checked_by_the_published_key_set() -> None:
    key = SigningKey(Ed25519PrivateKey.generate())
    clock = ManualClock(datetime.now(UTC))
    token = JwtTokens(key, clock).issue("secret-id", "user", timedelta(hours=1)).reveal()
    (public,) = key.jwks()["keys"]
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, jwt.PyJWK(public), algorithms=["EdDSA"], audience=AUDIENCE, issuer=ISSUER)
    assert (header["alg"], header["kid"]) == ("EdDSA", public["kid"])
    assert (claims["sub"], claims["sid"], claims["exp"] - claims["iat"]) == ("user", "secret-id", 3600)
    assert "d" not in public
    other = SigningKey(Ed25519PrivateKey.generate())
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, jwt.PyJWK(other.jwks()["keys"][0]), algorithms=["EdDSA"], audience=AUDIENCE)


def test_the_key_set_is_printed_from_the_private_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    pem = tmp_path / "jwt.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setattr("sys.argv", ["jwks", str(pem)])
    jwks.main()
    assert json.loads(capsys.readouterr().out) == SigningKey(key).jwks()
