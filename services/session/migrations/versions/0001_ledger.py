"""The ledger: sessions with their counters, sealed credentials, trades, events.

The constraints carry the protocol; see ``services/session/adapters/ledger`` for who writes what and in which order.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    # One row per session and its lock: every write begins by locking this row. The secret session_id is nowhere.
    """
    CREATE TABLE sessions (
        session_key        text PRIMARY KEY,
        state              text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'closing', 'closed')),
        broker             text NOT NULL CHECK (broker IN ('iq', 'exnova')),
        account_type       text NOT NULL CHECK (account_type IN ('PRACTICE', 'REAL')),
        user_id            bigint NOT NULL,
        balance_id         bigint NOT NULL,
        balance            numeric(18, 2) NOT NULL,
        currency           text NOT NULL,
        bot_status         text NOT NULL DEFAULT 'stopped' CHECK (bot_status IN ('stopped', 'running', 'paused')),
        settings           jsonb,
        run_id             text,
        asset              text NOT NULL,
        timeframe          integer NOT NULL CHECK (timeframe > 0),
        broker_connection  text NOT NULL DEFAULT 'connected'
                           CHECK (broker_connection IN ('connecting', 'connected', 'reconnecting', 'refused')),
        create_time        timestamptz NOT NULL,
        last_seen          timestamptz NOT NULL,
        expiry_warned      boolean NOT NULL DEFAULT false,
        close_reason       text CHECK (close_reason IN ('disconnected', 'expired')),
        close_time         timestamptz,
        events_pruned      boolean NOT NULL DEFAULT false,
        epoch              bigint NOT NULL DEFAULT 0,
        epoch_time         timestamptz,
        last_seq           bigint NOT NULL DEFAULT 0,
        wins               integer NOT NULL DEFAULT 0,
        losses             integer NOT NULL DEFAULT 0,
        ties               integer NOT NULL DEFAULT 0,
        sold               integer NOT NULL DEFAULT 0,
        total_trades       integer NOT NULL DEFAULT 0 CHECK (total_trades >= 0),
        profit             numeric(18, 2) NOT NULL DEFAULT 0,
        staked             numeric(18, 2) NOT NULL DEFAULT 0,
        payout_sum         double precision NOT NULL DEFAULT 0,
        open_trades        integer NOT NULL DEFAULT 0 CHECK (open_trades >= 0),
        exposure           numeric(18, 2) NOT NULL DEFAULT 0 CHECK (exposure >= 0),
        day                date NOT NULL,
        daily_profit       numeric(18, 2) NOT NULL DEFAULT 0,
        run_trades         integer NOT NULL DEFAULT 0 CHECK (run_trades >= 0),
        run_profit         numeric(18, 2) NOT NULL DEFAULT 0,
        run_exposure       numeric(18, 2) NOT NULL DEFAULT 0 CHECK (run_exposure >= 0),
        consecutive_losses integer NOT NULL DEFAULT 0 CHECK (consecutive_losses >= 0),
        CHECK ((state = 'active') = (close_reason IS NULL)),
        CHECK (state = 'active' OR bot_status = 'stopped'),
        CHECK (state <> 'closed' OR (open_trades = 0 AND close_time IS NOT NULL)),
        CHECK (bot_status = 'stopped' OR (run_id IS NOT NULL AND settings IS NOT NULL))
    )
    """,
    "CREATE INDEX sessions_to_run ON sessions (epoch_time NULLS FIRST, session_key) WHERE state <> 'closed'",
    "CREATE INDEX sessions_to_prune ON sessions (close_time) WHERE state = 'closed' AND NOT events_pruned",
    # Every field is sealed on its own (AES-256-GCM envelope); the row is deleted when the session is closed.
    """
    CREATE TABLE credentials (
        session_key  text PRIMARY KEY REFERENCES sessions,
        email        bytea NOT NULL,
        password     bytea NOT NULL,
        broker_token bytea NOT NULL
    )
    """,
    """
    CREATE TABLE trades (
        trade_id        text PRIMARY KEY,
        trade_no        bigint GENERATED ALWAYS AS IDENTITY,
        session_key     text NOT NULL REFERENCES sessions,
        state           text NOT NULL DEFAULT 'intent' CHECK (state IN ('intent', 'sending', 'open', 'unknown', 'rejected',
                                                                        'not_placed', 'won', 'lost', 'tied', 'sold')),
        ambiguous       boolean NOT NULL DEFAULT false,
        source          text NOT NULL CHECK (source IN ('manual', 'bot')),
        idempotency_key text,
        run_id          text,
        broker          text NOT NULL,
        account_type    text NOT NULL,
        balance_id      bigint NOT NULL,
        asset           text NOT NULL,
        instrument_type text NOT NULL CHECK (instrument_type IN ('turbo', 'binary', 'blitz', 'digital')),
        direction       text NOT NULL CHECK (direction IN ('call', 'put')),
        amount          numeric(18, 2) NOT NULL CHECK (amount > 0),
        currency        text NOT NULL,
        duration        integer NOT NULL CHECK (duration > 0),
        min_payout      double precision NOT NULL,
        model           text NOT NULL,
        model_version   text NOT NULL,
        model_sha256    text NOT NULL,
        create_time     timestamptz NOT NULL,
        change_time     timestamptz NOT NULL,
        send_time       timestamptz,
        send_before     timestamptz,
        broker_order_id text,
        payout_rate     double precision NOT NULL DEFAULT 0,
        entry_price     double precision NOT NULL DEFAULT 0,
        close_price     double precision NOT NULL DEFAULT 0,
        profit          numeric(18, 2) NOT NULL DEFAULT 0,
        open_time       timestamptz,
        expiry_time     timestamptz,
        close_time      timestamptz,
        reason          text NOT NULL DEFAULT '',
        CHECK ((source = 'bot') = (run_id IS NOT NULL)),
        CHECK (source = 'manual' OR idempotency_key IS NOT NULL),
        CHECK (state NOT IN ('sending', 'unknown') OR (send_time IS NOT NULL AND send_before IS NOT NULL)),
        CHECK (NOT ambiguous OR state = 'unknown'),
        CHECK ((state IN ('open', 'won', 'lost', 'tied', 'sold')) = (broker_order_id IS NOT NULL)),
        CHECK ((state IN ('won', 'lost', 'tied', 'sold')) = (close_time IS NOT NULL)),
        CHECK ((state IN ('rejected', 'not_placed')) = (reason <> ''))
    )
    """,
    "CREATE UNIQUE INDEX trades_newest_first ON trades (session_key, trade_no DESC)",
    # The same request again is the same trade.
    "CREATE UNIQUE INDEX trades_idempotency ON trades (session_key, source, idempotency_key)",
    # The broker's lists tell two equal orders apart only by time: at most one of them may be unresolved.
    """
    CREATE UNIQUE INDEX trades_fingerprint ON trades (broker, balance_id, asset, instrument_type, direction, amount)
    WHERE state IN ('sending', 'unknown')
    """,
    # An order at the broker belongs to one trade, of whichever session.
    "CREATE UNIQUE INDEX trades_claim ON trades (broker, balance_id, broker_order_id)",
    """
    CREATE INDEX trades_unsettled ON trades (session_key, trade_no)
    WHERE state IN ('intent', 'sending', 'open', 'unknown') OR (state = 'not_placed' AND send_time IS NOT NULL)
    """,
    # The outbox and the event log in one: payload is a serialized tradebot.session.v1.Event without the session_id.
    """
    CREATE TABLE events (
        session_key text NOT NULL REFERENCES sessions,
        seq         bigint NOT NULL CHECK (seq > 0),
        type        text NOT NULL,
        time        timestamptz NOT NULL,
        payload     bytea NOT NULL,
        PRIMARY KEY (session_key, seq)
    )
    """,
)


def upgrade() -> None:
    """Create everything."""
    for statement in _STATEMENTS:
        op.execute(statement)
