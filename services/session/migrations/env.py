"""Alembic's environment: runs the migrations on the connection that ``services.session.migrate`` hands over."""

from alembic import context
from sqlalchemy import Connection, text

# Any number will do; it names "tradebot is migrating" among the database's advisory locks.
_LOCK = 7_316_505_741


def _run(connection: Connection) -> None:
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        # Replicas that start at once queue here; those that come second find nothing left to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        context.run_migrations()


_run(context.config.attributes["connection"])
