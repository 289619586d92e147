"""Which expiry an order can still buy: pure arithmetic on the broker's grid and clock."""

from typing import Final

from services.broker.domain.errors import InvalidArgumentError, PurchaseWindowClosedError

PURCHASE_MARGIN: Final = 0.5
"""Seconds kept between our last word and the broker's deadline, for the way there.

A later order would be refused by the broker, or worse: booked on an expiry that nobody meant.
"""


def grid_expiry(now: float, duration: int, *, step: int, count: int, deadtime: int) -> int:
    """Return the expiry nearest to ``now + duration`` that can still be bought; the later one of two equally near.

    Args:
        now: The broker's time, unix seconds.
        duration: Wanted seconds from now, full minutes.
        step: The grid: expiries are multiples of it (60 for turbo, 900 for binary).
        count: How many steps ahead are on offer.
        deadtime: An expiry can be bought while it is more than this many seconds ahead.

    Raises:
        InvalidArgumentError: The duration is no number of full minutes, or beyond the grid.
        PurchaseWindowClosedError: Nothing on the grid can be bought.
    """
    if duration <= 0 or duration % 60:
        raise InvalidArgumentError("duration", "must be a number of full minutes")
    if duration > step * count:
        raise InvalidArgumentError("duration", f"must be at most {step * count} s for this asset")
    first = int(now) // step * step + step
    marks = [mark for mark in range(first, first + step * count, step) if mark - now > deadtime + PURCHASE_MARGIN]
    if not marks:
        raise PurchaseWindowClosedError
    return min(marks, key=lambda mark: (abs(mark - now - duration), -mark))


def blitz_expiry(now: float, duration: int, *, durations: tuple[int, ...]) -> int:
    """Return when a blitz option bought now would expire; the broker counts from its own acceptance.

    Raises:
        InvalidArgumentError: The asset has no such duration.
    """
    if duration not in durations:
        raise InvalidArgumentError("duration", f"must be one of {', '.join(map(str, durations))} s for this asset")
    return int(now) + duration


def listed_expiry(now: float, duration: int, *, expiries: dict[int, int], lead: float = 0.0) -> int:
    """Return the expiry nearest to ``now + duration`` of those that the broker lists (digital).

    Args:
        now: The broker's time, unix seconds.
        duration: Wanted seconds from now.
        expiries: Deadtime in seconds by expiry in unix seconds.
        lead: Seconds that will pass before the order can be sent.

    Raises:
        PurchaseWindowClosedError: None of them can still be bought.
    """
    marks = [mark for mark, deadtime in expiries.items() if mark - now - lead > deadtime + PURCHASE_MARGIN]
    if not marks:
        raise PurchaseWindowClosedError
    return min(marks, key=lambda mark: (abs(mark - now - duration), -mark))
