"""The judgement at the end: the simulator's ledger, our ledger, and what every client folded must tell one story.

What reached the broker is known from the simulator alone, by the stake that marks every order; what we claim is held
against it.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import asyncpg

from local.client import ApiError
from local.witness import Story, cents, judge
from services.session.adapters.ledger.rows import trade_from_row
from services.session.domain.reconciliation import resolved_by
from services.session.domain.trade import ACTIVE, SETTLED, Trade, TradeState
from services.session.domain.values import TradeSource, session_key
from tests.faults.programme.marks import by_marks, limits_broken
from tests.faults.programme.scene import Scene
from tests.faults.programme.users import User
from tests.support.eventually import eventually
from tests.support.traders import Trader

CONVERGED_WITHIN: Final = 170.0
"""Seconds: a SENDING whose sender died is given up after 35, and proven absent 90 after it was sent; then a margin."""
POLL: Final = timedelta(seconds=3)
"""Between two lists while a trade is unknown."""


@dataclass(slots=True)
class Verdict:
    """What was found."""

    violations: list[str] = field(default_factory=list)
    intents: int = 0
    of_bots: int = 0
    """Intents of bots."""
    placed: int = 0
    orders: int = 0
    """Orders that the simulator booked."""
    not_placed: int = 0
    rejected: int = 0
    unknown: int = 0
    """Trades that were unknown for a while."""
    recovered: int = 0
    """Of these, found at the broker."""
    events: int = 0
    reconnects: int = 0
    resolutions: list[float] = field(default_factory=list)
    """Seconds from being sent to being resolved, of each trade that was unknown."""
    beyond_bound: int = 0
    """Of these, resolved later than the bound that holds while the broker's lists can be read every 3 s."""
    epochs: int = 0


async def judged(scene: Scene, users: Sequence[User], calms: Sequence[tuple[datetime, datetime]]) -> Verdict:
    """Wait until everything has converged, then compare.

    Args:
        scene: The run, its faults over.
        users: All users, no longer trading.
        calms: When nothing was broken for a while.
    """
    verdict = Verdict(violations=list(scene.notes))
    connection = await asyncpg.connect(scene.world.addresses["postgres"])
    try:
        with contextlib.suppress(AssertionError):
            await eventually(lambda: _all_final(connection), within=CONVERGED_WITHIN, every=0.5)
        rows = await connection.fetch("SELECT * FROM trades ORDER BY trade_no")
        verdict.epochs = await connection.fetchval("SELECT sum(epoch)::bigint FROM sessions")
    finally:
        await connection.close()
    trades: dict[str, list[Trade]] = defaultdict(list)
    for row in rows:
        trades[row["session_key"]].append(trade_from_row(row))
    _count(verdict, [trade for of_one in trades.values() for trade in of_one])
    by_account: dict[str, list[User]] = defaultdict(list)
    for user in users:
        by_account[user.account.email].append(user)
    await asyncio.gather(*(_judge_account(scene, verdict, sharing, trades) for sharing in by_account.values()))
    for user in users:
        verdict.violations += [f"{user.account.email}: {fault}" for fault in (*user.faults, *user.feed.faults)]
        verdict.events += len(user.feed.events)
        verdict.reconnects += user.feed.reconnects
        _time_unknowns(verdict, user, calms, trades[session_key(user.session.session_id)])
    verdict.violations += _secrets_in_logs(scene, users)
    return verdict


async def _all_final(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    active = [state.value for state in ACTIVE]
    return not await connection.fetchval("SELECT count(*) FROM trades WHERE state = ANY($1::text[])", active)


def _count(verdict: Verdict, trades: Sequence[Trade]) -> None:
    verdict.intents = len(trades)
    verdict.of_bots = sum(trade.source is TradeSource.BOT for trade in trades)
    verdict.placed = sum(trade.state in SETTLED for trade in trades)
    verdict.not_placed = sum(trade.state is TradeState.NOT_PLACED for trade in trades)
    verdict.rejected = sum(trade.state is TradeState.REJECTED for trade in trades)
    verdict.violations += [
        f"trade {trade.trade_id} is still {trade.state.value}" for trade in trades if trade.state in ACTIVE
    ]


async def _judge_account(
    scene: Scene, verdict: Verdict, sharing: Sequence[User], trades: dict[str, list[Trade]]
) -> None:
    account = sharing[0].account
    told: list[dict[str, Any]] = []
    ends: set[Decimal] = set()
    found: list[str] = []
    for user in sharing:
        try:
            status = await _at_rest(user)
            answered = await user.session.trades()
        except (AssertionError, ApiError) as error:
            found.append(f"the stream does not bring what the session knows: {error}")
            continue
        told += answered
        ends.add(cents(status["balance"]))
        found += user.feed.differences(status, answered)
    balance = await scene.simulator.balance(account.email, account.broker, account.account_type)
    orders = await scene.simulator.ledger(account.email)
    start = cents(sharing[0].session.connected["balance"])
    for end in ends or {balance}:
        story = Story(account.email, account.broker, account.account_type, start, end, told)
        found += judge(story, orders, balance)
    body = await scene.simulator.call("GET", "/ledger", params={"email": account.email})
    booked = [order for order in body["orders"] if order["booked_time"] is not None]
    verdict.orders += len(booked)
    for user in sharing:
        mine = trades[session_key(user.session.session_id)]
        found += by_marks(user, mine, booked)
        found += limits_broken(user, mine, booked)
    verdict.violations += [f"{account.email}: {one}" for one in dict.fromkeys(found)]


async def _at_rest(user: User) -> dict[str, Any]:
    """Wait until the stream has brought all that the session knows and the balance has come to rest."""
    seen: list[dict[str, Any]] = []

    async def same_twice() -> bool:
        status = await Trader(user.session, user.feed).at_rest()
        seen.append(status)
        return len(seen) > 1 and seen[-2]["seq"] == status["seq"]

    await eventually(same_twice, within=20, every=1.0)
    return seen[-1]


def _time_unknowns(
    verdict: Verdict, user: User, calms: Sequence[tuple[datetime, datetime]], mine: Sequence[Trade]
) -> None:
    for trade in mine:
        if trade.trade_id not in user.feed.unknown_since:
            continue
        verdict.unknown += 1
        verdict.recovered += trade.state in SETTLED
        resolved = user.feed.resolved_at.get(trade.trade_id)
        if resolved is not None and trade.send_time is not None:
            verdict.resolutions.append((resolved - trade.send_time).total_seconds())
            bound = resolved_by(trade, POLL)
            verdict.beyond_bound += resolved > bound
            # Faults may keep the lists from being read; the first calm in which they could have been is the end.
            calm = next((end for begin, end in calms if begin > bound - 4 * POLL), calms[-1][1])
            if resolved > max(bound, calm):
                late = (resolved - max(bound, calm)).total_seconds()
                verdict.violations.append(f"trade {trade.trade_id} was resolved {late:.1f} s after bound and calm")


def _secrets_in_logs(scene: Scene, users: Sequence[User]) -> list[str]:
    secrets = [user.session.session_id.encode() for user in users]
    secrets += [str(user.session.connected["access_token"]).encode() for user in users]
    found = []
    for log in scene.world.folder.logs.iterdir():
        text = log.read_bytes()
        found += [f"{log.name} holds a session's secret" for secret in secrets if secret in text][:1]
    return found
