"""A session's life: connect, take-up, disconnect, and the desired state of its bot."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.runtime.secret import Secret
from services.session.domain.bot import ServiceLimits
from services.session.domain.errors import (
    BotAlreadyRunningError,
    BotNotRunningError,
    BrokerUnavailableError,
    InvalidCredentialsError,
    LimitReachedError,
    LoginThrottledError,
    NotSellableError,
    SessionMismatchError,
    SessionNotFoundError,
    TradeNotFoundError,
    TwoFactorRequiredError,
    UnavailableError,
)
from services.session.domain.events import LogWritten
from services.session.domain.model import ModelVersion
from services.session.domain.trade import TradeState
from services.session.domain.values import AccountType, BotStatus, Broker, SessionState, TradeId, session_key
from tests.support.session_world import World, a_connect, a_manual_trade, bot_settings, settle


@pytest.fixture
async def world() -> World:
    return World()


async def test_connect_without_an_id_opens_a_session_of_its_own(world: World) -> None:
    one, two = await world.connect(), await world.connect()
    assert one.session_id.reveal() != two.session_id.reveal()
    assert (one.reconnected, one.account.balance, one.expires_in) == (False, Decimal(10_000), 3600)
    assert len(world.broker.logins) == 2


async def test_a_refused_login_leaves_no_session_behind(world: World) -> None:
    with pytest.raises(InvalidCredentialsError):
        await world.connect(password=Secret("wrong"))
    assert world.ledger.keys() == []


async def test_a_login_whose_session_cannot_be_written_is_closed_again(world: World) -> None:
    world.ledger.fail("create_session", UnavailableError("The ledger"))
    with pytest.raises(UnavailableError):
        await world.connect()
    assert (len(world.broker.log_outs), world.broker.connected) == (1, set())


async def test_take_up_finds_the_session_as_it_was(world: World) -> None:
    first = await world.connect()
    key = session_key(first.session_id.reveal())
    await world.sessions.start_bot(key, bot_settings())
    trade = await world.sessions.place_trade(a_manual_trade(key))
    again = await world.connect(session_id=first.session_id)
    assert (again.reconnected, again.session_id.reveal()) == (True, first.session_id.reveal())
    assert again.record.bot_status is BotStatus.RUNNING
    assert (await world.sessions.trade(key, trade.trade_id)).state is TradeState.OPEN
    assert len(world.broker.logins) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"password": Secret("secre7")},
        {"email": Secret("bob@example.com")},
        {"broker": Broker.IQ},
        {"account_type": AccountType.REAL},
    ],
)
async def test_an_id_alone_takes_nothing_over(world: World, changes: dict[str, Any]) -> None:
    first = await world.connect()
    key = session_key(first.session_id.reveal())
    before = await world.ledger.session(key)
    with pytest.raises(SessionMismatchError):
        await world.sessions.connect(replace(a_connect(session_id=first.session_id), **changes))
    assert await world.ledger.session(key) == before
    assert len(world.ledger.keys()) == 1


async def test_an_email_is_the_same_in_capitals(world: World) -> None:
    first = await world.connect("ann@example.com")
    assert (await world.connect(" Ann@Example.COM ", session_id=first.session_id)).reconnected


async def test_a_dead_id_gives_a_new_session(world: World) -> None:
    dead = Secret("8c5f0f2e-6f0e-4b57-9d62-0d4f6f6f6f6f")
    one, two = await asyncio.gather(world.connect(session_id=dead), world.connect(session_id=dead))
    ids = {one.session_id.reveal(), two.session_id.reveal(), dead.reveal()}
    assert (one.reconnected, two.reconnected, len(ids)) == (False, False, 3)


@pytest.mark.parametrize("error", [BrokerUnavailableError(), LoginThrottledError(600), InvalidCredentialsError()])
async def test_a_broker_that_is_away_keeps_nobody_from_his_session(world: World, error: Exception) -> None:
    first = await world.connect()
    world.broker.connected.clear()
    world.broker.refuse_login = error
    again = await world.connect(session_id=first.session_id)
    assert (again.reconnected, again.account.balance) == (True, Decimal(10_000))


async def test_a_second_factor_asked_for_later_reaches_the_user(world: World) -> None:
    first = await world.connect()
    world.broker.connected.clear()
    world.broker.refuse_login = TwoFactorRequiredError(("sms",), "challenge")
    with pytest.raises(TwoFactorRequiredError):
        await world.connect(session_id=first.session_id)


async def test_a_login_that_leads_to_another_balance_is_not_used(world: World) -> None:
    first = await world.connect()
    key = session_key(first.session_id.reveal())
    real = replace(world.broker.balances[key], account_type=AccountType.REAL, balance_id=7)
    world.broker.connected.clear()
    world.broker.balances[key] = real
    again = await world.connect(session_id=first.session_id)
    assert again.account.account_type is AccountType.PRACTICE
    assert key not in world.broker.connected
    with pytest.raises(SessionMismatchError):
        await world.sessions.place_trade(a_manual_trade(key))
    assert world.broker.sent == []


async def test_the_session_never_answers_for_another_account_type_than_asked(world: World) -> None:
    connected = await world.connect(account_type=AccountType.REAL)
    key = session_key(connected.session_id.reveal())
    trade = await world.sessions.place_trade(a_manual_trade(key))
    assert (connected.account.account_type, trade.account_type) == (AccountType.REAL, AccountType.REAL)
    assert [account_type for _, account_type in world.broker.logins] == [AccountType.REAL]


async def test_the_token_names_the_same_user_for_all_his_sessions(world: World) -> None:
    one, two = await world.connect(), await world.connect()
    other = await world.connect("bob@example.com")
    subjects = [c.access_token.reveal().split("|")[0] for c in (one, two, other)]
    assert subjects[0] == subjects[1] != subjects[2]
    assert one.access_token.reveal().split("|")[1] == one.session_id.reveal()


async def test_disconnect_kills_the_id_at_once(world: World) -> None:
    key = await world.key()
    await world.sessions.disconnect(key)
    for call in (
        world.sessions.live(key),
        world.sessions.status(key),
        world.sessions.disconnect(key),
        world.sessions.place_trade(a_manual_trade(key)),
        world.sessions.start_bot(key, bot_settings()),
        world.sessions.stop_bot(key),
    ):
        with pytest.raises(SessionNotFoundError):
            await call
    record = await world.ledger.session(key)
    assert record is not None
    assert record.state is SessionState.CLOSING


async def test_start_is_idempotent_with_the_same_settings_only(world: World) -> None:
    key = await world.key()
    first = await world.sessions.start_bot(key, bot_settings())
    again = await world.sessions.start_bot(key, bot_settings())
    assert first.run_id == again.run_id
    with pytest.raises(BotAlreadyRunningError):
        await world.sessions.start_bot(key, bot_settings(amount=Decimal(6)))


async def test_a_start_without_a_timeframe_takes_the_sessions(world: World) -> None:
    key = await world.key()
    await world.sessions.set_timeframe(key, 300)
    first = await world.sessions.start_bot(key, bot_settings(), with_timeframe=False)
    assert first.settings is not None
    assert first.settings.timeframe == 300
    await world.sessions.set_timeframe(key, 5)
    again = await world.sessions.start_bot(key, bot_settings(), with_timeframe=False)
    assert again.run_id == first.run_id


async def test_a_bot_that_its_model_lets_hold_for_ever_is_told_so_once(world: World) -> None:
    key = await world.key()
    world.agent.versions = [ModelVersion("edge", "1", is_default=True, expiry_bars=1)]
    await world.sessions.start_bot(key, bot_settings(duration=timedelta(minutes=5)))
    await world.sessions.start_bot(key, bot_settings(duration=timedelta(minutes=5)))
    told = [event for event in world.ledger.events(key) if isinstance(event, LogWritten)]
    assert [event.level for event in told] == ["warning"]
    assert "choose a timeframe of 300" in told[0].message


async def test_stop_is_idempotent_and_counts_what_is_still_open(world: World) -> None:
    key = await world.key()
    await world.sessions.start_bot(key, bot_settings())
    await world.sessions.place_trade(a_manual_trade(key))
    assert (await world.sessions.stop_bot(key)).open_trades == 1
    assert (await world.sessions.stop_bot(key)).open_trades == 1


async def test_a_stopped_bot_can_be_neither_paused_nor_resumed(world: World) -> None:
    key = await world.key()
    with pytest.raises(BotNotRunningError):
        await world.sessions.pause_bot(key)
    with pytest.raises(BotNotRunningError):
        await world.sessions.resume_bot(key)


async def test_a_stake_above_the_operators_limit_is_refused_at_start() -> None:
    world = World(ServiceLimits(max_amount=Decimal(100)))
    key = await world.key()
    with pytest.raises(LimitReachedError):
        await world.sessions.start_bot(key, bot_settings(amount=Decimal(101)))


async def test_reads_reconnect_once_with_the_sessions_own_login(world: World) -> None:
    key = await world.key()
    world.broker.connected.clear()
    assert [asset.asset for asset in await world.sessions.assets(key)] == ["EURUSD-OTC"]
    assert len(world.broker.logins) == 2


async def test_every_call_is_activity(world: World) -> None:
    key = await world.key()
    await world.pass_time(1800, step=600)
    await world.sessions.status(key)
    record = await world.ledger.session(key)
    assert record is not None
    assert record.last_seen == world.clock.now()


async def test_one_session_cannot_reach_anothers_trade(world: World) -> None:
    mine, other = await world.key("ann@example.com"), await world.key("bob@example.com")
    trade = await world.sessions.place_trade(a_manual_trade(mine))
    for call in (world.sessions.trade(other, trade.trade_id), world.sessions.close_trade(other, trade.trade_id)):
        with pytest.raises(TradeNotFoundError):
            await call
    assert (await world.sessions.trades(other, limit=10, page_token="", status=None)).trades == ()


async def test_a_trade_that_is_not_open_cannot_be_sold(world: World) -> None:
    key = await world.key()
    trade = await world.sessions.place_trade(a_manual_trade(key))
    await world.sessions.close_trade(key, trade.trade_id)
    with pytest.raises(NotSellableError):
        await world.sessions.close_trade(key, trade.trade_id)
    with pytest.raises(TradeNotFoundError):
        await world.sessions.close_trade(key, TradeId("6f1c1a4e-0000-4000-8000-000000000000"))


async def test_export_walks_through_all_pages(world: World) -> None:
    key = await world.key()
    for number in range(3):
        await world.sessions.place_trade(a_manual_trade(key, amount=Decimal(10 + number)))
    await settle()
    amounts = [trade.amount async for trade in world.sessions.all_trades(key)]
    assert amounts == [12, 11, 10]
