"""The orders that callers asked for: one send per id, one result for all who ask, and the search for lost ones."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.broker.connectors.quadcode.tickets import Ticket
from services.broker.domain.errors import BrokerError
from services.broker.domain.values import InstrumentType, NewOrder, Order
from services.runtime.errors import ServiceError

KEPT: Final = 64
"""Answered placements that are kept even though their ``send_before`` has passed."""
REQUEST_LIFETIME: Final = timedelta(seconds=60)
"""How long after its sending the broker may still accept a blitz order, whose expiry is no fence."""
UNRESOLVED_KEPT: Final = timedelta(days=1)
"""How long an order whose answer never came may still be recognised: as long as the ledger adopts late."""
CLOCK_TOLERANCE: Final = timedelta(seconds=2)
"""How far the broker's booking time may lie before our idea of the sending time."""


@dataclass(slots=True, eq=False)
class Placement:
    """One call of ``place_order``, shared by all callers with the same id."""

    request: NewOrder
    result: asyncio.Future[Order]
    ticket: Ticket | None = None
    """What is sent; set before it is."""
    sent: bool = False
    """Whether the frame may be at the broker."""
    unresolved: bool = False
    """Sent, and its answer is missing: a position may still turn out to be it."""
    accepted: asyncio.Future[None] | None = None
    """Digital only, from the placement's acceptance on: done once the position or the rejection is known."""

    @property
    def sent_order(self) -> Order:
        """The order as it was sent, SUBMITTED."""
        assert self.ticket is not None  # noqa: S101  # asked for only after sending
        return self.ticket.order

    def resolve(self, order: Order) -> None:
        """Tell the callers; the first word stands."""
        if not self.result.done():
            self.result.set_result(order)

    def fail(self, error: ServiceError) -> None:
        """Nothing was booked: tell the callers."""
        self.unresolved = False
        if not self.result.done():
            self.result.set_exception(error)
            # A caller that has gone away must not turn into a warning about a result that nobody read.
            self.result.exception()

    def lose(self) -> bool:
        """The answer is missing: the callers get what was sent. False if they have a result already."""
        if self.result.done():
            return False
        self.unresolved = True
        self.result.set_result(self.sent_order)
        return True

    def error(self) -> BrokerError | None:
        """Return what the placement failed with, if it did."""
        error = self.result.exception() if self.result.done() else None
        return error if isinstance(error, BrokerError) else None

    def could_be(self, order: Order) -> bool:
        """Whether a position has the fingerprint of the order that was sent."""
        sent = self.sent_order
        if (sent.asset, sent.instrument_type, sent.direction, sent.amount, sent.balance_id) != (
            order.asset,
            order.instrument_type,
            order.direction,
            order.amount,
            order.balance_id,
        ):
            return False
        if order.open_time < sent.open_time - CLOCK_TOLERANCE:
            return False
        if sent.instrument_type is InstrumentType.BLITZ:
            # The broker counts from its own acceptance, which cannot be long after the sending: an equal order of later
            # is another one.
            if order.open_time > sent.open_time + REQUEST_LIFETIME:
                return False
            life = (order.expiry_time - order.open_time).total_seconds()
            return abs(life - self.request.duration) <= CLOCK_TOLERANCE.total_seconds()
        return sent.expiry_time == order.expiry_time


class Placements:
    """All placements of a connection, by the caller's id."""

    __slots__ = ("_by_id",)

    def __init__(self) -> None:
        self._by_id: dict[str, Placement] = {}

    def __iter__(self) -> Iterator[Placement]:
        return iter(self._by_id.values())

    def open(self, request: NewOrder, now: datetime) -> tuple[Placement, bool]:
        """Return the placement of this id; the flag tells whether it is new and has to be carried out."""
        known = self._by_id.get(request.client_order_id)
        if known is not None:
            return known, False
        self._forget(now)
        placement = Placement(request, asyncio.get_running_loop().create_future())
        self._by_id[request.client_order_id] = placement
        return placement, True

    def match(self, order: Order) -> Placement | None:
        """Return the one lost placement that this position must be, or nothing.

        Two lost orders that look the same cannot be told apart: no guess then, whoever keeps the ledger decides. The same
        holds for an order of the same account from elsewhere that looks the same; it cannot be recognised here, so a
        match by fingerprint is to be claimed in the ledger once per broker id.
        """
        fitting = [placement for placement in self if placement.unresolved and placement.could_be(order)]
        return fitting[0] if len(fitting) == 1 else None

    def _forget(self, now: datetime) -> None:
        """Forget the oldest ones whose repetition would be refused as too late anyway."""
        excess = len(self._by_id) - KEPT + 1
        if excess <= 0:
            return
        over = (
            key
            for key, placement in self._by_id.items()
            if placement.result.done()
            and placement.request.send_before + (UNRESOLVED_KEPT if placement.unresolved else timedelta()) <= now
        )
        for key in [key for key, _ in zip(over, range(excess), strict=False)]:
            del self._by_id[key]
