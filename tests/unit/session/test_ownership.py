"""Who runs a session: what becomes of runners whose replica has lost its leases."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from services.runtime import cancelling
from services.session.domain.errors import UnavailableError
from services.session.domain.values import SessionKey
from services.session.use_cases.ownership import Ownership
from services.session.use_cases.runner import SessionRunner
from services.session.use_cases.sharing import FairShare
from tests.support.clocks import ManualClock
from tests.support.fake_ledger import FakeLedger
from tests.support.fakes import FakeLeases, FakeSignals
from tests.support.session_world import settle

KEY = SessionKey("one")


class FailsAtItsEnd:
    """A runner whose last write fails while it is being ended: its task group raises that, not the cancellation."""

    runs = 0

    async def run(self) -> None:
        self.runs += 1
        try:
            await asyncio.Event().wait()
        finally:
            raise UnavailableError("The ledger")

    def tick(self, now: float) -> None:
        pass


async def test_a_runner_that_fails_while_it_is_ended_does_not_begin_anew_without_a_lease() -> None:
    clock, runner = ManualClock(), FailsAtItsEnd()
    leases = FakeLeases(clock)
    ownership = an_ownership(clock, leases, runner)
    running = asyncio.create_task(ownership.run())
    try:
        await ownership.claim(KEY)
        await settle()
        assert (len(ownership), runner.runs) == (1, 1)
        leases.elsewhere.add(KEY)
        leases.until = clock.monotonic()
        await clock.advance(10.0)
        assert (len(ownership), runner.runs) == (0, 1)
        # The round that ends what is lost comes round again: others' runners are ticked on.
        leases.until = float("inf")
        leases.elsewhere.clear()
        await ownership.claim(KEY)
        leases.elsewhere.add(KEY)
        leases.until = clock.monotonic()
        await clock.advance(10.0)
        assert (len(ownership), runner.runs) == (0, 2)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Runs:
    """A runner that runs until it is ended."""

    async def run(self) -> None:
        await asyncio.Event().wait()

    def tick(self, now: float) -> None:
        pass


async def test_a_replica_that_is_left_behind_lets_everything_go_until_it_is_not() -> None:
    clock = ManualClock()
    leases = FakeLeases(clock)
    ownership = an_ownership(clock, leases, Runs())
    running = asyncio.create_task(ownership.run())
    try:
        await ownership.claim(KEY)
        await clock.advance(10.0)
        await settle()
        assert (len(ownership), ownership.is_cut_off, leases.held) == (1, False, {KEY})
        leases.behind = True
        await clock.advance(3.0)
        await settle()
        assert (len(ownership), ownership.is_cut_off, leases.held) == (0, True, set())
        leases.behind = False
        await clock.advance(3.0)
        await settle()
        assert not ownership.is_cut_off
        await ownership.claim(KEY)
        assert len(ownership) == 1
    finally:
        await ownership.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def an_ownership(clock: ManualClock, leases: FakeLeases, runner: object) -> Ownership:
    def new_runner(key: SessionKey, may_send: Callable[[], bool]) -> SessionRunner:
        return cast("SessionRunner", runner)

    return Ownership(
        ledger=FakeLedger(clock),
        leases=leases,
        signals=FakeSignals(),
        clock=clock,
        new_runner=new_runner,
        share=FairShare(15.0),
        jitter=lambda: 0.5,
        scan_interval=1.0,
        scan_limit=10,
    )


class LosesItsFirstCancellation:
    """A runner under which a library drops a cancellation, as redis-py's writing may before Python 3.12."""

    cancellations = 0

    async def run(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancellations += 1
                if self.cancellations > 1:
                    raise

    def tick(self, now: float) -> None:
        pass


async def test_a_runner_that_loses_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "_PATIENCE", 0.05)
    clock, runner = ManualClock(), LosesItsFirstCancellation()
    ownership = an_ownership(clock, FakeLeases(clock), runner)
    await ownership.claim(KEY)
    await settle()
    async with asyncio.timeout(5):
        await ownership.stop()
    assert (len(ownership), runner.cancellations) == (0, 2)
