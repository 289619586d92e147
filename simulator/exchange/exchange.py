"""The exchange of one brand: takes orders, books them, settles them, and writes all of it down."""

import hashlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Final, Protocol

from simulator.brands import Brand
from simulator.exchange import refusals, rules
from simulator.exchange.accounts import Account, Accounts, Balance
from simulator.exchange.instruments import parse_instrument_id
from simulator.exchange.journal import Journal, OrderEntry, order_from_entry, order_to_entry
from simulator.exchange.listings import Listing, Listings
from simulator.exchange.orders import CENT, Direction, Order, OrderStatus, Outcome, credit_of, known, outcome_of
from simulator.exchange.refusals import Refusal
from simulator.exchange.timers import Timers
from simulator.market.assets import TERMS, OptionKind

BUYBACK_SHARE: Final = Decimal("0.95")
"""Share of a contract's fair value that the broker pays for it."""


class Listener(Protocol):
    """Who wants to know what happens to a user's money and orders."""

    def balance_changed(self, balance: Balance) -> None:
        """The amount of a balance is another one now."""
        ...

    def order_opened(self, order: Order) -> None:
        """An order was booked."""
        ...

    def order_closed(self, order: Order) -> None:
        """A contract ended, by expiry or sale."""
        ...

    def order_rejected(self, order: Order) -> None:
        """A digital order that had been accepted was turned down afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order as the client sent it, read but not judged."""

    account: Account
    request_id: str
    received: float
    balance_id: int | None
    kind: OptionKind | None
    direction: Direction | None
    amount: Decimal
    active_id: int | None = None
    expiry: int | None = None
    """Turbo and binary: unix seconds."""
    size: int | None = None
    """Blitz: seconds."""
    payout_seen: int | None = None
    instrument_id: str = ""
    """Digital: in place of asset, direction and expiry."""


@dataclass(frozen=True, slots=True)
class Intervention:
    """What a fault script does to an order that is being placed."""

    refusal: Refusal | None = None
    forced: Outcome | None = None
    settle_after: float | None = None
    """Seconds from booking to settlement, whatever the expiry."""
    drop: str | None = None
    """Lose the order before it is booked, for this reason."""


NO_INTERVENTION: Final = Intervention()


class Exchange:
    """One brand's orders. Every order it is sent is in ``orders``, refused ones too, in the order of arrival."""

    def __init__(
        self,
        brand: Brand,
        *,
        accounts: Accounts,
        listings: Listings,
        journal: Journal,
        timers: Timers,
        clock: Callable[[], float],
        listener: Listener,
    ) -> None:
        self.brand = brand
        self.accounts = accounts
        self.listings = listings
        self.orders: list[Order] = []
        self._by_external_id: dict[int, Order] = {}
        self._by_user: dict[int, list[Order]] = {}
        self._journal = journal
        self._timers = timers
        self._clock = clock
        self._listener = listener
        self._last_id = brand.first_order_id - 1
        """The highest id that the journal holds."""
        self._ids = itertools.count(self._last_id + 1)

    # ---- reading -----------------------------------------------------------------------------------------------

    def of_user(self, user_id: int) -> list[Order]:
        """Return the booked orders of a user, oldest first."""
        return self._by_user.get(user_id, [])

    def find(self, user_id: int, external_id: int) -> Order | None:
        """Return a user's order by option id or digital position id; another user's is not found."""
        order = self._by_external_id.get(external_id)
        return order if order is not None and order.user_id == user_id else None

    def price_now(self, listing: Listing) -> int:
        """Return the asset's price of this second."""
        return listing.history.price(int(self._clock()))

    # ---- placing -----------------------------------------------------------------------------------------------

    def place(self, new: NewOrder, intervention: Intervention = NO_INTERVENTION) -> Order:
        """Judge an order and book it. Nobody is told: the caller answers first and then calls ``announce``.

        A digital order without funds is not refused here, as on the real platform: it comes back REFUSED.

        Raises:
            Refusal: The platform says no. The refusal is in the ledger.
        """
        order = self._receive(new)
        if intervention.drop is not None:
            order.status = OrderStatus.DROPPED
            order.reason = intervention.drop
            self._record(order, None)
            return order
        try:
            if intervention.refusal is not None:
                raise intervention.refusal
            balance, listing = self._judge(new, order)
            lacking = balance.amount < known(order.amount)
            if lacking and order.kind is not OptionKind.DIGITAL:
                raise refusals.no_money()
            if not lacking:
                rules.check_maximum(known(order.amount))
        except Refusal as refusal:
            order.reason = refusal.reason
            order.expiry = order.settle_at = None
            self._record(order, None)
            raise
        order.order_id = order.external_id = next(self._ids)
        if order.kind is OptionKind.DIGITAL:
            order.external_id = next(self._ids)
        if lacking:
            order.reason = refusals.no_money().reason
            order.expiry = order.settle_at = None
            self._record(order, None)
        else:
            self._book(order, balance, listing, intervention)
        return order

    def announce(self, order: Order) -> None:
        """Tell the user's sockets what ``place`` did."""
        if order.status is OrderStatus.OPEN:
            self._listener.balance_changed(self._balance(order))
            self._listener.order_opened(order)
        elif order.status is OrderStatus.REFUSED:
            self._listener.order_rejected(order)

    def _receive(self, new: NewOrder) -> Order:
        balance = None if new.balance_id is None else new.account.balances.get(new.balance_id)
        instrument = parse_instrument_id(new.instrument_id)
        listing = None if new.active_id is None else self.listings.get(new.active_id)
        if instrument is not None:
            if instrument.active_id is not None:
                listing = self.listings.get(instrument.active_id)
            elif instrument.ticker is not None:
                listing = self.listings.by_ticker(instrument.ticker)
        order = Order(
            number=len(self.orders) + 1,
            brand=self.brand.name,
            email=new.account.email,
            user_id=new.account.user_id,
            balance_id=new.balance_id,
            account_type=None if balance is None else balance.account_type,
            request_id=new.request_id,
            active_id=new.active_id if listing is None else listing.asset.active_id,
            asset=None if listing is None else listing.asset.ticker,
            kind=new.kind,
            direction=new.direction if instrument is None else instrument.direction,
            amount=new.amount,
            requested_expiry=new.expiry if instrument is None else instrument.expiry,
            received=new.received,
            status=OrderStatus.REFUSED,
            instrument_id=new.instrument_id,
            duration=new.size if instrument is None else instrument.period,
        )
        self.orders.append(order)
        return order

    def _judge(self, new: NewOrder, order: Order) -> tuple[Balance, Listing]:
        """Apply every rule but the one about money; fills in expiry and payout."""
        now = self._clock()
        if order.kind is None:
            raise refusals.not_available()
        if order.kind is OptionKind.DIGITAL:
            instrument = parse_instrument_id(new.instrument_id)
            if instrument is None or not instrument.is_on_grid or order.asset is None:
                raise refusals.invalid_instrument()
        if order.direction is None:
            raise refusals.invalid("direction", "Invalid direction.")
        order.amount = rules.check_amount(new.amount)
        balance = None if new.balance_id is None else new.account.balances.get(new.balance_id)
        if balance is None:
            raise refusals.invalid("balance", "Balance not found.")
        listing = rules.check_open(None if order.active_id is None else self.listings.get(order.active_id), order.kind)
        if order.kind is OptionKind.BLITZ:
            order.duration = rules.check_blitz(new.size)
            order.settle_at = now + order.duration
            order.expiry = int(order.settle_at)
        else:
            if order.requested_expiry is None:
                raise refusals.invalid("expiry", "Invalid expiration time.")
            if order.kind is OptionKind.DIGITAL:
                if order.requested_expiry - now <= TERMS[order.kind].deadtime:
                    raise refusals.invalid_instrument()
            else:
                rules.check_expiry(order.kind, order.requested_expiry, now)
            order.expiry = order.requested_expiry
            order.settle_at = float(order.expiry)
        rules.check_payout(listing, order.kind, new.payout_seen)
        order.payout = listing.payout(order.kind)
        return balance, listing

    def _book(self, order: Order, balance: Balance, listing: Listing, intervention: Intervention) -> None:
        now = self._clock()
        order.status = OrderStatus.OPEN
        order.position_id = _position_id(self.brand, known(order.order_id))
        order.booked = now
        order.open_price = listing.history.price(int(now))
        order.forced = intervention.forced
        order.version = 1
        if intervention.settle_after is not None:
            order.settle_at = now + intervention.settle_after
        balance.amount -= known(order.amount)
        order.balance_after = balance.amount
        self._record(order, balance)
        self._index(order)
        self._schedule(order)

    # ---- ending ------------------------------------------------------------------------------------------------

    def settle(self, order: Order, *, forced: Outcome | None = None, at: float | None = None) -> None:
        """End an open contract and tell its owner; does nothing if it has ended already.

        Args:
            order: The order.
            forced: The outcome to give it; without it the prices decide.
            at: When and at whose price it ends early; without it, at its expiry.
        """
        if order.status is not OrderStatus.OPEN:
            return
        open_price, direction = known(order.open_price), known(order.direction)
        listing = known(self.listings.get(known(order.active_id)))
        if at is not None:
            order.settle_at = at
        close_price = listing.history.price(int(known(order.settle_at)))
        outcome = outcome_of(direction, open_price, close_price)
        forced = forced or order.forced
        if forced is not None and forced is not outcome:
            close_price = _price_for(forced, direction, open_price)
            outcome = forced
        credit = credit_of(outcome, known(order.amount), order.payout)
        self._close(order, outcome, close_price, credit, known(order.settle_at))

    def sell(self, order: Order) -> Decimal:
        """Buy a contract back and return what was paid for it.

        Raises:
            Refusal: It cannot be sold (any more).
        """
        if order.status is not OrderStatus.OPEN:
            raise refusals.invalid("sale", "The position is not open.")
        deadtime, now = TERMS[known(order.kind)].buyback_deadtime, self._clock()
        if deadtime is None or known(order.settle_at) - now <= deadtime:
            raise refusals.invalid("sale", "Buyback is not available.")
        listing = known(self.listings.get(known(order.active_id)))
        credit = self.sale_value(order)
        self._close(order, Outcome.SOLD, self.price_now(listing), credit, now)
        return credit

    def sale_value(self, order: Order) -> Decimal:
        """Return what the broker would pay for an open contract now: a share of its fair value, to the cent.

        The fair value is the gross win times the probability of winning if the price is a random walk.
        """
        listing = known(self.listings.get(known(order.active_id)))
        left = max(known(order.settle_at) - self._clock(), 1.0)
        ahead = self.price_now(listing) - known(order.open_price)
        if order.direction is Direction.PUT:
            ahead = -ahead
        chance = 0.5 * math.erfc(-ahead / (listing.history.volatility * math.sqrt(left)) / math.sqrt(2.0))
        return (order.win_credit * Decimal(chance) * BUYBACK_SHARE).quantize(CENT, ROUND_DOWN)

    def _close(self, order: Order, outcome: Outcome, close_price: int, credit: Decimal, at: float) -> None:
        balance = self._balance(order)
        order.status = OrderStatus.CLOSED
        order.outcome = outcome
        order.close_price = close_price
        order.closed = at
        order.credit = credit
        order.version += 1
        balance.amount += credit
        order.balance_after = balance.amount
        self._record(order, balance)
        self._listener.order_closed(order)
        if credit:
            self._listener.balance_changed(balance)

    def reset_practice(self, balance: Balance, amount: Decimal) -> None:
        """Set a practice balance anew and tell its owner."""
        balance.amount = amount
        account = self.accounts.of_user(balance.user_id)
        if account is not None:
            self.accounts.record(account)
        self._listener.balance_changed(balance)

    # ---- keeping -----------------------------------------------------------------------------------------------

    def restore(self, entry: OrderEntry) -> None:
        """Take an order's state over from the journal; ``resume`` follows when all are there."""
        order = order_from_entry(entry.order)
        self._last_id = max(self._last_id, order.order_id or 0, order.external_id or 0)
        if order.number <= len(self.orders):
            self.orders[order.number - 1] = order
        else:
            self.orders.append(order)
        if entry.balance_id is not None and entry.balance is not None:
            account = self.accounts.of_user(order.user_id)
            if account is not None:
                account.balances[entry.balance_id].amount = Decimal(entry.balance)

    def resume(self) -> None:
        """Index the restored orders and await the expiry of the open ones; those overdue settle at once, as they would have."""
        self._ids = itertools.count(self._last_id + 1)
        for order in self.orders:
            if order.booked is not None:
                self._index(order)
            if order.status is OrderStatus.OPEN:
                self._schedule(order)

    def clear(self) -> None:
        """Forget all orders; ids go on, over a restart too, so none is used twice."""
        self.orders.clear()
        self._by_external_id.clear()
        self._by_user.clear()

    def _balance(self, order: Order) -> Balance:
        return known(self.accounts.of_user(order.user_id)).balances[known(order.balance_id)]

    def _index(self, order: Order) -> None:
        self._by_external_id[known(order.external_id)] = order
        self._by_user.setdefault(order.user_id, []).append(order)

    def _schedule(self, order: Order) -> None:

        def expire() -> None:
            # After a reset the order is no longer ours to settle.
            if self._by_external_id.get(order.external_id or 0) is order:
                self.settle(order)

        self._timers.at(known(order.settle_at), expire)

    def _record(self, order: Order, balance: Balance | None) -> None:
        self._journal.append(
            OrderEntry(
                self.brand.name,
                order_to_entry(order),
                None if balance is None else balance.id,
                None if balance is None else str(balance.amount),
            )
        )


def _position_id(brand: Brand, order_id: int) -> str:
    return hashlib.sha256(f"{brand.name}:{order_id}".encode()).hexdigest()[:32]


def _price_for(outcome: Outcome, direction: Direction, open_price: int) -> int:
    """Return a close price that agrees with a forced outcome."""
    if outcome is Outcome.TIED:
        return open_price
    rises = (outcome is Outcome.WON) == (direction is Direction.CALL)
    return open_price + (10 if rises else -10)
