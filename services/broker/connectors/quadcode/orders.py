"""The orders of one connection: what was sent, what the broker says of it, and what is still owed an answer.

An order's fate is decided by the broker's words alone. Sources, strongest first: the answer to the request, pushed and
listed positions (``pnl`` is authoritative), ``option-closed`` as a cross-check. A missing word is never filled in.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec
import structlog

from services.broker.connectors.quadcode.link import Link, RequestRefusedError
from services.broker.connectors.quadcode.messages import (
    DigitalPlaced,
    OptionClosed,
    OptionReply,
    OrderChanged,
    Position,
    PositionsReply,
)
from services.broker.connectors.quadcode.parsing import (
    WIRE_INSTRUMENTS,
    ParseError,
    order_refusal,
    parse_milliseconds,
    parse_option_closed,
    parse_position,
    parse_price,
    parse_seconds,
)
from services.broker.connectors.quadcode.protocol import Answer, Call, Json
from services.broker.connectors.quadcode.tickets import Ticket
from services.broker.domain.errors import (
    BrokerError,
    BrokerUnavailableError,
    InsufficientFundsError,
    NotSellableError,
    OrderNotFoundError,
    SellOutcomeUnknownError,
    SendDeadlinePassedError,
)
from services.broker.domain.values import Account, InstrumentType, NewOrder, Order, OrderList, OrderState, Outcome
from services.runtime.clock import Clock

PAGE: Final = 100
MAX_PAGES: Final = 50
KEPT_CLOSED: Final = 32
"""Closed orders that are kept to recognise repeats."""
KEPT_PLACEMENTS: Final = 64
"""Answered placements that are kept even though their ``send_before`` has passed."""
KEPT_IDS: Final = 4_096
CLOCK_TOLERANCE: Final = timedelta(seconds=2)
"""How far the broker's booking time may lie before our idea of the sending time."""
CROSS_CHECK_TIME: Final = 1.5
"""Seconds that the position's own event gets after ``option-closed`` before history is read."""
MAX_RETRY: Final = 30.0
ALL_KINDS: Final = tuple(WIRE_INSTRUMENTS.values())

_position: Final = msgspec.json.Decoder(Position)
_positions: Final = msgspec.json.Decoder(PositionsReply)
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


@dataclass(slots=True, eq=False)
class Placement:
    """One call of ``place_order``, shared by all callers with the same id."""

    request: NewOrder
    result: asyncio.Future[Order]
    ticket: Ticket | None = None
    sent: bool = False
    """Whether the frame may be at the broker."""
    unresolved: bool = False
    """Sent, and its answer is missing: a position may still turn out to be it."""
    position: asyncio.Future[Order | None] | None = None
    """Digital: where the position (or None for a rejection) is awaited after the order was accepted."""


@dataclass(slots=True)
class _Tracked:
    order: Order
    version: int = 0
    due: float = 0.0
    """Monotonic time at which history is read if the order is still open."""
    delay: float = 0.0
    engine: tuple[Outcome, Decimal] | None = field(default=None)
    """What ``option-closed`` said."""


class OrderBook:
    """Places and follows the orders of one balance.

    Args:
        link: The way to the broker.
        clock: Our time.
        timing: How long to wait.
        asset_name: Names an asset by the broker's number.
        publish: Takes every change of an order.
    """

    def __init__(
        self,
        link: Link,
        clock: Clock,
        *,
        timing: OrderTiming,
        asset_name: Callable[[int], str],
        publish: Callable[[Order], None],
    ) -> None:
        self._link = link
        self._clock = clock
        self._timing = timing
        self._asset_name = asset_name
        self._publish = publish
        self._account: Account | None = None
        self._placements: dict[str, Placement] = {}
        self._tracked: dict[str, _Tracked] = {}
        self._client_ids: dict[str, str] = {}
        """Our ids by the broker's, of orders placed here."""
        self._digital: dict[int, Placement | None] = {}
        """Placements by digital order id; None: the broker rejected that order before we knew whose it is."""
        self._digital_positions: dict[int, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        link.handle("position-changed", self._on_position)
        link.handle("option-closed", self._on_option_closed)
        link.handle("order-changed", self._on_order_changed)

    def set_account(self, account: Account) -> None:
        """Tell whose orders these are. Must happen before anything else."""
        self._account = account

    # -- placing ---------------------------------------------------------------------------------------------------

    def placement(self, request: NewOrder) -> tuple[Placement, bool]:
        """Return the placement of this id; the flag tells whether it is new, so that the caller carries it out."""
        known = self._placements.get(request.client_order_id)
        if known is not None:
            return known, False
        self._forget_placements()
        placement = Placement(request, asyncio.get_running_loop().create_future())
        self._placements[request.client_order_id] = placement
        return placement, True

    def fail(self, placement: Placement, error: Exception) -> None:
        """Nothing was booked: tell the callers."""
        if not placement.result.done():
            placement.result.set_exception(error)
            # A caller that has gone away must not turn into a warning about a result that nobody read.
            placement.result.exception()

    def lose(self, placement: Placement) -> None:
        """The answer is missing: the callers get what was sent, as SUBMITTED."""
        assert placement.ticket is not None  # noqa: S101  # nothing is sent without one
        if not placement.result.done():
            placement.unresolved = True
            placement.result.set_result(placement.ticket.order)
            _log.warning("order_unknown", client_order_id=placement.request.client_order_id)

    async def send(self, placement: Placement, ticket: Ticket) -> None:
        """Send an order once and settle its placement.

        Raises:
            SendDeadlinePassedError: Nothing was written.
            BrokerUnavailableError: Nothing was written.
        """
        placement.ticket = ticket
        if self._clock.now() >= placement.request.send_before:
            raise SendDeadlinePassedError
        # From here to the write nothing yields. Once post() was entered the order counts as sent unless it says
        # otherwise.
        placement.sent = True
        deadline = asyncio.get_running_loop().time() + self._timing.answer
        try:
            answer = await self._link.post(ticket.call)
        except BrokerUnavailableError:
            placement.sent = False
            raise
        await asyncio.wait({answer}, timeout=self._timing.answer)
        if not answer.done():
            self.lose(placement)
            answer.add_done_callback(lambda late: self._take_answer(placement, _result(late)))
            return
        self._take_answer(placement, _result(answer))
        if placement.position is not None and not placement.result.done():
            await asyncio.wait({placement.position}, timeout=deadline - asyncio.get_running_loop().time())
            if not placement.position.done():
                self.lose(placement)

    def _take_answer(self, placement: Placement, answer: Answer | None) -> None:
        assert placement.ticket is not None  # noqa: S101  # it was sent
        if answer is None:
            self.lose(placement)
            return
        sent = placement.ticket.order
        if answer.refused:
            error = order_refusal(answer.status, answer.msg, sent.asset)
            if error is None:
                self.lose(placement)
                return
            placement.unresolved = False
            self.fail(placement, error)
            return
        try:
            if sent.instrument_type is InstrumentType.DIGITAL:
                self._take_digital_id(placement, _digital_placed.decode(answer.msg).id)
            else:
                self._booked(placement, _booked_option(sent, _option.decode(answer.msg)))
        except (msgspec.DecodeError, ParseError):
            # Something was accepted, but what it says cannot be read.
            self.lose(placement)

    def _booked(self, placement: Placement, order: Order) -> None:
        """The broker booked it: join it with what pushes have already told."""
        placement.unresolved = False
        _remember(self._client_ids, order.broker_order_id, order.client_order_id)
        known = self._tracked.get(order.broker_order_id)
        if not placement.result.done():
            placement.result.set_result(order)
        if known is None:
            self._track(order, version=0)
            self._publish(order)
        else:
            known.order = replace(known.order, client_order_id=order.client_order_id)
            self._publish(known.order)

    def _take_digital_id(self, placement: Placement, order_id: int) -> None:
        placement.position = asyncio.get_running_loop().create_future()
        if order_id in self._digital_positions:
            self._booked(placement, self._as_placed(placement, self._tracked[self._digital_positions[order_id]].order))
        elif order_id in self._digital:
            self._reject_digital(placement)
        else:
            _remember(self._digital, order_id, placement)

    def _as_placed(self, placement: Placement, order: Order) -> Order:
        """Return an order as it was when it was booked, with our id."""
        opened = replace(order, state=OrderState.OPEN, outcome=None, profit=None, close_price=0.0, close_time=None)
        return replace(opened, client_order_id=placement.request.client_order_id)

    def _reject_digital(self, placement: Placement) -> None:
        placement.unresolved = False
        # Lack of funds is what an accepted digital order is rejected for; every other reason refuses the placement.
        self.fail(placement, InsufficientFundsError())
        if placement.position is not None and not placement.position.done():
            placement.position.set_result(None)

    # -- what the broker says --------------------------------------------------------------------------------------

    def _on_position(self, msg: msgspec.Raw) -> None:
        """Take ``position-changed``."""
        self._take_position(_position.decode(msg))

    def _on_option_closed(self, msg: msgspec.Raw) -> None:
        """Take ``option-closed``: a second opinion, and a hint that the position's own event is due."""
        message = _option_closed.decode(msg)
        tracked = self._tracked.get(str(message.option_id))
        if tracked is None or message.balance_id != tracked.order.balance_id:
            return
        tracked.engine = parse_option_closed(message)
        if tracked.order.state is OrderState.CLOSED:
            self._cross_check(tracked)
        else:
            tracked.due = min(tracked.due, asyncio.get_running_loop().time() + CROSS_CHECK_TIME)
            self._arm()

    def _on_order_changed(self, msg: msgspec.Raw) -> None:
        """Take ``order-changed``: how a digital order is turned down after it was accepted."""
        message = _order_changed.decode(msg)
        if message.status != "rejected" or message.raw_event.digital is None:
            return
        order_id = message.raw_event.digital.id
        placement = self._digital.get(order_id)
        if placement is None:
            _remember(self._digital, order_id, None)
        else:
            self._reject_digital(placement)

    def _take_position(self, position: Position) -> Order | None:
        account = self._account
        if account is None or position.user_id != account.user_id or position.user_balance_id != account.balance_id:
            return None
        order = parse_position(position, account, self._asset_name)
        tracked = self._tracked.get(order.broker_order_id)
        digital = position.raw_event.digital
        order = replace(order, client_order_id=self._client_id_of(order, digital.order_ids if digital else ()))
        if tracked is not None:
            stale = position.version and position.version < tracked.version
            reopened = tracked.order.state is OrderState.CLOSED and order.state is OrderState.OPEN
            if stale or reopened:
                return tracked.order
            tracked.version = position.version
            if _same(tracked.order, order):
                return tracked.order
            tracked.order = order
            if order.state is OrderState.CLOSED:
                self._settled(tracked)
        else:
            self._track(order, position.version)
        for order_id in digital.order_ids if digital else ():
            _remember(self._digital_positions, order_id, order.broker_order_id)
            placement = self._digital.get(order_id)
            if placement is not None:
                self._booked(placement, self._as_placed(placement, order))
                if placement.position is not None and not placement.position.done():
                    placement.position.set_result(order)
        self._publish(order)
        return order

    def _client_id_of(self, order: Order, digital_ids: Iterable[int]) -> str:
        known = self._client_ids.get(order.broker_order_id)
        if known is not None:
            return known
        for order_id in digital_ids:
            placement = self._digital.get(order_id)
            if placement is not None:
                _remember(self._client_ids, order.broker_order_id, placement.request.client_order_id)
                return placement.request.client_order_id
        matching = [p for p in self._placements.values() if p.unresolved and _could_be(p, order)]
        if len(matching) != 1:
            # Two orders that look the same cannot be told apart: no guess, whoever keeps the ledger decides.
            return ""
        matching[0].unresolved = False
        _remember(self._client_ids, order.broker_order_id, matching[0].request.client_order_id)
        return matching[0].request.client_order_id

    def _track(self, order: Order, version: int) -> None:
        tracked = self._tracked[order.broker_order_id] = _Tracked(order, version)
        if order.state is OrderState.CLOSED:
            self._settled(tracked)
            return
        left = (order.expiry_time - self._link.broker_time()).total_seconds()
        tracked.delay = self._timing.settlement_grace
        tracked.due = asyncio.get_running_loop().time() + max(left, 0.0) + tracked.delay
        self._arm()

    def _settled(self, tracked: _Tracked) -> None:
        self._cross_check(tracked)
        closed = [key for key, t in self._tracked.items() if t.order.state is OrderState.CLOSED]
        for key in closed[: max(0, len(closed) - KEPT_CLOSED)]:
            del self._tracked[key]

    def _cross_check(self, tracked: _Tracked) -> None:
        if tracked.engine is None or tracked.engine == (tracked.order.outcome, tracked.order.profit):
            return
        _log.error(
            "settlement_sources_differ",
            broker_order_id=tracked.order.broker_order_id,
            position=(tracked.order.outcome, str(tracked.order.profit)),
            engine=(tracked.engine[0], str(tracked.engine[1])),
        )
        tracked.engine = None

    # -- reading the broker's lists --------------------------------------------------------------------------------

    async def list_orders(self, closed_since: datetime) -> OrderList:
        """Read open and closed orders; what they tell is also taken over and published."""
        # Open ones first: an order that closes in between is then in the second list, or in both.
        opened, all_open = await self._read_positions("portfolio.get-positions", "4.0", None)
        closed, all_closed = await self._read_positions("portfolio.get-history-positions", "2.0", closed_since)
        orders = {order.broker_order_id: order for order in (*opened, *closed)}
        newest_first = sorted(orders.values(), key=lambda order: order.open_time, reverse=True)
        return OrderList(tuple(newest_first), all_open and all_closed, self._link.broker_time())

    async def _read_positions(self, method: str, version: str, since: datetime | None) -> tuple[list[Order], bool]:
        assert self._account is not None  # noqa: S101  # set before the link is used
        orders: dict[str, Order] = {}
        complete = True
        seen = 0
        for _ in range(MAX_PAGES):
            body: dict[str, Json] = {"instrument_types": [*ALL_KINDS], "limit": PAGE, "offset": seen}
            body |= {"user_id": self._account.user_id} if since else {"user_balance_id": self._account.balance_id}
            reply = await self._page(Call(method, version, body))
            oldest: datetime | None = None
            for raw in reply.positions:
                try:
                    order = self._take_position(_position.decode(raw))
                except (msgspec.DecodeError, ParseError):
                    complete = False
                    continue
                if order is None:
                    continue
                oldest = order.close_time or oldest
                if since is None or order.close_time is None or order.close_time >= since:
                    orders[order.broker_order_id] = order
            seen += len(reply.positions)
            if len(reply.positions) < min(PAGE, reply.limit or PAGE) or (since and oldest and oldest < since):
                # The list may have shifted between two pages: then an entry was passed over.
                shifted = since is None and reply.total is not None and seen < reply.total
                return list(orders.values()), complete and not shifted
        return list(orders.values()), False

    async def _page(self, call: Call) -> PositionsReply:
        try:
            return _positions.decode(await self._link.call(call))
        except RequestRefusedError as error:
            _log.warning("broker_refused", method=call.method, status=error.status, text=error.text)
            raise BrokerUnavailableError("the broker refuses to list orders") from error
        except msgspec.DecodeError as error:
            raise BrokerUnavailableError("the broker's list of orders cannot be read") from error

    # -- settlements that were not pushed ----------------------------------------------------------------------------

    def _arm(self) -> None:
        """Set the one timer to the earliest due order."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = [t.due for t in self._tracked.values() if t.order.state is OrderState.OPEN]
        if due:
            self._timer = asyncio.get_running_loop().call_at(min(due), self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        try:
            self._link.spawn(self._read_overdue())
        except BrokerUnavailableError:
            # After the reconnect everything open is read anyway.
            return

    async def _read_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        overdue = [t for t in self._tracked.values() if t.order.state is OrderState.OPEN and t.due <= loop.time() + 0.1]
        for tracked in overdue:
            try:
                await self.read_history_of(tracked.order)
            except BrokerError as error:
                _log.info("settlement_read_failed", error=type(error).__name__)
            tracked.delay = min(tracked.delay * 2, MAX_RETRY)
            tracked.due = loop.time() + tracked.delay
        self._arm()

    async def read_history_of(self, order: Order) -> None:
        """Ask for one order in the history and take over what is there."""
        assert self._account is not None  # noqa: S101  # set before the link is used
        body: dict[str, Json] = {
            "instrument_types": [WIRE_INSTRUMENTS[order.instrument_type]],
            "user_id": self._account.user_id,
            "external_id": int(order.broker_order_id),
            "limit": 1,
            "offset": 0,
        }
        reply = await self._page(Call("portfolio.get-history-positions", "2.0", body))
        for raw in reply.positions:
            try:
                self._take_position(_position.decode(raw))
            except (msgspec.DecodeError, ParseError):
                _log.warning("unreadable_position", broker_order_id=order.broker_order_id)

    def open_orders(self) -> list[Order]:
        """Return the orders that are open as far as is known."""
        return [t.order for t in self._tracked.values() if t.order.state is OrderState.OPEN]

    # -- selling -----------------------------------------------------------------------------------------------------

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
        reply = _result(answer) if answer.done() else None
        if reply is None:
            raise SellOutcomeUnknownError
        if reply.refused:
            raise NotSellableError
        return order

    async def _find_open(self, broker_order_id: str) -> Order:
        tracked = self._tracked.get(broker_order_id)
        if tracked is None and broker_order_id.isdecimal():
            await self._read_positions("portfolio.get-positions", "4.0", None)
            tracked = self._tracked.get(broker_order_id)
        if tracked is None:
            raise OrderNotFoundError
        if tracked.order.state is not OrderState.OPEN:
            raise NotSellableError
        return tracked.order

    # -- ends --------------------------------------------------------------------------------------------------------

    def in_flight(self) -> list[asyncio.Future[Order]]:
        """Return the placements that have no result yet."""
        return [p.result for p in self._placements.values() if not p.result.done()]

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget_placements(self) -> None:
        """Forget the oldest answered ones whose repetition would be refused as too late anyway."""
        if len(self._placements) < KEPT_PLACEMENTS:
            return
        now = self._clock.now()
        for key, placement in list(self._placements.items()):
            if placement.result.done() and not placement.unresolved and placement.request.send_before <= now:
                del self._placements[key]
                if len(self._placements) < KEPT_PLACEMENTS:
                    return


def _result(answer: asyncio.Future[Answer | None]) -> Answer | None:
    return None if answer.cancelled() else answer.result()


def _booked_option(sent: Order, reply: OptionReply) -> Order:
    created = reply.created_millisecond or reply.created * 1000
    payout = (reply.profit_income - 100) / 100 if reply.profit_income > 100 else sent.payout_rate
    return replace(
        sent,
        state=OrderState.OPEN,
        broker_order_id=str(reply.id),
        payout_rate=payout,
        open_price=parse_price(reply.value),
        open_time=parse_milliseconds(created) if created else sent.open_time,
        expiry_time=parse_seconds(reply.exp),
    )


def _could_be(placement: Placement, order: Order) -> bool:
    """Whether a position has the fingerprint of an order that was sent."""
    assert placement.ticket is not None  # noqa: S101  # unresolved means sent
    sent = placement.ticket.order
    same = (sent.asset, sent.instrument_type, sent.direction, sent.amount, sent.balance_id) == (
        order.asset,
        order.instrument_type,
        order.direction,
        order.amount,
        order.balance_id,
    )
    if not same or order.open_time < sent.open_time - CLOCK_TOLERANCE:
        return False
    if sent.instrument_type is InstrumentType.BLITZ:
        # The broker counts from its own acceptance.
        life = (order.expiry_time - order.open_time).total_seconds()
        return abs(life - placement.request.duration) <= CLOCK_TOLERANCE.total_seconds()
    return sent.expiry_time == order.expiry_time


def _same(known: Order, told: Order) -> bool:
    """Whether an event tells nothing new. Times and prices of one order differ by source in their last digits."""
    return (known.state, known.outcome, known.profit, known.client_order_id) == (
        told.state,
        told.outcome,
        told.profit,
        told.client_order_id,
    )


def _remember(
    memory: dict[int, str] | dict[str, str] | dict[int, Placement | None], key: object, value: object
) -> None:
    """Add to a memory that forgets the oldest."""
    store: dict[object, object] = memory  # type: ignore[assignment]  # one rule for three kinds of memory
    store[key] = value
    while len(store) > KEPT_IDS:
        del store[next(iter(store))]
