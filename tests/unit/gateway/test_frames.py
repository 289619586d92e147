import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tradebot.session.v1 import event_pb2, market_pb2, status_pb2, trade_pb2

from gateway.bridge.frames import CloseCode, ForeignEventError, Frame, FrameEncoder

SESSION = "0b0e8f0a-8a7c-4a57-9a3e-2f0f4e4f2b61"


def event(seq: int = 1, **data: Any) -> event_pb2.Event:
    message = event_pb2.Event(session_id=SESSION, seq=seq, account_type="REAL", **data)
    message.time.FromDatetime(datetime(2026, 11, 24, 5, 0, 0, 250_000, UTC))
    return message


def encode(message: event_pb2.Event) -> Frame:
    frame = FrameEncoder().encode(message, SESSION)
    assert frame is not None
    return frame


def test_frame_has_the_contracts_fields() -> None:
    frame = json.loads(encode(event(7, balance=event_pb2.Balance(balance=0, currency="USD"))).text)
    assert frame == {
        "type": "balance",
        "session_id": SESSION,
        "seq": 7,
        "time": "2026-11-24T05:00:00.250Z",
        "account_type": "REAL",
        "data": {"balance": 0, "currency": "USD"},
    }


def test_zero_and_false_are_present_and_unset_options_are_not() -> None:
    status = status_pb2.Status(limits=status_pb2.Limits(max_trades=0), open_trades=[trade_pb2.Trade()])
    data = json.loads(encode(event(snapshot=status)).text)["data"]
    assert data["running"] is False
    assert data["balance"] == 0
    assert data["limits"]["max_trades"] == 0
    assert "stop_loss" not in data["limits"]
    assert "settings" not in data
    assert data["open_trades"][0]["profit"] == 0
    assert "expiry_time" not in data["open_trades"][0]


def test_every_number_is_a_json_number() -> None:
    gap = encode(event(0, gap=event_pb2.Gap(from_seq=2**60, to_seq=2**60 + 1)))
    assert json.loads(gap.text)["data"] == {"from_seq": 2**60, "to_seq": 2**60 + 1}
    assert '"balance":1000}' in encode(event(balance=event_pb2.Balance(balance=1000))).text.replace(
        ',"currency":""', ""
    )


def test_candle_and_gap_carry_no_seq() -> None:
    candle = event_pb2.CandleUpdate(asset="EURUSD-OTC", timeframe=60, candle=market_pb2.Candle(open=1.5))
    frame = encode(event(0, candle=candle))
    assert "seq" not in json.loads(frame.text)
    assert json.loads(frame.text)["data"]["candle"]["open"] == 1.5
    assert frame.key == "EURUSD-OTC 60"
    assert "seq" not in json.loads(encode(event(0, gap=event_pb2.Gap(from_seq=1, to_seq=2))).text)


@pytest.mark.parametrize(
    ("reason", "code"), [("disconnected", CloseCode.NORMAL), ("expired", CloseCode.SESSION_EXPIRED)]
)
def test_end_of_the_session_says_how_the_socket_closes(reason: str, code: CloseCode) -> None:
    close = encode(event(session_closed=event_pb2.SessionClosed(reason=reason))).close
    assert close is not None
    assert close.code is code


def test_event_of_another_session_is_never_rendered() -> None:
    message = event(balance=event_pb2.Balance())
    with pytest.raises(ForeignEventError):
        FrameEncoder().encode(message, "another")


def test_kind_of_event_from_a_newer_service_is_left_out() -> None:
    assert FrameEncoder().encode(event(), SESSION) is None
