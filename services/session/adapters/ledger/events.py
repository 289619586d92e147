"""The ledger's events: appended with what they tell of, read by seq."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from services.session.adapters.ledger import sql
from services.session.adapters.ledger.database import Database
from services.session.adapters.ledger.rows import event_from_row
from services.session.adapters.ledger.work import Works
from services.session.domain.events import (
    BalanceChanged,
    BrokerConnectionChanged,
    Event,
    SessionWillExpire,
    StoredEvent,
)
from services.session.domain.values import SessionKey, SessionState

_PRUNE_AT_ONCE: Final = 200
"""Sessions a transaction."""


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where a session's log ends."""

    last_seq: int
    ended: bool
    """No event will follow."""


class EventReader:
    """Reads events; all that the event log needs of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def events_after(self, key: SessionKey, seq: int, limit: int) -> Sequence[StoredEvent]:
        """Return up to ``limit`` events after ``seq``, ascending, without holes."""
        rows = await self._database.read(sql.EVENTS_AFTER, key, seq, limit)
        return [event_from_row(row) for row in rows]

    async def log_ends(self, keys: Sequence[SessionKey]) -> Mapping[SessionKey, LogEnd]:
        """Return where the sessions' logs end; unknown sessions are left out."""
        rows = await self._database.read(sql.LOG_ENDS, list(keys))
        return {
            SessionKey(row["session_key"]): LogEnd(row["last_seq"], row["state"] != SessionState.ACTIVE.value)
            for row in rows
        }


class LedgerEvents(EventReader):
    """The part of the ``Ledger`` port that is about events."""

    def __init__(self, database: Database, works: Works) -> None:
        EventReader.__init__(self, database)
        self._works = works

    async def emit(self, key: SessionKey, event: Event, *, epoch: int | None = None) -> StoredEvent | None:
        """Append an event that changes nothing else but what it says; None once the session has ended."""
        async with self._works.on_session(key, epoch) as work:
            if not work.active:
                return None
            match event:
                case BalanceChanged():
                    account = replace(work.record.account, balance=event.balance, currency=event.currency)
                    work.change(account=account)
                case BrokerConnectionChanged():
                    work.change(broker_connection=event.state)
                case SessionWillExpire():
                    work.change(expiry_warned=True)
                case _:
                    pass
            work.tell(event)
        return work.events[0]

    async def prune_events(self, before: datetime) -> int:
        """Delete the events of sessions that closed before then; returns how many."""
        pruned = 0
        while True:
            async with self._database.transaction() as connection:
                rows = await connection.fetch(sql.PRUNE_EVENTS, before, _PRUNE_AT_ONCE)
            pruned += int(rows[0]["events"])
            if rows[0]["sessions"] < _PRUNE_AT_ONCE:
                return pruned
