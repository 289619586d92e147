"""The bot: trades through the desk only, within its limits, once per candle, and never on stale data."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import pytest

from services.session.domain.errors import (
    InsufficientFundsError,
    InvalidCredentialsError,
    LoginThrottledError,
    OrderRejectedError,
    SessionMismatchError,
)
from services.session.domain.events import LimitWasReached, LogWritten, SignalMade
from services.session.domain.trade import BrokerOrder, Trade, TradeState
from services.session.domain.values import AccountType, BotStatus, Direction, InstrumentType, SessionKey
from services.session.ports import AnswerLost, Placed
from tests.support.fakes import a_candle, a_decision
from tests.support.session_world import World, a_manual_trade, bot_settings, bot_trades, running, settle


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as world:
        yield world


async def _started(world: World, **settings: Any) -> SessionKey:
    key = await world.key()
    await world.pass_time(1)
    await world.sessions.start_bot(key, bot_settings(**settings))
    await world.pass_time(1)
    return key


async def _signal(world: World, key: SessionKey, action: str = "CALL", timeframe: int = 60) -> None:
    world.agent.decisions.append(a_decision(action))
    await world.close_candle(key, timeframe)


async def _settle_last(world: World, key: SessionKey, outcome: TradeState, profit: str) -> None:
    order: BrokerOrder = world.broker.listed[-1]
    world.broker.settles(key, order, outcome, profit)
    await settle()


async def _bot_status(world: World, key: SessionKey) -> BotStatus:
    record = await world.ledger.session(key)
    assert record is not None
    return record.bot_status


async def test_a_signal_becomes_one_trade_with_the_bots_own_key(world: World) -> None:
    key = await _started(world, amount=Decimal("5.00"))
    await _signal(world, key, "PUT")
    (trade,) = bot_trades(world)
    assert (trade.state, trade.direction, trade.amount) == (TradeState.OPEN, Direction.PUT, Decimal("5.00"))
    assert (trade.model, trade.model_version, trade.client_request_id) == ("edge", "1", "")
    record = await world.ledger.session(key)
    assert record is not None
    request = world.ledger._requests[trade.trade_id]
    assert request.idempotency_key == f"bot:{record.run_id}:{int(world.clock.now().timestamp())}:1"


async def test_every_closed_candle_is_told_as_a_signal(world: World) -> None:
    key = await _started(world)
    await _signal(world, key, "HOLD")
    await _signal(world, key, "CALL")
    signals = [event for event in world.ledger.events(key) if isinstance(event, SignalMade)]
    assert [(signal.action, signal.reason, signal.confidence) for signal in signals] == [
        ("HOLD", "no_edge", 0.6),
        ("CALL", "", 0.6),
    ]


async def test_a_candle_in_progress_decides_nothing(world: World) -> None:
    key = await _started(world)
    world.agent.decisions.append(a_decision("CALL"))
    world.broker.quotes(key, a_candle(world.clock.now() + timedelta(seconds=30)), closed=False)
    await settle()
    assert (world.agent.seen, bot_trades(world)) == ([], [])


async def test_a_bot_whose_runner_is_replaced_does_not_trade_a_candle_twice(world: World) -> None:
    key = await _started(world)
    await _signal(world, key)
    candle = world.agent.seen[-1]
    world.leases.incarnation = "second"
    await world.pass_time(3)
    world.agent.decisions.append(a_decision("CALL"))
    world.broker.quotes(key, candle)
    await settle()
    assert len(world.broker.sent) == 1


async def test_practice_stays_practice_whatever_happens(world: World) -> None:
    key = await _started(world)
    await _signal(world, key)
    world.broker.loses(key)
    await world.pass_time(5)
    world.leases.incarnation = "second"
    await world.pass_time(30)
    await _signal(world, key)
    await world.sessions.place_trade(a_manual_trade(key))
    assert {trade.account_type for trade in world.broker.sent} == {AccountType.PRACTICE}
    assert {account_type for _, account_type in world.broker.logins} == {AccountType.PRACTICE}
    assert len(world.broker.sent) == 3


async def test_a_pause_keeps_the_run_and_places_nothing(world: World) -> None:
    key = await _started(world)
    before = await world.ledger.session(key)
    await world.sessions.pause_bot(key)
    await world.pass_time(1)
    await _signal(world, key)
    assert bot_trades(world) == []
    world.agent.decisions.clear()
    await world.sessions.resume_bot(key)
    await world.pass_time(1)
    await _signal(world, key)
    after = await world.ledger.session(key)
    assert before is not None
    assert after is not None
    assert (len(bot_trades(world)), after.run_id) == (1, before.run_id)


async def test_a_stop_places_nothing_more_and_leaves_open_trades_alone(world: World) -> None:
    key = await _started(world)
    await _signal(world, key)
    await world.sessions.stop_bot(key)
    await world.pass_time(1)
    await _signal(world, key)
    assert [trade.state for trade in bot_trades(world)] == [TradeState.OPEN]
    await _settle_last(world, key, TradeState.WON, "4.35")
    assert [trade.state for trade in bot_trades(world)] == [TradeState.WON]


async def test_max_trades_stops_the_bot_once_the_last_one_is_settled(world: World) -> None:
    key = await _started(world, max_trades=2, duration=timedelta(seconds=30))
    for _ in range(4):
        await _signal(world, key)
    assert (len(bot_trades(world)), await _bot_status(world, key)) == (2, BotStatus.RUNNING)
    for order in list(world.broker.listed):
        world.broker.settles(key, order, TradeState.WON, "4.35")
    await world.pass_time(1)
    assert await _bot_status(world, key) is BotStatus.STOPPED
    reached = [event for event in world.ledger.events(key) if isinstance(event, LimitWasReached)]
    assert [(event.limit, event.value) for event in reached] == [("max_trades", 2)]


@pytest.mark.parametrize(
    ("limits", "outcome", "profit", "limit"),
    [
        ({"stop_loss": Decimal(5)}, TradeState.LOST, "-5.00", "stop_loss"),
        ({"take_profit": Decimal(4)}, TradeState.WON, "4.35", "take_profit"),
        ({"daily_loss_limit": Decimal(9)}, TradeState.LOST, "-5.00", "daily_loss_limit"),
        ({"max_consecutive_losses": 1}, TradeState.LOST, "-5.00", "max_consecutive_losses"),
    ],
)
async def test_a_limit_stops_the_bot_at_the_settlement_that_reaches_it(
    world: World, limits: dict[str, Any], outcome: TradeState, profit: str, limit: str
) -> None:
    key = await _started(world, **limits)
    await _signal(world, key)
    await _settle_last(world, key, outcome, profit)
    await world.pass_time(1)
    assert await _bot_status(world, key) is BotStatus.STOPPED
    assert [e.limit for e in world.ledger.events(key) if isinstance(e, LimitWasReached)] == [limit]
    await _signal(world, key)
    assert len(bot_trades(world)) == 1


async def test_one_trade_at_a_time_when_options_outlive_the_candle(world: World) -> None:
    key = await _started(world, duration=timedelta(minutes=2), instrument_type=InstrumentType.TURBO)
    await _signal(world, key)
    await _signal(world, key)
    assert len(bot_trades(world)) == 1
    await _settle_last(world, key, TradeState.WON, "4.35")
    await _signal(world, key)
    assert len(bot_trades(world)) == 2


async def test_an_unknown_trade_on_the_asset_keeps_the_bot_waiting(world: World) -> None:
    key = await _started(world)

    async def lost(trade: Trade) -> Placed | AnswerLost:
        return AnswerLost()

    world.broker.answer = lost
    await world.sessions.place_trade(a_manual_trade(key))
    world.broker.answer = world.broker.books
    await _signal(world, key)
    assert bot_trades(world) == []


async def test_a_candle_that_comes_late_is_not_traded(world: World) -> None:
    key = await _started(world)
    world.agent.decisions.append(a_decision("CALL"))
    close_time = world.clock.now()
    await world.clock.advance(6)
    world.broker.quotes(key, a_candle(close_time))
    await settle()
    assert len(world.agent.seen) == 1
    assert bot_trades(world) == []


async def test_a_hole_in_the_candles_begins_a_new_feed(world: World) -> None:
    key = await _started(world)
    await _signal(world, key, "HOLD")
    await world.clock.advance(120)
    world.agent.decisions.append(a_decision("CALL"))
    world.broker.quotes(key, a_candle(world.clock.now()))
    await world.pass_time(3)
    assert (world.agent.opened, bot_trades(world)) == (2, [])


async def test_a_payout_below_the_floor_is_not_traded(world: World) -> None:
    key = await _started(world, min_payout=0.9)
    await _signal(world, key)
    assert bot_trades(world) == []
    assert [e.message for e in world.ledger.events(key) if isinstance(e, LogWritten)] == [
        "The bot waits for a payout rate of at least 0.9"
    ]


async def test_the_order_carries_the_payout_below_which_the_decision_is_a_loss(world: World) -> None:
    key = await _started(world)
    await _signal(world, key)
    (trade,) = bot_trades(world)
    assert trade.min_payout == pytest.approx(1 / 0.6 - 1)


async def test_an_agent_that_is_away_is_told_once_and_waited_for(world: World) -> None:
    key = await _started(world)
    world.agent.away = True
    await world.close_candle(key)
    await world.pass_time(60)
    world.agent.away = False
    await world.pass_time(20)
    await _signal(world, key)
    logs = [event.message for event in world.ledger.events(key) if isinstance(event, LogWritten)]
    assert logs == ["The bot waits for the agent", "The bot goes on"]
    assert len(bot_trades(world)) == 1


async def test_a_broker_that_was_away_is_waited_for(world: World) -> None:
    key = await _started(world)
    world.broker.loses(key)
    await world.pass_time(5)
    await _signal(world, key)
    assert len(bot_trades(world)) == 1
    assert await _bot_status(world, key) is BotStatus.RUNNING


@pytest.mark.parametrize("error", [InvalidCredentialsError(), LoginThrottledError(30), SessionMismatchError()])
async def test_a_login_that_fails_on_the_way_to_an_order_costs_that_order_only(world: World, error: Exception) -> None:
    key = await _started(world)
    before = await world.ledger.session(key)

    async def fails(*_: object) -> None:
        raise error

    with patch.object(world.logins, "connect", fails), patch.object(world.logins, "stand", fails):
        await _signal(world, key)
    assert [trade.state for trade in bot_trades(world)] == [TradeState.REJECTED]
    await world.pass_time(30)
    await _signal(world, key)
    assert [trade.state for trade in bot_trades(world)] == [TradeState.REJECTED, TradeState.OPEN]
    after = await world.ledger.session(key)
    assert before is not None
    assert after is not None
    assert (after.epoch, after.bot_status) == (before.epoch, BotStatus.RUNNING)


async def test_no_money_stops_the_bot_and_says_why(world: World) -> None:
    key = await _started(world)

    async def refuses(trade: Trade) -> Placed | AnswerLost:
        raise InsufficientFundsError

    world.broker.answer = refuses
    await _signal(world, key)
    assert await _bot_status(world, key) is BotStatus.STOPPED
    assert "error" in world.ledger.types(key)


async def test_a_broker_that_keeps_refusing_stops_the_bot(world: World) -> None:
    key = await _started(world)

    async def refuses(trade: Trade) -> Placed | AnswerLost:
        raise OrderRejectedError("no")

    world.broker.answer = refuses
    for _ in range(5):
        await _signal(world, key)
    assert await _bot_status(world, key) is BotStatus.STOPPED
    assert len(world.broker.sent) == 3


async def test_the_bot_goes_on_after_a_restart_of_the_process(world: World) -> None:
    key = await _started(world)
    await _signal(world, key)
    await world.ownership.stop()
    other = world.new_ownership()
    await other.claim(key)
    await world.pass_time(2)
    await _signal(world, key)
    assert len(bot_trades(world)) == 2
    await other.stop()


async def test_a_lease_that_is_lost_between_decision_and_order_sends_nothing(world: World) -> None:
    key = await _started(world)
    reserve = world.ledger.reserve

    async def then_lapses(*args: Any, **kwargs: Any) -> tuple[Trade, bool]:
        world.leases.until = world.clock.monotonic()
        return await reserve(*args, **kwargs)

    world.ledger.reserve = then_lapses  # type: ignore[method-assign]
    await _signal(world, key)
    assert world.broker.sent == []
    (trade,) = bot_trades(world)
    assert replace(trade).state is TradeState.REJECTED


async def test_an_order_that_another_runner_overtook_is_given_up_at_once(world: World) -> None:
    key = await _started(world)
    reserve = world.ledger.reserve

    async def then_moves(*args: Any, **kwargs: Any) -> tuple[Trade, bool]:
        reserved = await reserve(*args, **kwargs)
        await world.ledger.begin_epoch(key)
        return reserved

    world.ledger.reserve = then_moves  # type: ignore[method-assign]
    await _signal(world, key)
    (trade,) = bot_trades(world)
    # Not left as an intent, which would count against the limits until somebody finds it.
    assert (trade.state, world.broker.sent) == (TradeState.REJECTED, [])
