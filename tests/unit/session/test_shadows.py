"""The evidence gate in a bot: every decision counts once, at the next tick's price, and nothing is traded while it is shut."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.session.domain.errors import UnavailableError
from services.session.domain.events import LogWritten, SignalMade
from services.session.domain.evidence import BET, OPEN_WEALTH, GateMode
from services.session.domain.shadow import ShadowState
from services.session.domain.values import AccountType, InstrumentType, SessionKey
from tests.support.fakes import a_candle, a_decision
from tests.support.session_world import World, bot_settings, bot_trades, running, settle

PAYOUT = 0.87
UP, DOWN = 1.2, 1.1


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as world:
        yield world


async def _started(world: World, account_type: AccountType = AccountType.REAL, **settings: Any) -> SessionKey:
    key = await world.key(account_type=account_type)
    await world.pass_time(1)
    fields = {"duration": timedelta(seconds=60), "instrument_type": InstrumentType.TURBO, **settings}
    await world.sessions.start_bot(key, bot_settings(**fields))
    await world.pass_time(1)
    return key


async def _close(world: World, key: SessionKey, price: float, action: str = "HOLD", version: str = "1") -> None:
    """Close a candle at a price, and let the model decide on it."""
    world.agent.decisions = [replace(a_decision(action), model_version=version)]
    now = world.clock.now()
    await world.clock.advance(60 - now.timestamp() % 60)
    await settle()
    world.broker.quotes(key, a_candle(world.clock.now(), price=price))
    await settle()


async def _tick(world: World, key: SessionKey, price: float, after: float = 0.5) -> None:
    """Quote a price in the candle that began last."""
    await world.clock.advance(after)
    began = world.clock.now().timestamp() // 60 * 60
    forming = a_candle(
        world.clock.now().fromtimestamp(began, world.clock.now().tzinfo) + timedelta(seconds=60), price=price
    )
    world.broker.quotes(key, forming, closed=False)
    await settle()


async def _won(world: World, key: SessionKey, version: str = "1") -> None:
    await _close(world, key, DOWN, "CALL", version)
    await _tick(world, key, DOWN)
    await _close(world, key, UP)


async def _gate(world: World, key: SessionKey) -> Any:
    # A look at the status is activity: none of these sessions expires on the way.
    status, _ = await world.sessions.status(key)
    return status.gate


def _signals(world: World, key: SessionKey) -> list[SignalMade]:
    return [event for event in world.ledger.events(key) if isinstance(event, SignalMade)]


def _logs(world: World, key: SessionKey) -> list[str]:
    return [event.message for event in world.ledger.events(key) if isinstance(event, LogWritten)]


async def test_with_real_money_a_signal_without_evidence_is_told_and_not_traded(world: World) -> None:
    key = await _started(world)
    await _close(world, key, DOWN, "CALL")
    (signal,) = _signals(world, key)
    assert (signal.action, signal.reason, signal.shadow_action) == ("HOLD", "gate_closed", "CALL")
    assert signal.detail == "no evidence of an edge: 0 shadow decisions"
    assert bot_trades(world) == []


@pytest.mark.parametrize(
    ("account_type", "gate", "traded"),
    [
        (AccountType.PRACTICE, None, 1),
        (AccountType.PRACTICE, GateMode.EVIDENCE, 0),
        (AccountType.REAL, None, 0),
        (AccountType.REAL, GateMode.OPEN, 1),
    ],
)
async def test_the_users_word_decides_else_whose_money_it_is(
    world: World, account_type: AccountType, gate: GateMode | None, traded: int
) -> None:
    key = await _started(world, account_type, gate=gate)
    await _close(world, key, DOWN, "CALL")
    assert len(bot_trades(world)) == traded
    assert world.ledger.shadow_states(key) == [ShadowState.PENDING]


async def test_turning_it_off_is_forgotten_with_the_run(world: World) -> None:
    key = await _started(world, gate=GateMode.OPEN)
    await world.sessions.stop_bot(key)
    record = await world.sessions.start_bot(key, bot_settings())
    assert record.settings is not None
    assert record.settings.gate is GateMode.EVIDENCE


async def test_a_decision_is_entered_at_the_next_tick_and_not_at_its_own_close(world: World) -> None:
    key = await _started(world)
    await _close(world, key, 1.10, "CALL")
    await _tick(world, key, 1.20)
    await _tick(world, key, 1.05)
    await _close(world, key, 1.15)
    gate = await _gate(world, key)
    assert (gate.decided, gate.hits) == (1, 0)
    assert gate.wealth == pytest.approx(1 - BET)


async def test_a_traded_decision_counts_like_any_other(world: World) -> None:
    key = await _started(world, AccountType.PRACTICE)
    await _won(world, key)
    gate = await _gate(world, key)
    assert (gate.decided, gate.hits, gate.payout_sum) == (1, 1, PAYOUT)
    assert len(bot_trades(world)) == 1


async def test_a_price_that_ends_where_it_began_counts_for_nothing(world: World) -> None:
    key = await _started(world)
    await _close(world, key, DOWN, "PUT")
    await _tick(world, key, 1.15)
    await _close(world, key, 1.15)
    gate = await _gate(world, key)
    assert (gate.decided, gate.ties, gate.wealth) == (0, 1, 1.0)


async def test_a_decision_without_a_tick_after_it_is_void(world: World) -> None:
    key = await _started(world)
    await _close(world, key, DOWN, "CALL")
    await _close(world, key, UP)
    assert world.ledger.shadow_states(key) == [ShadowState.VOID]
    assert (await _gate(world, key)).decided == 0


async def test_a_tick_that_comes_late_is_no_entry(world: World) -> None:
    key = await _started(world)
    await _close(world, key, DOWN, "CALL")
    await _tick(world, key, DOWN, after=5.5)
    await _close(world, key, UP)
    assert world.ledger.shadow_states(key) == [ShadowState.VOID]


async def test_a_decision_is_counted_once_by_whoever_takes_the_session_over(world: World) -> None:
    key = await _started(world)
    await _close(world, key, DOWN, "CALL")
    await _tick(world, key, DOWN)
    world.leases.incarnation = "second"
    # The candle of its expiry closes while nobody runs the session, and once more before the new runner's eyes.
    await world.clock.advance(60 - world.clock.now().timestamp() % 60)
    expiry = a_candle(world.clock.now(), price=UP)
    world.broker.history = [(expiry, True)]
    await world.pass_time(3)
    world.broker.quotes(key, expiry)
    await settle()
    for _ in range(2):
        world.leases.incarnation += "+"
        await world.pass_time(3)
    gate = await _gate(world, key)
    assert (gate.decided, gate.hits) == (1, 1)


async def test_a_decision_whose_expiry_nobody_saw_is_void(world: World) -> None:
    key = await _started(world)
    await _close(world, key, DOWN, "CALL")
    await _tick(world, key, DOWN)
    await world.sessions.stop_bot(key)
    await world.pass_time(600)
    world.broker.history = [(a_candle(world.clock.now() - timedelta(seconds=world.clock.now().timestamp() % 60)), True)]
    await world.sessions.start_bot(
        key, bot_settings(duration=timedelta(seconds=60), instrument_type=InstrumentType.TURBO)
    )
    await world.pass_time(2)
    assert world.ledger.shadow_states(key) == [ShadowState.VOID]


async def test_the_same_move_is_not_counted_twice(world: World) -> None:
    key = await _started(world, duration=timedelta(seconds=120))
    for _ in range(4):
        await _close(world, key, DOWN, "CALL")
        await _tick(world, key, DOWN)
    states = world.ledger.shadow_states(key)
    assert states == [ShadowState.TIED, ShadowState.OVERLAPPING, ShadowState.PENDING, ShadowState.OVERLAPPING]


async def test_a_commit_whose_answer_was_lost_is_not_counted_again(world: World) -> None:
    key = await _started(world)
    await _close(world, key, DOWN, "CALL")
    world.ledger.fail("enter_shadow", UnavailableError("The ledger"))
    await _tick(world, key, DOWN)
    await world.pass_time(3)
    await _tick(world, key, DOWN)
    world.ledger.fail("resolve_shadow", UnavailableError("The ledger"))
    await _close(world, key, UP)
    world.broker.history = [(a_candle(world.clock.now(), price=UP), True)]
    await world.pass_time(3)
    gate = await _gate(world, key)
    assert (gate.decided, gate.hits) == (1, 1)


async def test_the_gate_opens_on_evidence_says_so_and_lets_trade(world: World) -> None:
    key = await _started(world)
    wins = 0
    while not (await _gate(world, key)).opened:
        await _won(world, key)
        wins += 1
        assert bot_trades(world) == []
    assert (1 + BET * PAYOUT) ** wins >= OPEN_WEALTH > (1 + BET * PAYOUT) ** (wins - 1)
    (told,) = _logs(world, key)
    assert told.startswith(
        f"The evidence gate of edge 1 on EURUSD-OTC is open: evidence of an edge: {wins} shadow decisions"
    )
    assert world.ledger.types(key)[-2:] == ["status_update", "signal"]
    await _close(world, key, DOWN, "CALL")
    assert len(bot_trades(world)) == 1


async def test_every_version_and_every_asset_has_to_show_its_own_evidence(world: World) -> None:
    key = await _started(world)
    while not (await _gate(world, key)).opened:
        await _won(world, key)
    await _close(world, key, DOWN, "CALL", version="2")
    assert bot_trades(world) == []
    assert _signals(world, key)[-1].reason == "gate_closed"
    assert "edge 2 on EURUSD-OTC is closed" in _logs(world, key)[-1]
    await _close(world, key, DOWN, "CALL", version="1")
    assert len(bot_trades(world)) == 1


async def test_what_the_model_holds_on_is_no_decision(world: World) -> None:
    key = await _started(world)
    await _close(world, key, DOWN, "HOLD")
    await _close(world, key, UP, "HOLD")
    assert world.ledger.shadow_states(key) == []
    assert [signal.reason for signal in _signals(world, key)] == ["no_edge", "no_edge"]
