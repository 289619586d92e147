"""The orders of one connection: what was sent, what the broker says of it, and what is still owed an answer.

An order's fate is decided by the broker's words alone. Sources, strongest first: the answer to the request, pushed and
listed positions (``pnl`` is authoritative), ``option-closed`` as a cross-check. A missing word is never filled in.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeVar

import msgspec
import structlog

from services.broker.connectors.quadcode.link import Link
from services.broker.connectors.quadcode.messages import (
    UNREADABLE,
    DigitalPlaced,
    OptionClosed,
    OptionReply,
    OrderChanged,
    Position,
)
from services.broker.connectors.quadcode.parsing import (
    ParseError,
    order_refusal,
    parse_milliseconds,
    parse_option_closed,
    parse_payout,
    parse_position,
    parse_price,
    parse_seconds,
)
from services.broker.connectors.quadcode.placements import Placement, Placements
from services.broker.connectors.quadcode.positions import read_closed, read_one, read_open
from services.broker.connectors.quadcode.protocol import Answer, Call
from services.broker.connectors.quadcode.tickets import Ticket
from services.broker.domain.errors import (
    BrokerUnavailableError,
    InsufficientFundsError,
    NotConnectedError,
    NotSellableError,
    OrderNotFoundError,
    SellOutcomeUnknownError,
    SendDeadlinePassedError,
)
from services.broker.domain.values import Account, InstrumentType, NewOrder, Order, OrderList, OrderState, Outcome
from services.runtime.clock import Clock

K = TypeVar("K")
V = TypeVar("V")

KEPT_CLOSED: Final = 32
"""Closed orders that are kept to recognise repeats."""
KEPT_IDS: Final = 4_096
"""What any memory here holds at most, so that a broker gone mad cannot fill ours."""
CROSS_CHECK_TIME: Final = 1.5
"""Seconds that the position's own event gets after ``option-closed`` before history is read."""
MAX_RETRY: Final = 30.0

_position: Final = msgspec.json.Decoder(Position)
_option: Final = msgspec.json.Decoder(OptionReply)
_digital_placed: Final = msgspec.json.Decoder(DigitalPlaced)
_option_closed: Final = msgspec.json.Decoder(OptionClosed)
_order_changed: Final = msgspec.json.Decoder(OrderChanged)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OrderTiming:
    """How long orders wait, seconds."""

    answer: float = 8.0
    """For the broker's answer, before an order counts as SUBMITTED."""
    settlement_grace: float = 5.0
    """For the push after the expiry, before history is read."""


@dataclass(slots=True)
class _Tracked:
    order: Order
    version: int = 0
    due: float = 0.0
    """Loop time at which history is read if the order is still open."""
    delay: float = 0.0
    engine: tuple[Outcome, Decimal] | None = None
    """What ``option-closed`` said."""


class OrderBook:
    """Places and follows the orders of one balance.

    Args:
        link: The way to the broker.
        clock: Our time.
        timing: How long to wait.
        asset_name: Names an asset by the broker's number; None if it is not known.
        publish: Takes every change of an order.
    """

    def __init__(
        self,
        link: Link,
        clock: Clock,
        *,
        timing: OrderTiming,
        asset_name: Callable[[int], str | None],
        publish: Callable[[Order], None],
    ) -> None:
        self._link = link
        self._clock = clock
        self._timing = timing
        self._asset_name = asset_name
        self._publish = publish
        self._account: Account | None = None
        self._placements = Placements()
        self._tracked: dict[str, _Tracked] = {}
        self._client_ids: dict[str, str] = {}
        """Our ids by the broker's, of orders placed here."""
        self._digital: dict[int, Placement | None] = {}
        """Placements by digital order id; None: the broker rejected that order before we knew whose it is."""
        self._digital_positions: dict[int, str] = {}
        """Broker's ids by digital order id."""
        self._timer: asyncio.TimerHandle | None = None
        link.handle("position-changed", self._on_position)
        link.handle("option-closed", self._on_option_closed)
        link.handle("order-changed", self._on_order_changed)

    @property
    def account(self) -> Account:
        """Whose orders these are; set before anything else is asked."""
        if self._account is None:
            raise NotConnectedError
        return self._account

    @account.setter
    def account(self, account: Account) -> None:
        self._account = account

    # -- placing ---------------------------------------------------------------------------------------------------

    def open_placement(self, request: NewOrder) -> tuple[Placement, bool]:
        """Return the placement of this id; the flag tells whether it is new and has to be carried out."""
        return self._placements.open(request, self._clock.now())

    async def send(self, placement: Placement, ticket: Ticket) -> None:
        """Send an order once and settle its placement.

        Raises:
            SendDeadlinePassedError: Nothing was written.
            BrokerUnavailableError: Nothing was written.
        """
        placement.ticket = ticket
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timing.answer
        # From here on the order counts as sent, unless post() itself says otherwise.
        placement.sent = True
        try:
            answer = await self._link.post(ticket.call, placement.request.send_before)
        except (BrokerUnavailableError, SendDeadlinePassedError):
            placement.sent = False
            raise
        await asyncio.wait({answer}, timeout=self._timing.answer)
        if not answer.done():
            self.lose(placement)
            answer.add_done_callback(lambda late: self._take_answer(placement, late.result()))
            return
        self._take_answer(placement, answer.result())
        if placement.accepted is not None and not placement.result.done():
            await asyncio.wait({placement.accepted}, timeout=max(deadline - loop.time(), 0.0))
            if not placement.accepted.done():
                self.lose(placement)

    def lose(self, placement: Placement) -> None:
        """The answer is missing: the callers get what was sent, as SUBMITTED."""
        if not placement.lose():
            return
        _log.warning("order_unknown", client_order_id=placement.request.client_order_id)
        # Its position may have been pushed while the answer was still awaited.
        strangers = [t for t in self._tracked.values() if not t.order.client_order_id and placement.could_be(t.order)]
        if len(strangers) == 1 and self._placements.match(strangers[0].order) is placement:
            self._claim(placement, strangers[0])

    def _claim(self, placement: Placement, tracked: _Tracked) -> None:
        placement.unresolved = False
        tracked.order = replace(tracked.order, client_order_id=placement.request.client_order_id)
        _remember(self._client_ids, tracked.order.broker_order_id, placement.request.client_order_id)
        self._publish(tracked.order)

    def _take_answer(self, placement: Placement, answer: Answer | None) -> None:
        if answer is None:
            self.lose(placement)
            return
        sent = placement.sent_order
        if answer.refused:
            error = order_refusal(answer.status, answer.msg, sent.asset)
            if error is None:
                self.lose(placement)
            else:
                placement.fail(error)
            return
        try:
            if sent.instrument_type is InstrumentType.DIGITAL:
                self._take_digital_id(placement, _digital_placed.decode(answer.msg).id)
            else:
                self._booked(placement, _booked_option(sent, _option.decode(answer.msg)))
        except (*UNREADABLE, ParseError):
            # Something was accepted, but what it says cannot be read.
            self.lose(placement)

    def _booked(self, placement: Placement, order: Order) -> None:
        """The broker booked it: join it with what pushes have already told."""
        placement.unresolved = False
        _remember(self._client_ids, order.broker_order_id, order.client_order_id)
        placement.resolve(order)
        known = self._tracked.get(order.broker_order_id)
        if known is None:
            self._track(order, version=0)
            self._publish(order)
        elif not known.order.client_order_id:
            known.order = replace(known.order, client_order_id=order.client_order_id)
            self._publish(known.order)

    def _take_digital_id(self, placement: Placement, order_id: int) -> None:
        placement.accepted = asyncio.get_running_loop().create_future()
        known = self._tracked.get(self._digital_positions.get(order_id, ""))
        if known is not None:
            self._booked(placement, _as_booked(placement, known.order))
        elif order_id in self._digital:
            self._reject_digital(placement)
        else:
            _remember(self._digital, order_id, placement)

    def _reject_digital(self, placement: Placement) -> None:
        # Lack of funds is what an accepted digital order is rejected for; every other reason refuses the placement.
        placement.fail(InsufficientFundsError())
        _finish(placement)

    # -- what the broker says --------------------------------------------------------------------------------------

    def _on_position(self, msg: msgspec.Raw) -> None:
        self._take_position(_position.decode(msg))

    def _on_option_closed(self, msg: msgspec.Raw) -> None:
        """A second opinion, and a hint that the position's own event is due."""
        message = _option_closed.decode(msg)
        tracked = self._tracked.get(str(message.option_id))
        if tracked is None or message.balance_id != tracked.order.balance_id:
            return
        tracked.engine = parse_option_closed(message)
        if tracked.order.state is OrderState.CLOSED:
            _cross_check(tracked)
        else:
            tracked.due = min(tracked.due, asyncio.get_running_loop().time() + CROSS_CHECK_TIME)
            self._arm()

    def _on_order_changed(self, msg: msgspec.Raw) -> None:
        """How a digital order is turned down after it was accepted."""
        message = _order_changed.decode(msg)
        if message.status != "rejected" or message.raw_event.digital is None:
            return
        placement = self._digital.get(message.raw_event.digital.id)
        if placement is None:
            _remember(self._digital, message.raw_event.digital.id, None)
        else:
            self._reject_digital(placement)

    def _take_position(self, position: Position) -> Order | None:
        account = self._account
        if account is None or (position.user_id, position.user_balance_id) != (account.user_id, account.balance_id):
            return None
        # An order is known by its number; only a search by fingerprint needs the name, and lists insist on it.
        order = parse_position(position, account, self._asset_name(position.active_id) or str(position.active_id))
        digital_ids = position.raw_event.digital.order_ids if position.raw_event.digital is not None else ()
        order = replace(order, client_order_id=self._client_id_of(order, digital_ids))
        for order_id in digital_ids:
            _remember(self._digital_positions, order_id, order.broker_order_id)
        tracked = self._tracked.get(order.broker_order_id)
        if tracked is None:
            self._track(order, position.version)
        else:
            reopened = tracked.order.state is OrderState.CLOSED and order.state is OrderState.OPEN
            if reopened or 0 < position.version < tracked.version:
                return tracked.order
            # A closed digital position no longer tells what it would have paid.
            order = replace(order, payout_rate=order.payout_rate or tracked.order.payout_rate)
            tracked.version = position.version
            if _tells_nothing_new(tracked.order, order):
                return tracked.order
            tracked.order = order
            if order.state is OrderState.CLOSED:
                self._settled(tracked)
        self._publish(order)
        for order_id in digital_ids:
            placement = self._digital.get(order_id)
            if placement is not None:
                self._booked(placement, _as_booked(placement, order))
                _finish(placement)
        return order

    def _client_id_of(self, order: Order, digital_ids: Iterable[int]) -> str:
        client_id = self._client_ids.get(order.broker_order_id, "")
        for order_id in digital_ids:
            placement = self._digital.get(order_id)
            if placement is not None:
                client_id = placement.request.client_order_id
        if not client_id:
            placement = self._placements.match(order)
            if placement is not None:
                placement.unresolved = False
                client_id = placement.request.client_order_id
        if client_id:
            _remember(self._client_ids, order.broker_order_id, client_id)
        return client_id

    def _take_listed(self, position: Position) -> Order | None:
        """Take a position of a list in which orders are searched by asset: one whose asset has no name is not understood."""
        order = self._take_position(position)
        if order is not None and self._asset_name(position.active_id) is None:
            raise ParseError("a position on an asset that is not listed")
        return order

    def _track(self, order: Order, version: int) -> None:
        _remember(self._tracked, order.broker_order_id, tracked := _Tracked(order, version))
        if order.state is OrderState.CLOSED:
            self._settled(tracked)
            return
        left = (order.expiry_time - self._link.broker_time()).total_seconds()
        tracked.delay = self._timing.settlement_grace
        tracked.due = asyncio.get_running_loop().time() + max(left, 0.0) + tracked.delay
        self._arm()

    def _settled(self, tracked: _Tracked) -> None:
        _cross_check(tracked)
        closed = [key for key, t in self._tracked.items() if t.order.state is OrderState.CLOSED]
        for key in closed[: max(0, len(closed) - KEPT_CLOSED)]:
            del self._tracked[key]

    # -- the broker's lists ----------------------------------------------------------------------------------------

    async def list_orders(self, closed_since: datetime) -> OrderList:
        """Read open and closed orders; what they tell is also taken over and published."""
        # Open ones first: an order that closes in between is then in the second list, or in both.
        opened, all_open = await read_open(self._link, self.account, self._take_listed)
        closed, all_closed = await read_closed(self._link, self.account, closed_since, self._take_listed)
        orders = {order.broker_order_id: order for order in (*opened, *closed)}
        newest_first = sorted(orders.values(), key=lambda order: order.open_time, reverse=True)
        return OrderList(tuple(newest_first), all_open and all_closed, self._link.broker_time())

    def _arm(self) -> None:
        """Set the one timer to the earliest order whose settlement is due."""
        self.close()
        due = [t.due for t in self._tracked.values() if t.order.state is OrderState.OPEN]
        if due:
            self._timer = asyncio.get_running_loop().call_at(min(due), self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        try:
            self._link.spawn(self._read_overdue())
        except BrokerUnavailableError:
            # After the reconnect resume() looks again.
            return

    async def _read_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        overdue = [t for t in self._tracked.values() if t.order.state is OrderState.OPEN and t.due <= loop.time() + 0.1]
        for tracked in overdue:
            try:
                await read_one(self._link, self.account, tracked.order, self._take_position)
            except BrokerUnavailableError as error:
                _log.info("settlement_not_read", error=error.message)
            tracked.delay = min(tracked.delay * 2, MAX_RETRY)
            tracked.due = loop.time() + tracked.delay
        self._arm()

    def resume(self) -> None:
        """The connection is back: watch over the open orders again."""
        self._arm()

    # -- selling ---------------------------------------------------------------------------------------------------

    async def sell(self, broker_order_id: str) -> Order:
        """Offer an open order back; see ``Connector.sell_order``."""
        order = await self._find_open(broker_order_id)
        if order.instrument_type is InstrumentType.BLITZ:
            raise NotSellableError
        if order.instrument_type is InstrumentType.DIGITAL:
            call = Call("digital-options.close-position", "1.0", {"position_id": int(broker_order_id)})
        else:
            call = Call("binary-options.sell-options", "3.0", {"options_ids": [int(broker_order_id)]})
        answer = await self._link.post(call)
        await asyncio.wait({answer}, timeout=self._timing.answer)
        reply = answer.result() if answer.done() else None
        if reply is None:
            raise SellOutcomeUnknownError
        if reply.refused:
            raise NotSellableError
        return order

    async def _find_open(self, broker_order_id: str) -> Order:
        if broker_order_id not in self._tracked:
            await read_open(self._link, self.account, self._take_position)
        tracked = self._tracked.get(broker_order_id)
        if tracked is None:
            raise OrderNotFoundError
        if tracked.order.state is not OrderState.OPEN:
            raise NotSellableError
        return tracked.order

    # -- ends ------------------------------------------------------------------------------------------------------

    def in_flight(self) -> list[asyncio.Future[Order]]:
        """Return the placements that have no result yet."""
        return [placement.result for placement in self._placements if not placement.result.done()]

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _booked_option(sent: Order, reply: OptionReply) -> Order:
    created = reply.created_millisecond or reply.created * 1000
    return replace(
        sent,
        state=OrderState.OPEN,
        broker_order_id=str(reply.id),
        payout_rate=parse_payout(reply.profit_income) or sent.payout_rate,
        open_price=parse_price(reply.value),
        open_time=parse_milliseconds(created) if created else sent.open_time,
        expiry_time=parse_seconds(reply.exp),
    )


def _as_booked(placement: Placement, order: Order) -> Order:
    """Return an order as it was when it was booked, with our id."""
    return replace(
        order,
        client_order_id=placement.request.client_order_id,
        state=OrderState.OPEN,
        outcome=None,
        profit=None,
        close_price=0.0,
        close_time=None,
    )


def _finish(placement: Placement) -> None:
    if placement.accepted is not None and not placement.accepted.done():
        placement.accepted.set_result(None)


def _cross_check(tracked: _Tracked) -> None:
    """Compare the position's result with the trading engine's; a difference wants a person."""
    engine, tracked.engine = tracked.engine, None
    order = tracked.order
    if engine is not None and engine != (order.outcome, order.profit):
        _log.error(
            "settlement_sources_differ",
            broker_order_id=order.broker_order_id,
            position=(order.outcome, str(order.profit)),
            engine=(engine[0], str(engine[1])),
        )


def _tells_nothing_new(known: Order, told: Order) -> bool:
    """Whether an event changes nothing. Times and prices of one order differ by source in their last digits."""
    return (known.state, known.outcome, known.profit, known.client_order_id) == (
        told.state,
        told.outcome,
        told.profit,
        told.client_order_id,
    )


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    """Add to a memory that forgets the oldest."""
    memory[key] = value
    while len(memory) > KEPT_IDS:
        del memory[next(iter(memory))]
