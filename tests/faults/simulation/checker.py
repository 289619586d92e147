"""The invariants of the protocol, checked against the broker's journal when a world is over."""

import json
from collections import Counter, defaultdict
from decimal import Decimal

from services.session.adapters.ledger.rows import gate_from_row
from services.session.domain.evidence import Gate
from services.session.domain.trade import ACTIVE, MOVES, SETTLED, TradeState
from services.session.domain.values import TradeId
from tests.faults.simulation.platform import Position
from tests.faults.simulation.world import World

_GATE = ("session_key", "model", "model_version", "asset", "timeframe", "duration")


def violations(world: World) -> list[str]:
    """Return every violation, each beginning with the name of its invariant."""
    rows = world.server.inner.rows("SELECT * FROM trades ORDER BY trade_no")
    trades = {row["trade_id"]: row for row in rows}
    booked: dict[TradeId, list[Position]] = defaultdict(list)
    for position in world.platform.journal:
        booked[position.tag].append(position)
    found: list[str] = []

    for tag, positions in booked.items():
        if len(positions) > 1:
            found.append(f"I1 trade {tag} was booked {len(positions)} times")
        if tag not in trades:
            found.append(f"I2 trade {tag} was booked and is not in the ledger")

    claims = Counter((row["balance_id"], row["broker_order_id"]) for row in rows if row["broker_order_id"])
    found += [f"I2 order {claim} is claimed {times} times" for claim, times in claims.items() if times > 1]
    by_number = {position.number: position for position in world.platform.journal}
    claimed = {row["broker_order_id"]: row["trade_id"] for row in rows if row["broker_order_id"]}
    for number, position in by_number.items():
        owner = claimed.get(number)
        if owner is None:
            found.append(f"I2 order {number} of trade {position.tag} is claimed by nobody")
        elif owner != position.tag:
            found.append(f"I3 order {number} of trade {position.tag} is claimed by {owner}")

    for row in rows:
        trade_id, state = row["trade_id"], TradeState(row["state"])
        if state in {TradeState.NOT_PLACED, TradeState.REJECTED, TradeState.INTENT} and booked.get(trade_id):
            found.append(f"I4 trade {trade_id} is {state.value} and was booked")
        if state in SETTLED:
            own = by_number.get(row["broker_order_id"])
            if own is None or (own.outcome, own.profit) != (state, row["profit"]):
                found.append(f"I5 trade {trade_id} has another result than the broker's")
        if state in ACTIVE or row["ambiguous"]:
            found.append(f"I10 trade {trade_id} is still {state.value}, ambiguous: {row['ambiguous']}")
        account = world.platform.accounts[row["session_key"]]
        if (row["balance_id"], row["account_type"]) != (account.balance_id, account.account_type.value):
            found.append(f"I6 trade {trade_id} is on another account than its session")
    found += [
        f"I6 order {position.number} was sent for another balance"
        for position in world.platform.journal
        if world.platform.accounts[position.trade.session_key].balance_id != position.trade.balance_id
    ]

    for (key, name), ids in world.history.answers.items():
        if len(ids) > 1:
            found.append(f"I7 the key {name} of session {key} was answered with {len(ids)} trades")
    bot_candles = Counter(
        (row["run_id"], row["idempotency_key"].split(":")[2])
        for row in rows
        if row["source"] == "bot" and row["state"] not in {"rejected", "not_placed"}
    )
    found += [f"I7 a bot traded candle {candle} {times} times" for candle, times in bot_candles.items() if times > 1]

    made = Counter(world.history.moves)
    for (trade_id, before, after), times in made.items():
        if before != after and TradeState(after) not in MOVES.get(TradeState(before), frozenset()):
            found.append(f"I8 trade {trade_id} moved from {before} to {after}")
        if times > 1:
            found.append(f"I8 trade {trade_id} moved {times} times from {before} to {after}")
        if (before, after) == (TradeState.NOT_PLACED, TradeState.OPEN):
            # Nothing in this world is later than the reconciliation assumes.
            found.append(f"I4 trade {trade_id} was declared absent too early")

    found += _event_violations(world, {row["trade_id"]: row["session_key"] for row in rows})
    found += [f"I11 {what}" for what in world.history.overdrawn]
    found += [
        f"I12 {len(names)} processes sent for session {key} in epoch {epoch}"
        for (key, epoch), names in world.history.senders.items()
        if len(names) > 1
    ]
    found += _uncounted(world)
    found += _past_a_gate(world)
    if not world.is_shared_fairly():
        found.append("I15 a session runs nowhere, or a replica more than its share")
    found += [f"unexpected {what}" for what in world.history.unexpected]
    return found


def _event_violations(world: World, owners: dict[str, str]) -> list[str]:
    """I6: no event of another session's trade. I9: seq without holes. The counters equal a recount."""
    found: list[str] = []
    for session in world.server.inner.rows("SELECT * FROM sessions"):
        key = session["session_key"]
        events = world.server.inner.rows("SELECT seq, payload FROM events WHERE session_key = $1 ORDER BY seq", key)
        if [event["seq"] for event in events] != list(range(1, session["last_seq"] + 1)):
            found.append(f"I9 session {key} has holes in its events")
        for event in events:
            said = json.loads(event["payload"])
            if owners.get(said.get("trade_id", ""), key) != key:
                found.append(f"I6 session {key} was told of another session's trade")
        (sums,) = world.server.inner.rows(
            "SELECT coalesce(sum(profit), 0) AS profit, "
            "coalesce(sum(amount) FILTER (WHERE state IN ('intent', 'sending', 'open', 'unknown')), 0) AS exposure "
            "FROM trades WHERE session_key = $1",
            key,
        )
        if (Decimal(sums["profit"]), Decimal(sums["exposure"])) != (session["profit"], session["exposure"]):
            found.append(f"I11 session {key} has counters that differ from its trades")
    return found


def _uncounted(world: World) -> list[str]:
    """Return every gate that is not what its decisions add up to, each counted once and in their order."""
    found = []
    decisions = world.server.inner.rows("SELECT * FROM shadow_decisions ORDER BY expiry_time, close_time")
    for row in world.server.inner.rows("SELECT * FROM gates"):
        gate, voided = Gate(), 0
        for decision in decisions:
            if any(decision[name] != row[name] for name in _GATE):
                continue
            profit = {"won": decision["payout_rate"], "lost": -1.0, "tied": 0.0}.get(decision["state"])
            if profit is not None:
                gate = gate.after(profit, decision["payout_rate"])
            voided += decision["state"] == "void"
        if (gate, voided) != (gate_from_row(row).gate, row["voided"]):
            found.append(f"I13 the gate of session {row['session_key']} is not the sum of its decisions")
    return found


def _past_a_gate(world: World) -> list[str]:
    """Return every bot's trade behind a gate that the evidence had not opened."""
    return [
        f"I14 trade {row['trade_id']} passed a closed gate"
        for row in world.server.inner.rows(
            "SELECT t.trade_id FROM trades t JOIN sessions s USING (session_key) "
            "WHERE t.source = 'bot' AND s.settings->>'gate' = 'evidence' "
            "AND NOT EXISTS (SELECT FROM gates g WHERE g.session_key = t.session_key AND g.opened)"
        )
    ]
