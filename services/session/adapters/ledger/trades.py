"""The ledger's trades: reserved, sent, and moved by what the broker says."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

import structlog

from services.runtime.clock import Clock
from services.session.adapters.ledger import sql
from services.session.adapters.ledger.database import Database, Row, UniqueViolationError
from services.session.adapters.ledger.rows import trade_from_row
from services.session.adapters.ledger.work import SessionWork, Works
from services.session.domain.bot import ServiceLimits, breach
from services.session.domain.errors import (
    ContradictionError,
    InvalidArgumentError,
    LimitReachedError,
    RequestIdReusedError,
    StaleEpochError,
    TradeUnresolvedError,
)
from services.session.domain.events import FaultHappened, TradeClosed, TradeOpened, TradeRejected, TradeUnknown
from services.session.domain.trade import SETTLED, BrokerOrder, Trade, TradeRequest, TradeState
from services.session.domain.values import BotStatus, SessionKey, TradeId, TradeSource
from services.session.ports import TradePage

LATE_ADOPTION: Final = timedelta(days=1)
"""How long an order of a trade that was declared absent is still looked for."""

_CENT: Final = Decimal("0.01")
_NEWEST: Final = 2**63 - 1
_STATES_OF: Final = {
    status: [state.value for state in TradeState if state.status == status]
    for status in {state.status for state in TradeState}
}
_log = structlog.get_logger()


class LedgerTrades:
    """The part of the ``Ledger`` port that is about trades."""

    def __init__(self, database: Database, clock: Clock, works: Works) -> None:
        self._database = database
        self._clock = clock
        self._works = works

    async def reserve(
        self, request: TradeRequest, trade_id: TradeId, limits: ServiceLimits, *, epoch: int | None
    ) -> tuple[Trade, bool]:
        """Check the limits under the session's row lock and insert the trade as INTENT; False with an earlier trade."""
        _require_money(request.amount)
        async with self._works.on_session(request.session_key, epoch) as work:
            work.require_active()
            earlier = await _earlier(work, request)
            if earlier is not None:
                return earlier, False
            work.require_run(request.run_id)
            found = breach(
                request.amount,
                bot_run=request.run_id is not None,
                settings=work.record.settings,
                usage=work.tally.usage,
                service=limits,
            )
            if found is not None:
                raise LimitReachedError(found.limit, found.value, found.used)
            trade = await _insert(work, request, trade_id)
            work.tally = work.tally.reserved(trade, of_run=work.is_current_run(request.run_id))
        return trade, True

    async def begin_send(self, trade_id: TradeId, send_before: datetime, *, epoch: int | None) -> Trade:
        """Move INTENT to SENDING; when this returns it is durable, and this caller alone may send, once."""
        try:
            async with self._works.on_trade(trade_id, epoch) as (work, trade, run_id):
                if trade.state is not TradeState.INTENT or not work.active:
                    raise StaleEpochError
                work.require_run(run_id)
                sending = replace(trade, state=TradeState.SENDING, send_time=work.now, send_before=send_before)
                await work.move(trade, sending, run_id)
        except UniqueViolationError as error:
            # It may have been resolved since: then nothing but our own trade is left to name.
            rows = await self._database.read(sql.UNRESOLVED_EQUAL, trade_id)
            raise TradeUnresolvedError(rows[0]["trade_id"] if rows else trade_id) from error
        return sending

    async def opened(self, trade_id: TradeId, order: BrokerOrder, *, epoch: int | None) -> Trade:
        """Record that the broker booked the trade, and its settlement too if ``order`` is settled; emits what changed."""
        try:
            async with self._works.on_trade(trade_id, epoch) as (work, trade, run_id):
                return await _settle(work, await _open(work, trade, order, run_id), order, run_id)
        except UniqueViolationError as error:
            raise ContradictionError("Another trade has claimed this order") from error

    async def refused(self, trade_id: TradeId, reason: str, *, epoch: int | None) -> Trade:
        """Move INTENT, SENDING or UNKNOWN to REJECTED on proof that nothing was booked; emits TradeRejected."""
        async with self._works.on_trade(trade_id, epoch) as (work, trade, run_id):
            if trade.state in {TradeState.REJECTED, TradeState.NOT_PLACED}:
                return trade
            rejected = replace(trade, state=TradeState.REJECTED, reason=reason, ambiguous=False)
            await work.move(trade, rejected, run_id)
            work.tell(TradeRejected(rejected))
        return rejected

    async def lost_answer(self, trade_id: TradeId, *, epoch: int | None) -> Trade:
        """Move SENDING to UNKNOWN; emits TradeUnknown. Any other state stays as it is."""
        async with self._works.on_trade(trade_id, epoch) as (work, trade, run_id):
            if trade.state is not TradeState.SENDING:
                return trade
            unknown = replace(trade, state=TradeState.UNKNOWN)
            await work.move(trade, unknown, run_id)
            work.tell(TradeUnknown(unknown))
        return unknown

    async def never_placed(self, trade_id: TradeId, reason: str, *, epoch: int | None) -> Trade:
        """Move INTENT or UNKNOWN to NOT_PLACED on proof of absence; emits TradeRejected. Any other state stays.

        Only a person's finding comes without an epoch.
        """
        async with self._works.on_trade(trade_id, epoch) as (work, trade, run_id):
            if trade.state not in {TradeState.INTENT, TradeState.UNKNOWN}:
                return trade
            absent = replace(trade, state=TradeState.NOT_PLACED, reason=reason, ambiguous=False)
            await work.move(trade, absent, run_id)
            work.tell(TradeRejected(absent))
        return absent

    async def mark_ambiguous(self, trade_id: TradeId, *, epoch: int) -> Trade:
        """Mark an UNKNOWN trade as undecidable; emits FaultHappened once and stops the bot (StatusUpdate)."""
        async with self._works.on_trade(trade_id, epoch) as (work, trade, run_id):
            if trade.state is not TradeState.UNKNOWN or trade.ambiguous:
                return trade
            ambiguous = replace(trade, ambiguous=True)
            await work.move(trade, ambiguous, run_id)
            work.tell(
                FaultHappened(
                    TradeUnresolvedError.reason,
                    f"More than one order at the broker could be trade {trade_id}: look at the broker's own list",
                )
            )
            if work.record.bot_status is not BotStatus.STOPPED:
                work.change(bot_status=BotStatus.STOPPED)
                await work.tell_status()
        return ambiguous

    async def settled(self, key: SessionKey, order: BrokerOrder, *, epoch: int) -> Trade | None:
        """Record a settled order for the trade that claimed it, or that it was placed for; None if it is nobody's here."""
        if order.outcome is None:
            raise ValueError("the order is not settled")
        # The broker's lists tell the same orders again and again: only what changes something is worth the session's lock.
        rows = await self._database.read(sql.TRADES_OF_ORDER, key, order.broker_order_id, order.trade_id)
        if not rows:
            # A trade is in the ledger before its order is sent: it is not one of this session's.
            return None
        known = trade_from_row(_of_order(rows, order))
        if _known_result(known) == _result_of(order):
            return known
        try:
            async with self._works.on_session(key, epoch) as work:
                row = await _row_of_order(work, order)
                if row is None:
                    return None
                trade = await _open(work, trade_from_row(row), order, row["run_id"])
                return await _settle(work, trade, order, row["run_id"])
        except UniqueViolationError as error:
            raise ContradictionError("Another trade has claimed this order") from error

    async def trade(self, key: SessionKey, trade_id: TradeId) -> Trade | None:
        """Return one trade of that session, or None."""
        rows = await self._database.read(sql.TRADE, key, trade_id)
        return trade_from_row(rows[0]) if rows else None

    async def find(self, trade_id: TradeId) -> Trade | None:
        """Return a trade of whichever session, for the operator; no call of a user leads here."""
        rows = await self._database.read(sql.TRADE_BY_ID, trade_id)
        return trade_from_row(rows[0]) if rows else None

    async def trades(
        self, key: SessionKey, *, limit: int, page_token: str = "", status: str | None = None
    ) -> TradePage:
        """List the session's trades, newest first. ``status`` is the contract's word."""
        states = [state.value for state in TradeState] if status is None else _STATES_OF.get(status)
        if states is None:
            raise InvalidArgumentError("status", "not a status of a trade")
        rows = await self._database.read(sql.TRADES_PAGE, key, _page_start(page_token), states, limit + 1)
        trades = tuple(trade_from_row(row) for row in rows[:limit])
        return TradePage(trades, str(rows[limit - 1]["trade_no"]) if len(rows) > limit else "")

    async def unsettled(self, key: SessionKey) -> Sequence[Trade]:
        """List trades that are active, and those NOT_PLACED within a day that an order may still turn up for."""
        rows = await self._database.read(sql.UNSETTLED_TRADES, key, self._clock.now() - LATE_ADOPTION)
        return [trade_from_row(row) for row in rows]

    async def claimed_orders(self, key: SessionKey, broker_order_ids: Sequence[str]) -> frozenset[str]:
        """Say which of these orders of the session's balance belong to a trade already, of whichever session."""
        rows = await self._database.read(sql.CLAIMED_ORDERS, key, list(broker_order_ids))
        return frozenset(row["broker_order_id"] for row in rows)


def _require_money(amount: Decimal) -> None:
    # The last line before the limits: they compare numbers, and NaN is neither above nor below any.
    if not amount.is_finite() or amount <= 0 or amount != _cents(amount):
        raise InvalidArgumentError("amount", "must be over 0 with at most 2 decimals")


def _cents(money: Decimal) -> Decimal:
    """Round money to the cent: once, here, when it enters the ledger."""
    return money.quantize(_CENT, ROUND_HALF_EVEN)


async def _earlier(work: SessionWork, request: TradeRequest) -> Trade | None:
    """Return the trade that has the request's idempotency key already."""
    if request.idempotency_key is None:
        return None
    rows = await work.connection.fetch(
        sql.TRADE_OF_KEY, request.session_key, request.source.value, request.idempotency_key
    )
    if not rows:
        return None
    trade = trade_from_row(rows[0])
    asked = (request.asset, request.instrument_type, request.direction, request.amount, request.duration)
    known = (trade.asset, trade.instrument_type, trade.direction, trade.amount, trade.duration)
    # A bot that is run anew may decide otherwise on the same candle; what it decided first stands.
    if request.source is TradeSource.MANUAL and (asked != known or request.min_payout != trade.min_payout):
        raise RequestIdReusedError
    return trade


async def _insert(work: SessionWork, request: TradeRequest, trade_id: TradeId) -> Trade:
    account = work.record.account
    rows = await work.connection.fetch(
        sql.INSERT_TRADE,
        trade_id,
        request.session_key,
        request.source.value,
        request.idempotency_key,
        request.run_id,
        work.record.broker.value,
        account.account_type.value,
        account.balance_id,
        request.asset,
        request.instrument_type.value,
        request.direction.value,
        request.amount,
        account.currency,
        request.duration // timedelta(seconds=1),
        request.min_payout,
        request.model,
        request.model_version,
        request.model_sha256,
        work.now,
    )
    return trade_from_row(rows[0])


async def _row_of_order(work: SessionWork, order: BrokerOrder) -> Row | None:
    """Find the trade that claimed the order, else the one it was placed for."""
    account = work.record.account
    if order.balance_id != account.balance_id or order.account_type is not account.account_type:
        return None
    rows = await work.connection.fetch(
        sql.TRADES_OF_ORDER, work.record.session_key, order.broker_order_id, order.trade_id
    )
    return _of_order(rows, order) if rows else None


def _of_order(rows: Sequence[Row], order: BrokerOrder) -> Row:
    return min(rows, key=lambda row: row["broker_order_id"] != order.broker_order_id)


def _known_result(trade: Trade) -> tuple[object, ...]:
    return trade.balance_id, trade.broker_order_id, trade.state, trade.profit


def _result_of(order: BrokerOrder) -> tuple[object, ...]:
    """Return what a trade that has recorded the order's result says of it."""
    return order.balance_id, order.broker_order_id, order.outcome, _cents(order.profit)


async def _open(work: SessionWork, trade: Trade, order: BrokerOrder, run_id: str | None) -> Trade:
    """Move a trade to OPEN with the broker's order, unless it is there already."""
    account = work.record.account
    if order.balance_id != trade.balance_id or order.account_type is not account.account_type:
        raise ContradictionError("The order belongs to another balance")
    if trade.broker_order_id:
        if trade.broker_order_id != order.broker_order_id:
            raise ContradictionError("The trade has another order already")
        return trade
    if trade.state is TradeState.NOT_PLACED:
        _log.error("trade_adopted_late", session_key=trade.session_key, trade_id=trade.trade_id)
    booked = replace(
        trade,
        state=TradeState.OPEN,
        ambiguous=False,
        reason="",
        broker_order_id=order.broker_order_id,
        payout_rate=order.payout_rate,
        entry_price=order.open_price,
        open_time=order.open_time,
        expiry_time=order.expiry_time,
    )
    await work.move(trade, booked, run_id)
    work.tell(TradeOpened(booked))
    return booked


async def _settle(work: SessionWork, trade: Trade, order: BrokerOrder, run_id: str | None) -> Trade:
    """Move an OPEN trade to its result, if the order has one and the trade has not."""
    if order.outcome is None:
        return trade
    if trade.state in SETTLED:
        if _known_result(trade) != _result_of(order):
            _log.error("broker_changed_a_result", session_key=trade.session_key, trade_id=trade.trade_id)
        return trade
    closed = replace(
        trade,
        state=order.outcome,
        profit=_cents(order.profit),
        close_price=order.close_price,
        # Some broker lists leave it out: then it is when we learnt it.
        close_time=order.close_time or work.now,
    )
    await work.move(trade, closed, run_id)
    work.tell(TradeClosed(closed))
    return closed


def _page_start(page_token: str) -> int:
    if not page_token:
        return _NEWEST
    # 18 digits always fit into a bigint.
    if not (page_token.isascii() and page_token.isdecimal() and len(page_token) <= 18):
        raise InvalidArgumentError("page_token", "not one of ours")
    return int(page_token)
