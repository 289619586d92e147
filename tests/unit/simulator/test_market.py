"""Prices are a pure function of seed and time; candles are made of them."""

from itertools import pairwise

import numpy as np
import pytest

from markets.catalogue import standard_markets
from simulator.market.assets import ASSETS, build_histories
from simulator.market.prices import CANDLE_SIZES, DAY, HISTORY_START, PriceHistory
from simulator.market.replay import ReplayedPrices, recorded_hours
from simulator.market.synthetic import SyntheticPrices

NOON = 1_795_521_600
"""2026-11-24 12:00:00 UTC."""


@pytest.fixture(scope="module")
def histories() -> dict[int, PriceHistory]:
    return build_histories(1, "replay")


@pytest.fixture(scope="module")
def eurusd(histories: dict[int, PriceHistory]) -> PriceHistory:
    return histories[76]


def autocorrelation(closes: np.ndarray) -> float:
    returns = np.diff(np.log(closes))
    return float(np.corrcoef(returns[1:], returns[:-1])[0, 1])


def test_same_seed_gives_the_same_prices_in_whatever_order_they_are_asked_for() -> None:
    one, other = build_histories(7, "replay"), build_histories(7, "replay")
    seconds = [NOON, NOON - 40 * DAY, NOON + 5, NOON - DAY]
    for asset in ASSETS:
        forward = [one[asset.active_id].price(second) for second in seconds]
        backward = [other[asset.active_id].price(second) for second in reversed(seconds)]
        assert forward == backward[::-1]


def test_another_seed_gives_other_prices() -> None:
    one, other = build_histories(1, "rw"), build_histories(2, "rw")
    assert all(one[a.active_id].price(NOON) != other[a.active_id].price(NOON) for a in ASSETS)


def test_unknown_market_is_refused() -> None:
    with pytest.raises(ValueError, match="no market named"):
        build_histories(1, "moon")
    with pytest.raises(ValueError, match="no market"):
        build_histories(1, "rw", {"AUDUSD-OTC": "moon"})
    with pytest.raises(ValueError, match="no asset"):
        build_histories(1, "rw", {"MOON-OTC": "rw"})


def test_an_asset_may_follow_another_market() -> None:
    plain, changed = build_histories(1, "rw"), build_histories(1, "rw", {"AUDUSD-OTC": "ar_rev"})
    asset = next(asset for asset in ASSETS if asset.ticker == "AUDUSD-OTC")
    other = next(asset for asset in ASSETS if asset.ticker == "GBPUSD-OTC")
    now = 1_760_000_000
    assert any(plain[asset.active_id].price(now + s) != changed[asset.active_id].price(now + s) for s in range(60))
    assert all(plain[other.active_id].price(now + s) == changed[other.active_id].price(now + s) for s in range(60))


@pytest.mark.parametrize("size", CANDLE_SIZES)
def test_candle_is_what_its_ticks_are(eurusd: PriceHistory, size: int) -> None:
    start = NOON // size * size
    last = min(start + size - 1, start + 2 * DAY)
    ticks = [eurusd.price(second) for second in range(start, last + 1, max(1, size // 3600))]
    candle = eurusd.candle(size, last)
    assert candle.start == start
    assert candle.open == ticks[0]
    assert candle.close == eurusd.price(last)
    assert candle.low <= min(ticks)
    assert candle.high >= max(ticks)
    if size <= 3600:
        assert (candle.low, candle.high) == (min(ticks), max(ticks))


@pytest.mark.parametrize("size", CANDLE_SIZES)
def test_history_ends_with_the_candle_that_is_forming_and_has_no_gap(eurusd: PriceHistory, size: int) -> None:
    last = NOON // size
    candles = eurusd.candles(size, last - 4, last, NOON)
    assert [c.number for c in candles] == list(range(last - 4, last + 1))
    assert candles[-1] == eurusd.candle(size, NOON)
    assert all(later.start - earlier.start == size for earlier, later in pairwise(candles))


def test_history_shows_nothing_of_the_future(eurusd: PriceHistory) -> None:
    candles = eurusd.candles(60, NOON // 60 - 2, NOON // 60 + 10, NOON + 20)
    assert candles[-1].start == NOON
    assert candles[-1].close == eurusd.price(NOON + 20)


def test_history_goes_back_to_its_beginning_and_no_further(eurusd: PriceHistory) -> None:
    first = HISTORY_START // 60
    assert [c.number for c in eurusd.candles(60, first - 5, first + 1, NOON)] == [first, first + 1]


def test_a_thousand_candles_of_five_minutes_and_of_a_minute_are_there(eurusd: PriceHistory) -> None:
    for size in (60, 300):
        assert len(eurusd.candles(size, NOON // size - 999, NOON // size, NOON)) == 1000


def test_large_candles_are_made_of_small_ones(eurusd: PriceHistory) -> None:
    (week,) = eurusd.candles(604_800, NOON // 604_800 - 1, NOON // 604_800 - 1, NOON)
    days = eurusd.candles(DAY, week.start // DAY, week.start // DAY + 6, NOON)
    assert (week.open, week.close) == (days[0].open, days[-1].close)
    assert (week.high, week.low) == (max(d.high for d in days), min(d.low for d in days))


def test_replay_stays_within_each_recorded_hour_and_meets_its_four_prices() -> None:
    hours = recorded_hours()
    replayed = ReplayedPrices(hours, (1, 76)).day(NOON // DAY)
    bars = {(bar.open, bar.high, bar.low, bar.close) for bar in hours}
    for hour in replayed.reshape(24, 3600):
        assert (hour[0], hour.max(), hour.min(), hour[-1]) in bars


@pytest.mark.parametrize("name", list(standard_markets()))
def test_synthetic_candle_opens_where_the_last_one_closed(name: str) -> None:
    prices = SyntheticPrices(standard_markets()[name], 1.3, 1e-4, (1, 5)).day(20_000)
    assert (prices[5::5] == prices[4:-5:5]).all()


@pytest.mark.parametrize(("name", "expected"), [("rw", 0.0), ("ar_mom", 0.25), ("ar_rev", -0.25)])
def test_synthetic_market_has_its_character_in_five_second_bars(name: str, expected: float) -> None:
    prices = SyntheticPrices(standard_markets()[name], 1.3, 1e-4, (3, 5)).day(20_000)
    assert autocorrelation(prices[4::5].astype(float)) == pytest.approx(expected, abs=0.03)


def test_synthetic_days_join_without_a_jump() -> None:
    source = SyntheticPrices(standard_markets()["ou_rw"], 151.0, 1e-4, (1, 85))
    before, after = source.day(20_000), source.day(20_001)
    assert before[-1] == after[0]


def test_optimal_forecast_earns_on_the_mean_reverting_asset_what_the_theory_says(
    histories: dict[int, PriceHistory],
) -> None:
    day = NOON // DAY - 1
    closes = np.array(
        [
            c.close
            for n in range(0, 86_400, 5_000)
            for c in histories[86].candles(5, (day * DAY + n) // 5, (day * DAY + n) // 5 + 999, NOON)
        ]
    )
    returns = np.diff(np.log(closes)) / 1e-4
    p_up = standard_markets()["ar_mom"].p_up(returns)[:-1]
    trades = np.maximum(p_up, 1 - p_up) > 1 / 1.87
    hits = (returns[1:] > 0) == (p_up > 0.5)
    assert trades.mean() == pytest.approx(0.74, abs=0.05)
    assert hits[trades].mean() == pytest.approx(0.603, abs=0.025)
