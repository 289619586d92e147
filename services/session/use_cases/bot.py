"""One run of a session's bot: candles in, decisions out, orders through the trade desk and by no other way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Final, NoReturn

import structlog

from services.runtime.cancelling import end_if_cancelled
from services.runtime.clock import Clock
from services.session.domain.bot import BotSettings, ServiceLimits, breach
from services.session.domain.errors import (
    BrokerUnavailableError,
    InsufficientFundsError,
    InvalidCredentialsError,
    LimitReachedError,
    LoginThrottledError,
    ModelNotFoundError,
    OrderRejectedError,
    SessionMismatchError,
    SessionNotFoundError,
    TradeRefusedError,
    TradeUnresolvedError,
    TwoFactorInvalidError,
    TwoFactorRequiredError,
    UnavailableError,
)
from services.session.domain.events import FaultHappened, LimitWasReached, LogWritten, SignalMade
from services.session.domain.shadow import GateRecord
from services.session.domain.trade import ACTIVE, Trade, TradeRequest, TradeState
from services.session.domain.values import BotStatus, Candle, Direction, TradeSource
from services.session.ports import Agent, BrokerGateway, Decision, Ledger, SessionRecord
from services.session.use_cases.shadows import ShadowBook
from services.session.use_cases.trading import TradeDesk

_EXTRA_HISTORY: Final = 50
"""Candles asked for beyond what the model wants, for holes and the one in progress."""
_MAX_HISTORY: Final = 5_000
"""Candles the broker service lists at most."""
_PAYOUT_AGE: Final = 15.0
"""Seconds for which a payout is taken as current."""
_MAX_LATENESS: Final = 5.0
"""Seconds after its close at which a candle is too old to trade on, or half its length if that is less."""
_SHORT: Final = 15
"""Seconds; a bot on shorter candles may be moved at any moment."""
_MOVE: Final = 5.0
"""Seconds that another replica may need to go on with a bot."""
_RETRIES: Final = (1.0, 2.0, 5.0, 10.0)
"""Seconds between attempts to get candles and decisions again; the last one repeats."""
_NO_BROKER: Final = (
    BrokerUnavailableError,
    # A login on the way to an order, when the broker service had lost the connection; the runner sees to the rest.
    InvalidCredentialsError,
    LoginThrottledError,
    SessionMismatchError,
    TwoFactorInvalidError,
    TwoFactorRequiredError,
)
_MAX_REJECTIONS: Final = 3
"""Orders in a row that the broker refuses for no known reason before the bot stops."""


class Bot:
    """Trades one run until it is cancelled, a limit stops it, or it is over in the ledger.

    It holds no state that matters: whatever it must not forget (limits, trades, what it decided on which candle) is in
    the ledger, so that any replica goes on where this one stopped.

    Overlap: while a trade of this session's bot is open on the asset, no second one is placed, unless options end within
    one candle (``duration <= timeframe``): then each candle may have its own.

    Evidence: every decision is followed as a shadow, traded or not; behind a closed evidence gate none becomes an order.

    Args:
        record: The session; its settings and run are this run's.
        ledger: The authority.
        broker: Candles and payouts.
        agent: Decisions.
        desk: The only way to an order.
        clock: Time.
        limits: The operator's limits.
        connected: Set while the broker connection stands.
        may_send: Whether this process still holds the session's lease.
        jitter: Gives a number in [0, 1).
    """

    def __init__(
        self,
        record: SessionRecord,
        *,
        ledger: Ledger,
        broker: BrokerGateway,
        agent: Agent,
        desk: TradeDesk,
        clock: Clock,
        limits: ServiceLimits,
        connected: asyncio.Event,
        may_send: Callable[[], bool],
        jitter: Callable[[], float],
    ) -> None:
        if record.settings is None or record.run_id is None:
            raise ValueError("a bot that runs has settings and a run")
        self._record = record
        self._key = record.session_key
        self._settings: BotSettings = record.settings
        self._run_id: str = record.run_id
        self._ledger = ledger
        self._broker = broker
        self._agent = agent
        self._desk = desk
        self._clock = clock
        self._limits = limits
        self._connected = connected
        self._may_send = may_send
        self._jitter = jitter
        self._patience = min(_MAX_LATENESS, record.settings.timeframe / 2)
        self._gate_mode = record.settings.gate_mode(record.account.account_type)
        self._shadows = ShadowBook(record, record.settings, ledger, clock, self._patience)
        self._payout: float | None = None
        self._payout_time = float("-inf")
        self._rejections = 0
        self._stopped = False
        settings = record.settings
        self._has_limits = any(
            limit is not None
            for limit in (
                settings.max_trades,
                settings.stop_loss,
                settings.take_profit,
                settings.daily_loss_limit,
                settings.max_consecutive_losses,
            )
        )
        self._waiting_for = ""
        self._log = structlog.get_logger(__name__).bind(session=self._key[:8], run=self._run_id[:8])

    @property
    def is_between_candles(self) -> bool:
        """Whether no candle closes soon or has just closed; always, where candles are too short to tell."""
        timeframe = self._settings.timeframe
        age = self._clock.now().timestamp() % timeframe
        return timeframe < _SHORT or self._patience < age < timeframe - _MOVE

    async def run(self) -> None:
        """Trade until the run is over. Ends by itself only when it stopped the bot in the ledger.

        Raises:
            StaleEpochError: The run is over, or this process no longer runs the session.
        """
        attempt = 0
        while True:
            await self._connected.wait()
            try:
                async for _ in self._bars():
                    attempt = 0
            except _NO_BROKER:
                await self._wait_for("the broker")
            except UnavailableError as error:
                # "The agent is not available": the ledger's absence cannot be told in an event.
                await self._wait_for("the agent" if "agent" in error.message else "the service")
            except ModelNotFoundError as error:
                await self._stop(FaultHappened(error.reason, f"The model {self._settings.model} does not exist"))
                return
            except (_RunOverError, SessionNotFoundError):
                return
            end_if_cancelled()
            await self._clock.sleep(_RETRIES[min(attempt, len(_RETRIES) - 1)] * (0.5 + self._jitter()))
            attempt += 1

    async def _bars(self) -> AsyncIterator[Candle]:
        """Decide and act at the close of each candle; ends where candles are missing, to begin anew with them."""
        settings = self._settings
        wanted = await self._agent.min_history(settings.model) + _EXTRA_HISTORY
        payout = await self._current_payout()
        if payout is None:
            await self._wait_for(f"{settings.asset} to open")
            return
        async with self._broker.watch_candles(self._key, settings.asset, settings.timeframe) as candles:
            # Listed after the subscription, so that no candle falls between the two.
            listed = await self._broker.candles(
                self._key, settings.asset, settings.timeframe, min(wanted, _MAX_HISTORY)
            )
            history = [candle for candle, closed in listed if closed]
            last = history[-1].close_time if history else None
            await self._shadows.open(history)
            async with self._agent.decide_on(settings, payout, history) as feed:
                await self._go_on()
                async for candle, closed in candles:
                    if not closed:
                        await self._shadows.tick(candle)
                        continue
                    if last is not None and candle.close_time <= last:
                        continue
                    if last is not None and candle.open_time != last:
                        self._log.info("candles_missing")
                        return
                    last = candle.close_time
                    await self._shadows.close(candle)
                    payout = await self._current_payout() or payout
                    await self._act(candle, await feed.next(candle, payout))
                    yield candle

    async def _act(self, candle: Candle, decision: Decision) -> None:
        settings = self._settings
        gate = await self._shadows.gate(decision.model_version)
        shut = decision.action != "HOLD" and not gate.lets_through(self._gate_mode)
        signal = _signal(settings, candle, decision, gate if shut else None)
        shadow = self._shadows.shadow(candle, decision, self._payout)
        if shadow is None:
            await self._tell(signal)
        else:
            await self._shadows.tell(signal, shadow)
        if signal.action == "HOLD":
            return
        late = (self._clock.now() - candle.close_time).total_seconds()
        if late > self._patience:
            self._log.info("signal_too_late", seconds=round(late, 1))
            return
        if self._payout is None:
            await self._wait_for(f"{settings.asset} to open")
            return
        if self._payout < (settings.min_payout or 0.0):
            await self._wait_for(f"a payout rate of at least {settings.min_payout}")
            return
        await self._go_on()
        if await self._is_in_the_way():
            return
        await self._trade(candle.close_time, decision)

    async def _is_in_the_way(self) -> bool:
        """Tell whether a trade on the asset forbids a second one now."""
        one_at_a_time = self._settings.duration > timedelta(seconds=self._settings.timeframe)
        for trade in await self._active_trades():
            if trade.asset != self._settings.asset:
                continue
            if trade.state is TradeState.UNKNOWN or (one_at_a_time and trade.source is TradeSource.BOT):
                return True
        return False

    async def _active_trades(self) -> list[Trade]:
        return [trade for trade in await self._ledger.unsettled(self._key) if trade.state in ACTIVE]

    async def _trade(self, close_time: datetime, decision: Decision) -> None:
        settings = self._settings
        right = max(decision.p_up, 1.0 - decision.p_up)
        request = TradeRequest(
            session_key=self._key,
            source=TradeSource.BOT,
            asset=settings.asset,
            instrument_type=settings.instrument_type,
            direction=Direction.CALL if decision.action == "CALL" else Direction.PUT,
            amount=settings.amount,
            duration=settings.duration,
            # Whoever runs the bot on this candle, and however often: one trade.
            idempotency_key=f"bot:{self._run_id}:{int(close_time.timestamp())}:1",
            # Below this payout the decision itself expects a loss: p < 1 / (1 + payout).
            min_payout=max(settings.min_payout or 0.0, 1.0 / right - 1.0),
            run_id=self._run_id,
            model=decision.model,
            model_version=decision.model_version,
            model_sha256=decision.model_sha256,
        )
        try:
            await self._desk.place(self._record, request, epoch=self._record.epoch, may_send=self._may_send)
            self._rejections = 0
        except LimitReachedError as error:
            self._log.info("signal_not_traded", reason=error.reason, limit=error.facts["limit"])
            if await self.check_limits():
                raise _RunOverError from error
        except InsufficientFundsError as error:
            if not await self._active_trades():
                await self._stop_and_end(FaultHappened(error.reason, "The balance is below the stake: the bot stopped"))
        except OrderRejectedError as error:
            self._rejections += 1
            words = f"The broker refused an order: {error.facts.get('message', '')}"
            if self._rejections >= _MAX_REJECTIONS:
                await self._stop_and_end(FaultHappened(error.reason, f"{words}; the bot stopped"))
            await self._tell(FaultHappened(error.reason, words))
        except (TradeRefusedError, TradeUnresolvedError) as error:
            # Closed, repriced, too late, or an equal trade unresolved: this candle's chance is gone, nothing more.
            self._log.info("signal_not_traded", reason=error.reason)

    async def check_limits(self) -> bool:
        """Stop the bot if a limit forbids its next trade and no trade that is still open could change that.

        Called by whoever learns of a settlement, so that a bot does not seem to run when it cannot trade any more.

        Returns:
            Whether it stopped.
        """
        if not self._has_limits:
            return self._stopped
        status = await self._ledger.status(self._key)
        if self._stopped or status is None or status.bot_status is not BotStatus.RUNNING or status.active_trades:
            return self._stopped
        found = breach(
            self._settings.amount, bot_run=True, settings=self._settings, usage=status.usage, service=self._limits
        )
        if found is not None:
            words = f"The limit {found.limit} is reached: the bot stopped"
            await self._stop(LimitWasReached(found.limit, found.value, found.used, words))
        return self._stopped

    async def _stop_and_end(self, event: FaultHappened) -> NoReturn:
        await self._stop(event)
        raise _RunOverError

    async def _stop(self, event: FaultHappened | LimitWasReached) -> None:
        self._stopped = True
        self._log.info("bot_stops_itself", event_type=event.type)
        await self._tell(event)
        await self._ledger.set_bot_status(self._key, BotStatus.STOPPED, run_id=self._run_id)

    async def _current_payout(self) -> float | None:
        """Return the payout rate on offer, None while the asset is closed."""
        now = self._clock.monotonic()
        if now - self._payout_time >= _PAYOUT_AGE:
            assets = await self._broker.assets(self._key)
            rates = [dict(asset.payout_rates) for asset in assets if asset.asset == self._settings.asset]
            self._payout = rates[0].get(self._settings.instrument_type) if rates else None
            self._payout_time = now
        return self._payout

    async def _wait_for(self, what: str) -> None:
        """Say what the bot waits for, once."""
        if self._waiting_for == what:
            return
        self._waiting_for = what
        await self._tell(LogWritten("warning", f"The bot waits for {what}"))

    async def _go_on(self) -> None:
        if self._waiting_for:
            await self._tell(LogWritten("info", "The bot goes on"))
        self._waiting_for = ""

    async def _tell(self, event: SignalMade | FaultHappened | LimitWasReached | LogWritten) -> None:
        await self._ledger.emit(self._key, event, epoch=self._record.epoch)


def _signal(settings: BotSettings, candle: Candle, decision: Decision, shut: GateRecord | None) -> SignalMade:
    """Say what was decided; behind a closed gate, ``shut``, it is a HOLD."""
    return SignalMade(
        action=decision.action if shut is None else "HOLD",
        confidence=max(decision.p_up, 1.0 - decision.p_up),
        model=decision.model,
        model_version=decision.model_version,
        asset=settings.asset,
        timeframe=settings.timeframe,
        p_up=decision.p_up,
        break_even=decision.break_even,
        expected_value=decision.expected_value,
        reason=decision.reason if shut is None else "gate_closed",
        candle_time=candle.open_time,
        shadow_action="" if shut is None or decision.action == "HOLD" else decision.action,
        detail="" if shut is None else shut.words(),
    )


class _RunOverError(Exception):
    """The bot stopped itself in the ledger. Never leaves this module."""
