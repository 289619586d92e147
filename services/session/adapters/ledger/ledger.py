"""The ledger on PostgreSQL: the authority for sessions, trades, limits, evidence and events."""

from services.runtime.clock import Clock
from services.session.adapters.ledger.database import Database
from services.session.adapters.ledger.events import LedgerEvents
from services.session.adapters.ledger.gates import LedgerGates
from services.session.adapters.ledger.sessions import LedgerSessions
from services.session.adapters.ledger.trades import LedgerTrades
from services.session.adapters.ledger.work import Encode, Publish, Works
from services.session.adapters.vault import Vault


class PostgresLedger(LedgerSessions, LedgerTrades, LedgerGates, LedgerEvents):
    """The ``Ledger`` port. Every method is one transaction; nothing is ever repeated by itself but a read."""

    def __init__(self, database: Database, *, vault: Vault, clock: Clock, encode: Encode, publish: Publish) -> None:
        """Stand on a database.

        Args:
            database: ``PostgresDatabase`` in production.
            vault: Seals the credentials.
            clock: Gives every time that is stored.
            encode: Serializes events.
            publish: Called with every event after its commit.
        """
        works = Works(database, clock, encode, publish)
        LedgerSessions.__init__(self, database, vault, clock, works)
        LedgerTrades.__init__(self, database, clock, works)
        LedgerGates.__init__(self, database, works)
        LedgerEvents.__init__(self, database, works)
