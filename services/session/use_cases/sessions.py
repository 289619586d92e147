"""A session's life: connect, take up again, disconnect; its bot's desired state; what its user reads and trades."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import structlog

from services.runtime.clock import Clock
from services.runtime.errors import ServiceError
from services.runtime.secret import Secret
from services.session.domain.bot import BotSettings, ServiceLimits
from services.session.domain.errors import (
    AssetClosedError,
    BrokerUnavailableError,
    InvalidArgumentError,
    InvalidCredentialsError,
    LimitReachedError,
    LoginThrottledError,
    NotSellableError,
    SessionMismatchError,
    SessionNotFoundError,
    TradeNotFoundError,
)
from services.session.domain.events import LogWritten, SessionStatus
from services.session.domain.model import ModelVersion
from services.session.domain.trade import Trade, TradeRequest, TradeState
from services.session.domain.values import (
    TIMEFRAMES,
    Account,
    AccountType,
    Asset,
    BotStatus,
    Broker,
    Candle,
    CloseReason,
    InstrumentType,
    SessionKey,
    SessionState,
    TradeId,
    session_key,
)
from services.session.ports import (
    Activity,
    Agent,
    BrokerGateway,
    Credentials,
    Ledger,
    SessionRecord,
    Signals,
    Tokens,
    TradePage,
    TwoFactor,
)
from services.session.use_cases.login import Logins
from services.session.use_cases.trading import TradeDesk

_log = structlog.get_logger(__name__)

_EXPORT_PAGE: Final = 500
_SELL_PATIENCE: Final = 3.0
"""Seconds to wait for the settlement of a sale before the trade is answered as it stands."""
_ASSETS_PATIENCE: Final = 3.0
"""Seconds that a start waits to learn what the broker sells."""
_SELL_POLL: Final = 0.1


@dataclass(frozen=True, slots=True)
class ConnectCommand:
    """What a user connects with."""

    broker: Broker
    account_type: AccountType
    email: Secret
    password: Secret
    session_id: Secret | None = None
    """The session to take up again, if it is still there."""
    two_factor: TwoFactor | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """The session a user is connected with."""

    session_id: Secret
    record: SessionRecord
    account: Account
    """With the freshest balance at hand."""
    reconnected: bool
    expires_in: int
    """Seconds of idleness left."""
    access_token: Secret


@dataclass(frozen=True, slots=True)
class BotStopped:
    """What a stop leaves behind."""

    open_trades: int
    """Trades that still run to their expiry."""


class Sessions:
    """The use cases of the session service. Any replica answers any of them.

    Args:
        ledger: The authority.
        activity: When sessions were last used.
        signals: Wakes runners, wherever they are.
        broker: The broker service.
        agent: The agent service.
        tokens: Access tokens.
        logins: Makes broker connections stand.
        desk: Places trades.
        claim: Runs a new session in this process.
        clock: Time.
        limits: The operator's limits.
        new_id: Makes session and run ids, UUIDs version 4 from the system's secure source.
        idle_timeout: Seconds without activity after which a session expires.
        token_lifetime: How long an access token is good.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        activity: Activity,
        signals: Signals,
        broker: BrokerGateway,
        agent: Agent,
        tokens: Tokens,
        logins: Logins,
        desk: TradeDesk,
        claim: Callable[[SessionKey], Awaitable[None]],
        clock: Clock,
        limits: ServiceLimits,
        new_id: Callable[[], str],
        idle_timeout: int,
        token_lifetime: timedelta,
    ) -> None:
        self._ledger = ledger
        self._activity = activity
        self._signals = signals
        self._broker = broker
        self._agent = agent
        self._tokens = tokens
        self._logins = logins
        self._desk = desk
        self._claim = claim
        self._clock = clock
        self._limits = limits
        self._new_id = new_id
        self._idle_timeout = idle_timeout
        self._token_lifetime = token_lifetime

    async def live(self, key: SessionKey) -> SessionRecord:
        """Return a session and count this as activity.

        Raises:
            SessionNotFoundError: It is not ACTIVE.
        """
        record = await self._ledger.session(key)
        if record is None or record.state is not SessionState.ACTIVE:
            raise SessionNotFoundError
        await self._activity.touch(key, durable_last_seen=record.last_seen)
        return record

    # Life

    async def connect(self, command: ConnectCommand) -> Connected:
        """Take a live session up again, or open a new one.

        Raises:
            SessionMismatchError: The session lives, with other credentials, broker or account type.
            ServiceError: As ``BrokerGateway.connect``.
        """
        if command.session_id is not None:
            with suppress(SessionNotFoundError):
                return await self._take_up(command, command.session_id)
        return await self._open(command)

    async def _take_up(self, command: ConnectCommand, session_id: Secret) -> Connected:
        key = session_key(session_id.reveal())
        record = await self._ledger.session(key)
        if record is None or record.state is not SessionState.ACTIVE:
            raise SessionNotFoundError
        credentials = await self._ledger.credentials(key)
        if credentials is None:
            raise SessionNotFoundError
        # Both are compared, whatever the first says, so that the time tells nothing.
        known = _same_email(credentials.email, command.email) & (credentials.password == command.password)
        if not known or (record.broker, record.account.account_type) != (command.broker, command.account_type):
            raise SessionMismatchError
        await self._activity.touch(key, durable_last_seen=record.last_seen)
        account = await self._standing(record, command.two_factor)
        return self._connected(session_id, record, account, reconnected=True)

    async def _standing(self, record: SessionRecord, two_factor: TwoFactor | None) -> Account:
        """Make the broker connection stand; a broker that is away does not keep anybody from his session."""
        try:
            account = await self._logins.connect(record, two_factor)
        except (BrokerUnavailableError, LoginThrottledError, InvalidCredentialsError, SessionMismatchError) as error:
            _log.info("taken_up_without_broker", session=record.session_key[:8], reason=error.reason)
            return record.account
        # A runner that the broker had refused tries again now.
        await self._signals.wake(record.session_key)
        return account

    async def _open(self, command: ConnectCommand) -> Connected:
        session_id = Secret(self._new_id())
        key = session_key(session_id.reveal())
        credentials = Credentials(command.email, command.password, Secret(""))
        account, token = await self._broker.connect(
            key, command.broker, command.account_type, credentials, command.two_factor
        )
        try:
            if account.account_type is not command.account_type:
                _log.error("broker_answered_another_account_type", session=key[:8])
                raise BrokerUnavailableError  # noqa: TRY301 - the connection is closed below, as on every failure here
            record = await self._ledger.create_session(
                key, command.broker, account, replace(credentials, broker_token=token)
            )
        except BaseException:
            with suppress(ServiceError):
                await self._broker.disconnect(key, log_out=True)
            raise
        await self._activity.touch(key, durable_last_seen=record.last_seen)
        await self._claim(key)
        _log.info("session_opened", session=key[:8], broker=record.broker, account_type=account.account_type)
        return self._connected(session_id, record, account, reconnected=False)

    def _connected(
        self, session_id: Secret, record: SessionRecord, account: Account, *, reconnected: bool
    ) -> Connected:
        # A pseudonym that is the same for all sessions of one user at one broker.
        user = session_key(f"{record.broker}:{record.account.user_id}")
        return Connected(
            session_id=session_id,
            record=record,
            account=account,
            reconnected=reconnected,
            expires_in=self._idle_timeout,
            access_token=self._tokens.issue(session_id.reveal(), user, self._token_lifetime),
        )

    async def disconnect(self, key: SessionKey) -> None:
        """End a session; its open trades are followed to their end by its runner.

        Raises:
            SessionNotFoundError: It is not ACTIVE.
        """
        if await self._ledger.close_session(key, CloseReason.DISCONNECTED) is None:
            raise SessionNotFoundError
        _log.info("session_disconnected", session=key[:8])
        await self._signals.wake(key)

    # The bot: only its desired state is written here, its runner converges to it

    async def start_bot(self, key: SessionKey, settings: BotSettings, *, with_timeframe: bool = True) -> SessionRecord:
        """Start the bot, or leave it running if it runs with the same settings.

        Args:
            key: The session.
            settings: With the contract's defaults filled in.
            with_timeframe: False if the user named none: then it is the session's, or that of the bot that runs.

        Raises:
            BotAlreadyRunningError, ModelNotFoundError, LimitReachedError, UnavailableError, SessionNotFoundError.
            InvalidArgumentError: The broker does not list these terms.
        """
        record = await self.live(key)
        if not with_timeframe:
            runs = record.settings is not None and record.bot_status is not BotStatus.STOPPED
            timeframe = record.settings.timeframe if runs and record.settings else record.timeframe
            settings = replace(settings, timeframe=timeframe)
        if settings.amount > self._limits.max_amount:
            raise LimitReachedError("max_amount", float(self._limits.max_amount), float(settings.amount))
        model = await self._agent.model(settings.model)
        # The defaults are named too: a run stays with its model and its gate, and its user sees which they are.
        settings = replace(settings, model=model.name, gate=settings.gate_mode(record.account.account_type))
        if not with_timeframe:
            settings = _suited(settings, model)
        await self._require_listed(key, settings)
        was_running = record.bot_status is BotStatus.RUNNING
        record = await self._ledger.start_bot(key, settings, self._new_id())
        if not was_running and not model.suits(settings.duration, settings.timeframe):
            await self._ledger.emit(key, LogWritten("warning", _holds_for_ever(settings, model)))
        await self._signals.wake(key)
        return record

    async def _require_listed(self, key: SessionKey, settings: BotSettings) -> None:
        """Refuse terms that the broker does not list; a broker that is away is asked by the bot, which waits for it."""
        try:
            async with asyncio.timeout(_ASSETS_PATIENCE):
                assets = await self._broker.assets(key)
        except (BrokerUnavailableError, TimeoutError):
            return
        asset = _find(assets, settings.asset)
        blitz = settings.instrument_type is InstrumentType.BLITZ
        field = "duration_seconds" if blitz else "duration"
        if settings.instrument_type not in asset.instrument_types:
            raise InvalidArgumentError(field, f"there are no {settings.instrument_type} options on this asset")
        lives = dict(asset.durations).get(settings.instrument_type, ())
        if blitz and lives and settings.duration.total_seconds() not in lives:
            raise InvalidArgumentError(field, f"must be one of {', '.join(map(str, sorted(lives)))} for this asset")

    async def stop_bot(self, key: SessionKey) -> BotStopped:
        """Stop the bot; open trades run to their expiry."""
        await self.live(key)
        await self._ledger.set_bot_status(key, BotStatus.STOPPED)
        await self._signals.wake(key)
        return BotStopped((await self._status(key)).active_trades)

    async def pause_bot(self, key: SessionKey) -> None:
        """Keep the bot from trading. Raises BotNotRunningError if it is stopped."""
        await self.live(key)
        await self._ledger.set_bot_status(key, BotStatus.PAUSED)
        await self._signals.wake(key)

    async def resume_bot(self, key: SessionKey) -> None:
        """Let the bot trade again. Raises BotNotRunningError if it is stopped."""
        await self.live(key)
        await self._ledger.set_bot_status(key, BotStatus.RUNNING)
        await self._signals.wake(key)

    # Reads

    async def status(self, key: SessionKey) -> tuple[SessionStatus, int]:
        """Return the session as its user sees it, and the seconds of idleness left."""
        await self.live(key)
        return await self._status(key), self._idle_timeout

    async def _status(self, key: SessionKey) -> SessionStatus:
        status = await self._ledger.status(key)
        if status is None:
            raise SessionNotFoundError
        return status

    async def assets(self, key: SessionKey) -> Sequence[Asset]:
        """List the broker's assets. Raises BrokerUnavailableError."""
        record = await self.live(key)
        return await self._logins.read(record, lambda: self._broker.assets(key))

    async def candles(self, key: SessionKey, asset: str, timeframe: int, count: int) -> Sequence[Candle]:
        """List candles, ascending; the last one may be forming.

        Raises:
            BrokerUnavailableError.
            InvalidArgumentError: The broker has no such asset.
        """
        record = await self.live(key)
        try:
            candles = await self._logins.read(record, lambda: self._broker.candles(key, asset, timeframe, count))
        except AssetClosedError:
            await self._require_known(key, asset)
            raise
        return [candle for candle, _closed in candles]

    async def set_timeframe(self, key: SessionKey, timeframe: int) -> SessionRecord:
        """Set the candle length of the candle frames."""
        await self.live(key)
        record = await self._ledger.set_timeframe(key, timeframe)
        await self._signals.wake(key)
        return record

    # Trades

    async def place_trade(self, request: TradeRequest) -> Trade:
        """Place a manual trade; see ``TradeDesk.place``. Without an asset it is the session's.

        Raises:
            InvalidArgumentError: The broker has no such asset.
            ServiceError: As ``TradeDesk.place``.
        """
        record = await self.live(request.session_key)
        if not request.asset:
            request = replace(request, asset=record.asset)
        try:
            return await self._desk.place(record, request)
        except AssetClosedError:
            await self._require_known(request.session_key, request.asset)
            raise

    async def _require_known(self, key: SessionKey, asset: str) -> None:
        """Tell an asset that nobody has from one that is closed; says nothing if the broker does not answer."""
        with suppress(BrokerUnavailableError):
            _find(await self._broker.assets(key), asset)

    # Models

    async def models(self, key: SessionKey | None) -> Sequence[ModelVersion]:
        """List every version of every model. A session that is named must be alive. Raises UnavailableError."""
        if key is not None:
            await self.live(key)
        return await self._agent.models()

    async def model(
        self, key: SessionKey | None, name: str, version: str
    ) -> tuple[ModelVersion, Sequence[ModelVersion]]:
        """Return one version with its card, and all versions of its model.

        Raises:
            ModelNotFoundError, UnavailableError, SessionNotFoundError.
        """
        if key is not None:
            await self.live(key)
        found = await self._agent.model(name, version)
        return found, [each for each in await self._agent.models() if each.name == found.name]

    async def close_trade(self, key: SessionKey, trade_id: TradeId) -> Trade:
        """Sell an open trade before its expiry.

        Raises:
            TradeNotFoundError, NotSellableError, BrokerUnavailableError.
        """
        record = await self.live(key)
        trade = await self._trade(key, trade_id)
        if trade.state is not TradeState.OPEN:
            raise NotSellableError
        trade = await self._desk.close(record, trade)
        give_up = self._clock.monotonic() + _SELL_PATIENCE
        while trade.state is TradeState.OPEN and self._clock.monotonic() < give_up:
            await self._clock.sleep(_SELL_POLL)
            trade = await self._trade(key, trade_id)
        return trade

    async def trade(self, key: SessionKey, trade_id: TradeId) -> Trade:
        """Return one trade. Raises TradeNotFoundError, also if it is another session's."""
        await self.live(key)
        return await self._trade(key, trade_id)

    async def _trade(self, key: SessionKey, trade_id: TradeId) -> Trade:
        trade = await self._ledger.trade(key, trade_id)
        if trade is None:
            raise TradeNotFoundError
        return trade

    async def trades(self, key: SessionKey, *, limit: int, page_token: str, status: str | None) -> TradePage:
        """List trades, newest first."""
        await self.live(key)
        return await self._ledger.trades(key, limit=limit, page_token=page_token, status=status)

    async def all_trades(self, key: SessionKey) -> AsyncIterator[Trade]:
        """Iterate over all trades, newest first."""
        await self.live(key)
        token = ""
        while True:
            page = await self._ledger.trades(key, limit=_EXPORT_PAGE, page_token=token)
            for trade in page.trades:
                yield trade
            if not (token := page.next_page_token):
                return


def _find(assets: Sequence[Asset], name: str) -> Asset:
    for asset in assets:
        if asset.asset == name:
            return asset
    raise InvalidArgumentError("asset", "this broker has no asset of that name")


def _suited(settings: BotSettings, model: ModelVersion) -> BotSettings:
    """Bring the candle length, of which the user named none, to what the model was made for."""
    if model.suits(settings.duration, settings.timeframe):
        return settings
    fitting = _fitting(settings, model)
    return replace(settings, timeframe=fitting[0]) if fitting else settings


def _fitting(settings: BotSettings, model: ModelVersion) -> list[int]:
    return [timeframe for timeframe in TIMEFRAMES if model.suits(settings.duration, timeframe)]


def _holds_for_ever(settings: BotSettings, model: ModelVersion) -> str:
    fitting = _fitting(settings, model)
    life = f"{model.expiry_bars} candle" + ("" if model.expiry_bars == 1 else "s")
    hint = f": choose a timeframe of {fitting[0]}" if fitting else ": no candles fit this duration, choose another one"
    return f"The model {model.name} decides on options that live {life} and holds on all others{hint}"


def _same_email(one: Secret, other: Secret) -> bool:
    """Compare as the brokers do: capitals and space around do not matter."""
    return Secret(one.reveal().strip().casefold()) == Secret(other.reveal().strip().casefold())
