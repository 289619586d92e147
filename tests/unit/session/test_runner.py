"""The runner: account, reconciliation, expiry and end of one session, in milliseconds on a manual clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from services.session.domain.errors import (
    BrokerUnavailableError,
    ContradictionError,
    InvalidCredentialsError,
    LoginThrottledError,
    PayoutChangedError,
    SessionNotFoundError,
)
from services.session.domain.trade import BrokerOrder, Trade, TradeState
from services.session.domain.values import (
    AccountType,
    BotStatus,
    Candle,
    CloseReason,
    SessionKey,
    SessionState,
    TradeId,
)
from services.session.ports import AnswerLost, Placed
from tests.support.fakes import a_candle
from tests.support.session_world import World, a_manual_trade, bot_settings, running, settle


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as world:
        yield world


async def _state(world: World, key: object) -> SessionState:
    record = await world.ledger.session(key)  # type: ignore[arg-type]
    assert record is not None
    return record.state


async def test_a_new_session_is_run_at_once(world: World) -> None:
    key = await world.key()
    await settle()
    record = await world.ledger.session(key)
    assert record is not None
    assert (record.epoch, len(world.ownership)) == (1, 1)


async def test_a_balance_is_told_when_it_changes_and_only_then(world: World) -> None:
    key = await world.key()
    await settle()
    assert world.ledger.types(key) == []
    account = replace(world.broker.balances[key], balance=Decimal("9990.00"))
    world.broker.happens(key, account)
    world.broker.happens(key, account)
    await settle()
    assert world.ledger.types(key) == ["balance"]


async def test_an_event_of_another_balance_is_ignored(world: World) -> None:
    key = await world.key()
    await settle()
    foreign = replace(world.broker.balances[key], balance_id=99, account_type=AccountType.REAL, balance=Decimal(5))
    world.broker.happens(key, foreign)
    await settle()
    record = await world.ledger.session(key)
    assert record is not None
    assert (record.account.balance, world.ledger.types(key)) == (Decimal(10_000), [])


async def test_a_settlement_is_recorded_with_the_brokers_own_result(world: World) -> None:
    key = await world.key()
    trade = await world.sessions.place_trade(a_manual_trade(key))
    world.broker.settles(key, world.broker.listed[0], TradeState.WON, "8.70")
    await settle()
    settled = await world.sessions.trade(key, trade.trade_id)
    assert (settled.state, settled.profit) == (TradeState.WON, Decimal("8.70"))
    assert world.ledger.types(key) == ["trade_opened", "trade_closed"]


async def test_an_end_that_the_broker_tells_again_and_again_is_recorded_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await world.key()
    await world.sessions.place_trade(a_manual_trade(key))
    recorded: list[Decimal] = []
    settled = world.ledger.settled

    async def counted(key: SessionKey, order: BrokerOrder, *, epoch: int) -> Trade | None:
        recorded.append(order.profit)
        return await settled(key, order, epoch=epoch)

    monkeypatch.setattr(world.ledger, "settled", counted)
    for _ in range(3):
        world.broker.settles(key, world.broker.listed[0], TradeState.WON, "8.70")
        await settle()
    assert recorded == [Decimal("8.70")]
    # With nothing unsettled no list tells of it again, so that it is forgotten; the ledger, asked once more, knows it.
    told = world.ledger.types(key)
    await world.pass_time(120)
    world.broker.happens(key, world.broker.listed[0])
    await settle()
    assert recorded == [Decimal("8.70")] * 2
    assert world.ledger.types(key) == told
    # Another end of the same order is not taken for the same: the ledger judges it.
    world.broker.settles(key, world.broker.listed[0], TradeState.LOST, "-10")
    await settle()
    assert recorded[2:] == [Decimal(-10)]


async def test_a_lost_connection_is_made_again_and_told(world: World) -> None:
    key = await world.key()
    await settle()
    world.broker.loses(key)
    await settle()
    await world.pass_time(2)
    states = [getattr(event, "state", None) for event in world.ledger.events(key)]
    assert states == ["reconnecting", "connected"]
    assert [account_type for _, account_type in world.broker.logins] == [AccountType.PRACTICE] * 2


async def test_refused_credentials_are_not_offered_again_in_a_loop(world: World) -> None:
    key = await world.key()
    await settle()
    tries = 0
    connect = world.broker.connect

    async def counted(*args: object, **kwargs: object) -> object:
        nonlocal tries
        tries += 1
        return await connect(*args, **kwargs)  # type: ignore[arg-type]

    world.broker.connect = counted  # type: ignore[assignment,method-assign]
    world.broker.refuse_login = InvalidCredentialsError()
    world.broker.loses(key)
    await world.pass_time(600, step=5)
    assert tries == 1
    record = await world.ledger.session(key)
    assert record is not None
    assert record.broker_connection == "refused"
    for _ in range(3):
        await world.signals.wake(key)
        await world.pass_time(30, step=5)
    assert tries == 1
    # Only the user's own connect makes it stand again; it wakes the runner.
    world.broker.refuse_login = None
    credentials = await world.ledger.credentials(key)
    assert credentials is not None
    await connect(key, record.broker, record.account.account_type, credentials)
    await world.signals.wake(key)
    await world.pass_time(2)
    record = await world.ledger.session(key)
    assert record is not None
    assert record.broker_connection == "connected"


async def test_a_throttled_login_waits_as_long_as_the_broker_says(world: World) -> None:
    key = await world.key()
    await settle()
    world.broker.refuse_login = LoginThrottledError(300)
    world.broker.loses(key)
    await settle()
    world.broker.refuse_login = None
    await world.pass_time(290, step=10)
    assert key not in world.broker.connected
    await world.pass_time(20)
    assert key in world.broker.connected


async def test_a_lost_answer_is_resolved_from_the_brokers_list(world: World) -> None:
    key = await world.key()
    await settle()

    async def books_and_is_lost(trade: Trade) -> Placed | AnswerLost:
        world.broker.listed.append(world.broker.order_of(trade, trade_id=None))
        return AnswerLost()

    world.broker.answer = books_and_is_lost
    trade = await world.sessions.place_trade(a_manual_trade(key))
    assert trade.state is TradeState.UNKNOWN
    await world.pass_time(4)
    assert (await world.sessions.trade(key, trade.trade_id)).state is TradeState.OPEN
    assert len(world.broker.sent) == 1


async def test_a_trade_that_another_replica_left_unresolved_is_found_although_the_signal_was_lost(world: World) -> None:
    key = await world.key()
    await settle()
    await world.ledger.reserve(a_manual_trade(key), TradeId("left-behind"), world.limits, epoch=None)
    await world.pass_time(200)
    trade = await world.sessions.trade(key, TradeId("left-behind"))
    assert trade.state is TradeState.NOT_PLACED


async def test_what_nobody_sends_any_more_is_given_up_although_the_broker_cannot_be_asked(world: World) -> None:
    key = await world.key()
    await settle()
    world.broker.refuse_login = InvalidCredentialsError()
    world.broker.loses(key)
    await settle()
    await world.ledger.reserve(a_manual_trade(key), TradeId("left-behind"), world.limits, epoch=None)
    await world.pass_time(200)
    trade = await world.sessions.trade(key, TradeId("left-behind"))
    assert trade.state is TradeState.NOT_PLACED


async def test_an_order_of_a_rejected_trade_is_told_to_the_user_once(world: World) -> None:
    key = await world.key()

    async def refuses(trade: Trade) -> Placed | AnswerLost:
        raise PayoutChangedError(0.8)

    world.broker.answer = refuses
    with pytest.raises(PayoutChangedError):
        await world.sessions.place_trade(a_manual_trade(key))
    (trade,) = world.ledger.all_trades()
    world.ledger.fail("opened", *[ContradictionError("A trade that is rejected cannot become open")] * 3)
    for _ in range(3):
        world.broker.happens(key, world.broker.order_of(trade))
        await settle()
    assert world.ledger.types(key) == ["trade_rejected", "error"]
    assert (await world.sessions.trade(key, trade.trade_id)).state is TradeState.REJECTED


async def test_absence_is_declared_only_after_the_broker_cannot_accept_it_any_more(world: World) -> None:
    key = await world.key()
    await settle()

    async def lost(trade: Trade) -> Placed | AnswerLost:
        return AnswerLost()

    world.broker.answer = lost
    trade = await world.sessions.place_trade(a_manual_trade(key))
    await world.pass_time(60)
    assert (await world.sessions.trade(key, trade.trade_id)).state is TradeState.UNKNOWN
    await world.pass_time(60)
    assert (await world.sessions.trade(key, trade.trade_id)).state is TradeState.NOT_PLACED
    assert len(world.broker.sent) == 1


async def test_a_result_that_never_came_is_read_from_the_list_after_the_expiry(world: World) -> None:
    key = await world.key()
    trade = await world.sessions.place_trade(a_manual_trade(key))
    world.broker.happens(key, world.broker.listed[0])
    await settle()
    listed = world.broker.listed[0]
    world.broker.listed = [
        replace(listed, outcome=TradeState.LOST, profit=Decimal("-10.00"), close_time=world.clock.now())
    ]
    await world.pass_time(45)
    assert (await world.sessions.trade(key, trade.trade_id)).state is TradeState.LOST


async def test_an_hour_without_activity_ends_the_session_after_a_warning(world: World) -> None:
    key = await world.key()
    await world.sessions.start_bot(key, bot_settings())
    await world.pass_time(3290, step=10)
    assert "session_expiring" not in world.ledger.types(key)
    await world.pass_time(20)
    assert world.ledger.types(key).count("session_expiring") == 1
    await world.pass_time(280)
    assert await _state(world, key) is SessionState.ACTIVE
    await world.pass_time(20)
    assert await _state(world, key) is SessionState.CLOSED
    assert world.ledger.types(key)[-1] == "session_closed"
    assert world.ledger.types(key).count("session_expiring") == 1
    record = await world.ledger.session(key)
    assert record is not None
    assert (record.close_reason, record.bot_status) == (CloseReason.EXPIRED, BotStatus.STOPPED)
    assert (world.broker.log_outs, await world.ledger.credentials(key)) == ([key], None)
    assert (len(world.ownership), world.leases.held) == (0, set())
    with pytest.raises(SessionNotFoundError):
        await world.sessions.status(key)


async def test_activity_after_the_warning_takes_it_back(world: World) -> None:
    key = await world.key()
    await world.pass_time(3400, step=10)
    await world.sessions.status(key)
    await world.pass_time(3200, step=10)
    assert await _state(world, key) is SessionState.ACTIVE
    await world.pass_time(120)
    assert world.ledger.types(key).count("session_expiring") == 2


async def test_an_ended_session_follows_its_open_trades_to_their_end(world: World) -> None:
    key = await world.key()
    trade = await world.sessions.place_trade(a_manual_trade(key))
    await world.sessions.disconnect(key)
    await world.pass_time(10)
    assert await _state(world, key) is SessionState.CLOSING
    assert world.broker.log_outs == []
    world.broker.settles(key, world.broker.listed[0], TradeState.WON, "8.70")
    await world.pass_time(5)
    assert await _state(world, key) is SessionState.CLOSED
    stored = await world.ledger.trade(key, trade.trade_id)
    assert stored is not None
    assert stored.state is TradeState.WON
    assert world.broker.log_outs == [key]


async def test_a_session_that_ends_does_not_log_in_again(world: World) -> None:
    key = await world.key()
    await settle()
    disconnect = world.broker.disconnect

    async def and_tells(*args: Any, **kwargs: Any) -> None:
        await disconnect(*args, **kwargs)
        world.broker.loses(key)
        await settle()

    world.broker.disconnect = and_tells  # type: ignore[method-assign]
    await world.sessions.disconnect(key)
    await world.pass_time(5)
    assert await _state(world, key) is SessionState.CLOSED
    assert (len(world.broker.logins), world.broker.connected) == (1, set())


async def test_a_broker_service_that_is_away_does_not_keep_a_session_from_its_end(world: World) -> None:
    key = await world.key()
    await settle()
    world.broker.away = True
    await world.sessions.disconnect(key)
    await world.pass_time(5)
    assert await _state(world, key) is SessionState.CLOSING
    await world.pass_time(60)
    assert await _state(world, key) is SessionState.CLOSED


async def test_a_runner_that_another_one_followed_touches_nothing_any_more(world: World) -> None:
    key = await world.key()
    await settle()
    await world.ledger.begin_epoch(key)
    world.leases.elsewhere.add(key)
    world.broker.happens(key, replace(world.broker.balances[key], balance=Decimal(1)))
    await settle()
    assert (world.ledger.types(key), len(world.ownership)) == ([], 0)


async def test_a_runner_that_only_reads_notices_the_new_epoch_too(world: World) -> None:
    key = await world.key()
    await settle()
    await world.ledger.begin_epoch(key)
    world.leases.elsewhere.add(key)
    await world.pass_time(90, step=5)
    assert len(world.ownership) == 0


async def test_the_warning_is_not_repeated_by_the_next_runner(world: World) -> None:
    key = await world.key()
    await world.pass_time(3400, step=10)
    world.leases.incarnation = "second"
    await world.pass_time(100)
    assert world.ledger.types(key).count("session_expiring") == 1


async def test_no_bot_trades_before_its_session_is_reconciled(world: World) -> None:
    key = await world.key()
    await world.sessions.place_trade(a_manual_trade(key))
    await world.sessions.start_bot(key, bot_settings())
    await world.pass_time(1)
    orders = world.broker.orders

    async def unreadable(*args: object) -> object:
        raise BrokerUnavailableError

    world.broker.orders = unreadable  # type: ignore[assignment,method-assign]
    world.leases.incarnation = "second"
    await world.pass_time(20)
    opened = world.agent.opened
    world.broker.orders = orders  # type: ignore[method-assign]
    await world.pass_time(10)
    assert (opened, world.agent.opened) == (1, 2)


async def test_a_lapsed_lease_ends_its_runners_at_once(world: World) -> None:
    key = await world.key()
    await settle()
    world.leases.until = world.clock.monotonic()
    world.leases.elsewhere.add(key)
    await world.pass_time(1)
    assert len(world.ownership) == 0
    world.leases.elsewhere.clear()
    world.leases.until = float("inf")
    await world.pass_time(2)
    record = await world.ledger.session(key)
    assert record is not None
    assert (record.epoch, len(world.ownership)) == (2, 1)


async def test_a_new_incarnation_begins_a_new_epoch_even_if_nobody_came_between(world: World) -> None:
    key = await world.key()
    await settle()
    world.leases.incarnation = "second"
    await world.pass_time(2)
    record = await world.ledger.session(key)
    assert record is not None
    assert (record.epoch, len(world.ownership)) == (2, 1)


async def test_a_runner_that_fails_is_started_anew(world: World) -> None:
    key = await world.key()
    await settle()
    world.ledger.fail("emit", RuntimeError("a bug"))
    world.broker.happens(key, replace(world.broker.balances[key], balance=Decimal(1)))
    world.broker.balances[key] = replace(world.broker.balances[key], balance=Decimal(1))
    await world.pass_time(3)
    record = await world.ledger.session(key)
    assert record is not None
    assert (record.epoch, record.account.balance) == (2, Decimal(1))


async def test_another_replica_takes_over_what_nobody_runs(world: World) -> None:
    key = await world.key()
    await settle()
    await world.ownership.stop()
    await world.ownership.release()
    assert world.leases.held == set()
    other = world.new_ownership()
    owning = asyncio.create_task(other.run())
    await settle()
    record = await world.ledger.session(key)
    assert record is not None
    assert (record.epoch, len(other), world.leases.held) == (2, 1, {key})
    await other.stop()
    owning.cancel()


async def test_candles_are_followed_only_while_somebody_watches(world: World) -> None:
    key = await world.key()
    await world.pass_time(2)
    assert world.broker.watchers(key) == 0
    await world.signals.wake(key)
    await settle()
    assert world.broker.watchers(key) == 1
    for _ in range(15):
        await world.pass_time(1)
        world.broker.quotes(key, a_candle(world.clock.now()), closed=False)
    await settle()
    assert world.broker.watchers(key) == 0


async def test_whoever_watched_the_old_runner_sees_the_new_ones_candles(world: World) -> None:
    key = await world.key()
    async with world.signals.candles(key) as frames:
        await world.ownership.stop()
        assert world.broker.watchers(key) == 0
        other = world.new_ownership()
        owning = asyncio.create_task(other.run())
        await settle()
        assert world.broker.watchers(key) == 1
        world.broker.quotes(key, a_candle(world.clock.now()), closed=False)
        assert await anext(frames)
        await other.stop()
    owning.cancel()


async def test_candles_that_are_cut_come_back_while_somebody_watches(world: World) -> None:
    key = await world.key()
    async with world.signals.candles(key) as frames:
        await world.signals.wake(key)
        await settle()
        world.broker.loses(key)
        await world.pass_time(5)
        assert world.broker.watchers(key) == 1
        world.broker.quotes(key, a_candle(world.clock.now()), closed=False)
        assert await anext(frames)
    world.broker.loses(key)
    await world.pass_time(5)
    assert world.broker.watchers(key) == 0


async def test_a_runner_ends_although_its_candles_fail_while_they_are_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def failing(*_: object) -> AsyncIterator[AsyncIterator[tuple[Candle, bool]]]:
        async def candles() -> AsyncIterator[tuple[Candle, bool]]:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise BrokerUnavailableError from None
            yield a_candle(world.clock.now()), False

        yield candles()

    monkeypatch.setattr(world.broker, "watch_candles", failing)
    key = await world.key()
    async with world.signals.candles(key):
        await world.signals.wake(key)
        await settle()
        stopping = asyncio.create_task(world.ownership.stop())
        await world.pass_time(20)
        assert stopping.done()


async def test_an_unavailable_broker_is_told_once(world: World) -> None:
    key = await world.key()
    await settle()
    world.broker.away = True
    world.broker.happens(key, BrokerUnavailableError())
    await world.pass_time(60)
    assert world.ledger.types(key) == ["broker_connection"]


async def test_a_session_at_rest_may_move(world: World) -> None:
    key = await world.key()
    await world.pass_time(2)
    assert world.runners[key].may_move


async def test_a_session_whose_login_is_refused_does_not_move_and_offers_it_nowhere_else(world: World) -> None:
    key = await world.key()
    await world.pass_time(2)
    world.broker.refuse_login = InvalidCredentialsError()
    world.broker.loses(key)
    await world.pass_time(5)
    assert not world.runners[key].may_move


async def test_a_session_does_not_move_while_its_order_is_under_way(world: World) -> None:
    key = await world.key()
    await world.pass_time(2)
    answered = asyncio.Event()
    world.broker.answers_after(answered)
    placing = asyncio.create_task(world.sessions.place_trade(a_manual_trade(key)))
    await settle()
    assert not world.runners[key].may_move
    answered.set()
    await placing
    await settle()
    assert world.runners[key].may_move


@pytest.mark.parametrize(("seconds", "may_move"), [(0, False), (4, False), (6, True), (54, True), (56, False)], ids=str)
async def test_a_bot_moves_between_its_candles_only(world: World, seconds: int, may_move: bool) -> None:
    key = await world.key()
    await world.pass_time(2)
    await world.sessions.start_bot(key, bot_settings())
    await world.pass_time(2)
    await world.close_candle(key)
    await world.pass_time(seconds)
    assert world.runners[key].may_move is may_move


async def test_a_bot_on_short_candles_may_move_at_any_moment(world: World) -> None:
    key = await world.key()
    await world.pass_time(2)
    await world.sessions.start_bot(key, bot_settings(timeframe=5))
    await world.pass_time(2)
    await world.close_candle(key, 5)
    assert world.runners[key].may_move
