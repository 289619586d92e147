"""One session as its lease holder runs it: follows the broker account, reconciles, drives the bot, ends the session."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Final, assert_never

import structlog

from services.runtime.cancelling import end_if_cancelled
from services.runtime.clock import Clock
from services.runtime.errors import ServiceError
from services.runtime.secret import Secret
from services.session.domain.bot import ServiceLimits
from services.session.domain.errors import (
    BrokerUnavailableError,
    ContradictionError,
    InvalidArgumentError,
    InvalidCredentialsError,
    LoginThrottledError,
    NotConnectedError,
    SessionMismatchError,
    StaleEpochError,
    TwoFactorInvalidError,
    TwoFactorRequiredError,
)
from services.session.domain.events import BalanceChanged, BrokerConnectionChanged, FaultHappened, SessionWillExpire
from services.session.domain.trade import ACTIVE, BrokerOrder
from services.session.domain.values import (
    Account,
    BotStatus,
    BrokerConnection,
    CloseReason,
    SessionKey,
    SessionState,
    TradeSource,
)
from services.session.ports import AccountEvent, Activity, Agent, BrokerGateway, Ledger, SessionRecord, Signals
from services.session.use_cases.bot import Bot
from services.session.use_cases.frames import CandleFrames, EncodeCandle
from services.session.use_cases.login import Logins, same_balance
from services.session.use_cases.reconciling import Reconciler
from services.session.use_cases.trading import TradeDesk

_POLL: Final = 60.0
"""Seconds after which the desired state is read again although nobody said that it changed."""
_CLOSING_POLL: Final = 3.0
"""Seconds between two looks whether a closing session's trades have ended."""
_RECONCILE_RETRY: Final = 3.0
_RECONNECT: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between attempts to follow the account again; the last one repeats."""
_LOG_OUT_ATTEMPTS: Final = 10
_FRAMES_RETRY: Final = 1.0
"""Seconds before candles that were cut are followed again, if somebody still watches."""
_RESULTS_KEPT: Final = 1000
"""Orders whose end a runner remembers to have recorded: the broker's lists tell of the same ones again and again."""
_NEVER: Final = float("inf")
_NOW: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class RunnerTools:
    """What all runners of a process share."""

    ledger: Ledger
    activity: Activity
    signals: Signals
    broker: BrokerGateway
    agent: Agent
    logins: Logins
    desk: TradeDesk
    clock: Clock
    limits: ServiceLimits
    encode_candle: EncodeCandle
    jitter: Callable[[], float]
    """Gives a number in [0, 1)."""
    idle_timeout: int
    expiry_warning: int


class SessionRunner:
    """Runs one session from taking its lease until it is closed or another process runs it.

    It is crash-only: whatever goes wrong that it does not know ends it, and its owner starts it anew with the next
    epoch; all that matters is in the ledger.

    Args:
        key: The session.
        tools: What all runners of a process share.
        may_send: Whether this process still holds the lease that this runner was made under.
    """

    def __init__(self, key: SessionKey, tools: RunnerTools, may_send: Callable[[], bool]) -> None:
        self._key = key
        self._may_send = may_send
        self._tools = tools
        self._ledger = tools.ledger
        self._clock = tools.clock
        self._log = structlog.get_logger(__name__).bind(session=key[:8])
        self._record: SessionRecord
        self._nudged = asyncio.Event()
        self._connected = asyncio.Event()
        self._woken_up = asyncio.Event()
        self._login_refused = False
        self._refresh_at = _NEVER
        self._reconcile_at = _NEVER
        self._expiry_at = _NEVER
        self._reconciled = False
        self._thorough = True
        self._log_outs = 0
        self._contradictions: set[str] = set()
        """Orders at the broker that were told to contradict the ledger."""
        self._recorded: dict[str, int] = {}
        """Hashes of the session's orders that have ended and are recorded so: the last ones, while others are unsettled."""
        # What the user was told last.
        self._connection: BrokerConnection
        self._balance: tuple[Decimal, str]
        self._bot: Bot | None = None
        self._bot_run: str | None = None
        self._bot_task: asyncio.Task[None] | None = None
        self._watch_candles = False
        self._frames: tuple[str, int] | None = None
        self._frames_task: asyncio.Task[None] | None = None

    @property
    def may_move(self) -> bool:
        """Whether another replica can go on with the session and nothing is lost by it but a second.

        Not while the broker connection is being made: what this runner knows of refused logins would be forgotten.
        """
        return (
            self._connected.is_set()
            and self._reconciled
            and self._record.state is SessionState.ACTIVE
            and not self._tools.desk.is_placing(self._key)
            and (self._bot is None or self._bot.is_between_candles)
        )

    def wake(self) -> None:
        """Look at the desired state now."""
        self._refresh_at = self._reconcile_at = _NOW
        self._watch_candles = True
        self._woken_up.set()
        self._nudged.set()

    def tick(self, now: float) -> None:
        """Notice that something is due; called about once a second for all runners of the process."""
        if now >= min(self._refresh_at, self._reconcile_at, self._expiry_at):
            self._nudged.set()

    async def run(self) -> None:
        """Run the session until it is CLOSED or another process took over."""
        record = await self._ledger.begin_epoch(self._key)
        if record is None:
            return
        self._record = record
        self._reconciler = Reconciler(
            record,
            ledger=self._ledger,
            broker=self._tools.broker,
            desk=self._tools.desk,
            clock=self._clock,
        )
        self._connection = record.broker_connection
        self._balance = (record.account.balance, record.account.currency)
        self._log.info("session_taken", epoch=record.epoch)
        # Whoever watches told the runner before this one.
        self._watch_candles = await self._tools.signals.is_watched(self._key) or self._watch_candles
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._follower = tasks.create_task(self._follow_account())
                await self._live()
                await self._stop(self._follower)
                await self._stop(self._bot_task)
                await self._stop(self._frames_task)
        except* StaleEpochError:
            self._log.info("session_moved")

    # The mind: one step at a time, woken by changes and by time

    async def _live(self) -> None:
        if self._refresh_at == _NEVER:
            self._plan_refresh()
        if self._record.state is SessionState.ACTIVE:
            warn_at = self._record.last_seen + self._until_warning
            self._expiry_at = self._clock.monotonic() + (warn_at - self._clock.now()).total_seconds()
        self._nudged.set()
        while True:
            await self._nudged.wait()
            self._nudged.clear()
            if self._is_due(self._refresh_at):
                await self._refresh()
                # A trade that another replica left unresolved is announced by a signal, which may have been lost.
                self._reconcile_at = _NOW
            if self._record.state is SessionState.CLOSED:
                return
            if self._is_due(self._expiry_at):
                await self._check_expiry()
            if self._is_due(self._reconcile_at):
                await self._reconcile()
            await self._converge()
            if self._record.state is SessionState.CLOSING and await self._finish():
                return

    def _is_due(self, time: float) -> bool:
        return self._clock.monotonic() >= time

    def _plan_refresh(self, seconds: float = _POLL) -> None:
        self._refresh_at = self._clock.monotonic() + seconds * (0.75 + self._tools.jitter() / 2)

    async def _refresh(self) -> None:
        record = await self._ledger.session(self._key)
        if record is None or record.epoch != self._record.epoch:
            raise StaleEpochError
        self._record = record
        if record.state is not SessionState.ACTIVE:
            self._expiry_at = _NEVER
        self._plan_refresh()

    async def _converge(self) -> None:
        """Bring the bot and the candle frames to what the record says."""
        record = self._record
        active = record.state is SessionState.ACTIVE
        run = record.run_id if active and self._reconciled and record.bot_status is BotStatus.RUNNING else None
        if run != self._bot_run or (self._bot_task is not None and self._bot_task.done()):
            await self._stop(self._bot_task)
            self._bot, self._bot_task, self._bot_run = None, None, run
            if run is not None:
                self._bot = self._new_bot()
                self._bot_task = self._tasks.create_task(self._run_bot(self._bot))
        following = (record.asset, record.timeframe) if active else None
        if self._frames != following:
            self._watch_candles = self._watch_candles or self._is_running(self._frames_task)
            await self._stop(self._frames_task)
        if self._watch_candles and following is not None and not self._is_running(self._frames_task):
            self._frames_task = self._tasks.create_task(self._run_frames(*following))
        self._frames = following
        self._watch_candles = False

    @staticmethod
    def _is_running(task: asyncio.Task[None] | None) -> bool:
        return task is not None and not task.done()

    @staticmethod
    async def _stop(task: asyncio.Task[None] | None) -> None:
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})

    def _new_bot(self) -> Bot:
        tools = self._tools
        return Bot(
            self._record,
            ledger=self._ledger,
            broker=tools.broker,
            agent=tools.agent,
            desk=tools.desk,
            clock=self._clock,
            limits=tools.limits,
            connected=self._connected,
            may_send=self._may_send,
            jitter=tools.jitter,
        )

    async def _run_bot(self, bot: Bot) -> None:
        try:
            await bot.run()
        except StaleEpochError:
            # The run is over, or this runner is: the record tells which.
            self._log.info("bot_run_over")
        self._refresh_at = _NOW
        self._nudged.set()

    async def _run_frames(self, asset: str, timeframe: int) -> None:
        tools = self._tools
        frames = CandleFrames(
            self._key,
            self._record.account.account_type,
            broker=tools.broker,
            signals=tools.signals,
            clock=self._clock,
            encode=tools.encode_candle,
        )
        try:
            for attempt in count():
                await self._connected.wait()
                if attempt and not await tools.signals.is_watched(self._key):
                    return
                try:
                    await frames.run(asset, timeframe)
                except (BrokerUnavailableError, NotConnectedError) as error:
                    self._log.info("candle_frames_cut", reason=error.reason)
                    end_if_cancelled(error)
                else:
                    return
                await self._clock.sleep(_FRAMES_RETRY * (0.5 + self._tools.jitter()))
        except ServiceError as error:
            # What time alone does not heal. Whoever still watches asks again.
            self._log.info("candle_frames_refused", reason=error.reason)

    async def _reconcile(self) -> None:
        self._reconcile_at = _NEVER
        if not self._connected.is_set():
            wait = await self._reconciler.run_unconnected()
            if wait is not None:
                self._reconcile_at = min(self._reconcile_at, self._clock.monotonic() + wait)
            return
        thorough, self._thorough = self._thorough, False
        try:
            wait = await self._reconciler.run(thorough=thorough)
        except BrokerUnavailableError:
            self._thorough = self._thorough or thorough
            wait = _RECONCILE_RETRY
        else:
            self._reconciled = True
        if wait is not None:
            self._reconcile_at = min(self._reconcile_at, self._clock.monotonic() + wait)
        else:
            # Nothing is unsettled, and the next list begins after these.
            self._recorded.clear()
        if self._bot is not None:
            await self._bot.check_limits()
        # Reconciling may have stopped the bot.
        await self._refresh()

    # The end

    @property
    def _until_warning(self) -> timedelta:
        return timedelta(seconds=self._tools.idle_timeout - self._tools.expiry_warning)

    async def _check_expiry(self) -> None:
        await self._refresh()
        record = self._record
        if record.state is not SessionState.ACTIVE:
            return
        last = await self._tools.activity.last_seen(self._key, durable_last_seen=record.last_seen)
        idle = self._clock.now() - last
        timeout = timedelta(seconds=self._tools.idle_timeout)
        if idle >= timeout:
            if await self._ledger.close_session(self._key, CloseReason.EXPIRED) is not None:
                self._log.info("session_expired")
            self._expiry_at = _NEVER
            await self._refresh()
            return
        if idle >= self._until_warning:
            if not record.expiry_warned:
                left = int((timeout - idle).total_seconds())
                await self._ledger.emit(self._key, SessionWillExpire(left), epoch=record.epoch)
            due = timeout - idle
        else:
            due = self._until_warning - idle
        self._expiry_at = self._clock.monotonic() + due.total_seconds()

    async def _finish(self) -> bool:
        """Close the session once its trades have ended: the login first, then the credentials. False if not yet."""
        if any(trade.state in ACTIVE for trade in await self._ledger.unsettled(self._key)):
            self._plan_refresh(_CLOSING_POLL)
            return False
        # Whoever follows the account would log in again.
        await self._stop(self._follower)
        try:
            await self._tools.broker.disconnect(self._key, log_out=True)
        except BrokerUnavailableError:
            self._log_outs += 1
            if self._log_outs < _LOG_OUT_ATTEMPTS:
                self._plan_refresh(_CLOSING_POLL)
                return False
            self._log.warning("session_not_logged_out")
        if not await self._ledger.finish_session(self._key, epoch=self._record.epoch):
            # A trade turned up late at the broker: it is followed again.
            self._follower = self._tasks.create_task(self._follow_account())
            self._plan_refresh(_CLOSING_POLL)
            return False
        self._log.info("session_closed")
        return True

    # The account at the broker

    async def _follow_account(self) -> None:
        attempt = 0
        while True:
            self._woken_up.clear()
            try:
                async with self._tools.broker.watch_account(self._key) as events:
                    async for event in events:
                        attempt = 0
                        self._login_refused = False
                        await self._apply(event)
            except NotConnectedError:
                if self._login_refused:
                    # The same credentials are never offered again from here. Only the user's own connect can make the
                    # connection stand, and it wakes this runner, as other things do that do not.
                    await self._woken_up.wait()
                    continue
                if await self._log_in():
                    end_if_cancelled()
                    continue
            except BrokerUnavailableError:
                await self._tell_connection(BrokerConnection.RECONNECTING)
            end_if_cancelled()
            await self._clock.sleep(_RECONNECT[min(attempt, len(_RECONNECT) - 1)] * (0.5 + self._tools.jitter()))
            attempt += 1

    async def _log_in(self) -> bool:
        """Connect from the session's credentials; False if it is to be tried again after a while."""
        await self._tell_connection(BrokerConnection.RECONNECTING)
        try:
            await self._tools.logins.connect(self._record)
        except (
            InvalidCredentialsError,
            TwoFactorRequiredError,
            TwoFactorInvalidError,
            SessionMismatchError,
            InvalidArgumentError,
        ) as error:
            self._log.warning("login_refused", reason=error.reason)
            self._login_refused = True
            await self._tell_connection(BrokerConnection.REFUSED)
        except LoginThrottledError as error:
            self._log.warning("login_throttled", **error.facts)
            await self._clock.sleep(float(str(error.facts["retry_after"])))
        except BrokerUnavailableError:
            return False
        return True

    async def _apply(self, event: AccountEvent) -> None:
        match event:
            case BrokerConnection():
                await self._tell_connection(event)
            case Account():
                await self._tell_balance(event)
            case BrokerOrder():
                await self._record_order(event)
            case Secret():
                await self._ledger.store_broker_token(self._key, event)
            case _:
                assert_never(event)

    async def _tell_connection(self, state: BrokerConnection) -> None:
        if state is BrokerConnection.CONNECTED:
            if not self._connected.is_set():
                self._connected.set()
                self._thorough = True
                self._reconcile_at = _NOW
                self._nudged.set()
        else:
            self._connected.clear()
        if state is not self._connection:
            await self._ledger.emit(self._key, BrokerConnectionChanged(state), epoch=self._record.epoch)
            self._connection = state
            self._log.info("broker_connection", state=state.value)

    async def _tell_balance(self, account: Account) -> None:
        if not same_balance(account, self._record.account):
            self._log.error("account_event_of_another_balance")
            return
        if (account.balance, account.currency) != self._balance:
            event = BalanceChanged(account.balance, account.currency)
            await self._ledger.emit(self._key, event, epoch=self._record.epoch)
            self._balance = (account.balance, account.currency)

    async def _tell_contradiction(self, order: BrokerOrder, error: ContradictionError) -> None:
        """Tell once that the broker has an order that the ledger says cannot be: only a person can judge it."""
        if order.broker_order_id in self._contradictions:
            return
        self._contradictions.add(order.broker_order_id)
        self._log.error("order_contradicts_ledger", order=order.broker_order_id, detail=error.message)
        words = f"The broker has an order that does not fit its trade ({error.message}): look at the broker's own list"
        await self._ledger.emit(self._key, FaultHappened("ORDER_CONTRADICTS_TRADE", words), epoch=self._record.epoch)

    async def _record_order(self, order: BrokerOrder) -> None:
        """Record what an order's event says; whatever is missed here is found by reconciling."""
        epoch = self._record.epoch
        try:
            if order.outcome is None:
                overdue_at = self._clock.monotonic() + self._reconciler.seconds_until_overdue(order.expiry_time)
                self._reconcile_at = min(self._reconcile_at, overdue_at)
                if order.trade_id is not None and not self._tools.desk.is_under_way(order.trade_id):
                    await self._ledger.opened(order.trade_id, order, epoch=epoch)
                return
            if self._recorded.get(order.broker_order_id) == hash(order):
                return
            trade = await self._ledger.settled(self._key, order, epoch=epoch)
        except ContradictionError as error:
            await self._tell_contradiction(order, error)
            return
        if trade is None:
            return
        self._recorded[order.broker_order_id] = hash(order)
        if len(self._recorded) > _RESULTS_KEPT:
            del self._recorded[next(iter(self._recorded))]
        self._log.info("trade_settled", trade=trade.trade_id, outcome=trade.state.value)
        if trade.source is TradeSource.BOT and self._bot is not None and await self._bot.check_limits():
            self._refresh_at = _NOW
        if self._record.state is SessionState.CLOSING:
            self._refresh_at = _NOW
        self._nudged.set()
