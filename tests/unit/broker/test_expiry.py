"""Which expiry is bought."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.broker.domain.errors import InvalidArgumentError, PurchaseWindowClosedError
from services.broker.domain.expiry import PURCHASE_MARGIN, blitz_expiry, grid_expiry, listed_expiry

MINUTE = 1_795_489_200
TURBO = {"step": 60, "count": 5, "deadtime": 30}
BINARY = {"step": 900, "count": 50, "deadtime": 300}


@pytest.mark.parametrize(
    ("second", "duration", "life"),
    [
        (0.0, 60, 60),
        (10.0, 60, 50),
        (29.0, 60, 31),
        (29.6, 60, 90.4),  # 30.4 s ahead is too close to the broker's 30 s
        (30.0, 60, 90),
        (45.0, 60, 75),
        (59.9, 60, 60.1),
        (0.0, 300, 300),
        (45.0, 300, 255),  # the fifth mark is the last one on offer
        (10.0, 120, 110),
    ],
)
def test_turbo_buys_the_nearest_minute_that_can_still_be_bought(second: float, duration: int, life: float) -> None:
    now = MINUTE + second
    assert grid_expiry(now, duration, **TURBO) - now == pytest.approx(life)


def test_binary_buys_quarter_hours() -> None:
    quarter = MINUTE // 900 * 900
    assert grid_expiry(quarter, 900, **BINARY) == quarter + 900
    assert grid_expiry(quarter + 599, 900, **BINARY) == quarter + 1_800, "nearer to a quarter of an hour from now"
    assert grid_expiry(quarter + 601, 60, **BINARY) == quarter + 1_800, "less than 5 minutes are left"
    assert grid_expiry(quarter + 100, 60, **BINARY) == quarter + 900


@given(
    now=st.floats(MINUTE, MINUTE + 86_400),
    duration=st.integers(1, 5).map(lambda minutes: minutes * 60),
)
def test_turbo_expiries_are_on_the_grid_in_time_and_nearest(now: float, duration: int) -> None:
    expiry = grid_expiry(now, duration, **TURBO)
    assert expiry % 60 == 0
    assert expiry - now > 30 + PURCHASE_MARGIN
    first = int(now) // 60 * 60 + 60
    for other in range(first, first + 300, 60):
        if other - now > 30 + PURCHASE_MARGIN:
            assert abs(expiry - now - duration) <= abs(other - now - duration)


@pytest.mark.parametrize("duration", [0, -60, 30, 61, 360])
def test_turbo_refuses_other_durations(duration: int) -> None:
    with pytest.raises(InvalidArgumentError):
        grid_expiry(MINUTE, duration, **TURBO)


def test_a_grid_with_nothing_left_is_closed() -> None:
    with pytest.raises(PurchaseWindowClosedError):
        grid_expiry(MINUTE + 45, 60, step=60, count=1, deadtime=30)


def test_blitz_takes_only_the_listed_lengths() -> None:
    assert blitz_expiry(MINUTE + 0.7, 5, durations=(5, 30)) == MINUTE + 5
    with pytest.raises(InvalidArgumentError):
        blitz_expiry(MINUTE, 7, durations=(5, 30))


def test_digital_takes_the_nearest_listed_expiry_that_is_far_enough() -> None:
    expiries = {MINUTE + 60: 30, MINUTE + 120: 30}
    assert listed_expiry(MINUTE + 10, 60, expiries=expiries) == MINUTE + 60
    assert listed_expiry(MINUTE + 31, 60, expiries=expiries) == MINUTE + 120
    assert listed_expiry(MINUTE + 27, 60, expiries=expiries, lead=3.0) == MINUTE + 120, "its window closes meanwhile"
    with pytest.raises(PurchaseWindowClosedError):
        listed_expiry(MINUTE + 100, 60, expiries=expiries)
