"""Commits events to the ledger as a second replica does, from a process of its own: its pool, its Redis stream, our code.

``python -m bench.support.committer POSTGRES_URL REDIS_URL``: then one JSON line on stdin for each run, ``keys`` (sessions),
``rate`` (events a second for each, 0: as fast as it goes), ``at_once`` (events in one transaction) and ``seconds``. Answers
with a JSON line: the events committed, the seconds it took, and for each session ``[seq, time of the commit]``.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import uvloop

from services.runtime.clock import SystemClock
from services.runtime.redis_client import connect
from services.session import codec
from services.session.adapters.event_log import RedisEventLog
from services.session.adapters.ledger.database import PostgresDatabase
from services.session.adapters.ledger.events import EventReader
from services.session.adapters.ledger.work import Works
from services.session.domain.events import BalanceChanged, StoredEvent
from services.session.domain.values import SessionKey


class Committer:
    """Writes events and remembers when each was committed."""

    def __init__(self, works: Works) -> None:
        self._works = works
        self.committed: dict[SessionKey, list[tuple[int, float]]] = {}

    async def run(self, keys: Sequence[SessionKey], rate: float, at_once: int, seconds: float) -> int:
        """Write for a while; returns how many events."""
        self.committed = {key: [] for key in keys}
        began = time.monotonic()
        period = at_once / rate if rate else 0.0

        async def one(number: int) -> None:
            due = began + period * number / len(keys)
            while time.monotonic() - began < seconds:
                await asyncio.sleep(max(due - time.monotonic(), 0.0))
                due += period
                await self._commit(keys[number], at_once)

        await asyncio.gather(*(one(number) for number in range(len(keys))))
        return sum(map(len, self.committed.values()))

    async def _commit(self, key: SessionKey, at_once: int) -> None:
        async with self._works.on_session(key) as work:
            for _ in range(at_once):
                work.tell(BalanceChanged(Decimal("10000.87"), "USD"))
        now = time.time()
        self.committed[key] += [(event.seq, now) for event in work.events]


async def main(postgres_url: str, redis_url: str) -> None:
    """Serve runs until stdin ends."""
    clock = SystemClock()
    redis = connect(redis_url)
    async with PostgresDatabase.at(postgres_url) as database:
        log = RedisEventLog(redis, EventReader(database), clock=clock, name="bench")

        def publish(key: SessionKey, event: StoredEvent, /) -> None:
            log.publish(key, event)

        committer = Committer(Works(database, clock, codec.encode_event, publish))
        publishing = asyncio.create_task(log.run())
        loop = asyncio.get_running_loop()
        print(json.dumps({"event": "ready"}), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked: dict[str, Any] = json.loads(line)
            began = time.monotonic()
            count = await committer.run(asked["keys"], asked["rate"], asked["at_once"], asked["seconds"])
            taken = time.monotonic() - began
            print(json.dumps({"events": count, "seconds": taken, "committed": committer.committed}), flush=True)
        publishing.cancel()
    await redis.aclose()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2]))
