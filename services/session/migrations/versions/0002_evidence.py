"""The evidence gates: shadow decisions, and what they add up to."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # The evidence of one model version on the terms it trades on. Sums of shadow_decisions, written with them.
    """
    CREATE TABLE gates (
        session_key   text NOT NULL REFERENCES sessions,
        model         text NOT NULL,
        model_version text NOT NULL,
        asset         text NOT NULL,
        timeframe     integer NOT NULL CHECK (timeframe > 0),
        duration      integer NOT NULL CHECK (duration > 0),
        hits          integer NOT NULL DEFAULT 0,
        decided       integer NOT NULL DEFAULT 0,
        ties          integer NOT NULL DEFAULT 0 CHECK (ties >= 0),
        voided        integer NOT NULL DEFAULT 0 CHECK (voided >= 0),
        payout_sum    double precision NOT NULL DEFAULT 0,
        wealth        double precision NOT NULL DEFAULT 1 CHECK (wealth > 0),
        opened        boolean NOT NULL DEFAULT false,
        use_time      timestamptz NOT NULL,
        PRIMARY KEY (session_key, model, asset, timeframe, duration, model_version),
        CHECK (hits >= 0 AND decided >= hits)
    )
    """,
    # Once per session, model and candle, whatever process decides on it and however often.
    """
    CREATE TABLE shadow_decisions (
        session_key   text NOT NULL,
        model         text NOT NULL,
        close_time    timestamptz NOT NULL,
        model_version text NOT NULL,
        asset         text NOT NULL,
        timeframe     integer NOT NULL,
        duration      integer NOT NULL,
        expiry_time   timestamptz NOT NULL CHECK (expiry_time > close_time),
        direction     text NOT NULL CHECK (direction IN ('call', 'put')),
        payout_rate   double precision NOT NULL CHECK (payout_rate > 0 AND payout_rate <= 10),
        state         text NOT NULL CHECK (state IN ('pending', 'won', 'lost', 'tied', 'void', 'overlapping')),
        entry_price   double precision,
        exit_price    double precision,
        PRIMARY KEY (session_key, model, close_time),
        FOREIGN KEY (session_key, model, asset, timeframe, duration, model_version) REFERENCES gates,
        CHECK (state NOT IN ('won', 'lost', 'tied') OR (entry_price IS NOT NULL AND exit_price IS NOT NULL))
    )
    """,
    "CREATE INDEX shadow_decisions_pending ON shadow_decisions (session_key, model) WHERE state = 'pending'",
)


def upgrade() -> None:
    """Create both tables."""
    for statement in _STATEMENTS:
        op.execute(statement)
