"""One send per trade, one trade per key, one order per trade, one winner per race."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.session.adapters.ledger import sql
from services.session.adapters.ledger.database import PostgresDatabase
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.domain.bot import BotSettings, ServiceLimits
from services.session.domain.errors import (
    ContradictionError,
    InvalidArgumentError,
    LimitReachedError,
    RequestIdReusedError,
    SessionNotFoundError,
    StaleEpochError,
    TradeNotFoundError,
    TradeUnresolvedError,
)
from services.session.domain.trade import Trade, TradeState
from services.session.domain.values import BotStatus, CloseReason, Direction
from tests.support.ledgers import (
    LIMITS,
    Published,
    a_bot_request,
    a_request,
    a_sending_trade,
    a_session,
    a_trade_id,
    an_account,
    an_order,
    decode,
    ended,
)

SOON = timedelta(seconds=3)


def later() -> datetime:
    return datetime.now(UTC) + SOON


async def test_a_trade_goes_from_intent_to_its_result_with_an_event_for_each_visible_move(
    ledger: PostgresLedger, published: Published
) -> None:
    key = await a_session(ledger)
    trade, new = await ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None)
    assert (new, trade.state, trade.send_time) == (True, TradeState.INTENT, None)
    sending = await ledger.begin_send(trade.trade_id, later(), epoch=None)
    assert sending.state is TradeState.SENDING
    order = an_order(sending)
    booked = await ledger.opened(trade.trade_id, order, epoch=None)
    assert (booked.state, booked.broker_order_id) == (TradeState.OPEN, order.broker_order_id)
    record = await ledger.begin_epoch(key)
    assert record is not None
    won = await ledger.settled(key, ended(order, TradeState.WON), epoch=record.epoch)
    assert won is not None
    assert (won.state, won.profit) == (TradeState.WON, Decimal("8.70"))
    assert await ledger.trade(key, trade.trade_id) == won
    assert [(event.seq, event.type) for event in published.of(key)] == [(1, "trade_opened"), (2, "trade_closed")]
    assert list(await ledger.events_after(key, 0, 100)) == published.of(key)


async def test_of_50_parallel_trades_at_the_limit_minus_one_exactly_one_is_accepted(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    limits = ServiceLimits(max_open_trades=3)
    for _ in range(2):
        await ledger.reserve(a_request(key), a_trade_id(), limits, epoch=None)
    answers = await asyncio.gather(
        *(ledger.reserve(a_request(key), a_trade_id(), limits, epoch=None) for _ in range(50)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, LimitReachedError)]
    assert len(refused) == 49
    assert {error.facts["limit"] for error in refused} == {"max_open_trades"}
    assert sum(isinstance(answer, tuple) and answer[1] for answer in answers) == 1


async def test_the_daily_loss_limit_counts_what_is_at_risk(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    await ledger.start_bot(key, BotSettings(daily_loss_limit=Decimal(25)), "run")
    answers = await asyncio.gather(
        *(ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None) for _ in range(10)), return_exceptions=True
    )
    assert sum(isinstance(answer, LimitReachedError) for answer in answers) == 8


async def test_an_unknown_trade_counts_as_exposure(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    trade = await a_sending_trade(ledger, key)
    await ledger.lost_answer(trade.trade_id, epoch=None)
    status = await ledger.status(key)
    assert status is not None
    assert (status.usage.exposure, status.usage.open_trades) == (Decimal("10.00"), 1)
    with pytest.raises(LimitReachedError):
        await ledger.reserve(a_request(key), a_trade_id(), ServiceLimits(max_open_trades=1), epoch=None)


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "0", "-1", "1.005"])
async def test_what_is_no_amount_of_money_is_refused_before_any_limit(ledger: PostgresLedger, amount: str) -> None:
    key = await a_session(ledger)
    with pytest.raises(InvalidArgumentError):
        await ledger.reserve(a_request(key, amount=Decimal(amount)), a_trade_id(), LIMITS, epoch=None)


async def test_the_same_request_id_at_once_makes_one_trade(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    request = a_request(key, idempotency_key="r-1")
    answers = await asyncio.gather(
        *(ledger.reserve(request, a_trade_id(), ServiceLimits(max_open_trades=1), epoch=None) for _ in range(20))
    )
    assert len({trade.trade_id for trade, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1
    assert answers[0][0].client_request_id == "r-1"


@pytest.mark.parametrize(
    "changes",
    [{"amount": Decimal(11)}, {"direction": Direction.PUT}, {"duration": timedelta(minutes=2)}, {"min_payout": 0.8}],
)
async def test_the_same_request_id_with_another_trade_is_refused(
    ledger: PostgresLedger, changes: dict[str, object]
) -> None:
    key = await a_session(ledger)
    await ledger.reserve(a_request(key, idempotency_key="r-1"), a_trade_id(), LIMITS, epoch=None)
    with pytest.raises(RequestIdReusedError):
        await ledger.reserve(a_request(key, idempotency_key="r-1", **changes), a_trade_id(), LIMITS, epoch=None)


async def test_request_ids_of_two_sessions_have_nothing_to_do_with_each_other(ledger: PostgresLedger) -> None:
    account = an_account()
    one, other = await a_session(ledger, account), await a_session(ledger, account)
    first, _ = await ledger.reserve(a_request(one, idempotency_key="r-1"), a_trade_id(), LIMITS, epoch=None)
    second, new = await ledger.reserve(a_request(other, idempotency_key="r-1"), a_trade_id(), LIMITS, epoch=None)
    assert new
    assert first.trade_id != second.trade_id


async def test_a_bot_that_decides_anew_on_the_same_candle_gets_its_first_trade(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    await ledger.start_bot(key, BotSettings(), "run")
    first, _ = await ledger.reserve(a_bot_request(key, "run"), a_trade_id(), LIMITS, epoch=None)
    again, new = await ledger.reserve(
        a_bot_request(key, "run", direction=Direction.PUT), a_trade_id(), LIMITS, epoch=None
    )
    assert (again, new) == (first, False)
    assert first.client_request_id == ""


async def test_only_one_of_many_may_send(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    trade, _ = await ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None)
    answers = await asyncio.gather(
        *(ledger.begin_send(trade.trade_id, later(), epoch=None) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, Trade) for answer in answers) == 1
    assert sum(isinstance(answer, StaleEpochError) for answer in answers) == 19


@pytest.mark.parametrize("unknown", [False, True])
async def test_an_equal_order_of_the_same_balance_waits_for_the_unresolved_one(
    ledger: PostgresLedger, unknown: bool
) -> None:
    account = an_account()
    one, other = await a_session(ledger, account), await a_session(ledger, account)
    first = await a_sending_trade(ledger, one)
    if unknown:
        await ledger.lost_answer(first.trade_id, epoch=None)
    second, _ = await ledger.reserve(a_request(other), a_trade_id(), LIMITS, epoch=None)
    with pytest.raises(TradeUnresolvedError) as refused:
        await ledger.begin_send(second.trade_id, later(), epoch=None)
    assert refused.value.facts == {"trade_id": first.trade_id}
    stays = await ledger.trade(other, second.trade_id)
    assert stays is not None
    assert stays.state is TradeState.INTENT
    await a_sending_trade(ledger, other, direction=Direction.PUT)  # another fingerprint does not wait
    await ledger.opened(first.trade_id, an_order(first), epoch=None)
    assert (await ledger.begin_send(second.trade_id, later(), epoch=None)).state is TradeState.SENDING


async def test_equal_orders_begun_at_once_are_sent_one_at_a_time(ledger: PostgresLedger) -> None:
    account = an_account()
    keys = [await a_session(ledger, account) for _ in range(10)]
    trades = [(await ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None))[0] for key in keys]
    answers = await asyncio.gather(
        *(ledger.begin_send(trade.trade_id, later(), epoch=None) for trade in trades), return_exceptions=True
    )
    assert sum(isinstance(answer, Trade) for answer in answers) == 1
    assert sum(isinstance(answer, TradeUnresolvedError) for answer in answers) == 9


async def test_an_order_is_claimed_by_one_trade_only(ledger: PostgresLedger) -> None:
    account = an_account()
    keys = [await a_session(ledger, account) for _ in range(8)]
    trades = [await a_sending_trade(ledger, key, amount=Decimal(10 + number)) for number, key in enumerate(keys)]
    order = an_order(trades[0])
    answers = await asyncio.gather(
        *(ledger.opened(trade.trade_id, order, epoch=None) for trade in trades), return_exceptions=True
    )
    assert sum(isinstance(answer, Trade) for answer in answers) == 1
    assert sum(isinstance(answer, ContradictionError) for answer in answers) == 7
    assert await ledger.claimed_orders(keys[0], [order.broker_order_id, "other"]) == {order.broker_order_id}


async def test_the_same_order_number_at_another_balance_is_another_order(ledger: PostgresLedger) -> None:
    trades = [await a_sending_trade(ledger, await a_session(ledger)) for _ in range(2)]
    for trade in trades:
        assert (await ledger.opened(trade.trade_id, an_order(trade, "14"), epoch=None)).state is TradeState.OPEN


async def test_an_acknowledgement_that_comes_twice_changes_nothing(
    ledger: PostgresLedger, published: Published
) -> None:
    key = await a_session(ledger)
    trade = await a_sending_trade(ledger, key)
    order = an_order(trade)
    once = await ledger.opened(trade.trade_id, order, epoch=None)
    settled = await ledger.opened(trade.trade_id, ended(order, TradeState.LOST), epoch=None)
    assert await ledger.opened(trade.trade_id, order, epoch=None) == settled
    assert await ledger.opened(trade.trade_id, ended(order, TradeState.LOST), epoch=None) == settled
    assert once.state is TradeState.OPEN
    assert [event.type for event in published.of(key)] == ["trade_opened", "trade_closed"]


async def test_a_result_without_an_acknowledgement_opens_and_closes_the_trade(
    ledger: PostgresLedger, published: Published
) -> None:
    key = await a_session(ledger)
    trade = await a_sending_trade(ledger, key)
    record = await ledger.begin_epoch(key)
    assert record is not None
    closed = await ledger.settled(key, ended(an_order(trade), TradeState.WON), epoch=record.epoch)
    assert closed is not None
    assert closed.state is TradeState.WON
    assert [decode(event)["state"] for event in published.of(key)] == ["open", "won"]


async def test_a_result_that_is_told_again_waits_for_no_lock(
    ledger: PostgresLedger, database: PostgresDatabase
) -> None:
    key = await a_session(ledger)
    record = await ledger.session(key)
    assert record is not None
    order = ended(an_order(trade := await a_sending_trade(ledger, key)), TradeState.WON)
    won = await ledger.settled(key, order, epoch=record.epoch)
    other = ended(an_order(replace(trade, trade_id=a_trade_id())), TradeState.WON)
    async with database.transaction() as connection:
        await connection.fetch(sql.LOCK_SESSION, key)
        # It would be an UnavailableError after the lock's timeout.
        assert await ledger.settled(key, order, epoch=record.epoch) == won
        assert await ledger.settled(key, other, epoch=record.epoch) is None


async def test_a_result_that_is_nobodys_here_is_left_alone(ledger: PostgresLedger) -> None:
    account = an_account()
    key, other = await a_session(ledger, account), await a_session(ledger, account)
    mine = await a_sending_trade(ledger, key)
    theirs = await a_sending_trade(ledger, other, amount=Decimal(11))
    record = await ledger.begin_epoch(key)
    assert record is not None
    foreign = ended(an_order(mine, trade_id=None), TradeState.WON)
    assert await ledger.settled(key, foreign, epoch=record.epoch) is None
    assert await ledger.settled(key, ended(an_order(theirs), TradeState.WON), epoch=record.epoch) is None
    elsewhere = replace(ended(an_order(mine), TradeState.WON), balance_id=1)
    assert await ledger.settled(key, elsewhere, epoch=record.epoch) is None


async def test_a_refused_trade_can_never_become_open(ledger: PostgresLedger, published: Published) -> None:
    key = await a_session(ledger)
    trade = await a_sending_trade(ledger, key)
    rejected = await ledger.refused(trade.trade_id, "PAYOUT_CHANGED", epoch=None)
    assert (rejected.state, rejected.reason) == (TradeState.REJECTED, "PAYOUT_CHANGED")
    assert await ledger.refused(trade.trade_id, "ASSET_CLOSED", epoch=None) == rejected
    with pytest.raises(ContradictionError):
        await ledger.opened(trade.trade_id, an_order(trade), epoch=None)
    assert [event.type for event in published.of(key)] == ["trade_rejected"]


async def test_an_intent_can_neither_open_nor_be_lost(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    trade, _ = await ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None)
    with pytest.raises(ContradictionError):
        await ledger.opened(trade.trade_id, an_order(trade), epoch=None)
    assert (await ledger.lost_answer(trade.trade_id, epoch=None)).state is TradeState.INTENT


async def test_an_open_trade_can_neither_be_refused_nor_declared_absent(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    trade = await a_sending_trade(ledger, key)
    await ledger.opened(trade.trade_id, an_order(trade), epoch=None)
    record = await ledger.begin_epoch(key)
    assert record is not None
    with pytest.raises(ContradictionError):
        await ledger.refused(trade.trade_id, "ASSET_CLOSED", epoch=None)
    with pytest.raises(ContradictionError):
        await ledger.opened(trade.trade_id, an_order(trade), epoch=None)
    assert (await ledger.never_placed(trade.trade_id, "ABSENT", epoch=record.epoch)).state is TradeState.OPEN
    assert (await ledger.lost_answer(trade.trade_id, epoch=None)).state is TradeState.OPEN


async def test_a_sending_trade_is_not_declared_absent_before_it_is_unknown(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    trade = await a_sending_trade(ledger, key)
    record = await ledger.begin_epoch(key)
    assert record is not None
    assert (await ledger.never_placed(trade.trade_id, "ABSENT", epoch=record.epoch)).state is TradeState.SENDING


async def test_a_trade_declared_absent_is_adopted_when_its_order_turns_up(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    trade = await a_sending_trade(ledger, key)
    await ledger.lost_answer(trade.trade_id, epoch=None)
    record = await ledger.begin_epoch(key)
    assert record is not None
    absent = await ledger.never_placed(trade.trade_id, "ABSENT", epoch=record.epoch)
    assert absent.state is TradeState.NOT_PLACED
    assert [found.trade_id for found in await ledger.unsettled(key)] == [trade.trade_id]
    status = await ledger.status(key)
    assert status is not None
    assert (status.usage.open_trades, status.usage.exposure) == (0, Decimal(0))
    adopted = await ledger.opened(trade.trade_id, an_order(trade), epoch=record.epoch)
    assert (adopted.state, adopted.reason) == (TradeState.OPEN, "")
    status = await ledger.status(key)
    assert status is not None
    assert (status.usage.open_trades, status.usage.exposure) == (1, Decimal(10))
    assert status.totals.total_trades == 1


async def test_an_intent_that_was_never_sent_is_not_looked_for(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    trade, _ = await ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None)
    record = await ledger.begin_epoch(key)
    assert record is not None
    await ledger.never_placed(trade.trade_id, "TOO_LATE", epoch=record.epoch)
    assert list(await ledger.unsettled(key)) == []
    with pytest.raises(StaleEpochError):
        await ledger.begin_send(trade.trade_id, later(), epoch=None)


async def test_an_undecidable_trade_stops_the_bot_and_says_so_once(
    ledger: PostgresLedger, published: Published
) -> None:
    key = await a_session(ledger)
    await ledger.start_bot(key, BotSettings(), "run")
    trade = await a_sending_trade(ledger, key)
    await ledger.lost_answer(trade.trade_id, epoch=None)
    record = await ledger.begin_epoch(key)
    assert record is not None
    for _ in range(2):
        assert (await ledger.mark_ambiguous(trade.trade_id, epoch=record.epoch)).ambiguous
    assert [event.type for event in published.of(key)] == ["status_update", "trade_unknown", "error", "status_update"]
    session = await ledger.session(key)
    assert session is not None
    assert session.bot_status is BotStatus.STOPPED
    decided = await ledger.opened(trade.trade_id, an_order(trade), epoch=record.epoch)
    assert (decided.state, decided.ambiguous) == (TradeState.OPEN, False)


async def test_a_writer_of_an_older_epoch_is_refused_everywhere(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    trade = await a_sending_trade(ledger, key)
    intent, _ = await ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None)
    order = an_order(trade)
    for _ in range(2):
        record = await ledger.begin_epoch(key)
    assert record is not None
    old = record.epoch - 1
    for write in (
        ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=old),
        ledger.begin_send(intent.trade_id, later(), epoch=old),
        ledger.opened(trade.trade_id, order, epoch=old),
        ledger.refused(trade.trade_id, "X", epoch=old),
        ledger.lost_answer(trade.trade_id, epoch=old),
        ledger.never_placed(intent.trade_id, "X", epoch=old),
        ledger.mark_ambiguous(trade.trade_id, epoch=old),
        ledger.settled(key, ended(order, TradeState.WON), epoch=old),
        ledger.finish_session(key, epoch=old),
    ):
        with pytest.raises(StaleEpochError):
            await write
    assert [found.state for found in await ledger.unsettled(key)] == [TradeState.SENDING, TradeState.INTENT]
    assert list(await ledger.events_after(key, 0, 10)) == []


@pytest.mark.parametrize("status", [BotStatus.STOPPED, BotStatus.PAUSED])
async def test_a_bot_that_was_stopped_neither_reserves_nor_sends(ledger: PostgresLedger, status: BotStatus) -> None:
    key = await a_session(ledger)
    await ledger.start_bot(key, BotSettings(), "run")
    trade, _ = await ledger.reserve(a_bot_request(key, "run"), a_trade_id(), LIMITS, epoch=None)
    await ledger.set_bot_status(key, status)
    with pytest.raises(StaleEpochError):
        await ledger.begin_send(trade.trade_id, later(), epoch=None)
    with pytest.raises(StaleEpochError):
        await ledger.reserve(a_bot_request(key, "run", 1), a_trade_id(), LIMITS, epoch=None)
    await a_sending_trade(ledger, key)  # manual trades go on


async def test_a_closing_session_takes_no_trade_but_settles_what_is_open(
    ledger: PostgresLedger, published: Published
) -> None:
    key = await a_session(ledger)
    trade = await a_sending_trade(ledger, key)
    intent, _ = await ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None)
    await ledger.close_session(key, CloseReason.EXPIRED)
    with pytest.raises(SessionNotFoundError):
        await ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None)
    with pytest.raises(StaleEpochError):
        await ledger.begin_send(intent.trade_id, later(), epoch=None)
    record = await ledger.begin_epoch(key)
    assert record is not None
    await ledger.never_placed(intent.trade_id, "CLOSED", epoch=record.epoch)
    won = await ledger.settled(key, ended(an_order(trade), TradeState.WON), epoch=record.epoch)
    assert won is not None
    assert won.state is TradeState.WON
    assert [event.type for event in published.of(key)] == ["session_closed"]


async def test_an_unknown_trade_id_is_not_found(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    assert await ledger.trade(key, a_trade_id()) is None
    with pytest.raises(TradeNotFoundError):
        await ledger.begin_send(a_trade_id(), later(), epoch=None)
    other = await a_session(ledger)
    trade, _ = await ledger.reserve(a_request(other), a_trade_id(), LIMITS, epoch=None)
    assert await ledger.trade(key, trade.trade_id) is None


async def test_trades_are_listed_newest_first_in_pages(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    made = [(await ledger.reserve(a_request(key), a_trade_id(), LIMITS, epoch=None))[0] for _ in range(5)]
    await ledger.begin_send(made[0].trade_id, later(), epoch=None)
    await ledger.refused(made[1].trade_id, "ASSET_CLOSED", epoch=None)
    first = await ledger.trades(key, limit=2)
    second = await ledger.trades(key, limit=2, page_token=first.next_page_token)
    third = await ledger.trades(key, limit=2, page_token=second.next_page_token)
    listed = [trade.trade_id for page in (first, second, third) for trade in page.trades]
    assert listed == [trade.trade_id for trade in reversed(made)]
    assert third.next_page_token == ""
    pending = await ledger.trades(key, limit=10, status="pending")
    assert [trade.trade_id for trade in pending.trades] == [made[index].trade_id for index in (4, 3, 2, 0)]
    rejected = await ledger.trades(key, limit=10, status="rejected")
    assert [trade.trade_id for trade in rejected.trades] == [made[1].trade_id]


@pytest.mark.parametrize("token", ["x", "-1", "9" * 40, "１", "1.0"])
async def test_a_page_token_that_is_not_ours_is_an_invalid_argument(ledger: PostgresLedger, token: str) -> None:
    with pytest.raises(InvalidArgumentError):
        await ledger.trades(await a_session(ledger), limit=1, page_token=token)


async def test_the_ledger_holds_no_secret_in_clear(ledger: PostgresLedger, database: PostgresDatabase) -> None:
    key = await a_session(ledger)
    (row,) = await database.read("SELECT c::text AS text FROM credentials c WHERE session_key = $1", key)
    stored = row["text"]
    for secret in ("ann@example.com", "secret", "ssid-1"):
        assert secret.encode().hex() not in stored
        assert secret not in stored
