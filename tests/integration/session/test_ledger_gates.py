"""The ledger's evidence on a real PostgreSQL: each decision once, under the fence, and the sums that belong to it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.session.adapters.ledger.database import PostgresDatabase
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.domain.bot import BotSettings
from services.session.domain.errors import StaleEpochError
from services.session.domain.events import SignalMade
from services.session.domain.evidence import Gate, GateMode
from services.session.domain.shadow import GateKey, Shadow, ShadowState
from services.session.domain.values import CloseReason, Direction, SessionKey
from tests.support.ledgers import Published, a_session

EDGE = GateKey("edge", "1", "EURUSD-OTC", 60, timedelta(seconds=60))
START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
PAYOUT = 0.87


def a_shadow(minute: int = 0, key: GateKey = EDGE) -> Shadow:
    return Shadow(key, START + timedelta(minutes=minute), Direction.CALL, PAYOUT)


def a_signal() -> SignalMade:
    return SignalMade("HOLD", 0.6, "edge", "1", "EURUSD-OTC", 60, 0.6, 0.53, 0.1, "gate_closed", START, "CALL", "words")


async def a_bot(ledger: PostgresLedger) -> tuple[SessionKey, int]:
    """A session whose bot runs on EDGE's terms, and its epoch."""
    key = await a_session(ledger)
    await ledger.start_bot(key, BotSettings(model="edge", gate=GateMode.EVIDENCE), "run-1")
    record = await ledger.begin_epoch(key)
    assert record is not None
    await ledger.use_gate(key, EDGE, epoch=record.epoch)
    return key, record.epoch


async def decided(ledger: PostgresLedger, key: SessionKey, epoch: int, minute: int, exit_price: float | None) -> Gate:
    shadow = a_shadow(minute)
    assert await ledger.tell_signal(key, a_signal(), shadow, epoch=epoch) is ShadowState.PENDING
    await ledger.enter_shadow(key, shadow, 1.1, epoch=epoch)
    return (await ledger.resolve_shadow(key, shadow, exit_price, epoch=epoch)).gate


async def test_a_decision_is_counted_once_however_often_and_by_whom_it_is_resolved(ledger: PostgresLedger) -> None:
    key, epoch = await a_bot(ledger)
    shadow = a_shadow()
    assert await ledger.tell_signal(key, a_signal(), shadow, epoch=epoch) is ShadowState.PENDING
    await ledger.enter_shadow(key, shadow, 1.1, epoch=epoch)
    records = await asyncio.gather(*(ledger.resolve_shadow(key, shadow, 1.2, epoch=epoch) for _ in range(8)))
    assert {record.gate.decided for record in records} == {1}
    status = await ledger.status(key)
    assert status is not None
    assert (status.gate.decided, status.gate.hits, status.gate_version) == (1, 1, "1")
    assert await ledger.pending_shadows(key, EDGE) == []


async def test_a_candle_has_one_decision_of_a_model_whoever_makes_it(ledger: PostgresLedger) -> None:
    key, epoch = await a_bot(ledger)
    again = replace(a_shadow(), direction=Direction.PUT)
    assert await ledger.tell_signal(key, a_signal(), a_shadow(), epoch=epoch) is ShadowState.PENDING
    assert await ledger.tell_signal(key, a_signal(), again, epoch=epoch) is None
    assert [shadow.direction for shadow in await ledger.pending_shadows(key, EDGE)] == [Direction.CALL]


async def test_the_first_entry_price_stays(ledger: PostgresLedger) -> None:
    key, epoch = await a_bot(ledger)
    await ledger.tell_signal(key, a_signal(), a_shadow(), epoch=epoch)
    for price in (1.1, 1.3):
        await ledger.enter_shadow(key, a_shadow(), price, epoch=epoch)
    (shadow,) = await ledger.pending_shadows(key, EDGE)
    assert shadow.entry_price == 1.1


async def test_evidence_survives_the_next_runner_and_refuses_the_one_before(ledger: PostgresLedger) -> None:
    key, epoch = await a_bot(ledger)
    gate = await decided(ledger, key, epoch, 0, 1.2)
    await ledger.tell_signal(key, a_signal(), a_shadow(1), epoch=epoch)
    successor = await ledger.begin_epoch(key)
    assert successor is not None
    for call in (
        ledger.use_gate(key, EDGE, epoch=epoch),
        ledger.tell_signal(key, a_signal(), a_shadow(2), epoch=epoch),
        ledger.enter_shadow(key, a_shadow(1), 1.0, epoch=epoch),
        ledger.resolve_shadow(key, a_shadow(1), 1.0, epoch=epoch),
    ):
        with pytest.raises(StaleEpochError):
            await call
    assert (await ledger.use_gate(key, EDGE, epoch=successor.epoch)).gate == gate
    assert await ledger.pending_shadows(key, EDGE) == [a_shadow(1)]


async def test_the_sums_are_those_of_the_decisions(ledger: PostgresLedger) -> None:
    key, epoch = await a_bot(ledger)
    expected = Gate()
    for minute, exit_price in enumerate((1.2, 1.0, 1.1, 1.2, 1.2)):
        profit = PAYOUT if exit_price > 1.1 else -1.0 if exit_price < 1.1 else 0.0
        expected = expected.after(profit, PAYOUT)
        gate = await decided(ledger, key, epoch, minute, exit_price)
    assert gate == expected
    assert await decided(ledger, key, epoch, 10, None) == expected
    status = await ledger.status(key)
    assert status is not None
    assert (status.gate, status.gate_voided) == (expected, 1)


async def test_a_decision_within_another_is_kept_apart(ledger: PostgresLedger) -> None:
    key, epoch = await a_bot(ledger)
    long = replace(EDGE, duration=timedelta(minutes=2))
    other = replace(long, model_version="2")
    for gate in (long, other):
        await ledger.use_gate(key, gate, epoch=epoch)
    states = [
        await ledger.tell_signal(key, a_signal(), a_shadow(minute, gate), epoch=epoch)
        for minute, gate in ((0, long), (1, long), (2, long), (3, other))
    ]
    # One that begins as another ends is a bet of its own, and so is another version's.
    assert states == [ShadowState.PENDING, ShadowState.OVERLAPPING, ShadowState.PENDING, ShadowState.PENDING]


async def test_opening_and_closing_are_told_with_the_status(ledger: PostgresLedger, published: Published) -> None:
    key, epoch = await a_bot(ledger)
    minute = 0
    while not (await decided(ledger, key, epoch, minute, 1.2)).opened:
        minute += 1
    assert [event.type for event in published.of(key)[-3:]] == ["signal", "log", "status_update"]
    while (await decided(ledger, key, epoch, minute + 1, 1.0)).opened:
        minute += 1
    assert [event.type for event in published.of(key)[-3:]] == ["signal", "log", "status_update"]


async def test_another_version_that_has_shown_nothing_is_told_to_close_the_gate(
    ledger: PostgresLedger, published: Published
) -> None:
    key, epoch = await a_bot(ledger)
    minute = 0
    while not (await decided(ledger, key, epoch, minute, 1.2)).opened:
        minute += 1
    await ledger.use_gate(key, replace(EDGE, model_version="2"), epoch=epoch)
    assert published.of(key)[-1].type == "log"
    status = await ledger.status(key)
    assert status is not None
    assert (status.gate_version, status.gate) == ("2", Gate())


async def test_nothing_follows_the_end_of_a_session(ledger: PostgresLedger) -> None:
    key, epoch = await a_bot(ledger)
    await ledger.close_session(key, CloseReason.DISCONNECTED)
    assert await ledger.tell_signal(key, a_signal(), a_shadow(), epoch=epoch) is None
    assert await ledger.pending_shadows(key, EDGE) == []


async def test_a_bot_from_before_there_were_gates_gets_the_one_of_its_money(
    ledger: PostgresLedger, database: PostgresDatabase
) -> None:
    key, _ = await a_bot(ledger)
    async with database.transaction() as connection:
        await connection.fetch("UPDATE sessions SET settings = settings - 'gate', account_type = 'REAL'")
    record = await ledger.session(key)
    assert record is not None
    assert record.settings is not None
    assert record.settings.gate is GateMode.EVIDENCE
