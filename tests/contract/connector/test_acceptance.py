"""The acceptance matrix of a connector. A case's number is its name; numbers are never used again.

TC-1xx account · TC-2xx market · TC-3xx orders · TC-4xx settlement · TC-5xx life
"""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from services.broker.domain.errors import (
    AccountMismatchError,
    AssetClosedError,
    BrokerUnavailableError,
    InsufficientFundsError,
    InvalidArgumentError,
    InvalidCredentialsError,
    NotConnectedError,
    NotSellableError,
    OrderNotFoundError,
    OrderRejectedError,
    PayoutChangedError,
    PurchaseWindowClosedError,
    SendDeadlinePassedError,
    TwoFactorInvalidError,
    TwoFactorRequiredError,
)
from services.broker.domain.values import (
    Account,
    AccountType,
    Candle,
    ConnectionState,
    Direction,
    InstrumentType,
    OrderState,
    Outcome,
    TwoFactor,
)
from services.runtime.secret import Secret
from tests.contract.connector.conftest import Bench
from tests.support.brokers import EURUSD, an_order
from tests.support.eventually import eventually

USER = "trader@example.com"
KINDS = [
    (InstrumentType.TURBO, 60),
    (InstrumentType.BINARY, 900),
    (InstrumentType.BLITZ, 5),
    (InstrumentType.DIGITAL, 60),
]


async def only(bench: Bench, email: str = USER) -> dict[str, Any]:
    """Return the one order that the broker has of a user."""
    (order,) = [o for o in await bench.world.ledger(email) if o["booked_time"] is not None]
    return order


# -- TC-1xx account ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("account_type", "balance"), [(AccountType.PRACTICE, "10000"), (AccountType.REAL, "1000")])
async def test_tc101_connects_to_the_balance_of_the_wanted_type(
    bench: Bench, account_type: AccountType, balance: str
) -> None:
    connector = await bench.connected(account_type=account_type)

    (known,) = [a for a in await bench.world.accounts(USER) if a["broker"] == bench.broker]
    account = connector.account
    assert (account.broker, account.account_type, account.currency) == (bench.broker, account_type, "USD")
    assert account.balance == Decimal(balance)
    assert account.user_id == known["user_id"]
    assert account.balance_id == known["balances"][account_type]["id"]
    assert connector.state is ConnectionState.CONNECTED


async def test_tc102_wrong_password_is_refused_and_not_asked_again(bench: Bench) -> None:
    for _ in range(3):
        with pytest.raises(InvalidCredentialsError):
            await bench.connected(password="wrong")
    # The broker itself counts: five would be throttled. The right password still goes through.
    assert (await bench.connected()).state is ConnectionState.CONNECTED


async def test_tc103_token_is_used_instead_of_a_login(bench: Bench) -> None:
    first = await bench.connected()
    token = first.broker_token
    await first.close(NotConnectedError())
    await bench.world.fault("login_throttled", email=USER)

    again = await bench.connected(token=token)

    assert again.broker_token == token


async def test_tc104_a_token_that_is_over_costs_one_login(bench: Bench) -> None:
    connector = await bench.connected(token=Secret("0" * 32))
    assert connector.state is ConnectionState.CONNECTED
    assert connector.broker_token != Secret("0" * 32)


async def test_tc105_second_factor_is_asked_for_and_proven(bench: Bench) -> None:
    with pytest.raises(TwoFactorRequiredError) as wanted:
        await bench.connected("twofa@example.com")
    assert "sms" in wanted.value.facts["methods"]  # type: ignore[operator]

    proof = TwoFactor(Secret(str(wanted.value.facts["challenge"])), "sms", Secret(""))
    with pytest.raises(TwoFactorRequiredError) as sent:
        await bench.connected("twofa@example.com", two_factor=proof)

    proof = TwoFactor(Secret(str(sent.value.facts["challenge"])), "sms", Secret("123456"))
    connector = await bench.connected("twofa@example.com", two_factor=proof)
    assert connector.account.balance == 10_000


async def test_tc106_wrong_second_factor_is_told_apart(bench: Bench) -> None:
    with pytest.raises(TwoFactorRequiredError) as wanted:
        await bench.connected("twofa@example.com")
    proof = TwoFactor(Secret(str(wanted.value.facts["challenge"])), "email", Secret("000000"))
    with pytest.raises(TwoFactorInvalidError):
        await bench.connected("twofa@example.com", two_factor=proof)


async def test_tc107_account_is_read_anew(bench: Bench) -> None:
    connector = await bench.connected()
    await bench.world.set_balance(USER, "42.5", bench.broker)
    assert (await connector.get_account()).balance == Decimal("42.5")


async def test_tc108_watching_begins_with_state_and_account(bench: Bench) -> None:
    connector = await bench.connected()
    stream = connector.watch_account()
    assert await anext(stream) is ConnectionState.CONNECTED
    assert await anext(stream) == connector.account
    await stream.aclose()  # type: ignore[attr-defined]


async def test_tc109_balance_changes_are_pushed(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    await connector.place_order(an_order(amount="2.50"))

    async def paid() -> bool:
        return any(isinstance(e, Account) and e.balance == Decimal("9997.5") for e in watcher.events)

    await eventually(paid)
    await watcher.stop()


async def test_tc110_brands_share_no_accounts(bench: Bench) -> None:
    here = await bench.connected()
    there = await bench.world.connected(USER, broker=next(b for b in type(bench.broker) if b is not bench.broker))
    assert here.account.user_id != there.account.user_id
    assert here.account.balance_id != there.account.balance_id


# -- TC-2xx market -----------------------------------------------------------------------------------------------------


async def test_tc201_assets_tell_what_can_be_bought(bench: Bench) -> None:
    assets = {asset.asset: asset for asset in await (await bench.connected()).list_assets()}
    kinds = {i.instrument_type: i for i in assets[EURUSD].instruments}
    assert assets[EURUSD].active_id == 76
    assert set(kinds) == set(InstrumentType)
    assert all(kind.open for kind in kinds.values())
    assert kinds[InstrumentType.TURBO].payout_rate == pytest.approx(0.87)
    assert kinds[InstrumentType.TURBO].durations == (60, 120, 180, 240, 300)
    assert 5 in kinds[InstrumentType.BLITZ].durations
    assert kinds[InstrumentType.BLITZ].min_amount == 1
    assert not any(i.open for i in assets["USDCHF-OTC"].instruments), "outside its schedule"
    assert not any(i.open for i in assets["EURUSD"].instruments), "suspended"


async def test_tc202_payouts_are_live(bench: Bench) -> None:
    connector = await bench.connected()
    await connector.list_assets()
    await bench.world.set_asset(payout=71)

    async def moved() -> bool:
        (asset,) = [a for a in await connector.list_assets() if a.asset == EURUSD]
        rates = {i.instrument_type: i.payout_rate for i in asset.instruments}
        return rates[InstrumentType.TURBO] == rates[InstrumentType.BLITZ] == pytest.approx(0.71)

    await eventually(moved)


async def test_tc203_candles_are_ascending_aligned_and_without_holes(bench: Bench) -> None:
    candles = await (await bench.connected()).list_candles(EURUSD, 60, 2_500, None)
    starts = [candle.open_time for candle in candles]
    assert starts == list(range(starts[0], starts[0] + 2_500 * 60, 60))
    assert all(c.low <= min(c.open, c.close) <= max(c.open, c.close) <= c.high for c in candles)
    assert all(c.close_time - c.open_time == 60 and c.open_time % 60 == 0 for c in candles)
    assert all(c.closed for c in candles[:-1])


async def test_tc204_candles_end_before_the_end_time(bench: Bench) -> None:
    connector = await bench.connected()
    end = (await connector.list_candles(EURUSD, 60, 10, None))[4].open_time
    candles = await connector.list_candles(EURUSD, 60, 3, end)
    assert [c.open_time for c in candles] == [end - 180, end - 120, end - 60]
    assert all(c.closed for c in candles)


async def test_tc205_unknown_asset_and_timeframe_are_refused(bench: Bench) -> None:
    connector = await bench.connected()
    with pytest.raises(AssetClosedError):
        await connector.list_candles("NOSUCH", 60, 10, None)
    with pytest.raises(InvalidArgumentError):
        await connector.list_candles(EURUSD, 7, 10, None)
    with pytest.raises(AssetClosedError):
        await anext(connector.watch_candles("NOSUCH", 60))


async def test_tc206_live_candles_close_once_each_in_order_and_agree_with_history(bench: Bench) -> None:
    connector = await bench.connected()
    closed: list[Candle] = []
    async for candle in connector.watch_candles(EURUSD, 1):
        if candle.closed:
            closed.append(candle)
        if len(closed) == 3:
            break
    starts = [c.open_time for c in closed]
    assert starts == [starts[0], starts[0] + 1, starts[0] + 2]
    listed = {c.open_time: c for c in await connector.list_candles(EURUSD, 1, 30, None)}
    assert [listed[start] for start in starts] == closed


async def test_tc207_two_watchers_of_one_candle_both_see_it(bench: Bench) -> None:
    connector = await bench.connected()
    first, second = connector.watch_candles(EURUSD, 5), connector.watch_candles(EURUSD, 5)
    one, two = await asyncio.gather(anext(first), anext(second))
    assert one.open_time % 5 == two.open_time % 5 == 0
    await first.aclose()  # type: ignore[attr-defined]
    assert (await anext(second)).open_time % 5 == 0, "one leaving does not end the other's stream"
    await second.aclose()  # type: ignore[attr-defined]


# -- TC-3xx orders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "duration"), KINDS, ids=str)
@pytest.mark.parametrize("direction", list(Direction), ids=str)
async def test_tc301_places_every_kind(bench: Bench, kind: InstrumentType, duration: int, direction: Direction) -> None:
    connector = await bench.connected()
    wanted = an_order(instrument_type=kind, duration=duration, direction=direction, amount="12.34")

    order = await connector.place_order(wanted)

    booked = await only(bench)
    assert order.state is OrderState.OPEN
    assert order.client_order_id == wanted.client_order_id
    assert order.broker_order_id == str(booked["external_id"])
    assert (booked["asset"], booked["instrument_type"], booked["direction"]) == (EURUSD, kind, direction)
    assert Decimal(str(booked["amount"])) == order.amount == Decimal("12.34")
    assert booked["balance_id"] == order.balance_id == connector.account.balance_id
    assert booked["account_type"] == order.account_type == AccountType.PRACTICE
    assert order.expiry_time.timestamp() == booked["expiry"]
    assert order.payout_rate == pytest.approx(0.87, abs=0.01)
    assert order.open_price == pytest.approx(booked["open_price"])


async def test_tc302_real_money_only_when_asked_for(bench: Bench) -> None:
    connector = await bench.connected(account_type=AccountType.REAL)
    with pytest.raises(AccountMismatchError):
        await connector.place_order(an_order(account_type=AccountType.PRACTICE))
    order = await connector.place_order(an_order(account_type=AccountType.REAL))
    assert (await only(bench))["account_type"] == order.account_type == AccountType.REAL


async def test_tc303_same_id_again_returns_the_first_order_and_sends_nothing(bench: Bench) -> None:
    connector = await bench.connected()
    first = await connector.place_order(an_order("same"))
    assert await connector.place_order(an_order("same", amount="500")) == first
    await only(bench)


async def test_tc304_same_id_at_once_shares_one_send(bench: Bench) -> None:
    connector = await bench.connected()
    wanted = an_order("same")
    orders = await asyncio.gather(*(connector.place_order(wanted) for _ in range(20)))
    assert len({order.broker_order_id for order in orders}) == 1
    await only(bench)


@pytest.mark.parametrize(("kind", "duration"), KINDS, ids=str)
async def test_tc305_insufficient_funds(bench: Bench, kind: InstrumentType, duration: int) -> None:
    connector = await bench.connected()
    await bench.world.set_balance(USER, "5", bench.broker)
    with pytest.raises(InsufficientFundsError):
        await connector.place_order(an_order(instrument_type=kind, duration=duration, amount="6"))


@pytest.mark.parametrize(("kind", "duration"), KINDS, ids=str)
async def test_tc306_insufficient_funds_by_the_brokers_word(bench: Bench, kind: InstrumentType, duration: int) -> None:
    connector = await bench.connected()
    await bench.world.fault("no_money", email=USER)
    with pytest.raises(InsufficientFundsError):
        await connector.place_order(an_order(instrument_type=kind, duration=duration))


@pytest.mark.parametrize("asset", ["NOSUCH", "USDCHF-OTC", "EURUSD"])
async def test_tc307_closed_assets_are_refused_without_asking_the_broker(bench: Bench, asset: str) -> None:
    connector = await bench.connected()
    with pytest.raises(AssetClosedError):
        await connector.place_order(an_order(asset=asset))
    assert await bench.world.ledger(USER) == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("suspended", AssetClosedError),
        ("closed", AssetClosedError),
        ("too_late", PurchaseWindowClosedError),
        ("payout_changed", PayoutChangedError),
        ("rejected_by_risks", OrderRejectedError),
    ],
)
async def test_tc308_refusals_of_the_broker_are_told_apart(bench: Bench, fault: str, error: type[Exception]) -> None:
    connector = await bench.connected()
    await bench.world.fault(fault, email=USER)
    with pytest.raises(error):
        await connector.place_order(an_order())
    assert all(order["booked_time"] is None for order in await bench.world.ledger(USER))


@pytest.mark.parametrize(("kind", "duration"), KINDS, ids=str)
async def test_tc309_payout_floor_is_kept(bench: Bench, kind: InstrumentType, duration: int) -> None:
    connector = await bench.connected()
    with pytest.raises(PayoutChangedError) as refused:
        await connector.place_order(an_order(instrument_type=kind, duration=duration, min_payout_rate=0.95))
    assert refused.value.payout_rate == pytest.approx(0.87, abs=0.02)
    assert await bench.world.ledger(USER) == []
    await connector.place_order(an_order(instrument_type=kind, duration=duration, min_payout_rate=0.8))


async def test_tc310_the_payout_that_was_refused_with_is_offered_next(bench: Bench) -> None:
    connector = await bench.connected()
    await bench.world.fault("payout_changed", email=USER, commission=20, times=1)
    with pytest.raises(PayoutChangedError) as refused:
        await connector.place_order(an_order())
    assert refused.value.payout_rate == pytest.approx(0.80)
    (asset,) = [a for a in await connector.list_assets() if a.asset == EURUSD]
    rates = {i.instrument_type: i.payout_rate for i in asset.instruments}
    assert rates[InstrumentType.TURBO] == pytest.approx(0.80)


async def test_tc311_nothing_is_sent_after_its_time(bench: Bench) -> None:
    connector = await bench.connected()
    with pytest.raises(SendDeadlinePassedError):
        await connector.place_order(an_order(send_within=-0.001))
    assert await bench.world.ledger(USER) == []


@pytest.mark.parametrize(
    ("kind", "duration", "amount"),
    [
        (InstrumentType.TURBO, 600, "1"),
        (InstrumentType.TURBO, 45, "1"),
        (InstrumentType.BLITZ, 7, "1"),
        (InstrumentType.DIGITAL, 120, "1"),
        (InstrumentType.TURBO, 60, "0.5"),
        (InstrumentType.TURBO, 60, "20001"),
    ],
)
async def test_tc312_impossible_orders_are_refused_without_asking(
    bench: Bench, kind: InstrumentType, duration: int, amount: str
) -> None:
    connector = await bench.connected()
    await bench.world.set_balance(USER, "100000", bench.broker)
    with pytest.raises(InvalidArgumentError):
        await connector.place_order(an_order(instrument_type=kind, duration=duration, amount=amount))
    assert await bench.world.ledger(USER) == []


async def test_tc313_a_lost_answer_is_submitted_with_what_was_sent(bench: Bench) -> None:
    connector = await bench.connected()
    await bench.world.fault("lost", on="reply", name="open-option", email=USER)
    await bench.world.fault("lost", on="push", name="position-changed", email=USER)

    order = await connector.place_order(an_order())

    booked = await only(bench)
    assert order.state is OrderState.SUBMITTED
    assert order.broker_order_id == ""
    assert order.balance_id == booked["balance_id"]
    assert order.expiry_time.timestamp() == booked["requested_expiry"]
    assert abs(order.open_time.timestamp() - booked["received_time"]) < 1


async def test_tc314_disconnected_means_nothing_sent(bench: Bench) -> None:
    connector = await bench.connected()
    await bench.world.fault("outage")

    async def down() -> bool:
        return connector.state is ConnectionState.RECONNECTING

    await eventually(down)
    with pytest.raises(BrokerUnavailableError):
        await connector.place_order(an_order())
    assert await bench.world.ledger(USER) == []


# -- TC-4xx settlement -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "duration"), KINDS, ids=str)
@pytest.mark.parametrize("outcome", ["won", "lost", "tied"])
async def test_tc401_outcome_and_profit_are_the_brokers(
    bench: Bench, kind: InstrumentType, duration: int, outcome: str
) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    order = await connector.place_order(an_order(instrument_type=kind, duration=duration, amount="10"))
    await bench.world.settle(USER, outcome)

    closed = await watcher.closed(order.broker_order_id)

    booked = await only(bench)
    assert closed.outcome is Outcome(outcome)
    assert closed.profit == Decimal(str(booked["profit"]))
    assert closed.client_order_id == order.client_order_id
    assert closed.close_time is not None
    assert (await connector.get_account()).balance == Decimal(10_000) + closed.profit
    await watcher.stop()


async def test_tc402_blitz_settles_by_itself(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    order = await connector.place_order(an_order(instrument_type=InstrumentType.BLITZ, duration=5))
    closed = await watcher.closed(order.broker_order_id, within=15)
    booked = await only(bench)
    assert closed.outcome is Outcome(booked["outcome"])
    assert closed.profit == Decimal(str(booked["profit"]))
    await watcher.stop()


@pytest.mark.parametrize(("kind", "duration"), [(InstrumentType.TURBO, 120), (InstrumentType.DIGITAL, 300)])
async def test_tc403_sells_early(bench: Bench, kind: InstrumentType, duration: int) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    order = await connector.place_order(an_order(instrument_type=kind, duration=duration, amount="10"))
    await connector.sell_order(order.broker_order_id)
    closed = await watcher.closed(order.broker_order_id)
    assert closed.outcome is Outcome.SOLD
    assert closed.profit == Decimal(str((await only(bench))["profit"]))
    await watcher.stop()


async def test_tc404_what_cannot_be_sold_is_refused(bench: Bench) -> None:
    connector = await bench.connected()
    blitz = await connector.place_order(an_order(instrument_type=InstrumentType.BLITZ, duration=60))
    with pytest.raises(NotSellableError):
        await connector.sell_order(blitz.broker_order_id)
    with pytest.raises(OrderNotFoundError):
        await connector.sell_order("999")
    turbo = await connector.place_order(an_order())
    watcher = bench.watch(connector)
    await bench.world.settle(USER, "won")
    await watcher.closed(turbo.broker_order_id)
    with pytest.raises(NotSellableError):
        await connector.sell_order(turbo.broker_order_id)
    await watcher.stop()


async def test_tc405_lists_open_and_closed_orders_completely(bench: Bench) -> None:
    connector = await bench.connected()
    start = (await connector.place_order(an_order())).open_time
    await bench.world.settle(USER, "won")
    for kind, duration in KINDS:
        await connector.place_order(an_order(instrument_type=kind, duration=duration))

    listed = await connector.list_orders(start)

    assert listed.complete
    booked = {str(o["external_id"]): o for o in await bench.world.ledger(USER)}
    assert {o.broker_order_id for o in listed.orders} == set(booked)
    for order in listed.orders:
        assert order.client_order_id
        assert order.state is (
            OrderState.OPEN if booked[order.broker_order_id]["status"] == "open" else OrderState.CLOSED
        )


async def test_tc406_long_lists_are_read_to_their_end(bench: Bench) -> None:
    connector = await bench.connected()
    start = (await connector.place_order(an_order("first"))).open_time
    await asyncio.gather(*(connector.place_order(an_order(f"more-{n}")) for n in range(129)))
    assert len((await connector.list_orders(start)).orders) == 130
    await bench.world.settle(USER)
    listed = await connector.list_orders(start)
    assert listed.complete
    assert len({o.broker_order_id for o in listed.orders if o.state is OrderState.CLOSED}) == 130


async def test_tc407_other_balances_and_other_users_are_never_seen(bench: Bench) -> None:
    practice = await bench.connected(account_type=AccountType.PRACTICE)
    real = await bench.connected(account_type=AccountType.REAL)
    other = await bench.connected("trader-other@example.com")
    watchers = [bench.watch(connector) for connector in (practice, real, other)]
    order = await practice.place_order(an_order())
    await bench.world.settle(USER, "won")
    await watchers[0].closed(order.broker_order_id)
    assert watchers[1].orders() == watchers[2].orders() == []
    for connector in (real, other):
        assert (await connector.list_orders(order.open_time)).orders == ()
    for watcher in watchers:
        await watcher.stop()


async def test_tc408_a_second_connection_of_the_account_sees_the_order_without_our_id(bench: Bench) -> None:
    phone, desktop = await bench.connected(), await bench.connected()
    watcher = bench.watch(desktop)
    order = await phone.place_order(an_order())
    seen = await watcher.seen(lambda o: o.broker_order_id == order.broker_order_id)
    assert seen.client_order_id == ""
    await watcher.stop()


# -- TC-5xx life -------------------------------------------------------------------------------------------------------


async def test_tc501_comes_back_after_an_outage_and_says_so(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    await bench.world.fault("outage", lasts=0.5)

    async def back() -> bool:
        states = [e for e in watcher.events if isinstance(e, ConnectionState)]
        return ConnectionState.RECONNECTING in states and states[-1] is ConnectionState.CONNECTED

    await eventually(back)
    assert (await connector.place_order(an_order())).state is OrderState.OPEN
    await watcher.stop()


async def test_tc502_a_settlement_during_an_outage_is_told_after_it(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    order = await connector.place_order(an_order())
    await bench.world.fault("outage", lasts=0.5)
    await bench.world.settle(USER, "won")
    closed = await watcher.closed(order.broker_order_id)
    assert (closed.outcome, closed.profit) == (Outcome.WON, Decimal("0.87"))
    await watcher.stop()


async def test_tc503_a_revoked_token_is_replaced_and_handed_out(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    old = connector.broker_token
    await bench.world.revoke(USER)

    async def renewed() -> bool:
        tokens = [e for e in watcher.events if isinstance(e, Secret)]
        return bool(tokens) and tokens[-1] == connector.broker_token != old

    await eventually(renewed)

    async def back() -> bool:
        return connector.state is ConnectionState.CONNECTED

    await eventually(back)
    await watcher.stop()


async def test_tc504_candles_go_on_after_an_outage_without_a_hole(bench: Bench) -> None:
    connector = await bench.connected()
    closed: list[int] = []
    stream = connector.watch_candles(EURUSD, 1)
    cut = False
    async for candle in stream:
        if candle.closed:
            closed.append(candle.open_time)
        if len(closed) == 2 and not cut:
            cut = True
            await bench.world.fault("outage", lasts=1.2)
        if len(closed) >= 6:
            break
    assert closed == list(range(closed[0], closed[0] + len(closed)))


async def test_tc505_a_lost_settlement_push_is_made_good_from_history(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    await bench.world.fault("lost", on="push", name="*position-changed", email=USER)
    await bench.world.fault("lost", on="push", name="*option-closed", email=USER)
    order = await connector.place_order(an_order(instrument_type=InstrumentType.BLITZ, duration=5))
    closed = await watcher.closed(order.broker_order_id, within=15)
    assert closed.outcome is Outcome((await only(bench))["outcome"])
    await watcher.stop()


async def test_tc506_closing_ends_the_streams_with_the_reason(bench: Bench) -> None:
    connector = await bench.connected()
    watcher = bench.watch(connector)
    candles = connector.watch_candles(EURUSD, 60)
    await anext(candles)
    await connector.close(NotConnectedError(), log_out=True)
    with pytest.raises(NotConnectedError):
        async for _ in candles:
            pass

    async def ended() -> bool:
        return isinstance(watcher.error, NotConnectedError)

    await eventually(ended)
    with pytest.raises(BrokerUnavailableError):
        await connector.place_order(an_order())


async def test_tc507_logging_out_makes_the_token_worthless(bench: Bench) -> None:
    connector = await bench.connected()
    token = connector.broker_token
    await connector.close(NotConnectedError(), log_out=True)
    again = await bench.connected(token=token)
    assert again.broker_token != token


async def test_tc508_refused_for_good_when_the_login_no_longer_works(bench: Bench) -> None:
    connector = await bench.connected()
    await bench.world.fault("two_factor", email=USER)
    await bench.world.revoke(USER)

    async def refused() -> bool:
        return connector.state is ConnectionState.REFUSED

    await eventually(refused)
    with pytest.raises(BrokerUnavailableError):
        await connector.place_order(an_order())
