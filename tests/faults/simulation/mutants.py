"""Protocols that are wrong on purpose: a checker that does not catch every one of them proves nothing."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from unittest.mock import patch

from redis.exceptions import ConnectionError as RedisConnectionError

from services.session.adapters.leases import RedisLeases
from services.session.adapters.ledger.trades import LedgerTrades
from services.session.adapters.ledger.work import SessionWork, Works
from services.session.domain import reconciliation, tally
from services.session.domain.bot import ServiceLimits
from services.session.domain.errors import LimitReachedError, UnavailableError
from services.session.domain.shadow import GateRecord
from services.session.domain.trade import ACTIVE, Trade, TradeRequest, TradeState
from services.session.domain.values import SessionKey, TradeId, TradeSource
from services.session.ports import AnswerLost, Placed
from services.session.use_cases.ownership import Ownership
from tests.faults.simulation.ledger import Inner
from tests.faults.simulation.platform import SimPlatform

Mutant = Callable[[Inner], None]


def resend(inner: Inner) -> None:
    """Send again when the answer is lost."""
    place = SimPlatform.place

    async def stubborn(self: SimPlatform, trade: Trade) -> Placed | AnswerLost:
        answer: Placed | AnswerLost = AnswerLost()
        for _ in range(3):
            answer = await place(self, trade)
            if isinstance(answer, Placed):
                break
        return answer

    _replace(SimPlatform, "place", stubborn)


def mark_after_sending(inner: Inner) -> None:
    """Write SENDING only when there is an answer."""
    begin_send = LedgerTrades.begin_send
    pending: dict[TradeId, datetime] = {}

    async def remember(self: Any, trade_id: TradeId, send_before: datetime, *, epoch: int | None) -> Trade:
        async with self._works.on_trade(trade_id, epoch) as (work, trade, _):
            pending[trade_id] = send_before
            marked: Trade = replace(trade, state=TradeState.SENDING, send_time=work.now, send_before=send_before)
            return marked

    def first_marked(move: Any) -> Any:
        async def moved(self: Any, trade_id: TradeId, *arguments: Any, **options: Any) -> Trade:
            if trade_id in pending:
                await begin_send(self, trade_id, pending.pop(trade_id), epoch=None)
            after: Trade = await move(self, trade_id, *arguments, **options)
            return after

        return moved

    _replace(LedgerTrades, "begin_send", remember)
    for name in ("opened", "refused", "lost_answer"):
        _replace(LedgerTrades, name, first_marked(getattr(LedgerTrades, name)))


def reject_on_timeout(inner: Inner) -> None:
    """Take a lost answer for a refusal."""

    async def refuse(self: LedgerTrades, trade_id: TradeId, *, epoch: int | None) -> Trade:
        return await self.refused(trade_id, "TIMEOUT", epoch=epoch)

    _replace(LedgerTrades, "lost_answer", refuse)


def no_deadline_wait(inner: Inner) -> None:
    """Conclude absence from two empty lists, whenever they are read."""
    _replace(reconciliation, "latest_acceptance", lambda trade: trade.send_time + timedelta(seconds=30))
    _replace(reconciliation, "_CERTAIN", timedelta())


def short_blitz_fence(inner: Inner) -> None:
    """Believe that a blitz order is refused when its request is 10 s late."""
    _replace(reconciliation, "REQUEST_LIFETIME", timedelta(seconds=10))
    _replace(reconciliation, "_CERTAIN", timedelta())


def no_fingerprint(inner: Inner) -> None:
    """Let equal orders be unresolved at the same time, told apart by nothing but a window of time."""
    inner.rows("DROP INDEX trades_fingerprint")


def no_claim(inner: Inner) -> None:
    """Let an order belong to any number of trades."""
    inner.rows("DROP INDEX trades_claim")

    async def nothing(self: Any, key: SessionKey, broker_order_ids: Sequence[str]) -> frozenset[str]:
        return frozenset()

    _replace(LedgerTrades, "claimed_orders", nothing)
    no_fingerprint(inner)


def random_bot_key(inner: Inner) -> None:
    """Give every decision of a bot a key of its own."""
    reserve = LedgerTrades.reserve

    async def salted(
        self: LedgerTrades, request: TradeRequest, trade_id: TradeId, limits: ServiceLimits, *, epoch: int | None
    ) -> tuple[Trade, bool]:
        if request.source is TradeSource.BOT:
            request = replace(request, idempotency_key=f"{request.idempotency_key}:{uuid.uuid4()}")
        return await reserve(self, request, trade_id, limits, epoch=epoch)

    _replace(LedgerTrades, "reserve", salted)


def no_epoch(inner: Inner) -> None:
    """Let whoever believes to run a session write for it."""
    on = Works._on

    def unchecked(self: Works, lock: str, name: str, missing: Exception, epoch: int | None) -> Any:
        return on(self, lock, name, missing, None)

    _replace(Works, "_on", unchecked)
    _replace(Ownership, "_may_send", lambda self, incarnation: True)


def ignore_ambiguous_commit(inner: Inner) -> None:
    """Send although it is not known whether SENDING was written."""
    begin_send = LedgerTrades.begin_send

    async def hopeful(self: LedgerTrades, trade_id: TradeId, send_before: datetime, *, epoch: int | None) -> Trade:
        try:
            return await begin_send(self, trade_id, send_before, epoch=epoch)
        except UnavailableError:
            while True:
                try:
                    async with self._works.on_trade(trade_id, None) as (_, trade, _run):
                        return replace(trade, send_before=send_before)
                except UnavailableError:
                    continue

    _replace(LedgerTrades, "begin_send", hopeful)


def limits_outside_the_lock(inner: Inner) -> None:
    """Check the limits first and reserve afterwards."""
    reserve = LedgerTrades.reserve

    async def early(
        self: Any, request: TradeRequest, trade_id: TradeId, limits: ServiceLimits, *, epoch: int | None
    ) -> tuple[Trade, bool]:
        status = await self.status(request.session_key)
        if status is not None and status.usage.open_trades >= limits.max_open_trades:
            raise LimitReachedError("max_open_trades", limits.max_open_trades, status.usage.open_trades)
        return await reserve(self, request, trade_id, ServiceLimits(max_open_trades=10**6), epoch=epoch)

    _replace(LedgerTrades, "reserve", early)


def unknown_is_no_exposure(inner: Inner) -> None:
    """Forget the stake of a trade whose answer was lost."""
    _replace(tally, "ACTIVE", ACTIVE - {TradeState.UNKNOWN})


def leave_own_leases(inner: Inner) -> None:
    """Take a lease of one's own for somebody else's: what seed 63 found in the first version."""
    unheld = RedisLeases.unheld

    async def strict(self: Any, keys: Sequence[SessionKey]) -> Sequence[SessionKey]:
        free = await unheld(self, keys)
        try:
            holders = await self._redis.mget([f"lease:{key}" for key in free]) if free else []
        except RedisConnectionError as error:
            raise UnavailableError("The live state") from error
        mine = self._incarnation.encode()
        return [key for key, holder in zip(free, holders, strict=True) if holder != mine]

    _replace(RedisLeases, "unheld", strict)


def events_outside_the_transaction(inner: Inner) -> None:
    """Number events without the row's lock: the seq that a failed transaction took is gone."""
    tell = SessionWork.tell
    highest: dict[SessionKey, int] = {}

    def numbered(self: SessionWork, event: Any) -> None:
        key = self.record.session_key
        if self.record.last_seq < highest.get(key, 0) and self.record.last_seq > 0:
            self.change(last_seq=highest[key])
        tell(self, event)
        highest[key] = self.record.last_seq

    _replace(SessionWork, "tell", numbered)


def ignore_the_gate(inner: Inner) -> None:
    """Let every signal become an order."""
    _replace(GateRecord, "lets_through", lambda self, mode: True)


MUTANTS: Final[dict[str, Mutant]] = {
    mutant.__name__: mutant
    for mutant in (
        resend,
        mark_after_sending,
        reject_on_timeout,
        no_deadline_wait,
        short_blitz_fence,
        no_fingerprint,
        no_claim,
        random_bot_key,
        no_epoch,
        ignore_ambiguous_commit,
        limits_outside_the_lock,
        unknown_is_no_exposure,
        leave_own_leases,
        events_outside_the_transaction,
        ignore_the_gate,
    )
}
"""By name. Each changes the process it is applied in for good."""


def _replace(owner: object, name: str, value: object) -> None:
    patch.object(owner, name, value).start()
