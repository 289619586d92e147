from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from local.client import Feed, Gateway, UserSession
from local.witness import LedgerOrder, Story, judge

WON = LedgerOrder(
    email="trader-a@example.com",
    broker="exnova",
    account_type="PRACTICE",
    order_id="15000000001",
    asset="EURUSD-OTC",
    direction="call",
    amount=Decimal(5),
    status="closed",
    outcome="won",
    credit=Decimal("9.35"),
)


def a_trade(**changes: Any) -> dict[str, Any]:
    return {
        "trade_id": "t-1",
        "broker_order_id": "15000000001",
        "broker": "exnova",
        "account_type": "PRACTICE",
        "asset": "EURUSD-OTC",
        "direction": "call",
        "amount": 5,
        "status": "won",
        "profit": 4.35,
        "source": "manual",
    } | changes


def a_story(*trades: dict[str, Any], end: str = "10004.35") -> Story:
    return Story("trader-a@example.com", "exnova", "PRACTICE", Decimal(10_000), Decimal(end), trades)


def test_a_true_story_has_no_faults() -> None:
    refused = a_trade(trade_id="t-2", broker_order_id="", status="rejected", profit=0)
    orders = [WON, replace(WON, order_id="", status="refused", outcome=None, credit=Decimal(0))]
    assert judge(a_story(a_trade(), refused), orders, Decimal("10004.35")) == []


@pytest.mark.parametrize(
    ("orders", "trades", "words"),
    [
        ([replace(WON, account_type="REAL")], [a_trade()], "is on exnova REAL"),
        ([replace(WON, broker="iq")], [a_trade()], "is on iq PRACTICE"),
        (
            [WON, replace(WON, order_id="15000000002")],
            [a_trade()],
            "order 15000000002 at the broker belongs to no trade",
        ),
        ([WON], [a_trade(), a_trade(trade_id="t-2")], "order 15000000001 belongs to 2 trades"),
        ([], [a_trade()], "which the broker never booked"),
        ([replace(WON, outcome="lost", credit=Decimal(0))], [a_trade()], "outcome won, but the broker booked lost"),
        ([replace(WON, credit=Decimal("9.36"))], [a_trade()], "profit 4.35, but the broker booked 4.36"),
        ([replace(WON, direction="put")], [a_trade()], "direction call, but the broker booked put"),
        ([WON], [a_trade(), a_trade(trade_id="t-2", broker_order_id="", status="unknown")], "t-2 is still unknown"),
    ],
)
def test_every_difference_is_told(orders: list[LedgerOrder], trades: list[dict[str, Any]], words: str) -> None:
    assert any(words in fault for fault in judge(a_story(*trades), orders, Decimal("10004.35")))


@pytest.mark.parametrize(("end", "broker"), [("10004.34", "10004.35"), ("10004.35", "10004.34"), ("10000", "10000")])
def test_a_balance_that_differs_by_a_cent_is_told(end: str, broker: str) -> None:
    (fault,) = judge(a_story(a_trade(), end=end), [WON], Decimal(broker))
    assert "balance" in fault


@pytest.fixture
async def feed() -> Any:
    async with Gateway("http://localhost:1") as gateway:
        yield Feed(UserSession(gateway, "s-1", "trader-a@example.com", "exnova", "PRACTICE", {}))


def frame(kind: str, seq: int | None = None, **changes: Any) -> dict[str, Any]:
    numbered = {} if seq is None else {"seq": seq}
    return {"type": kind, "session_id": "s-1", "account_type": "PRACTICE", "data": {}, **numbered} | changes


async def test_a_whole_stream_has_no_faults(feed: Feed) -> None:
    for taken in (frame("snapshot", 7), frame("trade_opened", 8), frame("candle"), frame("signal", 9)):
        feed.take(taken)
    feed.take({"type": "heartbeat", "seq": 9})
    assert feed.faults == []
    assert feed.last_seq == 9
    assert [event["seq"] for event in feed.events] == [8, 9]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (frame("signal", 9), "seq 9 after 7"),
        (frame("signal", 7), "seq 7 after 7"),
        (frame("gap", data={"from_seq": 8, "to_seq": 9}), "gap"),
        (frame("snapshot", 9), "snapshot at 9 after 7"),
        (frame("signal", 8, session_id="s-2"), "another session's id"),
        (frame("candle", session_id="s-2"), "another session's id"),
        (frame("signal", 8, account_type="REAL"), "another account type"),
    ],
)
async def test_a_stream_that_is_not_ours_or_not_whole_is_told(feed: Feed, wrong: dict[str, Any], words: str) -> None:
    feed.take(frame("snapshot", 7))
    feed.take(wrong)
    assert [words in fault for fault in feed.faults] == [True]
