"""What the fault kinds share: the world they strike, what they measure, and the moments they wait for."""

import asyncio
import logging
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from local.probes import postgres_query
from local.witness import Simulator
from tests.faults.programme.order_wire import SeenOrder
from tests.faults.programme.world import LEASE, REPLICAS, World
from tests.support.eventually import eventually

_log = logging.getLogger(__name__)

MOMENT: Final = 30.0
"""Seconds to wait for a moment that only the users' own trading brings."""
TAKEOVER_BOUND: Final = LEASE + 2.0
CUT_OFF_BOUND: Final = 2 * LEASE + 4.0
"""A replica stands back when it has not looked for the time-to-live, and another one has for as long."""
_TAKEOVER_GIVEN_UP: Final = 30.0
_SENDING: Final = """
    SELECT trade_id FROM trades WHERE state = 'sending' AND balance_id = $1 AND direction = $2 AND amount = $3
"""


class MissedError(Exception):
    """The moment to strike at did not come; nothing was done."""


@dataclass(slots=True)
class Takeover:
    """How long the sessions of a replica that fell silent were without a runner."""

    kind: str
    sessions: int
    seconds: float
    """From the signal until the last of them had a new one."""


@dataclass(slots=True)
class Scene:
    """One run's stage."""

    world: World
    simulator: Simulator
    chance: random.Random
    takeovers: list[Takeover] = field(default_factory=list)
    """From replicas that were killed or frozen."""
    handovers: list[Takeover] = field(default_factory=list)
    """From replicas that were told to end: they bring their orders under way to an end first."""
    cut_offs: list[Takeover] = field(default_factory=list)
    """From replicas that alone could not reach PostgreSQL: they live, and stand back."""
    stood_down: int = 0
    """Sessions that woken replicas held and let go of."""
    notes: list[str] = field(default_factory=list)
    """What went against the rules while a fault was on."""
    ledger_engines: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever measures a takeover and by whoever breaks PostgreSQL or Valkey: the one would spoil the other."""

    def busiest(self) -> str:
        """Return the replica that runs most sessions."""
        holders = list(self.world.observer.holders().values())
        return max(REPLICAS, key=holders.count)

    def either(self) -> str:
        """Return any replica."""
        return self.chance.choice(REPLICAS)

    async def down(self, name: str, number: signal.Signals) -> None:
        """End a process by a signal and wait until the next one answers."""
        deaths = self.world.progress.deaths.get(name, 0)
        self.world.send(name, number)
        await self.world.back(name, deaths)

    async def taken_over(self, kind: str, replica: str, since: float, measured: list[Takeover]) -> None:
        """Wait until every session that a replica held at the loop time ``since`` has a new runner; note how long it took."""
        observer = self.world.observer
        held = {key: name for time, name, key in observer.epochs if time <= since}
        orphans = {key for key, name in held.items() if name == replica}
        if not orphans:
            return

        async def all_taken() -> float | None:
            first: dict[str, float] = {}
            for time, _, key in observer.epochs:
                if time > since and key in orphans:
                    first.setdefault(key, time)
            return max(first.values()) if len(first) == len(orphans) else None

        try:
            last = await eventually(all_taken, within=_TAKEOVER_GIVEN_UP, every=0.05)
        except AssertionError:
            self.notes.append(f"{kind}: sessions without a runner {_TAKEOVER_GIVEN_UP:.0f} s later")
            return
        assert last is not None
        measured.append(Takeover(kind, len(orphans), last - since))
        _log.info("%s: %d sessions taken over within %.1f s", kind, len(orphans), last - since)

    async def sender_of(self, order: SeenOrder) -> str | None:
        """Return the replica that sends an order seen on the wire; None if the ledger cannot tell now."""
        try:
            connection = await asyncpg.connect(self.world.addresses["postgres"], timeout=2)
            try:
                trade_id = await connection.fetchval(
                    _SENDING, order.balance_id, order.direction, order.amount, timeout=2
                )
            finally:
                await connection.close(timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None
        return self.world.observer.sender.get(str(trade_id))

    async def ledger_answers(self) -> None:
        """Wait until PostgreSQL answers again."""
        await self.world.ready("postgres")
        probe = postgres_query(self.world.addresses["postgres"])

        async def answers() -> bool:
            try:
                await probe()
            except Exception:  # noqa: BLE001  # whatever it raises means "not yet"
                return False
            return True

        await eventually(answers, within=40, every=0.1)

    async def moment(self, struck: "asyncio.Future[Any]", disarm: Callable[[], None]) -> Any:
        """Wait for a strike to find its moment.

        Raises:
            MissedError: It did not.
        """
        try:
            return await asyncio.wait_for(struck, MOMENT)
        except TimeoutError:
            raise MissedError from None
        finally:
            disarm()

    def now(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()
