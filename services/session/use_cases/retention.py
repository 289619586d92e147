"""Removes what nobody can ask for any more: the events of sessions that closed long ago."""

from datetime import timedelta
from typing import Final

import structlog

from services.runtime.cancelling import end_if_cancelled
from services.runtime.clock import Clock
from services.runtime.errors import ServiceError
from services.session.ports import Ledger

_log = structlog.get_logger(__name__)

_EVERY: Final = 3600.0
"""Seconds."""


async def keep_pruning(ledger: Ledger, clock: Clock, retention: timedelta) -> None:
    """Prune now and then until cancelled. Any number of replicas may do it."""
    while True:
        await clock.sleep(_EVERY)
        try:
            pruned = await ledger.prune_events(clock.now() - retention)
        except ServiceError as error:
            _log.warning("events_not_pruned", reason=error.reason)
            end_if_cancelled(error)
        else:
            _log.info("events_pruned", events=pruned)
