"""A session's life, its bot's desired state, and its counters."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.runtime.secret import Secret
from services.session.adapters.ledger.database import PostgresDatabase
from services.session.adapters.ledger.ledger import PostgresLedger
from services.session.adapters.ledger.rotation import rewrap_credentials
from services.session.adapters.vault import SealError, Vault
from services.session.domain.bot import BotSettings
from services.session.domain.errors import (
    BotAlreadyRunningError,
    BotNotRunningError,
    SessionNotFoundError,
    StaleEpochError,
)
from services.session.domain.events import BalanceChanged, BrokerConnectionChanged, LogWritten, SessionWillExpire
from services.session.domain.trade import TradeState
from services.session.domain.values import (
    AccountType,
    BotStatus,
    Broker,
    BrokerConnection,
    CloseReason,
    SessionKey,
    SessionState,
)
from services.session.ports import SessionRecord
from tests.support.ledgers import (
    CREDENTIALS,
    LIMITS,
    Published,
    a_bot_request,
    a_key,
    a_ledger,
    a_sending_trade,
    a_session,
    a_trade_id,
    an_account,
    an_order,
    decode,
    ended,
)

SETTINGS = BotSettings(amount=Decimal("2.50"), stop_loss=Decimal(30), max_trades=5, min_payout=0.8)


class FixedClock:
    """A clock that shows what it is told."""

    def __init__(self, now: datetime) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


async def epoch_of(ledger: PostgresLedger, key: SessionKey) -> int:
    record = await ledger.begin_epoch(key)
    assert record is not None
    return record.epoch


async def test_a_new_session_is_active_and_stopped_with_the_brokers_account(ledger: PostgresLedger) -> None:
    key, account = a_key(), an_account(account_type=AccountType.REAL)
    record = await ledger.create_session(key, Broker.EXNOVA, account, CREDENTIALS)
    assert record == await ledger.session(key)
    assert (record.state, record.bot_status, record.account, record.broker) == (
        SessionState.ACTIVE,
        BotStatus.STOPPED,
        account,
        Broker.EXNOVA,
    )
    assert (record.epoch, record.last_seq, record.settings, record.run_id) == (0, 0, None, None)
    assert await ledger.session(a_key()) is None
    assert await ledger.status(a_key()) is None
    assert await ledger.credentials(key) == CREDENTIALS


async def test_a_broker_token_is_replaced_alone(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    await ledger.store_broker_token(key, Secret("ssid-2"))
    assert await ledger.credentials(key) == replace(CREDENTIALS, broker_token=Secret("ssid-2"))
    await ledger.store_broker_token(a_key(), Secret("nobody's"))


async def test_credentials_of_one_session_do_not_open_in_another(
    ledger: PostgresLedger, database: PostgresDatabase
) -> None:
    one, other = await a_session(ledger), await a_session(ledger)
    async with database.transaction() as connection:
        await connection.fetch(
            "UPDATE credentials c SET password = o.password FROM credentials o "
            "WHERE c.session_key = $1 AND o.session_key = $2",
            one,
            other,
        )
    with pytest.raises(SealError):
        await ledger.credentials(one)


async def test_keys_are_rotated_without_touching_what_they_seal(database: PostgresDatabase) -> None:
    old_key, new_key = bytes(32), bytes([1] * 32)
    keys = [await a_session(a_ledger(database, vault=Vault([old_key]))) for _ in range(3)]
    both = Vault([new_key, old_key])
    assert await rewrap_credentials(database, both) == 3
    assert await rewrap_credentials(database, both) == 0
    for key in keys:
        assert await a_ledger(database, vault=Vault([new_key])).credentials(key) == CREDENTIALS
        with pytest.raises(SealError):
            await a_ledger(database, vault=Vault([old_key])).credentials(key)


async def test_a_session_closes_once_and_destroys_its_credentials_when_nothing_is_open(
    ledger: PostgresLedger, published: Published
) -> None:
    key = await a_session(ledger)
    await ledger.start_bot(key, SETTINGS, "run")
    trade = await a_sending_trade(ledger, key)
    closing = await ledger.close_session(key, CloseReason.EXPIRED)
    assert closing is not None
    assert (closing.state, closing.bot_status) == (SessionState.CLOSING, BotStatus.STOPPED)
    assert await ledger.close_session(key, CloseReason.DISCONNECTED) is None
    epoch = await epoch_of(ledger, key)
    assert not await ledger.finish_session(key, epoch=epoch)
    assert await ledger.credentials(key) is not None
    await ledger.opened(trade.trade_id, ended(an_order(trade), TradeState.LOST), epoch=epoch)
    assert await ledger.finish_session(key, epoch=epoch)
    assert await ledger.finish_session(key, epoch=epoch)
    assert await ledger.credentials(key) is None
    assert await ledger.begin_epoch(key) is None
    closed = await ledger.session(key)
    assert closed is not None
    assert (closed.state, closed.close_reason) == (SessionState.CLOSED, CloseReason.EXPIRED)
    assert [event.type for event in published.of(key)] == ["status_update", "session_closed"]


async def test_an_active_session_cannot_be_finished(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    assert not await ledger.finish_session(key, epoch=await epoch_of(ledger, key))


async def test_nothing_follows_the_end_of_a_session(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    await ledger.close_session(key, CloseReason.EXPIRED)
    assert await ledger.emit(key, LogWritten("info", "late")) is None
    for call in (
        ledger.start_bot(key, SETTINGS, "run"),
        ledger.set_bot_status(key, BotStatus.STOPPED),
        ledger.set_timeframe(key, 5),
    ):
        with pytest.raises(SessionNotFoundError):
            await call
    assert [event.type for event in await ledger.events_after(key, 0, 10)] == ["session_closed"]


async def test_sessions_that_never_had_a_runner_come_first_and_closed_ones_never(ledger: PostgresLedger) -> None:
    old, older, new, closed = [await a_session(ledger) for _ in range(4)]
    await ledger.begin_epoch(older)
    await ledger.begin_epoch(old)
    await ledger.close_session(closed, CloseReason.EXPIRED)
    assert await ledger.finish_session(closed, epoch=await epoch_of(ledger, closed))
    assert list(await ledger.sessions_to_run(10)) == [new, older, old]
    assert list(await ledger.sessions_to_run(1)) == [new]


async def test_starting_is_idempotent_and_refuses_other_settings(ledger: PostgresLedger, published: Published) -> None:
    key = await a_session(ledger)
    started = await ledger.start_bot(key, SETTINGS, "run-1")
    assert (started.bot_status, started.settings, started.run_id) == (BotStatus.RUNNING, SETTINGS, "run-1")
    assert await ledger.start_bot(key, SETTINGS, "run-2") == started
    with pytest.raises(BotAlreadyRunningError):
        await ledger.start_bot(key, replace(SETTINGS, max_trades=6), "run-2")
    paused = await ledger.set_bot_status(key, BotStatus.PAUSED)
    assert await ledger.start_bot(key, SETTINGS, "run-2") == paused
    assert [decode(event)["bot_status"] for event in published.of(key)] == ["running", "paused"]


async def test_a_status_update_includes_itself(ledger: PostgresLedger, published: Published) -> None:
    key = await a_session(ledger)
    await ledger.start_bot(key, SETTINGS, "run-1")
    (event,) = published.of(key)
    assert decode(event)["status_seq"] == event.seq == 1
    status = await ledger.status(key)
    assert status is not None
    assert status.seq == 1


async def test_pause_and_resume_need_a_bot_that_runs(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    for status in (BotStatus.PAUSED, BotStatus.RUNNING):
        with pytest.raises(BotNotRunningError):
            await ledger.set_bot_status(key, status)
    assert (await ledger.set_bot_status(key, BotStatus.STOPPED)).last_seq == 0


async def test_a_run_that_is_over_cannot_stop_the_next_one(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    await ledger.start_bot(key, SETTINGS, "run-1")
    await ledger.set_bot_status(key, BotStatus.STOPPED, run_id="run-1")
    await ledger.start_bot(key, SETTINGS, "run-2")
    record = await ledger.set_bot_status(key, BotStatus.STOPPED, run_id="run-1")
    assert (record.bot_status, record.run_id) == (BotStatus.RUNNING, "run-2")


async def test_events_carry_their_state_into_the_session(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    await ledger.emit(key, BalanceChanged(Decimal("123.45"), "EUR"))
    await ledger.emit(key, BrokerConnectionChanged(BrokerConnection.RECONNECTING))
    await ledger.emit(key, SessionWillExpire(300))
    record = await ledger.session(key)
    assert record is not None
    assert (record.account.balance, record.account.currency) == (Decimal("123.45"), "EUR")
    assert (record.broker_connection, record.expiry_warned, record.last_seq) == (BrokerConnection.RECONNECTING, True, 3)
    await ledger.touch(key, record.last_seen - timedelta(hours=1))
    touched = await ledger.session(key)
    assert touched is not None
    assert (touched.last_seen, touched.expiry_warned) == (record.last_seen, False)


async def test_an_emitter_of_an_older_epoch_is_refused(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    old = await epoch_of(ledger, key)
    await ledger.begin_epoch(key)
    with pytest.raises(StaleEpochError):
        await ledger.emit(key, LogWritten("info", "x"), epoch=old)


async def test_epochs_rise_by_one_whoever_asks(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    records = await asyncio.gather(*(ledger.begin_epoch(key) for _ in range(20)))
    assert sorted(record.epoch for record in records if isinstance(record, SessionRecord)) == list(range(1, 21))


async def test_seq_has_no_holes_under_concurrency_and_times_rise_with_it(
    ledger: PostgresLedger, published: Published
) -> None:
    key = await a_session(ledger)
    await asyncio.gather(*(ledger.emit(key, LogWritten("info", str(number))) for number in range(100)))
    stored = await ledger.events_after(key, 0, 200)
    assert [event.seq for event in stored] == list(range(1, 101))
    assert sorted(published.of(key), key=lambda event: event.seq) == list(stored)
    times = [decode(event)["time"] for event in stored]
    assert times == sorted(times)


async def test_a_transaction_that_fails_leaves_no_hole_and_publishes_nothing(
    ledger: PostgresLedger, published: Published
) -> None:
    key = await a_session(ledger)
    await ledger.start_bot(key, SETTINGS, "run")
    with pytest.raises(BotAlreadyRunningError):
        await ledger.start_bot(key, BotSettings(), "run-2")
    await ledger.set_timeframe(key, 5)
    await ledger.set_timeframe(key, 5)
    assert [event.seq for event in published.of(key)] == [1, 2]


async def settle(ledger: PostgresLedger, key: SessionKey, run_id: str, number: int, outcome: TradeState) -> None:
    request = a_bot_request(key, run_id, number, amount=Decimal("2.50"))
    trade, _ = await ledger.reserve(request, a_trade_id(), LIMITS, epoch=None)
    sending = await ledger.begin_send(trade.trade_id, datetime.now(UTC) + timedelta(seconds=3), epoch=None)
    order = an_order(sending)
    await ledger.opened(trade.trade_id, order, epoch=None)
    now = datetime.now(UTC)
    await ledger.opened(trade.trade_id, replace(ended(order, outcome), close_time=now), epoch=None)


async def test_results_add_up_for_the_session_the_run_and_the_day(ledger: PostgresLedger) -> None:
    key = await a_session(ledger)
    await ledger.start_bot(key, SETTINGS, "run-1")
    outcomes = [TradeState.WON, TradeState.LOST, TradeState.TIED, TradeState.LOST]
    for number, outcome in enumerate(outcomes):
        await settle(ledger, key, "run-1", number, outcome)
    status = await ledger.status(key)
    assert status is not None
    assert (status.totals.wins, status.totals.losses, status.totals.ties) == (1, 2, 1)
    # 2.50 × 0.87 is 2.175: half a cent goes to the even cent.
    assert status.totals.profit == status.usage.run_profit == status.usage.daily_profit == Decimal("-2.82")
    assert (status.totals.staked, status.totals.total_trades) == (Decimal("10.00"), 4)
    assert status.totals.payout_sum == pytest.approx(3 * 0.87)
    assert (status.usage.run_trades, status.usage.consecutive_losses) == (4, 2)
    assert (status.usage.exposure, status.usage.open_trades, status.active_trades) == (Decimal(0), 0, 0)
    await ledger.set_bot_status(key, BotStatus.STOPPED)
    await ledger.start_bot(key, SETTINGS, "run-2")
    status = await ledger.status(key)
    assert status is not None
    assert (status.usage.run_trades, status.usage.run_profit, status.usage.consecutive_losses) == (0, Decimal(0), 0)
    assert status.usage.daily_profit == status.totals.profit == Decimal("-2.82")


async def test_a_day_ends_at_midnight_utc(database: PostgresDatabase) -> None:
    evening = datetime(2026, 11, 24, 23, 59, tzinfo=UTC)
    clock = FixedClock(evening)
    ledger = a_ledger(database, clock=clock)
    key = await a_session(ledger)
    await ledger.start_bot(key, BotSettings(daily_loss_limit=Decimal(15)), "run")

    async def lose(close_time: datetime) -> None:
        trade = await a_sending_trade(ledger, key)
        order = replace(ended(an_order(trade), TradeState.LOST), close_time=close_time)
        await ledger.opened(trade.trade_id, order, epoch=None)

    async def daily_profit() -> Decimal:
        status = await ledger.status(key)
        assert status is not None
        return status.usage.daily_profit

    await lose(evening)
    assert await daily_profit() == Decimal(-10)
    clock.time += timedelta(minutes=2)
    assert await daily_profit() == Decimal(0)
    await lose(evening)  # yesterday's, recorded today
    assert await daily_profit() == Decimal(0)
    await lose(clock.time)
    assert await daily_profit() == Decimal(-10)
