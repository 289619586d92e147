"""Pruning: it goes on whatever fails, until it is told to end."""

import asyncio
from datetime import datetime, timedelta
from typing import cast

from services.session.domain.errors import UnavailableError
from services.session.ports import Ledger
from services.session.use_cases.retention import keep_pruning
from tests.support.clocks import ManualClock
from tests.support.session_world import settle


class Failing:
    """A ledger whose failures also swallow a cancellation, as the driver's may."""

    def __init__(self) -> None:
        self.asked = 0

    async def prune_events(self, before: datetime) -> int:
        self.asked += 1
        try:
            if self.asked > 1:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        raise UnavailableError("The ledger")


async def test_pruning_outlives_a_failure_and_ends_when_it_is_told_to_during_one() -> None:
    clock, ledger = ManualClock(), Failing()
    pruning = asyncio.create_task(keep_pruning(cast("Ledger", ledger), clock, timedelta(days=7)))
    await settle()
    for asked in (1, 2):
        await clock.advance(3600)
        await settle()
        assert ledger.asked == asked
    pruning.cancel()
    await settle()
    assert pruning.cancelled()
