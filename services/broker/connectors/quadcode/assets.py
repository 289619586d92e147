"""The platform's assets and payouts: read once for all connections that see the same ones, kept live by one of them.

Initialization data is several MB, so it is never kept raw and never per session. Payouts, limits and availability depend
on the user's group and currency at the broker, so tables are shared by (brand, group, currency) and by nothing less.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import msgspec

from services.broker.connectors.quadcode.messages import (
    Active,
    CommissionChanged,
    InitializationData,
    Underlying,
    UnderlyingList,
)
from services.broker.connectors.quadcode.parsing import INSTRUMENTS, parse_money
from services.broker.domain.errors import AssetClosedError
from services.broker.domain.values import Asset, Broker, Instrument, InstrumentType
from services.runtime.clock import Clock

DIGITAL_PERIODS: Final = (60, 300, 900)
DIGITAL_LIMITS: Final = (Decimal(1), Decimal(20_000))
"""Stake limits of digital options on assets that have no other kind of option; the broker has the last word."""

USABLE_AGES: Final = 5
"""A table whose payouts are kept live may be used up to this many times its age limit while it is renewed."""

_data: Final = msgspec.json.Decoder(InitializationData)
_active: Final = msgspec.json.Decoder(Active)
_underlyings: Final = msgspec.json.Decoder(UnderlyingList)
_underlying: Final = msgspec.json.Decoder(Underlying)


@dataclass(frozen=True, slots=True)
class Listing:
    """The terms of one kind of option on one asset."""

    active_id: int
    asset: str
    instrument_type: InstrumentType
    tradable: bool
    """Enabled and not suspended."""
    schedule: tuple[tuple[int, int], ...]
    """Opening times, unix seconds [from, to)."""
    payout_percent: float
    min_amount: Decimal
    max_amount: Decimal
    durations: tuple[int, ...]
    """Blitz: lengths on offer. Turbo and binary: the grid's step. Digital: periods. Seconds."""
    count: int
    """Grid steps on offer."""
    deadtime: int
    """Seconds before the expiry in which it can no longer be bought."""
    buyback_deadtime: int | None
    """Seconds before the expiry in which it can no longer be sold; None if it can never be."""

    def is_open(self, broker_time: float) -> bool:
        """Whether it can be bought now: by its flags and inside its opening times."""
        return self.tradable and any(start <= broker_time < end for start, end in self.schedule)

    @property
    def payout_rate(self) -> float:
        """Profit on a win as a fraction of the stake."""
        return self.payout_percent / 100

    def to_instrument(self, broker_time: float) -> Instrument:
        """Return what a user sees of it now."""
        durations = self.durations
        if self.instrument_type in (InstrumentType.TURBO, InstrumentType.BINARY):
            durations = tuple(self.durations[0] * n for n in range(1, self.count + 1))
        return Instrument(
            self.instrument_type,
            self.is_open(broker_time),
            self.payout_rate,
            self.min_amount,
            self.max_amount,
            durations,
        )


class AssetTable:
    """All listings of one group of users."""

    def __init__(self, listings: list[Listing], labels: dict[int, str]) -> None:
        self._listings = {(listing.active_id, listing.instrument_type): listing for listing in listings}
        self._ids = {listing.asset: listing.active_id for listing in listings}
        self._names = {listing.active_id: listing.asset for listing in listings}
        self._labels = labels

    def active_id(self, asset: str) -> int:
        """Return the broker's number of an asset.

        Raises:
            AssetClosedError: There is none of that name.
        """
        try:
            return self._ids[asset]
        except KeyError:
            raise AssetClosedError(asset) from None

    def name(self, active_id: int) -> str | None:
        """Return an asset's name, also if it is no longer on offer; None if it was in none of the tables read so far."""
        return self._names.get(active_id)

    def remember_names(self, earlier: "AssetTable") -> None:
        """Keep the names of assets that have left the broker's table: orders on them are still listed."""
        self._names = earlier._names | self._names  # noqa: SLF001 - another one of us

    def listing(self, asset: str, instrument_type: InstrumentType) -> Listing:
        """Return the terms of one kind of option on an asset.

        Raises:
            AssetClosedError: It is not on offer.
        """
        listing = self._listings.get((self.active_id(asset), instrument_type))
        if listing is None:
            raise AssetClosedError(asset)
        return listing

    def assets(self, broker_time: float) -> list[Asset]:
        """Return everything as a user sees it now."""
        instruments: dict[int, list[Instrument]] = {}
        for (active_id, _), listing in self._listings.items():
            instruments.setdefault(active_id, []).append(listing.to_instrument(broker_time))
        return [
            Asset(self._names[active_id], self._labels.get(active_id, self._names[active_id]), active_id, tuple(kinds))
            for active_id, kinds in instruments.items()
        ]

    def set_payout(self, active_id: int, instrument_type: InstrumentType, payout_percent: float) -> None:
        """Take over a payout that has moved."""
        key = (active_id, instrument_type)
        if key in self._listings and 0 <= payout_percent <= 100:
            self._listings[key] = replace(self._listings[key], payout_percent=payout_percent)

    def take_commission(self, message: CommissionChanged) -> None:
        """Take over a push about a payout; ignore kinds that we do not trade."""
        instrument_type = INSTRUMENTS.get(message.instrument_type)
        if instrument_type is not None:
            self.set_payout(message.active_id, instrument_type, 100 - message.commission.value)


def parse_assets(options: msgspec.Raw | bytes, underlyings: msgspec.Raw | bytes | None) -> AssetTable:
    """Read initialization data and the digital underlyings. An asset that cannot be read is left out, others stay.

    Raises:
        UNREADABLE: The data as a whole is not what it should be.
    """
    data = _data.decode(options)
    labels: dict[int, str] = {}
    listings: list[Listing] = []
    tables = (
        (InstrumentType.TURBO, data.turbo),
        (InstrumentType.BINARY, data.binary),
        (InstrumentType.BLITZ, data.blitz),
    )
    for kind, table in tables:
        for raw in table.actives.values():
            try:
                active = _active.decode(raw)
                listing = _option_listing(active, kind)
            except ValueError:
                continue
            listings.append(listing)
            labels.setdefault(active.id, _label(active.description) or listing.asset)
    if underlyings is not None:
        limits = {listing.active_id: (listing.min_amount, listing.max_amount) for listing in listings}
        for raw in _underlyings.decode(underlyings).underlying:
            try:
                underlying = _underlying.decode(raw)
            except ValueError:
                continue
            listings.append(_digital_listing(underlying, limits.get(underlying.active_id, DIGITAL_LIMITS)))
    return AssetTable(listings, labels)


def _option_listing(active: Active, kind: InstrumentType) -> Listing:
    durations = tuple(d for d in active.option.expiration_times if d > 0)
    if not durations:
        raise ValueError("no durations")
    if not 0 <= active.option.profit.commission <= 100:
        raise ValueError("no payout")
    sellable = bool(active.is_buyback) and kind is not InstrumentType.BLITZ
    return Listing(
        active_id=active.id,
        asset=_label(active.name),
        instrument_type=kind,
        tradable=active.enabled and not active.is_suspended,
        schedule=tuple(active.schedule),
        payout_percent=100 - active.option.profit.commission,
        min_amount=parse_money(active.minimal_bet),
        max_amount=parse_money(active.maximal_bet),
        durations=durations,
        count=min(max(active.option.count, 1), 1_000),
        deadtime=active.deadtime,
        buyback_deadtime=active.buyback_deadtime if sellable else None,
    )


def _digital_listing(underlying: Underlying, limits: tuple[Decimal, Decimal]) -> Listing:
    return Listing(
        active_id=underlying.active_id,
        asset=underlying.underlying or underlying.name or _label(underlying.localization_key),
        instrument_type=InstrumentType.DIGITAL,
        tradable=underlying.is_enabled and not underlying.is_suspended,
        schedule=tuple((times.open, times.close) for times in underlying.schedule),
        payout_percent=0,
        min_amount=limits[0],
        max_amount=limits[1],
        durations=DIGITAL_PERIODS,
        count=1,
        deadtime=30,
        buyback_deadtime=0,
    )


def _label(text: str) -> str:
    """Cut the translation key's prefix off ("front.EUR/USD-OTC")."""
    return text.removeprefix("front.")


@dataclass(frozen=True, slots=True)
class TableKey:
    """Who sees the same assets, payouts and limits."""

    broker: Broker
    group_id: int
    currency: str


class _Entry:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.table: AssetTable | None = None
        self.loaded_at = 0.0
        self.keeper: object | None = None


class AssetTables:
    """The tables of a process. One connection of each group keeps the group's payouts live between the loads.

    Args:
        clock: Ages the tables.
        max_age: Seconds after which a table is read anew. While it has a keeper it may be used meanwhile.
    """

    def __init__(self, clock: Clock, max_age: float) -> None:
        self._clock = clock
        self._max_age = max_age
        self._entries: dict[TableKey, _Entry] = {}

    async def get(
        self,
        key: TableKey,
        load: Callable[[], Awaitable[AssetTable]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> AssetTable:
        """Return a group's table.

        Args:
            key: The group.
            load: Reads the table; callers at the same time share one load.
            spawn: Runs something in the background, for the renewal of a table that is old but kept live.
        """
        entry = self._entries.setdefault(key, _Entry())
        if self._is_fresh(entry) or (self._is_usable(entry) and entry.lock.locked()):
            assert entry.table is not None  # noqa: S101  # fresh and usable both mean that there is one
            return entry.table
        if self._is_usable(entry):
            spawn(self._renew(entry, load))
            assert entry.table is not None  # noqa: S101
            return entry.table
        await self._renew(entry, load)
        assert entry.table is not None  # noqa: S101  # loaded, or the load raised
        return entry.table

    async def _renew(self, entry: _Entry, load: Callable[[], Awaitable[AssetTable]]) -> None:
        async with entry.lock:
            if not self._is_fresh(entry):
                table = await load()
                if entry.table is not None:
                    table.remember_names(entry.table)
                entry.table = table
                entry.loaded_at = self._clock.monotonic()

    def _is_fresh(self, entry: _Entry) -> bool:
        return entry.table is not None and self._clock.monotonic() - entry.loaded_at < self._max_age

    def _is_usable(self, entry: _Entry) -> bool:
        """Whether the payouts are live and the rest is not too old."""
        if entry.table is None or entry.keeper is None:
            return False
        return self._clock.monotonic() - entry.loaded_at < USABLE_AGES * self._max_age

    def peek(self, key: TableKey) -> AssetTable | None:
        """Return a group's table as it is, however old."""
        entry = self._entries.get(key)
        return None if entry is None else entry.table

    def become_keeper(self, key: TableKey, connection: object) -> bool:
        """Take on to keep a group's payouts live, if nobody does; True if the caller does from now on."""
        entry = self._entries.setdefault(key, _Entry())
        if entry.keeper is not None:
            return False
        entry.keeper = connection
        return True

    def resign(self, key: TableKey, connection: object) -> bool:
        """Stop keeping; True if the caller did."""
        entry = self._entries.get(key)
        if entry is None or entry.keeper is not connection:
            return False
        entry.keeper = None
        return True
