"""The ledger's evidence: shadow decisions, each counted once, and the gates that they open."""

from collections.abc import Sequence

from services.session.adapters.ledger import sql
from services.session.adapters.ledger.database import Database, Row
from services.session.adapters.ledger.rows import gate_from_row, gate_key_from_row
from services.session.adapters.ledger.work import SessionWork, Works
from services.session.domain.events import SignalMade
from services.session.domain.shadow import GateKey, GateRecord, Shadow, ShadowState, gate_told, resolve
from services.session.domain.values import Direction, SessionKey


class LedgerGates:
    """The part of the ``Ledger`` port that is about evidence."""

    def __init__(self, database: Database, works: Works) -> None:
        self._database = database
        self._works = works

    async def use_gate(self, key: SessionKey, gate: GateKey, *, epoch: int) -> GateRecord:
        """Return a gate, a new one if there is none; from now on it is the one that the status shows."""
        async with self._works.on_session(key, epoch) as work:
            before = await work.connection.fetch(sql.GATE_IN_USE, key, *_terms(gate)[:4])
            used = gate_from_row((await work.connection.fetch(sql.USE_GATE, key, *_terms(gate), work.now))[0])
            if before and gate_from_row(before[0]).gate.opened is not used.gate.opened:
                # Another version has taken over: what was shown for the old one is no evidence for it.
                work.tell(gate_told(used))
        return used

    async def pending_shadows(self, key: SessionKey, gate: GateKey) -> Sequence[Shadow]:
        """List the decisions of all versions on the gate's terms that are not resolved, oldest first."""
        rows = await self._database.read(sql.PENDING_SHADOWS, key, *_terms(gate)[:4])
        return [_shadow_from_row(row) for row in rows]

    async def tell_signal(
        self, key: SessionKey, signal: SignalMade, shadow: Shadow, *, epoch: int
    ) -> ShadowState | None:
        """Emit a signal and record its decision; None if the model's decision on that candle is known already."""
        async with self._works.on_session(key, epoch) as work:
            if not work.active:
                return None
            work.tell(signal)
            rows = await work.connection.fetch(
                sql.INSERT_SHADOW,
                key,
                *_terms(shadow.key),
                shadow.close_time,
                shadow.expiry_time,
                shadow.direction.value,
                shadow.payout_rate,
            )
        return ShadowState(rows[0]["state"]) if rows else None

    async def enter_shadow(self, key: SessionKey, shadow: Shadow, price: float, *, epoch: int) -> None:
        """Record the price a decision is entered at, unless it has one."""
        async with self._works.on_session(key, epoch) as work:
            await work.connection.fetch(sql.ENTER_SHADOW, key, shadow.key.model, shadow.close_time, price)

    async def resolve_shadow(
        self, key: SessionKey, shadow: Shadow, exit_price: float | None, *, epoch: int
    ) -> GateRecord:
        """Count a decision for its gate, once; emits LogWritten and StatusUpdate if that opened or closed the gate."""
        async with self._works.on_session(key, epoch) as work:
            record = await _gate(work, key, shadow.key)
            rows = await work.connection.fetch(sql.LOCK_SHADOW, key, shadow.key.model, shadow.close_time)
            if not rows:
                return record
            state, record, told = resolve(record, _shadow_from_row(rows[0]), exit_price)
            await work.connection.fetch(
                sql.RESOLVE_SHADOW, key, shadow.key.model, shadow.close_time, state.value, exit_price
            )
            gate = record.gate
            await work.connection.fetch(
                sql.STORE_GATE,
                key,
                *_terms(shadow.key),
                gate.hits,
                gate.decided,
                gate.ties,
                record.voided,
                gate.payout_sum,
                gate.wealth,
                gate.opened,
            )
            if told is not None:
                work.tell(told)
                await work.tell_status()
        return record


def _terms(key: GateKey) -> tuple[str, str, int, int, str]:
    return key.model, key.asset, key.timeframe, int(key.duration.total_seconds()), key.model_version


async def _gate(work: SessionWork, key: SessionKey, gate: GateKey) -> GateRecord:
    # A shadow decision refers to its gate, so there is one.
    return gate_from_row((await work.connection.fetch(sql.GATE, key, *_terms(gate)))[0])


def _shadow_from_row(row: Row) -> Shadow:
    return Shadow(
        key=gate_key_from_row(row),
        close_time=row["close_time"],
        direction=Direction(row["direction"]),
        payout_rate=row["payout_rate"],
        entry_price=row["entry_price"],
    )
