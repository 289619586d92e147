"""A person's finding about a trade that no list can decide."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.session.adapters.ledger.database import PostgresDatabase
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.domain.errors import ContradictionError, TradeNotFoundError
from services.session.domain.trade import Trade, TradeState
from services.session.judge_trade import JUDGED, judge
from tests.support.clocks import ManualClock
from tests.support.ledgers import a_sending_trade, a_session, a_trade_id, an_order

TOMORROW = ManualClock(datetime.now(UTC) + timedelta(days=1))
WON = ("5001", TradeState.WON, Decimal("8.70"))


async def an_unknown_trade(ledger: PostgresLedger) -> Trade:
    trade = await a_sending_trade(ledger, await a_session(ledger))
    return await ledger.lost_answer(trade.trade_id, epoch=None)


async def test_an_absent_trade_gives_its_exposure_back_and_tells_the_user(
    database: PostgresDatabase, ledger: PostgresLedger
) -> None:
    trade = await an_unknown_trade(ledger)
    judged = await judge(database, TOMORROW, trade.trade_id, None)
    assert (judged.state, judged.reason) == (TradeState.NOT_PLACED, JUDGED)
    status = await ledger.status(trade.session_key)
    assert status is not None
    assert (status.usage.open_trades, status.usage.exposure) == (0, Decimal(0))
    assert [event.type for event in await ledger.events_after(trade.session_key, 0, 9)] == [
        "trade_unknown",
        "trade_rejected",
    ]


async def test_an_order_that_a_person_found_is_claimed_with_its_result(
    database: PostgresDatabase, ledger: PostgresLedger
) -> None:
    trade = await an_unknown_trade(ledger)
    judged = await judge(database, TOMORROW, trade.trade_id, WON)
    assert (judged.state, judged.broker_order_id, judged.profit) == (TradeState.WON, "5001", Decimal("8.70"))
    with pytest.raises(ContradictionError):
        await judge(database, TOMORROW, trade.trade_id, WON)


async def test_an_open_trade_whose_result_can_never_be_read_is_settled_but_never_absent(
    database: PostgresDatabase, ledger: PostgresLedger
) -> None:
    trade = await a_sending_trade(ledger, await a_session(ledger))
    order = an_order(trade)
    await ledger.opened(trade.trade_id, order, epoch=None)
    with pytest.raises(ContradictionError):
        await judge(database, TOMORROW, trade.trade_id, None)
    with pytest.raises(ContradictionError):
        await judge(database, TOMORROW, trade.trade_id, ("another", TradeState.LOST, Decimal(-10)))
    lost = await judge(database, TOMORROW, trade.trade_id, (order.broker_order_id, TradeState.LOST, Decimal(-10)))
    assert (lost.state, lost.profit) == (TradeState.LOST, Decimal(-10))


async def test_nothing_is_judged_while_the_system_may_still_find_out(
    database: PostgresDatabase, ledger: PostgresLedger
) -> None:
    trade = await an_unknown_trade(ledger)
    with pytest.raises(ContradictionError, match="by itself"):
        await judge(database, ManualClock(datetime.now(UTC)), trade.trade_id, None)
    with pytest.raises(TradeNotFoundError):
        await judge(database, TOMORROW, a_trade_id(), None)


@pytest.mark.parametrize(
    ("outcome", "profit"),
    [("won", "-1"), ("won", "0"), ("lost", "1"), ("lost", "-10.01"), ("tied", "1"), ("sold", "NaN"), ("open", "1")],
)
async def test_a_result_that_cannot_be_is_refused(
    database: PostgresDatabase, ledger: PostgresLedger, outcome: str, profit: str
) -> None:
    trade = await an_unknown_trade(ledger)
    with pytest.raises(ContradictionError):
        await judge(database, TOMORROW, trade.trade_id, ("5001", TradeState(outcome), Decimal(profit)))
    current = await ledger.trade(trade.session_key, trade.trade_id)
    assert current is not None
    assert current.state is TradeState.UNKNOWN
