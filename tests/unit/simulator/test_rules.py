"""Which orders are taken: purchase windows, grids, amounts, payouts, conditions."""

from decimal import Decimal

import pytest

from simulator.exchange import rules
from simulator.exchange.instruments import (
    expiries_on_offer,
    instrument_id,
    instrument_index,
    old_instrument_id,
    parse_instrument_id,
)
from simulator.exchange.listings import Listings
from simulator.exchange.orders import Direction
from simulator.exchange.refusals import Refusal
from simulator.market.assets import ALL_KINDS, ASSETS, OptionKind, build_histories, closed_now, open_now

MINUTE = 1_795_521_600
"""A whole hour, so that every grid meets here."""


@pytest.fixture
def listings() -> Listings:
    return Listings(build_histories(1, "rw"))


def refusal_of(kind: OptionKind, expiry: int, now: float) -> str | None:
    try:
        rules.check_expiry(kind, expiry, now)
    except Refusal as refusal:
        return refusal.reason
    return None


@pytest.mark.parametrize(
    ("expiry", "now", "reason"),
    [
        (MINUTE + 60, MINUTE, None),
        (MINUTE + 60, MINUTE + 29.9, None),
        (MINUTE + 60, MINUTE + 30, "too_late"),
        (MINUTE + 60, MINUTE + 59, "too_late"),
        (MINUTE, MINUTE + 1, "too_late"),
        (MINUTE + 120, MINUTE + 31, None),
        (MINUTE + 300, MINUTE, None),
        (MINUTE + 300, MINUTE + 59.9, None),
        (MINUTE + 360, MINUTE + 29.9, "invalid_expiry"),
        (MINUTE + 360, MINUTE + 30, None),
        (MINUTE + 420, MINUTE + 59.9, "invalid_expiry"),
        (MINUTE + 90, MINUTE, "invalid_expiry"),
    ],
)
def test_turbo_is_sold_for_the_five_minutes_that_are_more_than_thirty_seconds_ahead(
    expiry: int, now: float, reason: str | None
) -> None:
    assert refusal_of(OptionKind.TURBO, expiry, now) == reason


@pytest.mark.parametrize(
    ("expiry", "now", "reason"),
    [
        (MINUTE + 900, MINUTE, None),
        (MINUTE + 900, MINUTE + 599, None),
        (MINUTE + 900, MINUTE + 600, "too_late"),
        (MINUTE + 960, MINUTE, "invalid_expiry"),
        (MINUTE + 50 * 900, MINUTE, None),
        (MINUTE + 51 * 900, MINUTE, "invalid_expiry"),
        (MINUTE + 12 * 3600, MINUTE, None),
        (MINUTE + 36 * 3600, MINUTE, None),
        (MINUTE + 60 * 3600, MINUTE, "invalid_expiry"),
    ],
)
def test_binary_is_sold_for_quarter_hours_and_ends_of_day(expiry: int, now: float, reason: str | None) -> None:
    assert refusal_of(OptionKind.BINARY, expiry, now) == reason


def test_blitz_runs_for_listed_seconds_only() -> None:
    assert rules.check_blitz(5) == 5
    for size in (None, 0, 4, 7, 600):
        with pytest.raises(Refusal):
            rules.check_blitz(size)


@pytest.mark.parametrize("amount", ["0", "-1", "0.99", "1.001", "1E-400", "NaN", "Infinity"])
def test_amount_is_cents_and_not_below_the_minimum(amount: str) -> None:
    with pytest.raises(Refusal) as caught:
        rules.check_amount(Decimal(amount))
    assert caught.value.reason == "invalid_amount"


@pytest.mark.parametrize("amount", ["1", "1.5", "20000", "7.77"])
def test_good_amounts_are_taken(amount: str) -> None:
    assert rules.check_amount(Decimal(amount)) == Decimal(amount)
    rules.check_maximum(Decimal(amount))


@pytest.mark.parametrize("amount", ["20000.01", "1E+400"])
def test_amount_above_the_maximum_is_refused(amount: str) -> None:
    with pytest.raises(Refusal):
        rules.check_maximum(rules.check_amount(Decimal(amount)))


def test_changed_payout_is_refused_with_the_commission_that_there_is(listings: Listings) -> None:
    listing = listings.by_ticker("EURUSD-OTC")
    assert listing is not None
    rules.check_payout(listing, OptionKind.BLITZ, 87)
    rules.check_payout(listing, OptionKind.BLITZ, None)
    with pytest.raises(Refusal) as caught:
        rules.check_payout(listing, OptionKind.BLITZ, 86)
    assert caught.value.status == 4117
    assert caught.value.result == {"actual_commission": {"active_id": 76, "commission": 13, "option_type": 12}}


@pytest.mark.parametrize(
    ("ticker", "kind", "status"),
    [
        ("EURUSD", OptionKind.TURBO, 4119),
        ("USDCHF-OTC", OptionKind.TURBO, 4103),
        ("USDZAR-OTC", OptionKind.BLITZ, 4103),
        ("NONE", OptionKind.TURBO, 4103),
    ],
)
def test_closed_suspended_and_unknown_assets_are_refused(
    listings: Listings, ticker: str, kind: OptionKind, status: int
) -> None:
    with pytest.raises(Refusal) as caught:
        rules.check_open(listings.by_ticker(ticker), kind)
    assert caught.value.status == status


def test_eurusd_otc_is_open_in_every_kind_at_the_documented_payout(listings: Listings) -> None:
    for kind in ALL_KINDS:
        assert rules.check_open(listings.get(76), kind).payout(kind) == 87


def test_schedules_cover_the_present_or_never_do() -> None:
    for now in (MINUTE, MINUTE + 0.5, MINUTE + 43_199.9):
        assert any(opens <= now < closes for opens, closes in open_now(now))
        assert not any(opens <= now < closes for opens, closes in closed_now(now))


def test_asset_names_and_ids_are_unique_and_names_have_no_dot() -> None:
    assert len({a.active_id for a in ASSETS}) == len({a.ticker for a in ASSETS}) == len(ASSETS)
    assert not any("." in a.ticker for a in ASSETS)


@pytest.mark.parametrize("side", Direction)
@pytest.mark.parametrize("period", [60, 300, 900])
def test_both_spellings_of_an_instrument_are_read_back(side: Direction, period: int) -> None:
    new = parse_instrument_id(instrument_id(76, MINUTE, period, side))
    old = parse_instrument_id(old_instrument_id("EURUSD-OTC", MINUTE, period, side))
    assert new is not None
    assert old is not None
    assert (new.active_id, new.expiry, new.period, new.direction) == (76, MINUTE, period, side)
    assert (old.ticker, old.expiry, old.period, old.direction) == ("EURUSD-OTC", MINUTE, period, side)


@pytest.mark.parametrize("text", ["", "do", "do76A20261399D000000T1MCSPT", "do76A20261124D031100T1MXSPT", "x" * 5000])
def test_nonsense_is_no_instrument(text: str) -> None:
    assert parse_instrument_id(text) is None


def test_documented_instrument_ids_are_understood() -> None:
    old = parse_instrument_id("doEURUSD-OTC202611240311PT1MCSPT")
    new = parse_instrument_id("do76A20261124D031100T1MCSPT")
    assert old is not None
    assert new is not None
    assert (old.expiry, old.period) == (new.expiry, new.period)


def test_instrument_indexes_differ_between_all_on_offer() -> None:
    indexes = [instrument_index(a.active_id, e, p) for a in ASSETS for e, p in expiries_on_offer(MINUTE)]
    assert len(set(indexes)) == len(indexes)
