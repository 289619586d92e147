"""``python -m services.session.judge_trade``: writes down what a person has found out about a trade that no list can decide.

``judge_trade TRADE_ID absent``: the broker has no order of it. ``judge_trade TRADE_ID order BROKER_ORDER_ID won 8.70``: it is that
order of the broker's, with its outcome (``won``, ``lost``, ``tied``, ``sold``) and net profit as the broker's own list shows them.

It is for trades that are ``unknown`` and ambiguous, and for results that can never be read because the broker refuses the login.
A trade that the system may still resolve by itself is refused, and so is whatever contradicts the ledger. The user sees
the usual event; the log of this command tells that a person has decided.
"""

import argparse
import asyncio
import sys
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

import structlog
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime.clock import Clock, SystemClock
from services.runtime.errors import ServiceError
from services.runtime.logging import configure_logging
from services.session import codec
from services.session.adapters.ledger.database import PostgresDatabase
from services.session.adapters.ledger.trades import LedgerTrades
from services.session.adapters.ledger.work import Works
from services.session.domain.errors import ContradictionError, TradeNotFoundError
from services.session.domain.events import StoredEvent
from services.session.domain.reconciliation import latest_acceptance
from services.session.domain.trade import SETTLED, Trade, TradeState, order_of
from services.session.domain.values import SessionKey, TradeId

JUDGED: Final = "JUDGED_ABSENT"
"""Reason of a trade that a person found to be absent."""
_PATIENCE: Final = timedelta(minutes=5)
"""After its last possible expiry a trade is left to the system for this long."""


class JudgeSettings(BaseSettings):
    """Where the ledger is."""

    model_config = SettingsConfigDict(env_prefix="SESSION_", extra="ignore", frozen=True)

    postgres_url: SecretStr


async def judge(
    database: PostgresDatabase, clock: Clock, trade_id: TradeId, found: tuple[str, TradeState, Decimal] | None
) -> Trade:
    """Write a person's finding into the ledger and return the trade as it then stands.

    Args:
        database: The ledger's.
        clock: Time.
        trade_id: The trade.
        found: The broker's order id, its outcome and its net profit; None if there is no order.

    Raises:
        TradeNotFoundError: There is no such trade.
        ContradictionError: The trade is not waiting for a person, or the finding cannot be true.
    """
    ledger = LedgerTrades(database, clock, Works(database, clock, codec.encode_event, _published_by_the_replicas))
    trade = await ledger.find(trade_id)
    if trade is None:
        raise TradeNotFoundError
    if trade.state not in {TradeState.UNKNOWN, TradeState.OPEN}:
        raise ContradictionError(f"The trade is {trade.state.value}: nothing is to be decided")
    end = trade.expiry_time or latest_acceptance(trade) + trade.duration
    if clock.now() < end + _PATIENCE:
        raise ContradictionError(
            f"The system may still find out by itself, until {end + _PATIENCE:%Y-%m-%d %H:%M:%S} UTC"
        )
    if found is None:
        if trade.state is TradeState.OPEN:
            raise ContradictionError("The broker has acknowledged this trade: it cannot be absent")
        return await ledger.never_placed(trade_id, JUDGED, epoch=None)
    order_id, outcome, profit = found
    if outcome not in SETTLED or not _fits(outcome, profit, trade.amount):
        raise ContradictionError(f"A stake of {trade.amount} cannot end as {outcome.value} with {profit}")
    # Without the trade's own id: a person recognised it, no connector.
    open_time = trade.open_time or trade.send_time or trade.create_time
    order = replace(order_of(trade, order_id, open_time, end), trade_id=None, outcome=outcome, profit=profit)
    return await ledger.opened(trade_id, order, epoch=None)


def _fits(outcome: TradeState, profit: Decimal, amount: Decimal) -> bool:
    if not profit.is_finite() or profit < -amount:
        return False
    match outcome:
        case TradeState.WON:
            return profit > 0
        case TradeState.LOST:
            return profit < 0
        case TradeState.TIED:
            return profit == 0
        case _:
            return True


def _published_by_the_replicas(_key: SessionKey, _event: StoredEvent, /) -> None:
    """Do nothing: the replicas find events in the ledger within about two seconds."""


def _arguments() -> tuple[TradeId, tuple[str, TradeState, Decimal] | None]:
    parser = argparse.ArgumentParser(prog="python -m services.session.judge_trade", description=__doc__.splitlines()[0])
    parser.add_argument("trade_id")
    findings = parser.add_subparsers(dest="finding", required=True)
    findings.add_parser("absent", help="the broker has no such order")
    order = findings.add_parser("order", help="it is this order of the broker's")
    order.add_argument("broker_order_id")
    order.add_argument("outcome", choices=sorted(state.value for state in SETTLED))
    order.add_argument("profit", help="net, in the account's currency; a loss is negative")
    options = parser.parse_args()
    trade_id = TradeId(options.trade_id)
    if options.finding == "absent":
        return trade_id, None
    try:
        profit = Decimal(options.profit)
    except InvalidOperation:
        parser.error("profit: not a number")
    return trade_id, (options.broker_order_id, TradeState(options.outcome), profit)


async def _run(trade_id: TradeId, found: tuple[str, TradeState, Decimal] | None) -> Trade:
    settings = JudgeSettings()  # type: ignore[call-arg]  # the environment gives the rest
    async with PostgresDatabase.at(settings.postgres_url.get_secret_value(), connections=1) as database:
        return await judge(database, SystemClock(), trade_id, found)


def main() -> int:
    """Judge one trade of the ledger that ``SESSION_POSTGRES_URL`` names."""
    trade_id, found = _arguments()
    configure_logging("session-judge-trade")
    try:
        trade = asyncio.run(_run(trade_id, found))
    except ServiceError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    structlog.get_logger().warning(
        "trade_judged_by_a_person",
        trade=trade.trade_id,
        state=trade.state.value,
        order=trade.broker_order_id,
        profit=str(trade.profit),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
