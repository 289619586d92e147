"""One user's connection to one balance of one brand, natively: the parts of this package put together."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from services.broker.connectors.quadcode.assets import AssetTables, TableKey
from services.broker.connectors.quadcode.brands import Brand
from services.broker.connectors.quadcode.link import (
    FrameCounts,
    Link,
    RequestRefusedError,
    Timing,
    TokenRefusedError,
)
from services.broker.connectors.quadcode.login import HttpLogin
from services.broker.connectors.quadcode.market import Market
from services.broker.connectors.quadcode.messages import (
    UNREADABLE,
    BalanceChanged,
    BalanceEntry,
    CandlesReply,
    CommissionChanged,
    DigitalPrices,
    InstrumentsReply,
    Profile,
    ProfileReply,
)
from services.broker.connectors.quadcode.orders import OrderBook, OrderTiming
from services.broker.connectors.quadcode.parsing import ParseError, choose_balance, parse_money
from services.broker.connectors.quadcode.placements import Placement
from services.broker.connectors.quadcode.protocol import Call, Subscription
from services.broker.connectors.quadcode.tickets import (
    Ticket,
    check_stake,
    choose_digital,
    digital_ticket,
    option_ticket,
)
from services.broker.domain.errors import (
    AccountMismatchError,
    BrokerError,
    BrokerUnavailableError,
    InvalidCredentialsError,
    LoginThrottledError,
    NotConnectedError,
    PayoutChangedError,
    TwoFactorInvalidError,
    TwoFactorRequiredError,
)
from services.broker.domain.values import (
    Account,
    AccountEvent,
    AccountType,
    Asset,
    Candle,
    ConnectionState,
    Credentials,
    InstrumentType,
    NewOrder,
    Order,
    OrderList,
    TwoFactor,
)
from services.broker.mailbox import Hub
from services.runtime.clock import Clock
from services.runtime.errors import InternalError
from services.runtime.secret import Secret

TIMEFRAMES: Final = frozenset(
    (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 604_800, 2_592_000)
)
"""Candle lengths that the broker has, seconds."""
CANDLE_PAGE: Final = 1_000
MAX_HOLE: Final = 4_000
"""Missed candles of a stream that are filled in; after more the reader has to begin anew."""
MAX_HOLES: Final = 5
"""Holes in a listing that are asked for."""
MAX_REFUSALS: Final = 5
"""Fresh tokens that the broker may refuse in a row before we give up."""
STEADY: Final = 30.0
"""A socket that lived this long was a good one: the next back-off begins anew. Seconds."""
RESYNC_MARGIN: Final = timedelta(seconds=60)
PAYOUT_KINDS: Final = ("turbo-option", "binary-option", "blitz-option")
USER_ONLY: Final = (InvalidCredentialsError, TwoFactorRequiredError, TwoFactorInvalidError, AccountMismatchError)
"""What no repetition cures."""

_profile: Final = msgspec.json.Decoder(ProfileReply)
_balances: Final = msgspec.json.Decoder(list[BalanceEntry])
_balance_changed: Final = msgspec.json.Decoder(BalanceChanged)
_commission: Final = msgspec.json.Decoder(CommissionChanged)
_candles: Final = msgspec.json.Decoder(CandlesReply)
_instruments: Final = msgspec.json.Decoder(InstrumentsReply)
_digital_prices: Final = msgspec.json.Decoder(DigitalPrices)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """All waiting times of a connection."""

    link: Timing = field(default_factory=Timing)
    orders: OrderTiming = field(default_factory=OrderTiming)
    backoff_first: float = 0.1
    backoff_most: float = 10.0
    digital_price: float = 3.0
    """For the first price of a digital instrument. Seconds, as all others."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the connections of a process have in common; nothing of it belongs to a user."""

    clock: Clock
    tables: AssetTables
    counts: FrameCounts
    patience: Patience
    rng: random.Random
    """Spreads the reconnects of many connections."""


class QuadcodeConnector:
    """A connection to one balance; see ``Connector``.

    Args:
        brand: Where to connect.
        account_type: Which balance; another one is never taken.
        credentials: Kept for the logins that reconnects may need.
        login: The way to a session token.
        link: The way to the broker, not open yet.
        shared: What all connections share.
    """

    def __init__(
        self,
        brand: Brand,
        account_type: AccountType,
        credentials: Credentials,
        *,
        login: HttpLogin,
        link: Link,
        shared: Shared,
    ) -> None:
        self._brand = brand
        self._account_type = account_type
        self._credentials = credentials
        self._login = login
        self._shared = shared
        self._clock = shared.clock
        self._link = link
        self._market = Market(link, shared.tables, shared.patience.digital_price)
        self._book = OrderBook(
            link,
            shared.clock,
            timing=shared.patience.orders,
            asset_name=self._market.asset_name,
            publish=self._publish_order,
        )
        link.handle("balance-changed", self._on_balance)
        self._events: Hub[AccountEvent] = Hub()
        self._state = ConnectionState.CONNECTING
        self._token: Secret | None = None
        self._account: Account | None = None
        self._down_since = 0.0
        self._task: asyncio.Task[None] | None = None
        self._closed: BrokerError | None = None
        self._log = _log.bind(broker=brand.broker, account_type=account_type)

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """How the connection stands now."""
        return self._state

    @property
    def account(self) -> Account:
        """The account as last reported."""
        if self._account is None:
            raise NotConnectedError
        return self._account

    @property
    def broker_token(self) -> Secret:
        """The broker's session token."""
        if self._token is None:
            raise NotConnectedError
        return self._token

    async def connect(self, broker_token: Secret | None, two_factor: TwoFactor | None) -> None:
        """Connect for the first time; see ``Connector.connect``."""
        self._token = broker_token or None
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(up, two_factor), name="connection")
        try:
            await asyncio.shield(up)
        except BaseException:
            await self.close(NotConnectedError())
            raise

    async def close(self, reason: BrokerError, *, log_out: bool = False) -> None:
        """End the connection; see ``Connector.close``."""
        self._closed = self._closed or reason
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        self._book.close()
        self._market.close(reason)
        self._events.close(reason)
        if log_out and self._token is not None:
            await self._login.log_out(self._token)

    async def _run(self, up: asyncio.Future[None], two_factor: TwoFactor | None) -> None:
        """Live through one socket after another until closed or refused."""
        failures = refusals = 0
        while True:
            loop = asyncio.get_running_loop()
            pause, began = 0.0, loop.time()
            try:
                await self._live(up, two_factor)
                two_factor = None
            except TokenRefusedError:
                refusals += 1
                if not up.done() or refusals >= MAX_REFUSALS:
                    self._give_up(up, BrokerUnavailableError("the broker refuses the token that it has just given"))
                    return
            except USER_ONLY as error:
                self._give_up(up, error)
                return
            except (BrokerError, RequestRefusedError, *UNREADABLE, ParseError) as error:
                if not up.done():
                    up.set_exception(error if isinstance(error, BrokerError) else BrokerUnavailableError())
                    return
                if isinstance(error, LoginThrottledError):
                    pause = float(error.retry_after)
            except Exception:  # noqa: BLE001  # a fault of ours costs this connection a reconnect, not its life
                self._log.exception("connection_fault")
                if not up.done():
                    up.set_exception(InternalError("internal error"))
                    return
            if self._state is ConnectionState.CONNECTED:
                refusals = 0
            failures = 0 if loop.time() - began >= STEADY else failures + 1
            self._interrupted()
            pause = max(pause, self._backoff(failures))
            self._log.info("connection_lost", attempt=failures, pause=round(pause, 3))
            await self._clock.sleep(pause)

    async def _live(self, up: asyncio.Future[None], two_factor: TwoFactor | None) -> None:
        if self._token is not None:
            try:
                await self._link.live(self._token, lambda: self._bring_up(up, fresh=False))
            except TokenRefusedError:
                # An old token may be over; a fresh one that is refused as well is another matter.
                self._token = None
            else:
                return
        login = await self._login.log_in(self._credentials, two_factor)
        if self._account is not None and login.user_id not in (None, self._account.user_id):
            raise AccountMismatchError("the login belongs to another user than before")
        self._token = login.token
        if up.done():
            self._events.publish("token", login.token)
        await self._link.live(self._token, lambda: self._bring_up(up, fresh=True))

    async def _bring_up(self, up: asyncio.Future[None], *, fresh: bool) -> None:
        """Make a fresh socket ours: who we are, whose money, what we listen to, and what we have missed."""
        await self._link.set_up()
        profile = _profile.decode(await self._link.call(Call("core.get-profile", "1.0", {}))).result
        if not self._is_ours(profile):
            if not fresh:
                # Somebody else's token was kept for this login: it counts as no token.
                raise TokenRefusedError
            raise AccountMismatchError("the broker answers for another login")
        reconnected = self._account is not None
        account = self._account = await self._read_account(profile.user_id)
        self._book.account = account
        self._market.set_group(TableKey(account.broker, profile.group_id, account.currency))
        await self._market.table()
        for subscription in _account_subscriptions(account.user_id):
            await self._link.subscribe(subscription)
        since = self._link.broker_time()
        if reconnected:
            since -= RESYNC_MARGIN + timedelta(seconds=self._clock.monotonic() - self._down_since)
        try:
            await self._book.list_orders(since)
        except BrokerUnavailableError as error:
            # A broker that does not list orders can still be traded with; the caller's own listing will tell.
            self._log.warning("orders_not_listed", error=error.message)
        self._book.resume()
        self._market.resume()
        self._enter(ConnectionState.CONNECTED)
        self._events.publish("account", account)
        if not up.done():
            up.set_result(None)

    def _is_ours(self, profile: Profile) -> bool:
        if self._account is not None:
            return profile.user_id == self._account.user_id
        email = self._credentials.email.strip().lower()
        # A login may also be a telephone number, which the profile does not tell.
        return "@" not in email or not profile.email or profile.email.strip().lower() == email

    async def _read_account(self, user_id: int) -> Account:
        call = Call("get-balances", "1.0", {"types_ids": [1, 4]})
        entry = choose_balance(_balances.decode(await self._link.call(call)), self._account_type, user_id)
        if entry is None or (self._account is not None and entry.id != self._account.balance_id):
            raise AccountMismatchError(f"the login has no such {self._account_type} balance")
        return Account(
            broker=self._brand.broker,
            account_type=self._account_type,
            user_id=user_id,
            balance_id=entry.id,
            balance=parse_money(entry.amount),
            currency=entry.currency,
        )

    def _interrupted(self) -> None:
        if self._state is ConnectionState.CONNECTED:
            self._down_since = self._clock.monotonic()
            self._enter(ConnectionState.RECONNECTING)
            self._market.interrupted()

    def _give_up(self, up: asyncio.Future[None], error: BrokerError) -> None:
        self._interrupted()
        self._enter(ConnectionState.REFUSED)
        self._log.warning("connection_refused", reason=error.reason)
        if not up.done():
            up.set_exception(error)

    def _enter(self, state: ConnectionState) -> None:
        if state is not self._state:
            self._state = state
            self._events.publish("state", state)
            self._log.info("connection_state", state=state)

    def _backoff(self, failures: int) -> float:
        patience = self._shared.patience
        pause: float = min(patience.backoff_first * 2.0 ** min(failures, 30), patience.backoff_most)
        return pause * (1 + self._shared.rng.random())

    # -- account ---------------------------------------------------------------------------------------------------

    async def get_account(self) -> Account:
        """Ask the broker for the balance as it is now."""
        try:
            self._account = await self._read_account(self.account.user_id)
        except (RequestRefusedError, *UNREADABLE, ParseError) as error:
            raise BrokerUnavailableError("the broker does not tell the balance") from error
        return self._account

    async def watch_account(self) -> AsyncIterator[AccountEvent]:
        """Stream the state and the account, then every change."""
        mailbox = self._events.join()
        try:
            mailbox.put("state", self._state)
            mailbox.put("account", self.account)
            if self._closed is not None:
                mailbox.close(self._closed)
            while True:
                yield await mailbox.get()
        finally:
            self._events.leave(mailbox)

    def _on_balance(self, msg: msgspec.Raw) -> None:
        message, account = _balance_changed.decode(msg), self._account
        if account is None or (message.user_id, message.current_balance.id) != (account.user_id, account.balance_id):
            return
        self._account = replace(account, balance=parse_money(message.current_balance.amount))
        self._events.publish("account", self._account)

    def _publish_order(self, order: Order) -> None:
        self._events.publish(("order", order.broker_order_id), order)

    # -- market ----------------------------------------------------------------------------------------------------

    async def list_assets(self) -> Sequence[Asset]:
        """Return every asset with payouts as they are now."""
        return await self._market.list_assets()

    async def list_candles(self, asset: str, timeframe: int, count: int, end_time: int | None) -> Sequence[Candle]:
        """Return up to ``count`` candles that start before ``end_time``; see ``Connector.list_candles``."""
        return await self._market.list_candles(asset, timeframe, count, end_time)

    def watch_candles(self, asset: str, timeframe: int) -> AsyncIterator[Candle]:
        """Stream the candle in progress and each candle once more when it closes."""
        return self._market.watch_candles(asset, timeframe)

    # -- orders ----------------------------------------------------------------------------------------------------

    async def place_order(self, order: NewOrder) -> Order:
        """Send an order once; see ``Connector.place_order``."""
        if order.account_type is not self._account_type:
            raise AccountMismatchError("the order names another account type than the connection's")
        placement, is_new = self._book.open_placement(order)
        if is_new:
            try:
                task = self._link.spawn(self._place(placement))
            except BrokerUnavailableError as error:
                placement.fail(error)
            else:
                task.add_done_callback(lambda _: self._conclude(placement))
        # The placement goes on when a caller goes away: a half-placed order helps nobody.
        return await asyncio.shield(placement.result)

    async def _place(self, placement: Placement) -> None:
        try:
            await self._book.send(placement, await self._ticket(placement.request))
        except BrokerError as error:
            if not placement.sent:
                placement.fail(error)
        except Exception:  # noqa: BLE001  # whatever it is, the callers must learn whether the order may be booked
            self._log.exception("placing_failed", sent=placement.sent)
            if not placement.sent:
                placement.fail(InternalError("internal error"))
            # Otherwise an error would claim that nothing was booked.
        self._learn_payout(placement)

    def _conclude(self, placement: Placement) -> None:
        """The placing is over. If it was cut short, by a lost socket or by closing, say what can be said."""
        if placement.result.done():
            return
        if placement.sent:
            self._book.lose(placement)
        else:
            placement.fail(BrokerUnavailableError("the connection to the broker was lost"))

    async def _ticket(self, order: NewOrder) -> Ticket:
        table = await self._market.table()
        listing = table.listing(order.asset, order.instrument_type)
        if order.amount > self.account.balance:
            # A push may have been missed: the broker's word counts.
            await self.get_account()
        check_stake(order, listing, self.account, self._now())
        if order.instrument_type is not InstrumentType.DIGITAL:
            return option_ticket(order, listing, self.account, self._now())
        instruments = await self._market.digital_instruments(listing.active_id)
        # Its price has to be waited for: an instrument whose window closes meanwhile would be lost time.
        lead = self._shared.patience.digital_price
        instrument, symbol = choose_digital(instruments, order, self._now(), lead)
        payout_rate = await self._market.digital_payout(listing.active_id, instrument.index, order.direction)
        if payout_rate is None and order.min_payout_rate > 0:
            raise BrokerUnavailableError("the broker does not tell the payout")
        # What could be bought before the wait must still be so.
        choose_digital([instrument], order, self._now())
        return digital_ticket(
            order,
            listing,
            self.account,
            self._now(),
            instrument=instrument,
            symbol=symbol,
            payout_rate=payout_rate or 0.0,
        )

    def _learn_payout(self, placement: Placement) -> None:
        """Take over the payout that an order was refused with."""
        error = placement.error()
        if isinstance(error, PayoutChangedError) and error.payout_rate is not None:
            request = placement.request
            self._market.learn_payout(request.asset, request.instrument_type, error.payout_rate)

    async def sell_order(self, broker_order_id: str) -> Order:
        """Offer an open order back; see ``Connector.sell_order``."""
        return await self._book.sell(broker_order_id)

    async def list_orders(self, closed_since: datetime) -> OrderList:
        """Read the broker's lists of open and closed orders."""
        # Its listed orders are told by the assets' names.
        await self._market.table()
        return await self._book.list_orders(closed_since)

    def in_flight(self) -> Sequence[asyncio.Future[Order]]:
        """Return the orders that are being placed."""
        return self._book.in_flight()

    def _now(self) -> float:
        return self._link.broker_time().timestamp()


def _account_subscriptions(user_id: int) -> tuple[Subscription, ...]:
    return (
        Subscription("balances.balance-changed", "1.0", ()),
        Subscription("portfolio.position-changed", "3.0", (("user_id", user_id),)),
        Subscription("portfolio.order-changed", "2.0", (("user_id", user_id),)),
    )
