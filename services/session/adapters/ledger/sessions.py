"""The ledger's sessions: their life, their credentials, their bot."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from services.runtime.clock import Clock
from services.runtime.secret import Secret
from services.session.adapters.ledger import sql
from services.session.adapters.ledger.database import Database
from services.session.adapters.ledger.rows import session_from_row, status_of, tally_from_row, trade_from_row
from services.session.adapters.ledger.work import Works, gate_in_use
from services.session.adapters.vault import Vault
from services.session.domain.bot import BotSettings
from services.session.domain.errors import BotAlreadyRunningError, BotNotRunningError
from services.session.domain.events import SessionEnded, SessionStatus
from services.session.domain.values import Account, BotStatus, Broker, CloseReason, SessionKey, SessionState
from services.session.ports import Credentials, SessionRecord

EMAIL: Final = "email"
PASSWORD: Final = "password"  # noqa: S105  # a field's name
BROKER_TOKEN: Final = "broker_token"  # noqa: S105  # a field's name


class LedgerSessions:
    """The part of the ``Ledger`` port that is about sessions."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, works: Works) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._works = works

    async def create_session(
        self, key: SessionKey, broker: Broker, account: Account, credentials: Credentials
    ) -> SessionRecord:
        """Insert an ACTIVE session; its credentials are sealed before they are stored."""
        now = self._clock.now()
        defaults = BotSettings()
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                sql.INSERT_SESSION,
                key,
                broker.value,
                account.account_type.value,
                account.user_id,
                account.balance_id,
                account.balance,
                account.currency,
                defaults.asset,
                defaults.timeframe,
                now,
                now.astimezone(UTC).date(),
            )
            await connection.fetch(
                sql.INSERT_CREDENTIALS,
                key,
                self._vault.seal(key, EMAIL, credentials.email),
                self._vault.seal(key, PASSWORD, credentials.password),
                self._vault.seal(key, BROKER_TOKEN, credentials.broker_token),
            )
        return session_from_row(rows[0])

    async def session(self, key: SessionKey) -> SessionRecord | None:
        """Return a session in any state, or None."""
        rows = await self._database.read(sql.SESSION, key)
        return session_from_row(rows[0]) if rows else None

    async def credentials(self, key: SessionKey) -> Credentials | None:
        """Open the session's credentials; None once they are destroyed."""
        rows = await self._database.read(sql.CREDENTIALS, key)
        if not rows:
            return None
        return Credentials(
            email=self._vault.open(key, EMAIL, rows[0][EMAIL]),
            password=self._vault.open(key, PASSWORD, rows[0][PASSWORD]),
            broker_token=self._vault.open(key, BROKER_TOKEN, rows[0][BROKER_TOKEN]),
        )

    async def store_broker_token(self, key: SessionKey, broker_token: Secret) -> None:
        """Replace the broker's session token. Nothing happens if the credentials are destroyed."""
        sealed = self._vault.seal(key, BROKER_TOKEN, broker_token)
        async with self._database.transaction() as connection:
            await connection.fetch(sql.STORE_BROKER_TOKEN, key, sealed)

    async def status(self, key: SessionKey) -> SessionStatus | None:
        """Return the session as its user sees it, open trades included, at one point of its event order."""
        today = self._clock.now().astimezone(UTC).date()
        async with self._database.snapshot() as connection:
            rows = await connection.fetch(sql.SESSION, key)
            if not rows:
                return None
            record = session_from_row(rows[0])
            trades = await connection.fetch(sql.ACTIVE_TRADES, key)
            gate = await gate_in_use(connection, record)
        return status_of(record, tally_from_row(rows[0], today), tuple(trade_from_row(trade) for trade in trades), gate)

    async def touch(self, key: SessionKey, seen: datetime) -> None:
        """Record activity and take back an expiry warning."""
        async with self._database.transaction() as connection:
            await connection.fetch(sql.TOUCH, key, seen)

    async def close_session(self, key: SessionKey, reason: CloseReason) -> SessionRecord | None:
        """Move ACTIVE to CLOSING, stop the bot, emit SessionEnded. None if it was not ACTIVE."""
        async with self._works.on_session(key) as work:
            if not work.active:
                return None
            work.tell(SessionEnded(reason))
            work.change(state=SessionState.CLOSING, bot_status=BotStatus.STOPPED, close_reason=reason)
        return work.record

    async def finish_session(self, key: SessionKey, *, epoch: int) -> bool:
        """Move CLOSING to CLOSED and destroy the credentials, if no trade is active. False if one is."""
        async with self._works.on_session(key, epoch) as work:
            if work.record.state is SessionState.CLOSED:
                return True
            if work.active or work.tally.usage.open_trades > 0:
                return False
            work.change(state=SessionState.CLOSED)
            work.close_time = work.now
            await work.connection.fetch(sql.DESTROY_CREDENTIALS, key)
        return True

    async def sessions_to_run(self, limit: int) -> Sequence[SessionKey]:
        """List sessions that are ACTIVE or CLOSING, those longest without a new runner first."""
        rows = await self._database.read(sql.SESSIONS_TO_RUN, limit)
        return [SessionKey(row["session_key"]) for row in rows]

    async def begin_epoch(self, key: SessionKey) -> SessionRecord | None:
        """Raise the session's epoch for a new runner and return it; None if it is CLOSED or unknown."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(sql.BEGIN_EPOCH, key, self._clock.now())
        return session_from_row(rows[0]) if rows else None

    async def start_bot(self, key: SessionKey, settings: BotSettings, run_id: str) -> SessionRecord:
        """Start a run and emit StatusUpdate; the same settings while RUNNING or PAUSED change nothing."""
        async with self._works.on_session(key) as work:
            work.require_active()
            if work.record.bot_status is not BotStatus.STOPPED:
                if work.record.settings != settings:
                    raise BotAlreadyRunningError
                return work.record
            work.change(
                bot_status=BotStatus.RUNNING,
                settings=settings,
                run_id=run_id,
                asset=settings.asset,
                timeframe=settings.timeframe,
            )
            work.tally = work.tally.new_run()
            await work.tell_status()
        return work.record

    async def set_bot_status(self, key: SessionKey, status: BotStatus, *, run_id: str | None = None) -> SessionRecord:
        """Stop, pause or resume and emit StatusUpdate if that changes anything."""
        async with self._works.on_session(key) as work:
            work.require_active()
            record = work.record
            if record.bot_status is status or (run_id is not None and run_id != record.run_id):
                return record
            if record.bot_status is BotStatus.STOPPED:
                raise BotNotRunningError
            work.change(bot_status=status)
            await work.tell_status()
        return work.record

    async def set_timeframe(self, key: SessionKey, timeframe: int) -> SessionRecord:
        """Set the candle length of the candle frames and emit StatusUpdate."""
        async with self._works.on_session(key) as work:
            work.require_active()
            if work.record.timeframe != timeframe:
                work.change(timeframe=timeframe)
                await work.tell_status()
        return work.record
