"""The conversation's rules, without a socket."""

import json
from typing import Any

import pytest

from services.broker.connectors.quadcode.protocol import (
    Acknowledged,
    Answer,
    Authenticated,
    Call,
    HeartbeatDue,
    Ignored,
    Protocol,
    Push,
    Rejected,
    Subscription,
    Tick,
)

CANDLES = Subscription("candle-generated", "1.0", (("active_id", 76), ("size", 60)))
CALL = Call("get-balances", "1.0", {"types_ids": [1, 4]})


def frame(name: str, msg: Any = None, **fields: Any) -> bytes:
    return json.dumps({"name": name, "msg": msg, **fields}).encode()


def opened() -> Protocol:
    protocol = Protocol()
    opening = json.loads(protocol.opening("token"))
    protocol.receive(frame("authenticated", True, request_id=opening["request_id"]), 0.0)
    return protocol


def test_opening_carries_the_token_and_protocol_three() -> None:
    protocol = Protocol()
    opening = json.loads(protocol.opening("the-token"))
    assert opening["name"] == "authenticate"
    assert opening["msg"] == {"ssid": "the-token", "protocol": 3, "session_id": "", "client_session_id": ""}
    assert not protocol.is_open


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("echoes", [True, False])
def test_the_answer_to_the_opening_counts_with_and_without_its_id(accepted: bool, echoes: bool) -> None:
    protocol = Protocol()
    opening = json.loads(protocol.opening("token"))
    echoed = {"request_id": opening["request_id"]} if echoes else {}
    assert protocol.receive(frame("authenticated", accepted, **echoed), 0.0) == Authenticated(accepted)
    assert protocol.is_open is accepted


def test_request_ids_are_strings_that_only_rise_also_over_reconnects() -> None:
    protocol = opened()
    first, _ = protocol.request(CALL)
    protocol.opening("token")
    second, text = protocol.request(CALL)
    assert int(second) > int(first)
    assert json.loads(text)["request_id"] == second


def test_an_acknowledgement_is_not_the_answer() -> None:
    protocol = opened()
    request_id, _ = protocol.request(CALL)
    assert protocol.receive(frame("result", {"success": True}, request_id=request_id), 0.0) is Ignored.EXPECTED
    answer = protocol.receive(frame("balances", [], request_id=request_id, status=2000), 0.0)
    assert isinstance(answer, Answer)
    assert (answer.request_id, answer.name, answer.refused, bytes(answer.msg)) == (request_id, "balances", False, b"[]")


def test_an_answer_before_its_acknowledgement_counts() -> None:
    protocol = opened()
    request_id, _ = protocol.request(CALL)
    assert isinstance(protocol.receive(frame("balances", [], request_id=request_id), 0.0), Answer)
    assert protocol.receive(frame("result", {"success": True}, request_id=request_id), 0.0) is Ignored.ORPHAN


def test_numbers_as_request_ids_are_understood() -> None:
    protocol = opened()
    request_id, _ = protocol.request(CALL)
    assert isinstance(protocol.receive(frame("balances", [], request_id=int(request_id)), 0.0), Answer)


def test_a_refused_acknowledgement_rejects_the_request() -> None:
    protocol = opened()
    request_id, _ = protocol.request(CALL)
    refusal = frame("result", {"success": False, "reason": "no such method"}, request_id=request_id)
    assert protocol.receive(refusal, 0.0) == Rejected(request_id, "no such method")
    assert protocol.receive(frame("balances", [], request_id=request_id), 0.0) is Ignored.ORPHAN


@pytest.mark.parametrize(("status", "refused"), [(0, False), (2000, False), (3999, False), (4000, True), (5000, True)])
def test_a_status_of_4000_or_more_is_a_refusal(status: int, refused: bool) -> None:
    protocol = opened()
    request_id, _ = protocol.request(CALL)
    answer = protocol.receive(frame("x", {}, request_id=request_id, status=status), 0.0)
    assert isinstance(answer, Answer)
    assert answer.refused is refused


def test_answers_are_matched_by_id_whatever_their_order() -> None:
    protocol = opened()
    ids = [protocol.request(CALL)[0] for _ in range(3)]
    for request_id in reversed(ids):
        answer = protocol.receive(frame("balances", [], request_id=request_id), 0.0)
        assert isinstance(answer, Answer)
        assert answer.request_id == request_id


@pytest.mark.parametrize("wait_over", ["forgotten", "answered", "lost"])
def test_what_nobody_waits_for_is_an_orphan(wait_over: str) -> None:
    protocol = opened()
    request_id, _ = protocol.request(CALL)
    if wait_over == "forgotten":
        protocol.forget(request_id)
    elif wait_over == "answered":
        protocol.receive(frame("balances", [], request_id=request_id), 0.0)
    else:
        assert protocol.reset() == [request_id]
    assert protocol.receive(frame("balances", [], request_id=request_id), 0.0) is Ignored.ORPHAN


def test_pushes_come_through_unread() -> None:
    push = opened().receive(b'{"name":"candle-generated","microserviceName":"quotes","msg":{"any":[1,2]}}', 0.0)
    assert isinstance(push, Push)
    assert (push.name, bytes(push.msg)) == ("candle-generated", b'{"any":[1,2]}')


def test_subscribing_twice_asks_once_and_is_acknowledged() -> None:
    protocol = opened()
    request = protocol.subscribe(CANDLES)
    assert request is not None
    assert json.loads(request[1])["msg"] == {
        "name": "candle-generated",
        "version": "1.0",
        "params": {"routingFilters": {"active_id": 76, "size": 60}},
    }
    assert protocol.subscribe(CANDLES) is None
    acknowledged = protocol.receive(frame("result", {"success": True}, request_id=request[0]), 0.0)
    assert acknowledged == Acknowledged(request[0])


def test_subscriptions_are_replayed_until_they_are_ended() -> None:
    protocol = opened()
    other = Subscription("balances.balance-changed", "1.0", ())
    protocol.subscribe(CANDLES)
    protocol.subscribe(other)
    protocol.opening("token")
    names = [json.loads(text)["msg"]["name"] for _, text in protocol.resubscribe()]
    assert names == [CANDLES.name, other.name]
    ended = protocol.unsubscribe(CANDLES)
    assert ended is not None
    assert json.loads(ended[1])["name"] == "unsubscribeMessage"
    assert protocol.unsubscribe(CANDLES) is None
    assert [json.loads(text)["msg"]["name"] for _, text in protocol.resubscribe()] == [other.name]


def test_the_clock_takes_the_earliest_arrival_and_ignores_jitter() -> None:
    protocol = opened()
    assert protocol.clock_offset is None
    for late in (0.05, 0.30, 0.10):
        assert isinstance(protocol.receive(frame("timeSync", 1_000_000.0 * 1000), 1_000_000.0 - 5 + late), Tick)
    assert protocol.clock_offset == pytest.approx(5 - 0.05, abs=0.01)


def test_the_clock_follows_a_jump_at_once_and_a_drift_in_time() -> None:
    protocol = opened()
    protocol.receive(frame("timeSync", 1_000_000_000), 1_000_000.0)
    protocol.receive(frame("timeSync", 1_000_060_000), 1_000_000.0)
    assert protocol.clock_offset == pytest.approx(60)
    for _ in range(600):
        protocol.receive(frame("timeSync", 1_000_059_500), 1_000_000.0)
    assert protocol.clock_offset == pytest.approx(59.5, abs=0.01)


def test_a_clock_that_is_no_clock_is_malformed() -> None:
    protocol = opened()
    nonsense: list[Any] = ["soon", None, -1, 0, 1e300, []]
    for msg in nonsense:
        assert protocol.receive(frame("timeSync", msg), 1_795_489_222.0) is Ignored.MALFORMED
    assert protocol.clock_offset is None


def test_a_heartbeat_is_answered_with_both_times() -> None:
    event = opened().receive(frame("heartbeat", 1_795_489_222_841), 1_795_489_223.5)
    assert isinstance(event, HeartbeatDue)
    assert json.loads(event.frame)["msg"] == {"heartbeatTime": 1_795_489_222_841, "userTime": 1_795_489_223_500}


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"name":1}', b"\xff\xfe", b"[" * 10_000, b'{"name":"result"}']
)
def test_noise_is_malformed_and_changes_nothing(data: bytes) -> None:
    protocol = opened()
    request_id, _ = protocol.request(CALL)
    assert protocol.receive(data, 0.0) in (Ignored.MALFORMED, Ignored.ORPHAN)
    assert isinstance(protocol.receive(frame("balances", [], request_id=request_id), 0.0), Answer)


def test_the_redirect_that_is_none_is_ignored() -> None:
    assert opened().receive(frame("front", "ws04.example"), 0.0) is Ignored.EXPECTED
