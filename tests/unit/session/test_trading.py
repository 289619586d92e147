"""The trade desk: at most one send, no outcome without proof, nothing lost when a caller leaves."""

import asyncio
from decimal import Decimal

import pytest

from services.session.domain.bot import ServiceLimits
from services.session.domain.errors import (
    BrokerUnavailableError,
    InsufficientFundsError,
    LimitReachedError,
    NotConnectedError,
    RequestIdReusedError,
    StaleEpochError,
    TradeRefusedError,
    TradeUnresolvedError,
    UnavailableError,
)
from services.session.domain.trade import Trade, TradeState
from services.session.ports import AnswerLost, Placed, SessionRecord
from tests.support.session_world import World, a_manual_trade, settle


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_trade_is_open_when_the_broker_booked_it(world: World) -> None:
    key = await world.key()
    trade = await world.sessions.place_trade(a_manual_trade(key))
    assert (trade.state, trade.broker_order_id != "") == (TradeState.OPEN, True)
    assert world.ledger.types(key) == ["trade_opened"]
    assert len(world.broker.sent) == 1


async def test_sending_is_durable_before_the_order_leaves(world: World) -> None:
    key = await world.key()

    async def looks(trade: Trade) -> Placed | AnswerLost:
        stored = await world.ledger.trade(key, trade.trade_id)
        assert stored is not None
        assert stored.state is TradeState.SENDING
        return await world.broker.books(trade)

    world.broker.answer = looks
    await world.sessions.place_trade(a_manual_trade(key))


async def test_the_same_request_id_never_places_a_second_trade(world: World) -> None:
    key = await world.key()
    request = a_manual_trade(key, idempotency_key="click-1")
    first = await world.sessions.place_trade(request)
    again = await world.sessions.place_trade(request)
    assert (again.trade_id, len(world.broker.sent)) == (first.trade_id, 1)
    with pytest.raises(RequestIdReusedError):
        await world.sessions.place_trade(a_manual_trade(key, idempotency_key="click-1", amount=Decimal(11)))


async def test_a_repeat_while_the_first_is_under_way_waits_for_its_outcome(world: World) -> None:
    key = await world.key()
    gate = asyncio.Event()
    world.broker.answers_after(gate)
    request = a_manual_trade(key, idempotency_key="click-1")
    first = asyncio.create_task(world.sessions.place_trade(request))
    await settle()
    second = asyncio.create_task(world.sessions.place_trade(request))
    await settle()
    gate.set()
    one, two = await asyncio.gather(first, second)
    assert (one.trade_id, one.state) == (two.trade_id, TradeState.OPEN) == (two.trade_id, two.state)
    assert len(world.broker.sent) == 1


async def test_a_lost_answer_is_unknown_and_is_never_sent_again(world: World) -> None:
    key = await world.key()

    async def lost(trade: Trade) -> Placed | AnswerLost:
        return AnswerLost()

    world.broker.answer = lost
    request = a_manual_trade(key, idempotency_key="click-1")
    trade = await world.sessions.place_trade(request)
    assert trade.state is TradeState.UNKNOWN
    assert (await world.sessions.place_trade(request)).state is TradeState.UNKNOWN
    assert len(world.broker.sent) == 1
    assert world.ledger.types(key) == ["trade_unknown"]
    assert key in world.signals.wakes


@pytest.mark.parametrize("error", [KeyError("outcome"), TimeoutError(), RuntimeError("bug"), OSError()])
async def test_whatever_is_no_proof_leaves_the_trade_unknown(world: World, error: Exception) -> None:
    key = await world.key()

    async def breaks(trade: Trade) -> Placed | AnswerLost:
        raise error

    world.broker.answer = breaks
    assert (await world.sessions.place_trade(a_manual_trade(key))).state is TradeState.UNKNOWN


@pytest.mark.parametrize("error", [InsufficientFundsError(), BrokerUnavailableError()])
async def test_proof_that_nothing_was_booked_rejects_the_trade_and_tells_the_caller(
    world: World, error: TradeRefusedError | BrokerUnavailableError
) -> None:
    key = await world.key()

    async def refuses(trade: Trade) -> Placed | AnswerLost:
        raise error

    world.broker.answer = refuses
    with pytest.raises(type(error)):
        await world.sessions.place_trade(a_manual_trade(key))
    (trade,) = world.ledger.all_trades()
    assert (trade.state, trade.reason) == (TradeState.REJECTED, error.reason)


async def test_a_broker_service_that_was_replaced_before_it_sent_anything_is_asked_once_more(world: World) -> None:
    key = await world.key()
    asked: list[Trade] = []

    async def was_replaced(trade: Trade) -> Placed | AnswerLost:
        asked.append(trade)
        if len(asked) == 1:
            raise NotConnectedError
        return await world.broker.books(trade)

    world.broker.answer = was_replaced
    trade = await world.sessions.place_trade(a_manual_trade(key))
    assert (trade.state, len(asked), asked[0]) == (TradeState.OPEN, 2, asked[1])


async def test_a_broker_service_without_the_connection_is_not_asked_for_ever(world: World) -> None:
    key = await world.key()
    asked: list[Trade] = []

    async def has_no_connection(trade: Trade) -> Placed | AnswerLost:
        asked.append(trade)
        raise NotConnectedError

    world.broker.answer = has_no_connection
    with pytest.raises(BrokerUnavailableError):
        await world.sessions.place_trade(a_manual_trade(key))
    (trade,) = world.ledger.all_trades()
    assert (trade.state, len(asked)) == (TradeState.REJECTED, 2)


async def test_a_caller_who_hangs_up_does_not_lose_the_order(world: World) -> None:
    key = await world.key()
    gate = asyncio.Event()
    world.broker.answers_after(gate)
    caller = asyncio.create_task(world.sessions.place_trade(a_manual_trade(key)))
    await settle()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.set()
    await settle()
    (trade,) = world.ledger.all_trades()
    assert (trade.state, len(world.broker.sent)) == (TradeState.OPEN, 1)


async def test_an_ambiguous_commit_of_the_mark_sends_nothing(world: World) -> None:
    key = await world.key()
    world.ledger.fail("begin_send", UnavailableError("The ledger"))
    with pytest.raises(UnavailableError):
        await world.sessions.place_trade(a_manual_trade(key))
    assert world.broker.sent == []


async def test_a_session_that_ends_between_reserving_and_sending_leaves_nothing_half_way(world: World) -> None:
    key = await world.key()
    stand = world.logins.stand

    async def and_ends(record: SessionRecord) -> None:
        await world.sessions.disconnect(key)
        await stand(record)

    world.logins.stand = and_ends  # type: ignore[method-assign]
    with pytest.raises(StaleEpochError):
        await world.sessions.place_trade(a_manual_trade(key))
    (trade,) = world.ledger.all_trades()
    assert (trade.state, world.broker.sent) == (TradeState.REJECTED, [])


async def test_a_ledger_that_is_away_after_the_answer_gets_the_outcome_when_it_is_back(world: World) -> None:
    key = await world.key()
    world.ledger.fail("opened", UnavailableError("The ledger"), OSError(), UnavailableError("The ledger"))
    caller = asyncio.create_task(world.sessions.place_trade(a_manual_trade(key)))
    await settle()
    (trade,) = world.ledger.all_trades()
    assert trade.state is TradeState.SENDING
    await world.pass_time(5)
    assert (await caller).state is TradeState.OPEN
    assert len(world.broker.sent) == 1


async def test_an_outcome_that_the_ledger_can_never_hold_is_given_up_and_stays_to_be_reconciled(world: World) -> None:
    key = await world.key()
    world.ledger.fail("opened", *[TypeError()] * 1_000)
    caller = asyncio.create_task(world.sessions.place_trade(a_manual_trade(key)))
    await world.pass_time(60)
    with pytest.raises(TypeError):
        await caller
    (trade,) = world.ledger.all_trades()
    assert trade.state is not TradeState.REJECTED
    assert len(world.broker.sent) == 1


async def test_an_equal_trade_that_is_unknown_blocks_the_next_one(world: World) -> None:
    key = await world.key()

    async def lost(trade: Trade) -> Placed | AnswerLost:
        return AnswerLost()

    world.broker.answer = lost
    unknown = await world.sessions.place_trade(a_manual_trade(key))
    world.broker.answer = world.broker.books
    with pytest.raises(TradeUnresolvedError) as error:
        await world.sessions.place_trade(a_manual_trade(key))
    assert error.value.facts["trade_id"] == unknown.trade_id
    other = await world.sessions.place_trade(a_manual_trade(key, amount=Decimal(11)))
    assert other.state is TradeState.OPEN
    states = sorted(trade.state for trade in world.ledger.all_trades())
    assert states == [TradeState.OPEN, TradeState.REJECTED, TradeState.UNKNOWN]
    assert len(world.broker.sent) == 2


async def test_an_equal_trade_that_is_just_being_sent_is_waited_for(world: World) -> None:
    key = await world.key()
    gate = asyncio.Event()

    async def slow(trade: Trade) -> Placed | AnswerLost:
        if len(world.broker.sent) == 1:
            await gate.wait()
        return await world.broker.books(trade)

    world.broker.answer = slow
    first = asyncio.create_task(world.sessions.place_trade(a_manual_trade(key)))
    await settle()
    second = asyncio.create_task(world.sessions.place_trade(a_manual_trade(key)))
    await settle()
    assert len(world.broker.sent) == 1
    gate.set()
    await world.pass_time(1, step=0.1)
    assert [(await first).state, (await second).state] == [TradeState.OPEN, TradeState.OPEN]


async def test_fifty_trades_at_once_never_exceed_the_open_limit() -> None:
    world = World(ServiceLimits(max_open_trades=3))
    key = await world.key()
    calls = [world.sessions.place_trade(a_manual_trade(key, amount=Decimal(10 + number))) for number in range(50)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, Trade) for result in results) == 3
    assert sum(isinstance(result, LimitReachedError) for result in results) == 47
    assert len(world.broker.sent) == 3


async def test_an_order_that_took_too_long_to_start_is_not_sent(world: World) -> None:
    key = await world.key()
    record = await world.sessions.live(key)
    request = a_manual_trade(key)
    with pytest.raises(UnavailableError):
        await world.desk.place(record, request, may_send=lambda: False)
    (trade,) = world.ledger.all_trades()
    assert (trade.state, world.broker.sent) == (TradeState.REJECTED, [])


async def test_a_broker_service_that_restarts_is_sat_out_before_anything_is_marked(world: World) -> None:
    key = await world.key()
    world.broker.away = True
    caller = asyncio.create_task(world.sessions.place_trade(a_manual_trade(key)))
    await world.pass_time(1)
    assert [trade.state for trade in world.ledger.all_trades()] == [TradeState.INTENT]
    world.broker.away = False
    world.broker.connected.clear()
    await world.pass_time(1)
    assert (await caller).state is TradeState.OPEN
    assert len(world.broker.logins) == 2


async def test_credentials_stay_sealed_while_the_connection_stands(world: World) -> None:
    key = await world.key()
    world.ledger.fail("credentials", UnavailableError("The ledger"))
    assert (await world.sessions.place_trade(a_manual_trade(key))).state is TradeState.OPEN
    assert len(world.broker.logins) == 1


async def test_a_broker_that_stays_away_refuses_the_trade_unsent(world: World) -> None:
    key = await world.key()
    world.broker.away = True
    caller = asyncio.create_task(world.sessions.place_trade(a_manual_trade(key)))
    await world.pass_time(5)
    with pytest.raises(BrokerUnavailableError):
        await caller
    assert [trade.state for trade in world.ledger.all_trades()] == [TradeState.REJECTED]


async def test_drain_waits_for_orders_under_way_and_takes_no_new_ones(world: World) -> None:
    key = await world.key()
    gate = asyncio.Event()
    world.broker.answers_after(gate)
    caller = asyncio.create_task(world.sessions.place_trade(a_manual_trade(key)))
    await settle()
    draining = asyncio.create_task(world.desk.drain(5))
    await settle()
    with pytest.raises(UnavailableError):
        await world.sessions.place_trade(a_manual_trade(key, amount=Decimal(11)))
    gate.set()
    await draining
    assert (await caller).state is TradeState.OPEN


async def test_drain_ends_although_a_silent_ledger_turns_the_cancellation_into_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As asyncpg does when the rollback gets no answer either."""
    key = await world.key()
    begun = asyncio.Event()

    async def silent(*_: object, **__: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise UnavailableError("The ledger") from None

    monkeypatch.setattr(world.ledger, "opened", silent)
    caller = asyncio.create_task(world.sessions.place_trade(a_manual_trade(key)))
    await begun.wait()
    draining = asyncio.create_task(world.desk.drain(0.0))
    for _ in range(20):
        await world.pass_time(10, step=10)
    assert draining.done()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)


async def test_selling_early_records_what_the_broker_paid(world: World) -> None:
    key = await world.key()
    trade = await world.sessions.place_trade(a_manual_trade(key))
    sold = await world.sessions.close_trade(key, trade.trade_id)
    assert (sold.state, sold.profit) == (TradeState.SOLD, Decimal("-0.50"))
