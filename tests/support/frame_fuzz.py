"""Feeds broken frames to a real connector that has no socket, and looks for what must never happen."""

import asyncio
import json
import random
import time
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any, Final

import aiohttp
import msgspec

from services.broker.breaker import Breaker, LocalCounters
from services.broker.connectors.quadcode.assets import AssetTables, TableKey, _Entry, parse_assets
from services.broker.connectors.quadcode.brands import Brand
from services.broker.connectors.quadcode.connector import Patience, QuadcodeConnector, Shared
from services.broker.connectors.quadcode.link import FrameCounts, Timing
from services.broker.connectors.quadcode.login import HttpLogin
from services.broker.connectors.quadcode.messages import UNREADABLE, CandlesReply, Position, PositionsReply
from services.broker.connectors.quadcode.parsing import ParseError, order_refusal, parse_history, parse_position
from services.broker.connectors.quadcode.positions import _take_all
from services.broker.connectors.quadcode.socket_link import SocketLink
from services.broker.domain.values import Account, AccountType, Broker, Order
from services.runtime.clock import SystemClock
from tests.support.brokers import credentials
from tests.support.quadcode_frames import (
    BALANCE_ID,
    CANDLE,
    DIGITAL_POSITION,
    INITIALIZATION,
    OPEN_POSITION,
    POSITION,
    UNDERLYINGS,
    USER_ID,
    corpus,
    mutated,
)

ACCOUNT: Final = Account(Broker.IQ, AccountType.PRACTICE, USER_ID, BALANCE_ID, Decimal(1), "USD")
SLOW: Final = 1.0
"""Seconds of computing that no frame may take."""


class Spawned:
    """Stands in for the socket's task group: notes what was to be run, and runs nothing."""

    def __init__(self) -> None:
        self.count = 0

    def create_task(self, work: Coroutine[Any, Any, None]) -> None:
        work.close()
        self.count += 1


class Rig:
    """A connector whose frames come from a test."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        clock = SystemClock()
        self.counts = FrameCounts()
        brand = Brand(Broker.IQ, "http://127.0.0.1:9", "ws://127.0.0.1:9", "http://127.0.0.1:9")
        self.link = SocketLink(brand, http, clock, timing=Timing(), counts=self.counts)
        tables = AssetTables(clock, 60.0)
        shared = Shared(clock, tables, self.counts, Patience(), random.Random(1))
        breaker = Breaker(LocalCounters(clock), "here", clock, lambda: "id")
        self.connector = QuadcodeConnector(
            brand,
            AccountType.PRACTICE,
            credentials("user@example.com"),
            login=HttpLogin(brand, http, breaker, clock, 1.0),
            link=self.link,
            shared=shared,
        )
        key = TableKey(Broker.IQ, 1, "USD")
        self.connector._account = self.connector._book.account = ACCOUNT
        self.connector._market.set_group(key)
        tables._entries.setdefault(key, _Entry()).table = parse_assets(
            json.dumps(INITIALIZATION).encode(), json.dumps(UNDERLYINGS).encode()
        )
        self.link.__dict__.update(_tasks=Spawned())
        self.mailbox = self.connector._events.join()
        self.connector._market._feeds.join(76, 60)

    def feed(self, frame: bytes) -> None:
        """Take a frame as the socket's reader does."""
        event = self.link._protocol.receive(frame, time.time())
        self.link._handle_event(event)

    def sizes(self) -> dict[str, int]:
        """Return how much is remembered."""
        book, link = self.connector._book, self.link
        return {
            "answers": len(link._answers),
            "pending": len(link._protocol._pending),
            "tracked": len(book._tracked),
            "digital": len(book._digital),
            "positions": len(book._digital_positions),
            "clients": len(book._client_ids),
        }


async def fuzz(frames: int, seed: int) -> FrameCounts:
    """Feed mutated frames and listings.

    Raises:
        AssertionError: One of them was slow, left something behind, or came to somebody else.
    """
    rng = random.Random(seed)
    originals = corpus()
    lists = [
        json.dumps({"positions": [POSITION, OPEN_POSITION, DIGITAL_POSITION], "total": 3, "limit": 30}).encode(),
        json.dumps({"candles": [CANDLE, CANDLE | {"from": CANDLE["from"] + 60}]}).encode(),  # type: ignore[operator]
        json.dumps(INITIALIZATION).encode(),
        json.dumps(UNDERLYINGS).encode(),
        json.dumps({"message": "x", "result": {"actual_commission": {"active_id": 76, "commission": 14}}}).encode(),
    ]
    async with aiohttp.ClientSession() as http:
        rig = Rig(http)
        try:
            for n in range(frames):
                began = time.process_time()
                if n % 8 == 7:
                    _read_list(n // 8 % len(lists), mutated(lists[n // 8 % len(lists)], rng))
                else:
                    frame = mutated(rng.choice(originals), rng)
                    rig.feed(frame)
                assert time.process_time() - began < SLOW, "a frame took too long"
                if n % 1_000 == 999:
                    _drain(rig)
                    assert all(size <= 4_200 for size in rig.sizes().values()), rig.sizes()
                    await asyncio.sleep(0)
            for frame in originals:
                rig.feed(frame)
            assert rig.connector._account == ACCOUNT or rig.connector._account is not None
        finally:
            rig.connector._book.close()
    return rig.counts


def _drain(rig: Rig) -> None:
    """Read what was published; all of it must be about this account."""
    while rig.mailbox._values:
        event = rig.mailbox._values.pop(next(iter(rig.mailbox._values)))
        if isinstance(event, Account):
            assert (event.user_id, event.balance_id) == (USER_ID, BALANCE_ID)
        elif isinstance(event, Order):
            assert event.balance_id == BALANCE_ID


def _read_list(which: int, data: bytes) -> None:
    """Read a mutated reply the way the connector does; only these errors may come of it."""
    try:
        match which:
            case 0:
                reply = msgspec.json.decode(data, type=PositionsReply)
                _take_all(reply, _parse, {})
            case 1:
                parse_history(msgspec.json.decode(data, type=CandlesReply).candles, 60, 1_795_489_300.0)
            case 2:
                parse_assets(data, None).assets(1_795_489_300.0)
            case 3:
                parse_assets(json.dumps(INITIALIZATION).encode(), data).assets(1_795_489_300.0)
            case _:
                order_refusal(4117, msgspec.Raw(data), "EURUSD-OTC")
                order_refusal(5000, msgspec.Raw(data), "EURUSD-OTC")
    except (*UNREADABLE, ParseError):
        return


def _parse(position: Position) -> Order | None:
    return parse_position(position, ACCOUNT, str(position.active_id))
