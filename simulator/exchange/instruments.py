"""Digital instruments: at-the-money options on a grid of expiries, and the two spellings of their ids."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from simulator.exchange.orders import Direction
from simulator.market.assets import TERMS, OptionKind

PERIODS: Final = TERMS[OptionKind.DIGITAL].expirations
_NEW_ID: Final = re.compile(r"do(?P<id>\d{1,9})A(?P<day>\d{8})D(?P<time>\d{6})T(?P<minutes>\d{1,4})M(?P<side>[CP])SPT")
_OLD_ID: Final = re.compile(r"do(?P<ticker>.+?)(?P<day>\d{8})(?P<time>\d{4})PT(?P<minutes>\d{1,4})M(?P<side>[CP])SPT")


@dataclass(frozen=True, slots=True)
class Instrument:
    """One digital option that could be bought."""

    active_id: int | None
    """None if the id spelled the ticker instead."""
    ticker: str | None
    expiry: int
    period: int
    direction: Direction

    @property
    def is_on_grid(self) -> bool:
        """Whether the platform ever offers such an expiry and period."""
        return self.period in PERIODS and self.expiry % self.period == 0


def parse_instrument_id(instrument_id: str) -> Instrument | None:
    """Read either spelling; None if it is neither."""
    for pattern, form in ((_NEW_ID, "%Y%m%d%H%M%S"), (_OLD_ID, "%Y%m%d%H%M")):
        match = pattern.fullmatch(instrument_id)
        if match is None:
            continue
        fields = match.groupdict()
        try:
            expiry = datetime.strptime(fields["day"] + fields["time"], form).replace(tzinfo=UTC)
        except ValueError:
            return None
        return Instrument(
            active_id=int(fields["id"]) if "id" in fields else None,
            ticker=fields.get("ticker"),
            expiry=int(expiry.timestamp()),
            period=int(fields["minutes"]) * 60,
            direction=Direction.CALL if fields["side"] == "C" else Direction.PUT,
        )
    return None


def instrument_id(active_id: int, expiry: int, period: int, direction: Direction) -> str:
    """Spell the id of an instrument the new way."""
    when = datetime.fromtimestamp(expiry, UTC).strftime("%Y%m%dD%H%M%S")
    return f"do{active_id}A{when}T{period // 60}M{_side(direction)}SPT"


def old_instrument_id(ticker: str, expiry: int, period: int, direction: Direction) -> str:
    """Spell the id of an instrument the old way."""
    when = datetime.fromtimestamp(expiry, UTC).strftime("%Y%m%d%H%M")
    return f"do{ticker}{when}PT{period // 60}M{_side(direction)}SPT"


def instrument_index(active_id: int, expiry: int, period: int) -> int:
    """Return the index under which an instrument is listed: unique and the same for every simulator."""
    return (expiry // 60 * len(PERIODS) + PERIODS.index(period)) * 10_000 + active_id


def expiries_on_offer(now: float) -> Iterator[tuple[int, int]]:
    """Yield (expiry, period) of what can be bought now: of each period the next two outside the deadtime."""
    for expiry, period in nearest_expiries(now):
        yield expiry, period
        yield expiry + period, period


def nearest_expiries(now: float) -> Iterator[tuple[int, int]]:
    """Yield (expiry, period) of the next expiry of each period that can still be bought."""
    deadtime = TERMS[OptionKind.DIGITAL].deadtime
    for period in PERIODS:
        yield int((now + deadtime) // period + 1) * period, period


def _side(direction: Direction) -> str:
    return "C" if direction is Direction.CALL else "P"
