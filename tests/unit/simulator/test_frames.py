"""Frames and bodies: spelling, echoing, and what is not taken."""

from decimal import Decimal

import msgspec
import pytest

from simulator.wire import frames
from simulator.wire.bodies import BadBodyError, GetCandles, OpenOption, read_body, read_id
from simulator.wire.connection import Subscription
from simulator.wire.hub import topic_of


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536, 100_000])
def test_websocket_frame_carries_its_length(length: int) -> None:
    frame = frames.websocket_frame(b"x" * length)
    assert frame[0] == 0x81
    match frame[1]:
        case 126:
            assert (int.from_bytes(frame[2:4], "big"), len(frame)) == (length, length + 4)
        case 127:
            assert (int.from_bytes(frame[2:10], "big"), len(frame)) == (length, length + 10)
        case short:
            assert (short, len(frame)) == (length, length + 2)


@pytest.mark.parametrize(("request_id", "echo"), [('"s_212"', "s_212"), ('""', ""), ("84937", "84937"), ("null", None)])
def test_request_id_is_echoed_as_text(request_id: str, echo: str | None) -> None:
    assert frames.read_frame(f'{{"name":"x","request_id":{request_id},"msg":{{}}}}').echo == echo


def test_request_without_id_has_nothing_to_echo() -> None:
    frame = frames.read_frame('{"name":"x"}')
    assert frame.echo is None
    assert b"request_id" not in frames.reply(frame.echo, "y", {}, 2000)


def test_method_is_the_name_without_its_service_and_a_version_may_be_absent() -> None:
    message = frames.read_message(msgspec.Raw(b'{"name":"quotes-history.get-candles"}'))
    assert (message.method, message.major) == ("get-candles", 1)
    assert frames.read_message(msgspec.Raw(b'{"name":"get-candles","version":"2.0"}')).major == 2


def test_money_goes_out_as_a_number_with_its_own_digits() -> None:
    assert frames.encode({"amount": Decimal("9999.10")}) == b'{"amount":9999.10}'


def test_stake_comes_in_exactly_as_it_was_written() -> None:
    raw = b'{"user_balance_id":"14","active_id":76,"option_type_id":3,"direction":"call","price":0.1,"expired":60.0,"x":1}'
    body = read_body(msgspec.Raw(raw), OpenOption)
    assert (body.price, body.user_balance_id, body.expired) == (Decimal("0.1"), 14, Decimal(60))


@pytest.mark.parametrize(
    "raw",
    [
        "[]",
        '{"active_id":"x","size":1}',
        '{"size":1}',
        '{"active_id":-1,"size":1}',
        '{"active_id":1e400,"size":1}',
        "[" * 100_000,
    ],
)
def test_body_of_another_shape_is_refused(raw: str) -> None:
    with pytest.raises(BadBodyError):
        read_body(msgspec.Raw(raw.encode()), GetCandles)


def test_ids_may_be_text_but_not_nonsense() -> None:
    assert [read_id(v) for v in (14, "14", "x", "", None, -1, "9" * 5000, "١")] == [14, 14, *[None] * 6]


@pytest.mark.parametrize(
    ("name", "filters", "topic"),
    [
        ("candle-generated", {"active_id": "76", "size": "60"}, ("candle-generated", 76, 60)),
        ("candles-generated", {"active_id": "76"}, ("candles-generated", 76, 0)),
        ("position-changed", {"user_id": "1"}, None),
        ("candle-generated", {"active_id": "EURUSD"}, None),
    ],
)
def test_subscription_is_about_a_market_topic_or_is_not(
    name: str, filters: dict[str, str], topic: tuple[str, int, int] | None
) -> None:
    assert topic_of(Subscription(name, 1, tuple(sorted(filters.items())))) == topic


def test_subscription_filters_what_the_event_is_about() -> None:
    wanted = Subscription("position-changed", 3, (("instrument_type", "turbo-option"), ("user_id", "1")))
    assert wanted.matches({"user_id": "1", "instrument_type": "turbo-option"})
    assert not wanted.matches({"user_id": "1", "instrument_type": "blitz-option"})
