"""What the session's use cases need from the outside: the ledger, live state, broker, agent, vault and tokens."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from services.runtime.secret import Secret
from services.session.domain.bot import BotSettings, ServiceLimits
from services.session.domain.events import Event, SessionStatus, SignalMade, StoredEvent
from services.session.domain.model import ModelVersion
from services.session.domain.shadow import GateKey, GateRecord, Shadow, ShadowState
from services.session.domain.trade import BrokerOrder, BrokerOrders, Trade, TradeRequest
from services.session.domain.values import (
    Account,
    AccountType,
    Asset,
    BotStatus,
    Broker,
    BrokerConnection,
    Candle,
    CloseReason,
    SessionKey,
    SessionState,
    TradeId,
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a user proves himself with at the broker."""

    email: Secret
    password: Secret
    broker_token: Secret
    """The broker's session token; empty if there is none."""


@dataclass(frozen=True, slots=True)
class TwoFactor:
    """The answer to a demand for a second factor."""

    challenge: Secret
    method: str
    code: Secret


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as the ledger holds it, without its credentials."""

    session_key: SessionKey
    state: SessionState
    broker: Broker
    account: Account
    bot_status: BotStatus
    settings: BotSettings | None
    """Of the current or last run."""
    run_id: str | None
    """Of the current or last run."""
    asset: str
    timeframe: int
    epoch: int
    """Rises with every new runner; a write that carries an older one is refused."""
    last_seen: datetime
    last_seq: int
    close_reason: CloseReason | None = None
    expiry_warned: bool = False
    broker_connection: BrokerConnection = BrokerConnection.CONNECTED


@dataclass(frozen=True, slots=True)
class TradePage:
    """A page of trades, newest first."""

    trades: tuple[Trade, ...]
    next_page_token: str
    """Empty on the last page."""


class Ledger(Protocol):
    """The authority for sessions, trades, limits and events. Every method is one transaction.

    Whatever changes is written together with its event, whose seq is the session's next one; after the commit the event
    goes to the event log's publisher. A session that is not ACTIVE has had its last event: its trades move on without.
    Where ``epoch`` is given, the write is refused with StaleEpochError unless it is
    the session's current one; None means that the caller is not the runner and the move is safe from any process.

    Any call may raise UnavailableError: whether a write was done is then not known. A move that finds its trade further
    on than it expected changes nothing and returns the trade as it is.
    """

    # Sessions

    async def create_session(
        self, key: SessionKey, broker: Broker, account: Account, credentials: Credentials
    ) -> SessionRecord:
        """Insert an ACTIVE session; its credentials are sealed before they are stored."""
        ...

    async def session(self, key: SessionKey) -> SessionRecord | None:
        """Return a session in any state, or None."""
        ...

    async def credentials(self, key: SessionKey) -> Credentials | None:
        """Open the session's credentials; None once they are destroyed."""
        ...

    async def store_broker_token(self, key: SessionKey, broker_token: Secret) -> None:
        """Replace the broker's session token. Nothing happens if the credentials are destroyed."""
        ...

    async def status(self, key: SessionKey) -> SessionStatus | None:
        """Return the session as its user sees it, open trades included, at one point of its event order."""
        ...

    async def touch(self, key: SessionKey, seen: datetime) -> None:
        """Record activity (called at most once a minute a session) and take back an expiry warning."""
        ...

    async def close_session(self, key: SessionKey, reason: CloseReason) -> SessionRecord | None:
        """Move ACTIVE to CLOSING, stop the bot, emit SessionEnded. None if it was not ACTIVE."""
        ...

    async def finish_session(self, key: SessionKey, *, epoch: int) -> bool:
        """Move CLOSING to CLOSED and destroy the credentials, if no trade is active. False if one is."""
        ...

    async def sessions_to_run(self, limit: int) -> Sequence[SessionKey]:
        """List sessions that are ACTIVE or CLOSING, those longest without a runner first."""
        ...

    async def begin_epoch(self, key: SessionKey) -> SessionRecord | None:
        """Raise the session's epoch for a new runner and return it; None if it is CLOSED or unknown."""
        ...

    # The bot

    async def start_bot(self, key: SessionKey, settings: BotSettings, run_id: str) -> SessionRecord:
        """Start a run and emit StatusUpdate; the same settings while RUNNING or PAUSED change nothing.

        Raises:
            BotAlreadyRunningError: It runs, or is paused, with other settings.
            SessionNotFoundError: The session is not ACTIVE.
        """
        ...

    async def set_bot_status(self, key: SessionKey, status: BotStatus, *, run_id: str | None = None) -> SessionRecord:
        """Stop, pause or resume and emit StatusUpdate if that changes anything.

        With ``run_id`` nothing changes unless that is still the current run.

        Raises:
            BotNotRunningError: Pause or resume while stopped.
            SessionNotFoundError: The session is not ACTIVE.
        """
        ...

    async def set_timeframe(self, key: SessionKey, timeframe: int) -> SessionRecord:
        """Set the candle length of the candle frames and emit StatusUpdate."""
        ...

    # Trades: see domain/trade.py for the moves

    async def reserve(
        self, request: TradeRequest, trade_id: TradeId, limits: ServiceLimits, *, epoch: int | None
    ) -> tuple[Trade, bool]:
        """Check the limits under the session's row lock and insert the trade as INTENT; False with an earlier trade.

        A known idempotency key returns the trade it belongs to, whatever the limits say.

        Raises:
            LimitReachedError: A limit forbids it; nothing was written.
            RequestIdReusedError: The key belongs to a different trade.
            SessionNotFoundError: The session is not ACTIVE.
            StaleEpochError: Another runner took over, or the bot run is over.
        """
        ...

    async def begin_send(self, trade_id: TradeId, send_before: datetime, *, epoch: int | None) -> Trade:
        """Move INTENT to SENDING; when this returns it is durable, and this caller alone may send, once.

        Raises:
            TradeUnresolvedError: An equal order of the same balance is SENDING or UNKNOWN. The trade stays INTENT.
            StaleEpochError: As above, or the trade is not INTENT any more: do not send.
        """
        ...

    async def opened(self, trade_id: TradeId, order: BrokerOrder, *, epoch: int | None) -> Trade:
        """Record that the broker booked the trade, and its settlement too if ``order`` is settled; emits what changed.

        Idempotent. Claims the broker's order for this trade; an order can be claimed once.

        Raises:
            ContradictionError: The trade was refused, never sent, or has another order; or another trade has this one.
        """
        ...

    async def refused(self, trade_id: TradeId, reason: str, *, epoch: int | None) -> Trade:
        """Move INTENT, SENDING or UNKNOWN to REJECTED on proof that nothing was booked; emits TradeRejected.

        Raises:
            ContradictionError: The broker booked it.
        """
        ...

    async def lost_answer(self, trade_id: TradeId, *, epoch: int | None) -> Trade:
        """Move SENDING to UNKNOWN; emits TradeUnknown. Any other state stays as it is."""
        ...

    async def never_placed(self, trade_id: TradeId, reason: str, *, epoch: int) -> Trade:
        """Move INTENT or UNKNOWN to NOT_PLACED on proof of absence; emits TradeRejected. Any other state stays."""
        ...

    async def mark_ambiguous(self, trade_id: TradeId, *, epoch: int) -> Trade:
        """Mark an UNKNOWN trade as undecidable; emits FaultHappened once and stops the bot (StatusUpdate)."""
        ...

    async def settled(self, key: SessionKey, order: BrokerOrder, *, epoch: int) -> Trade | None:
        """Record a settled order for the trade that claimed it, or that it was placed for; None if it is nobody's here.

        Idempotent; emits TradeOpened too if the opening was never recorded. Updates totals, run and day counters.
        """
        ...

    async def trade(self, key: SessionKey, trade_id: TradeId) -> Trade | None:
        """Return one trade of that session, or None."""
        ...

    async def trades(
        self, key: SessionKey, *, limit: int, page_token: str = "", status: str | None = None
    ) -> TradePage:
        """List the session's trades, newest first. ``status`` is the contract's word.

        Raises:
            InvalidArgumentError: The page token is not one of ours.
        """
        ...

    async def unsettled(self, key: SessionKey) -> Sequence[Trade]:
        """List trades that are active, and those NOT_PLACED within a day that an order may still turn up for."""
        ...

    async def claimed_orders(self, key: SessionKey, broker_order_ids: Sequence[str]) -> frozenset[str]:
        """Say which of these orders of the session's balance belong to a trade already, of whichever session."""
        ...

    # Evidence: see domain/shadow.py

    async def use_gate(self, key: SessionKey, gate: GateKey, *, epoch: int) -> GateRecord:
        """Return a gate, a new one if there is none; from now on it is the one that the status shows.

        Emits LogWritten if the gate that was shown before was open and this one is not, or the other way round.
        """
        ...

    async def pending_shadows(self, key: SessionKey, gate: GateKey) -> Sequence[Shadow]:
        """List the decisions of all versions on the gate's terms that are not resolved, oldest first."""
        ...

    async def tell_signal(
        self, key: SessionKey, signal: SignalMade, shadow: Shadow, *, epoch: int
    ) -> ShadowState | None:
        """Emit a signal and record its decision, PENDING or OVERLAPPING; its gate must be in use.

        None if the model's decision on that candle is known already, or the session is not ACTIVE.
        """
        ...

    async def enter_shadow(self, key: SessionKey, shadow: Shadow, price: float, *, epoch: int) -> None:
        """Record the price a decision is entered at, unless it has one."""
        ...

    async def resolve_shadow(
        self, key: SessionKey, shadow: Shadow, exit_price: float | None, *, epoch: int
    ) -> GateRecord:
        """Count a decision for its gate, once; emits LogWritten and StatusUpdate if that opened or closed the gate.

        Args:
            key: The session.
            shadow: The decision; its entry price is what the ledger says.
            exit_price: The price at its expiry; None voids it.
            epoch: The runner's.
        """
        ...

    # Events

    async def emit(self, key: SessionKey, event: Event, *, epoch: int | None = None) -> StoredEvent | None:
        """Append an event that changes nothing else but what it says (balance, connection state, warning flag).

        None once the session has ended: nothing follows its session_closed, so nothing is written.
        """
        ...

    async def events_after(self, key: SessionKey, seq: int, limit: int) -> Sequence[StoredEvent]:
        """Return up to ``limit`` events after ``seq``, ascending, without holes; the first may be later than seq + 1."""
        ...

    async def prune_events(self, before: datetime) -> int:
        """Delete the events of sessions that closed before then; returns how many. Call it now and then."""
        ...


class Leases(Protocol):
    """Which replica runs which session. Liveness only: the ledger's epoch is the fence."""

    async def run(self) -> None:
        """Keep this replica's heartbeat until cancelled."""
        ...

    @property
    def incarnation(self) -> str:
        """Name this replica's unbroken life. Once it changes, every lease acquired before is lost.

        A runner remembers the name it acquired under. When it changes the runner ends, although nobody else may have
        come yet and ``acquire`` would succeed at once: the session begins anew with ``begin_epoch`` and its recovery.
        """
        ...

    def held_until(self) -> float:
        """Return the monotonic time until which this incarnation's leases are certainly its own; ask before each send."""
        ...

    async def unheld(self, keys: Sequence[SessionKey]) -> Sequence[SessionKey]:
        """Return those that no other living replica holds, in the given order; quick for thousands of keys.

        A lease of our own counts as free: asked for a session that is not run here, it was taken, or not given up, by a
        call whose answer was lost, and nobody but us can take it up again.
        """
        ...

    async def looked(self) -> Collection[str]:
        """Note that this replica has just looked for sessions; return the incarnations of all living ones that did lately.

        One that lives and does not look (it is cut off from the ledger, or is being stopped) takes up nothing.
        """
        ...

    async def left_behind(self) -> bool:
        """Return whether another replica has been looking for the time-to-live while this one has not; ask each second.

        What stops all of them leaves nobody behind, nor does its end.
        """
        ...

    async def let_go(self) -> None:
        """Lose every lease at once, as if the heartbeat had lapsed; needs nothing of Redis to be true here."""
        ...

    async def acquire(self, key: SessionKey) -> bool:
        """Take the session if nobody living holds it; True if it is ours now or was already."""
        ...

    async def release(self, key: SessionKey) -> None:
        """Give the session up if it is ours."""
        ...

    async def resign(self) -> None:
        """Give up everything at once and for good; needs nothing of Redis to be true here."""
        ...


class Activity(Protocol):
    """When a session was last used."""

    async def touch(self, key: SessionKey, *, durable_last_seen: datetime) -> None:
        """Record activity now; passes it on to the ledger when what the ledger knows is a minute old."""
        ...

    async def last_seen(self, key: SessionKey, *, durable_last_seen: datetime) -> datetime:
        """Return the last activity, at least what the ledger knows."""
        ...


class EventLog(Protocol):
    """The live tail of every session's events, fanned out in this process."""

    def subscribe(self, key: SessionKey, after_seq: int) -> AbstractAsyncContextManager[AsyncIterator[StoredEvent]]:
        """Iterate over the events after ``after_seq``, in order, without holes or repeats, then live.

        Ends after session_closed, or when the log is drained. If the ledger no longer reaches back to ``after_seq`` the
        first event has a later seq than ``after_seq + 1``: the caller tells its client of the gap.
        """
        ...

    async def run(self) -> None:
        """Publish and read until cancelled. Without it subscribers still get all, from the ledger, only later."""
        ...

    async def drain(self) -> None:
        """End every subscription and publish what is left."""
        ...


class Signals(Protocol):
    """Nudges between replicas; losing one only costs time."""

    async def run(self) -> None:
        """Receive for everybody in this process until cancelled."""
        ...

    async def wake(self, key: SessionKey) -> None:
        """Tell the session's runner to look at its desired state now. Never fails."""
        ...

    def woken(self) -> AbstractAsyncContextManager[AsyncIterator[SessionKey]]:
        """Iterate over the sessions that were woken anywhere."""
        ...

    async def publish_candle(self, key: SessionKey, payload: bytes) -> int:
        """Hand a serialized candle Event to whoever watches; returns how many replicas have a watcher. Never fails."""
        ...

    async def is_watched(self, key: SessionKey) -> bool:
        """Return whether anybody anywhere iterates over the session's candle Events. Never fails: without Redis, nobody."""
        ...

    def candles(self, key: SessionKey) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Iterate over candle Events; a slow reader gets the newest only."""
        ...


@dataclass(frozen=True, slots=True)
class Placed:
    """The broker booked the order."""

    order: BrokerOrder


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """The order was, or may have been, sent and nobody knows what became of it."""


AccountEvent = BrokerConnection | Account | BrokerOrder | Secret
"""A change on the broker's side; a Secret is a new broker token."""


class BrokerGateway(Protocol):
    """The broker service. Every call needs a connection that ``connect`` made."""

    async def standing(self, key: SessionKey, broker: Broker, account_type: AccountType) -> Account:
        """Return the account of the standing connection; asks the broker nothing.

        Raises:
            NotConnectedError: There is none, or it needs credentials.
            InvalidArgumentError: It belongs to another broker or account type.
            BrokerUnavailableError: The broker service is away, or stopping.
        """
        ...

    async def connect(
        self,
        key: SessionKey,
        broker: Broker,
        account_type: AccountType,
        credentials: Credentials,
        two_factor: TwoFactor | None = None,
    ) -> tuple[Account, Secret]:
        """Log in, or return the standing connection; returns the account and the broker token.

        Raises:
            InvalidCredentialsError, TwoFactorRequiredError, TwoFactorInvalidError, LoginThrottledError,
            BrokerUnavailableError, InvalidArgumentError: The login has no balance of that type (field account_type).
        """
        ...

    async def disconnect(self, key: SessionKey, *, log_out: bool) -> None:
        """Close the connection; never fails for want of one."""
        ...

    async def account(self, key: SessionKey) -> Account:
        """Return the account with its balance as the broker reports it now."""
        ...

    async def assets(self, key: SessionKey) -> Sequence[Asset]:
        """List assets with live payouts."""
        ...

    async def candles(self, key: SessionKey, asset: str, timeframe: int, count: int) -> Sequence[tuple[Candle, bool]]:
        """List candles, ascending, each with whether it is closed."""
        ...

    def watch_candles(
        self, key: SessionKey, asset: str, timeframe: int
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[Candle, bool]]]:
        """Iterate over the candle in progress and each closed candle. Raises BrokerUnavailableError when cut."""
        ...

    def watch_account(self, key: SessionKey) -> AbstractAsyncContextManager[AsyncIterator[AccountEvent]]:
        """Iterate over what happens to the account. Raises BrokerUnavailableError when cut."""
        ...

    async def place(self, trade: Trade) -> Placed | AnswerLost:
        """Send the order, once; never repeats the call by itself.

        Raises:
            TradeRefusedError: Proof that nothing was booked.
            BrokerUnavailableError: Proof that nothing was sent.
        """
        ...

    async def sell(self, key: SessionKey, broker_order_id: str) -> BrokerOrder:
        """Offer an open order back.

        Raises:
            NotSellableError: The broker does not buy it.
            BrokerUnavailableError: The answer was lost or nothing was sent; the order's next event tells.
        """
        ...

    async def orders(self, key: SessionKey, closed_since: datetime) -> BrokerOrders:
        """Read the broker's lists of open and closed orders."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """A model's answer for one bar."""

    action: Literal["HOLD", "CALL", "PUT"]
    reason: str
    """Why HOLD, lower case; empty otherwise."""
    p_up: float
    break_even: float
    expected_value: float
    model: str
    model_version: str
    model_sha256: str


class DecisionFeed(Protocol):
    """One bot's decisions, candle by candle."""

    async def next(self, candle: Candle, payout_rate: float) -> Decision:
        """Decide at the close of ``candle``. Raises UnavailableError when the agent is away: open a new feed."""
        ...


class Agent(Protocol):
    """The agent service."""

    def decide_on(
        self, settings: BotSettings, payout_rate: float, history: Sequence[Candle]
    ) -> AbstractAsyncContextManager[DecisionFeed]:
        """Open a feed on closed candles, ascending.

        Raises:
            ModelNotFoundError: There is no such model.
            UnavailableError: The agent is away.
        """
        ...

    async def models(self) -> Sequence[ModelVersion]:
        """List every version of every model, by name, then newest first, without cards. Raises UnavailableError."""
        ...

    async def model(self, name: str, version: str = "") -> ModelVersion:
        """Return one version with its card; no name means the default model, no version the active one.

        Raises:
            ModelNotFoundError, UnavailableError.
        """
        ...

    async def min_history(self, model: str) -> int:
        """Return how many closed candles the model wants before it decides."""
        ...


class Tokens(Protocol):
    """Access tokens for the gateway."""

    def issue(self, session_id: str, subject: str, lifetime: timedelta) -> Secret:
        """Return a signed JWT with sub, sid and exp."""
        ...
