"""Which sessions this process runs: takes new and orphaned ones, keeps their runners going, gives them up."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

import structlog

from services.runtime.cancelling import end_all, end_if_cancelled
from services.runtime.clock import Clock
from services.runtime.errors import ServiceError
from services.session.domain.values import SessionKey
from services.session.ports import Leases, Ledger, Signals
from services.session.use_cases.runner import SessionRunner
from services.session.use_cases.sharing import FairShare

_log = structlog.get_logger(__name__)

_TICK: Final = 1.0
"""Seconds between two looks at what is due, for all runners together."""
_AT_ONCE: Final = 50
"""Sessions taken at the same time: a replica that takes over thousands must not starve its own calls."""
_RESTARTS: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
"""Seconds before a runner that failed is started anew; the last one repeats."""
_HEALTHY: Final = 60.0
"""Seconds after which a runner's earlier failures are forgotten."""
_RETRY: Final = 1.0


@dataclass(slots=True)
class _Held:
    """A session that runs here."""

    runner: SessionRunner
    incarnation: str
    """Of this replica when it took the lease."""
    task: asyncio.Task[None]


class Ownership:
    """Runs every session whose lease this process holds, as long as it holds it.

    The lease is only about liveness. Two processes that both believe to hold it are kept apart by the epoch that each
    runner begins in the ledger.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        leases: Leases,
        signals: Signals,
        clock: Clock,
        new_runner: Callable[[SessionKey, Callable[[], bool]], SessionRunner],
        share: FairShare,
        jitter: Callable[[], float],
        scan_interval: float,
        scan_limit: int,
    ) -> None:
        self._ledger = ledger
        self._leases = leases
        self._signals = signals
        self._clock = clock
        self._new_runner = new_runner
        self._share = share
        self._jitter = jitter
        self._scan_interval = scan_interval
        self._scan_limit = scan_limit
        self._held: dict[SessionKey, _Held] = {}
        self._stopping = False
        self._cut_off = False

    def __len__(self) -> int:
        """Return how many sessions run here."""
        return len(self._held)

    @property
    def is_cut_off(self) -> bool:
        """Whether this replica cannot reach the ledger while another one can: whoever calls should call that one."""
        return self._cut_off

    async def run(self) -> None:
        """Take and run sessions until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leases.run())
            tasks.create_task(self._scan())
            tasks.create_task(self._listen())
            tasks.create_task(self._tick())
            tasks.create_task(self._stand_back())

    async def claim(self, key: SessionKey) -> None:
        """Run a session here if nobody living does. A failure costs time only: the scan takes it later."""
        if self._stopping or key in self._held:
            return
        try:
            acquired = await self._leases.acquire(key)
        except ServiceError as error:
            _log.info("session_not_claimed", session=key[:8], reason=error.reason)
            return
        if not acquired or self._stopping or key in self._held:
            return
        incarnation = self._leases.incarnation
        runner = self._new_runner(key, lambda: self._may_send(incarnation))
        task = asyncio.create_task(self._keep_running(key))
        self._held[key] = _Held(runner, incarnation, task)
        task.add_done_callback(lambda _: self._held.pop(key))

    async def stop(self) -> None:
        """End every runner where it stands; the leases stay held until ``release``."""
        self._stopping = True
        await end_all([held.task for held in self._held.values()])

    async def release(self) -> None:
        """Give up all leases for good, so that other replicas can take over at once."""
        await self._leases.resign()

    def _may_send(self, incarnation: str) -> bool:
        return incarnation == self._leases.incarnation and self._clock.monotonic() < self._leases.held_until()

    async def _release(self, key: SessionKey) -> None:
        with suppress(ServiceError):
            await self._leases.release(key)

    async def _keep_running(self, key: SessionKey) -> None:
        """Run a session to its end, starting its runner anew if it fails."""
        attempt = 0
        held = self._held[key]
        while True:
            started = self._clock.monotonic()
            try:
                await held.runner.run()
                break
            except Exception as error:  # noqa: BLE001 - a runner is crash-only: the next one starts from the ledger
                _log_failure(key, error)
                # No next one if it failed just as it was ended: the lease may be another's by now.
                end_if_cancelled(error)
            attempt = 0 if self._clock.monotonic() - started > _HEALTHY else attempt
            await self._clock.sleep(_RESTARTS[min(attempt, len(_RESTARTS) - 1)] * (0.5 + self._jitter()))
            attempt += 1
            held.runner = self._new_runner(key, lambda: self._may_send(held.incarnation))
        # Closed, or another process runs it: in both cases nothing of it is ours any more.
        await self._release(key)

    async def _scan(self) -> None:
        while not self._stopping:
            try:
                await self._look_round()
            except ServiceError as error:
                _log.warning("scan_failed", reason=error.reason)
            await self._clock.sleep(self._scan_interval)

    async def _look_round(self) -> None:
        """Take what nobody runs, and give away what is more than this replica's share."""
        keys = await self._ledger.sessions_to_run(self._scan_limit)
        now = self._clock.monotonic()
        try:
            self._share.see(now, await self._leases.looked())
        except ServiceError as error:
            # Only a hint. What nobody runs is taken up by the view of the last look.
            _log.info("replicas_not_seen", reason=error.reason)
        free = await self._leases.unheld([key for key in keys if key not in self._held])
        taken = self._share.to_take(now, free, held=len(self._held), total=len(keys))
        for start in range(0, len(taken), _AT_ONCE):
            await asyncio.gather(*(self.claim(key) for key in taken[start : start + _AT_ONCE]))
        count = self._share.to_give(now, held=len(self._held), total=len(keys))
        if count and not self._stopping:
            moving = list(islice((item for item in self._held.items() if item[1].runner.may_move), count))
            if moving:
                _log.info("sessions_given_away", sessions=len(moving))
            await asyncio.gather(*(self._give_away(key, held) for key, held in moving))

    async def _give_away(self, key: SessionKey, held: _Held) -> None:
        await end_all([held.task])
        await self._release(key)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._signals.woken() as keys:
                    async for key in keys:
                        if held := self._held.get(key):
                            held.runner.wake()
            except ServiceError as error:
                _log.warning("signals_cut", reason=error.reason)
            await self._clock.sleep(_RETRY)

    async def _stand_back(self) -> None:
        """Let everything go while this replica alone cannot look: it has its leases and can run nothing, another one can.

        While nobody reaches the ledger all stays where it is. Not a part of the look, which may hang for as long as the
        ledger is silent.
        """
        while not self._stopping:
            with suppress(ServiceError):
                left_behind = await self._leases.left_behind()
                if left_behind and not self._cut_off and not self._stopping:
                    _log.warning("cut_off_from_ledger", sessions=len(self._held))
                    # Their runners end at the next tick, as those of leases that lapsed.
                    await self._leases.let_go()
                if self._cut_off and not left_behind:
                    _log.info("cut_off_no_more")
                self._cut_off = left_behind
            await self._clock.sleep(_TICK)

    async def _tick(self) -> None:
        while True:
            now = self._clock.monotonic()
            lost = [held for held in self._held.values() if not self._may_send(held.incarnation)]
            if lost:
                # Others may run these sessions by now. Nothing is touched, not even the leases.
                _log.warning("leases_lapsed", sessions=len(lost))
                await end_all([held.task for held in lost])
            for held in self._held.values():
                held.runner.tick(now)
            await self._clock.sleep(_TICK)


def _log_failure(key: SessionKey, error: Exception) -> None:
    """Log why a runner ended: in a word if a part of the system is away, whole if nobody thought of it."""
    known, unknown = ExceptionGroup("runner", [error]).split(ServiceError)
    if unknown is None:
        reasons = sorted({leaf.reason for leaf in _leaves(known) if isinstance(leaf, ServiceError)})
        _log.warning("runner_interrupted", session=key[:8], reasons=reasons)
    else:
        _log.error("runner_failed", session=key[:8], exc_info=error)


def _leaves(error: BaseException | None) -> Iterable[BaseException | None]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
