"""The shadow decisions of one bot run: priced at the next tick, followed to their expiry, counted in the ledger."""

from collections.abc import Sequence
from datetime import datetime

from services.runtime.clock import Clock
from services.session.domain.bot import BotSettings
from services.session.domain.events import SignalMade
from services.session.domain.shadow import GateKey, GateRecord, Shadow, ShadowState
from services.session.domain.values import Candle, Direction
from services.session.ports import Decision, Ledger, SessionRecord


class ShadowBook:
    """Feeds a run's prices to its shadow decisions.

    Decisions are entered at the first price after them and end with the close of the candle at their expiry. One whose
    entry or exit price was not seen is void: nothing is guessed. All of it is in the ledger, so that whoever takes the
    session over resolves from the candles what its predecessor left.

    Args:
        record: The session.
        settings: The run's terms.
        ledger: The authority.
        clock: Time.
        patience: Seconds after a candle's close in which its decision's entry price has to come.
    """

    def __init__(
        self, record: SessionRecord, settings: BotSettings, ledger: Ledger, clock: Clock, patience: float
    ) -> None:
        self._key = record.session_key
        self._epoch = record.epoch
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self._patience = patience
        self._pending: list[Shadow] = []
        self._gates: dict[str, GateRecord] = {}
        self._version = ""

    async def open(self, history: Sequence[Candle]) -> None:
        """Take up what is pending, before the first candle; resolves what ended in between from the closed candles."""
        self._gates.clear()
        self._version = ""
        self._pending = list(await self._ledger.pending_shadows(self._key, self._gate_key("")))
        if history:
            await self._resolve_until(history[-1], {candle.close_time: candle.close for candle in history})

    async def gate(self, version: str) -> GateRecord:
        """Return the gate of the model's version that decides now."""
        if version != self._version or version not in self._gates:
            used = await self._ledger.use_gate(self._key, self._gate_key(version), epoch=self._epoch)
            self._gates[version], self._version = used, version
        return self._gates[version]

    def shadow(self, candle: Candle, decision: Decision, payout_rate: float | None) -> Shadow | None:
        """Return what is to be followed of a decision; None if it is no bet, or nothing was on offer."""
        if decision.action == "HOLD" or payout_rate is None or not 0.0 < payout_rate <= 10.0:
            return None
        direction = Direction.CALL if decision.action == "CALL" else Direction.PUT
        return Shadow(self._gate_key(decision.model_version), candle.close_time, direction, payout_rate)

    async def tell(self, signal: SignalMade, shadow: Shadow) -> None:
        """Emit a signal and follow its decision."""
        state = await self._ledger.tell_signal(self._key, signal, shadow, epoch=self._epoch)
        if state is ShadowState.PENDING:
            self._pending.append(shadow)

    async def tick(self, candle: Candle) -> None:
        """Take a price of the candle in progress: decisions before it are entered at it, if it is not too late."""
        for shadow in [shadow for shadow in self._pending if shadow.entry_price is None]:
            if candle.open_time < shadow.close_time:
                continue
            self._pending.remove(shadow)
            if (self._clock.now() - shadow.close_time).total_seconds() > self._patience:
                await self._resolve(shadow, None)
                continue
            await self._ledger.enter_shadow(self._key, shadow, candle.close, epoch=self._epoch)
            self._pending.append(
                Shadow(shadow.key, shadow.close_time, shadow.direction, shadow.payout_rate, candle.close)
            )

    async def close(self, candle: Candle) -> None:
        """Take a closed candle: the decisions that expire with it are resolved by its close."""
        await self._resolve_until(candle, {candle.close_time: candle.close})

    async def _resolve_until(self, last: Candle, closes: dict[datetime, float]) -> None:
        for shadow in [shadow for shadow in self._pending if shadow.expiry_time <= last.close_time]:
            self._pending.remove(shadow)
            await self._resolve(shadow, closes.get(shadow.expiry_time))

    async def _resolve(self, shadow: Shadow, exit_price: float | None) -> None:
        record = await self._ledger.resolve_shadow(self._key, shadow, exit_price, epoch=self._epoch)
        if shadow.key.model_version in self._gates:
            self._gates[shadow.key.model_version] = record

    def _gate_key(self, version: str) -> GateKey:
        settings = self._settings
        return GateKey(settings.model, version, settings.asset, settings.timeframe, settings.duration)
