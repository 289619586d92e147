"""Every statement of the ledger.

Lock order: a write locks its session's row first (one row, ever), then touches that session's trades, then waits at most
once for another transaction, at the unique index of the fingerprints or of the claims, holding nothing that the other
could wait for. So no deadlock is possible.
"""

# ruff: noqa: S608  # nothing is formatted into a statement but this module's own text

from typing import Final

_SESSION: Final = """
    session_key, state, broker, account_type, user_id, balance_id, balance, currency, bot_status, settings::text AS settings,
    run_id, asset, timeframe, broker_connection, last_seen, expiry_warned, close_reason, close_time, epoch, last_seq,
    wins, losses, ties, sold, total_trades, profit, staked, payout_sum,
    open_trades, exposure, day, daily_profit, run_trades, run_profit, run_exposure, consecutive_losses
"""

_TRADE: Final = """
    trade_id, trade_no, session_key, state, ambiguous, source, idempotency_key, run_id, broker, account_type, balance_id,
    asset, instrument_type, direction, amount, currency, duration, min_payout, model, model_version, model_sha256,
    create_time, send_time, send_before, broker_order_id, payout_rate, entry_price, close_price, profit,
    open_time, expiry_time, close_time, reason
"""

# Sessions

INSERT_SESSION: Final = f"""
    INSERT INTO sessions (session_key, broker, account_type, user_id, balance_id, balance, currency, asset, timeframe,
                          create_time, last_seen, day)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11)
    RETURNING {_SESSION}
"""

SESSION: Final = f"SELECT {_SESSION} FROM sessions WHERE session_key = $1"

LOCK_SESSION: Final = f"SELECT {_SESSION} FROM sessions WHERE session_key = $1 FOR UPDATE"

LOCK_SESSION_OF_TRADE: Final = f"""
    SELECT {_SESSION} FROM sessions
    WHERE session_key = (SELECT session_key FROM trades WHERE trade_id = $1) FOR UPDATE
"""

STORE_SESSION: Final = """
    UPDATE sessions
    SET state = $2, bot_status = $3, settings = $4::text::jsonb, run_id = $5, asset = $6, timeframe = $7, balance = $8,
        currency = $9, broker_connection = $10, expiry_warned = $11, close_reason = $12, close_time = $13, last_seq = $14,
        wins = $15, losses = $16, ties = $17, sold = $18, total_trades = $19, profit = $20, staked = $21, payout_sum = $22,
        open_trades = $23, exposure = $24, day = $25, daily_profit = $26, run_trades = $27, run_profit = $28,
        run_exposure = $29, consecutive_losses = $30
    WHERE session_key = $1
"""

BEGIN_EPOCH: Final = f"""
    UPDATE sessions SET epoch = epoch + 1, epoch_time = $2
    WHERE session_key = $1 AND state <> 'closed'
    RETURNING {_SESSION}
"""

TOUCH: Final = """
    UPDATE sessions SET last_seen = greatest(last_seen, $2), expiry_warned = false
    WHERE session_key = $1 AND state = 'active'
"""

SESSIONS_TO_RUN: Final = """
    SELECT session_key FROM sessions WHERE state <> 'closed' ORDER BY epoch_time NULLS FIRST, session_key LIMIT $1
"""

# Credentials

INSERT_CREDENTIALS: Final = """
    INSERT INTO credentials (session_key, email, password, broker_token) VALUES ($1, $2, $3, $4)
"""

CREDENTIALS: Final = "SELECT email, password, broker_token FROM credentials WHERE session_key = $1"

STORE_BROKER_TOKEN: Final = "UPDATE credentials SET broker_token = $2 WHERE session_key = $1"  # noqa: S105

DESTROY_CREDENTIALS: Final = "DELETE FROM credentials WHERE session_key = $1"

CREDENTIALS_AFTER: Final = """
    SELECT session_key, email, password, broker_token FROM credentials
    WHERE session_key > $1 ORDER BY session_key LIMIT $2
"""

REPLACE_CREDENTIALS: Final = """
    UPDATE credentials SET email = $2, password = $3, broker_token = $4
    WHERE session_key = $1 AND email = $5 AND password = $6 AND broker_token = $7
    RETURNING session_key
"""

# Trades

INSERT_TRADE: Final = f"""
    INSERT INTO trades (trade_id, session_key, source, idempotency_key, run_id, broker, account_type, balance_id,
                        asset, instrument_type, direction, amount, currency, duration, min_payout,
                        model, model_version, model_sha256, create_time, change_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $19)
    RETURNING {_TRADE}
"""

TRADE: Final = f"SELECT {_TRADE} FROM trades WHERE session_key = $1 AND trade_id = $2"

TRADE_BY_ID: Final = f"SELECT {_TRADE} FROM trades WHERE trade_id = $1"

TRADE_OF_KEY: Final = f"""
    SELECT {_TRADE} FROM trades WHERE session_key = $1 AND source = $2 AND idempotency_key = $3
"""

TRADES_OF_ORDER: Final = f"""
    SELECT {_TRADE} FROM trades WHERE session_key = $1 AND (broker_order_id = $2 OR trade_id = $3)
"""

MOVE_TRADE: Final = """
    UPDATE trades
    SET state = $3, ambiguous = $4, send_time = $5, send_before = $6, broker_order_id = $7, payout_rate = $8,
        entry_price = $9, close_price = $10, profit = $11, open_time = $12, expiry_time = $13, close_time = $14,
        reason = $15, change_time = $16
    WHERE trade_id = $1 AND state = $2
    RETURNING trade_id
"""

UNRESOLVED_EQUAL: Final = """
    SELECT other.trade_id FROM trades mine JOIN trades other
    USING (broker, balance_id, asset, instrument_type, direction, amount)
    WHERE mine.trade_id = $1 AND other.trade_id <> $1 AND other.state IN ('sending', 'unknown')
"""

ACTIVE_TRADES: Final = f"""
    SELECT {_TRADE} FROM trades
    WHERE session_key = $1 AND state IN ('intent', 'sending', 'open', 'unknown') ORDER BY trade_no
"""

UNSETTLED_TRADES: Final = f"""
    SELECT {_TRADE} FROM trades
    WHERE session_key = $1
      AND (state IN ('intent', 'sending', 'open', 'unknown') OR (state = 'not_placed' AND send_time IS NOT NULL))
      AND (state <> 'not_placed' OR change_time > $2)
    ORDER BY trade_no
"""

TRADES_PAGE: Final = f"""
    SELECT {_TRADE} FROM trades
    WHERE session_key = $1 AND trade_no < $2 AND state = ANY($3::text[]) ORDER BY trade_no DESC LIMIT $4
"""

CLAIMED_ORDERS: Final = """
    SELECT t.broker_order_id FROM sessions s JOIN trades t USING (broker, balance_id)
    WHERE s.session_key = $1 AND t.broker_order_id = ANY($2::text[])
"""

# Events

# Events never come without the row that counts them: one round trip for both.
STORE_SESSION_WITH_EVENTS: Final = f"""
    WITH stored AS ({STORE_SESSION})
    INSERT INTO events (session_key, seq, type, time, payload)
    SELECT $1, seq, type, $31, payload FROM unnest($32::bigint[], $33::text[], $34::bytea[]) AS e (seq, type, payload)
"""

EVENTS_AFTER: Final = """
    SELECT seq, type, payload FROM events WHERE session_key = $1 AND seq > $2 ORDER BY seq LIMIT $3
"""

LOG_ENDS: Final = """
    SELECT session_key, last_seq, state FROM sessions WHERE session_key = ANY($1::text[])
"""

PRUNE_EVENTS: Final = """
    WITH old AS (
        UPDATE sessions SET events_pruned = true
        WHERE session_key IN (
            SELECT session_key FROM sessions
            WHERE state = 'closed' AND NOT events_pruned AND close_time < $1
            ORDER BY close_time LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        RETURNING session_key
    ), gone AS (
        DELETE FROM events USING old WHERE events.session_key = old.session_key RETURNING 1
    )
    SELECT (SELECT count(*) FROM old) AS sessions, (SELECT count(*) FROM gone) AS events
"""

# Evidence

_GATE: Final = """
    model, model_version, asset, timeframe, duration, hits, decided, ties, voided, payout_sum, wealth, opened
"""

# The version that answered last.
GATE_IN_USE: Final = f"""
    SELECT {_GATE} FROM gates
    WHERE session_key = $1 AND model = $2 AND asset = $3 AND timeframe = $4 AND duration = $5
    ORDER BY use_time DESC, model_version DESC LIMIT 1
"""

USE_GATE: Final = f"""
    INSERT INTO gates (session_key, model, asset, timeframe, duration, model_version, use_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (session_key, model, asset, timeframe, duration, model_version) DO UPDATE SET use_time = $7
    RETURNING {_GATE}
"""

GATE: Final = f"""
    SELECT {_GATE} FROM gates
    WHERE session_key = $1 AND model = $2 AND asset = $3 AND timeframe = $4 AND duration = $5 AND model_version = $6
"""

STORE_GATE: Final = """
    UPDATE gates
    SET hits = $7, decided = $8, ties = $9, voided = $10, payout_sum = $11, wealth = $12, opened = $13
    WHERE session_key = $1 AND model = $2 AND asset = $3 AND timeframe = $4 AND duration = $5 AND model_version = $6
"""

INSERT_SHADOW: Final = """
    INSERT INTO shadow_decisions (session_key, model, asset, timeframe, duration, model_version, close_time, expiry_time,
                                  direction, payout_rate, state)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CASE WHEN EXISTS (
        SELECT 1 FROM shadow_decisions
        WHERE session_key = $1 AND model = $2 AND asset = $3 AND timeframe = $4 AND duration = $5 AND model_version = $6
          AND state = 'pending' AND expiry_time > $7
    ) THEN 'overlapping' ELSE 'pending' END
    ON CONFLICT (session_key, model, close_time) DO NOTHING
    RETURNING state
"""

PENDING_SHADOWS: Final = """
    SELECT model, model_version, asset, timeframe, duration, close_time, direction, payout_rate, entry_price
    FROM shadow_decisions
    WHERE session_key = $1 AND model = $2 AND asset = $3 AND timeframe = $4 AND duration = $5 AND state = 'pending'
    ORDER BY close_time
"""

LOCK_SHADOW: Final = """
    SELECT model, model_version, asset, timeframe, duration, close_time, direction, payout_rate, entry_price
    FROM shadow_decisions WHERE session_key = $1 AND model = $2 AND close_time = $3 AND state = 'pending' FOR UPDATE
"""

ENTER_SHADOW: Final = """
    UPDATE shadow_decisions SET entry_price = $4
    WHERE session_key = $1 AND model = $2 AND close_time = $3 AND state = 'pending' AND entry_price IS NULL
"""

RESOLVE_SHADOW: Final = """
    UPDATE shadow_decisions SET state = $4, exit_price = $5 WHERE session_key = $1 AND model = $2 AND close_time = $3
"""
