"""The broker of a simulated world, and the connector between it and the session service.

It has no idempotency key, delays and loses, lists late and incompletely, and sells a grid expiry only until 30 s before.
What it books is tagged with the trade that asked for it; nobody but the checker ever sees the tag.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from services.runtime.secret import Secret
from services.session.domain.errors import (
    BrokerUnavailableError,
    NotConnectedError,
    OrderRejectedError,
    PayoutChangedError,
    PurchaseWindowClosedError,
    TradeRefusedError,
)
from services.session.domain.trade import BrokerOrder, BrokerOrders, Trade, TradeState, order_of
from services.session.domain.values import (
    Account,
    AccountType,
    Asset,
    Broker,
    BrokerConnection,
    Candle,
    InstrumentType,
    SessionKey,
    TradeId,
)
from services.session.ports import AccountEvent, AnswerLost, Credentials, Placed, TwoFactor
from tests.faults.simulation.faults import Fate
from tests.faults.simulation.loop import Process, SimLoop, current_process

EPOCH: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
PAYOUT: Final = 0.87
ASSET: Final = "EURUSD-OTC"

_DEADTIME: Final = 30.0
_ANSWER_WAIT: Final = 15.0
"""Seconds the connector waits for the broker."""
_CALL_WAIT: Final = 20.0
"""Seconds the session service waits for the connector, on top of the send window."""
_STALENESS: Final = 7.2
_CANDLE_LAG: Final = 5.0
"""Seconds by which a candle's end may be told late."""
_BLITZ_DELAY: Final = 45.0
"""Longest delay of a blitz request: it has no expiry that would refuse it (REQUEST_LIFETIME of the reconciliation)."""

_Answer = Placed | AnswerLost | TradeRefusedError | BrokerUnavailableError


@dataclass(slots=True)
class Position:
    """An order as the broker booked it."""

    number: str
    tag: TradeId
    """Ground truth: the trade it was sent for."""
    trade: Trade
    """As it was sent."""
    open_time: datetime
    expiry_time: datetime
    outcome: TradeState
    profit: Decimal

    def seen(self, as_of: datetime, trade_id: TradeId | None) -> BrokerOrder:
        """Return it as the broker shows it."""
        settled = as_of >= self.expiry_time + timedelta(seconds=1)
        # The broker's stamps have full seconds.
        opened, expires = (time.replace(microsecond=0) for time in (self.open_time, self.expiry_time))
        return replace(
            order_of(self.trade, self.number, opened, expires),
            trade_id=trade_id,
            payout_rate=PAYOUT,
            open_price=1.1,
            outcome=self.outcome if settled else None,
            profit=self.profit if settled else Decimal(0),
            close_time=self.expiry_time if settled else None,
        )


@dataclass(slots=True)
class _Connection:
    """One session's connection in the connector."""

    account: Account
    up: bool = True
    life: int = 0
    """Rises when the socket breaks: answers under way are lost."""
    known: dict[str, TradeId] = field(default_factory=dict)
    watchers: list[asyncio.Queue[AccountEvent | None]] = field(default_factory=list)

    def push(self, event: AccountEvent | None) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(event)


class SimPlatform:
    """Broker, connector, and the ``BrokerGateway`` port in front of them."""

    def __init__(self, loop: SimLoop, fate: Fate) -> None:
        self.loop = loop
        self.fate = fate
        self.accounts: dict[SessionKey, Account] = {}
        self.journal: list[Position] = []
        """Every order ever booked."""
        self.stop_caller: Callable[[Process], None] = lambda process: None
        """Tells a process to come to rest."""
        self._connections: dict[SessionKey, _Connection] = {}
        self._skew = timedelta(seconds=fate.pause(-3.0, 3.0))

    def now(self) -> datetime:
        """Return our own clock's time."""
        return EPOCH + timedelta(seconds=self.loop.time())

    def _broker_now(self) -> datetime:
        return self.now() + self._skew

    # Faults

    async def cut_something(self) -> None:
        """Break the socket of one connection for a while."""
        if not self._connections:
            return
        connection = self.fate.rng.choice(list(self._connections.values()))
        connection.up = False
        connection.life += 1
        connection.push(BrokerConnection.RECONNECTING)
        await asyncio.sleep(self.fate.pause(0.3, 6.0))
        connection.up = True
        connection.push(BrokerConnection.CONNECTED)

    def restart_connector(self) -> None:
        """Forget every connection, as a restart of the broker service does."""
        for connection in self._connections.values():
            connection.up = False
            connection.life += 1
            connection.push(None)
        self._connections.clear()

    # The BrokerGateway port

    async def standing(self, key: SessionKey, broker: Broker, account_type: AccountType) -> Account:
        await self._travel()
        if key not in self._connections:
            raise NotConnectedError
        return self._connections[key].account

    async def connect(
        self,
        key: SessionKey,
        broker: Broker,
        account_type: AccountType,
        credentials: Credentials,
        two_factor: TwoFactor | None = None,
    ) -> tuple[Account, Secret]:
        await self._travel()
        if key not in self._connections:
            self._connections[key] = _Connection(self.accounts[key])
        await self._travel()
        return self.accounts[key], Secret("ssid")

    async def disconnect(self, key: SessionKey, *, log_out: bool) -> None:
        await self._travel()
        self._connections.pop(key, None)

    async def account(self, key: SessionKey) -> Account:
        await self._travel()
        return self._standing(key).account

    async def assets(self, key: SessionKey) -> Sequence[Asset]:
        await self._travel()
        self._standing(key)
        kinds = (InstrumentType.TURBO, InstrumentType.BLITZ)
        rates = tuple((kind, PAYOUT) for kind in kinds)
        return [Asset(ASSET, ASSET, kinds, True, PAYOUT, Decimal(1), Decimal(20_000), rates)]

    async def candles(self, key: SessionKey, asset: str, timeframe: int, count: int) -> Sequence[tuple[Candle, bool]]:
        await self._travel()
        self._standing(key)
        # What the broker lists may lag behind what it pushes: a candle that is over is listed as in progress.
        lag = timedelta(seconds=self.fate.pause(0.0, _CANDLE_LAG))
        newest = int((self.now() - lag).timestamp()) // timeframe * timeframe
        return [(_candle(newest - timeframe * back, timeframe), back > 0) for back in range(3, -1, -1)]

    @asynccontextmanager
    async def watch_candles(
        self, key: SessionKey, asset: str, timeframe: int
    ) -> AsyncIterator[AsyncIterator[tuple[Candle, bool]]]:
        await self._travel()
        connection = self._standing(key)

        async def closed() -> AsyncIterator[tuple[Candle, bool]]:
            start = int((self.now() - timedelta(seconds=_CANDLE_LAG)).timestamp()) // timeframe * timeframe
            while True:
                end = datetime.fromtimestamp(start + timeframe, UTC)
                await asyncio.sleep((end - self.now()).total_seconds() + self.fate.pause(0.0, _CANDLE_LAG))
                if not connection.up:
                    raise BrokerUnavailableError
                yield _candle(start, timeframe), True
                start += timeframe
                # The next price is still that of the last close.
                yield replace(_candle(start, timeframe), close=_candle(start - timeframe, timeframe).close), False

        yield closed()

    @asynccontextmanager
    async def watch_account(self, key: SessionKey) -> AsyncIterator[AsyncIterator[AccountEvent]]:
        await self._travel()
        connection = self._connections.get(key)
        if connection is None:
            raise NotConnectedError
        queue: asyncio.Queue[AccountEvent | None] = asyncio.Queue()
        connection.watchers.append(queue)
        queue.put_nowait(BrokerConnection.CONNECTED if connection.up else BrokerConnection.RECONNECTING)
        queue.put_nowait(connection.account)

        async def events() -> AsyncIterator[AccountEvent]:
            while (event := await queue.get()) is not None:
                yield event
            raise BrokerUnavailableError

        try:
            yield events()
        finally:
            connection.watchers.remove(queue)

    async def place(self, trade: Trade) -> Placed | AnswerLost:
        await self._maybe_die()
        connection = self._standing(trade.session_key)
        await self._travel()
        answered: asyncio.Future[_Answer] = self.loop.create_future()
        self.loop.outside(self._send(connection, trade, answered))
        try:
            async with asyncio.timeout(_CALL_WAIT):
                answer = await answered
        except TimeoutError:
            answer = AnswerLost()
        await self._travel()
        await self._maybe_die()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sell(self, key: SessionKey, broker_order_id: str) -> BrokerOrder:
        raise NotImplementedError

    async def orders(self, key: SessionKey, closed_since: datetime) -> BrokerOrders:
        await self._travel()
        connection = self._standing(key)
        faults, complete = self.fate.faults, True
        stale = self.fate.pause(0.0, _STALENESS) if self.fate.strikes(faults.stale_lists) else 0.0
        if self.fate.strikes(faults.failing_lists):
            if self.fate.strikes(0.6):
                await asyncio.sleep(self.fate.pause(0.1, 3.0))
                raise BrokerUnavailableError
            complete = False
        as_of = self._broker_now() - timedelta(seconds=stale)
        listed = [
            position.seen(as_of, connection.known.get(position.number))
            for position in self.journal
            if position.trade.balance_id == connection.account.balance_id
            and position.open_time <= as_of
            and position.expiry_time >= closed_since - timedelta(seconds=1)
            and (complete or self.fate.strikes(0.5))
        ]
        answered = self._broker_now()
        await asyncio.sleep(self.fate.pause(0.01, 1.0))
        return BrokerOrders(tuple(listed), complete, answered)

    # Between connector and broker

    async def _send(self, connection: _Connection, trade: Trade, answered: asyncio.Future[_Answer]) -> None:
        """The connector: checks the deadline, writes once, waits for the answer."""
        rng, faults = self.fate.rng, self.fate.faults
        assert trade.send_before is not None
        await self._travel()
        lost_call = self.fate.strikes(faults.lost_answers / 3)
        life = connection.life

        def answer(value: _Answer) -> None:
            if not answered.done() and not lost_call:
                answered.set_result(value)

        if not connection.up or self.now() >= trade.send_before:
            answer(BrokerUnavailableError())
            return
        blitz = trade.instrument_type is InstrumentType.BLITZ
        expiry = None if blitz else self._expiry(trade)
        delay = self.fate.pause(0.02, 0.4)
        if self.fate.strikes(faults.frozen_connector):
            delay += self.fate.pause(5.0, _BLITZ_DELAY if blitz else 90.0)
        elif self.fate.strikes(faults.late_requests):
            delay += self.fate.pause(5.0, 45.0)
        lost_request = self.fate.strikes(faults.lost_requests)
        lost_answer = self.fate.strikes(faults.lost_answers)
        unreadable = self.fate.strikes(faults.errors_after_booking)
        refusal = rng.choice((PayoutChangedError(), OrderRejectedError("no"))) if self.fate.strikes(0.03) else None
        gives_up = self.loop.time() + _ANSWER_WAIT
        if lost_request:
            await asyncio.sleep(_ANSWER_WAIT)
            answer(AnswerLost())
            return
        await asyncio.sleep(min(delay, _ANSWER_WAIT))
        if delay > _ANSWER_WAIT:
            answer(AnswerLost())
            await asyncio.sleep(delay - _ANSWER_WAIT)
        booked = None if refusal is not None else self._book(trade, expiry)
        await asyncio.sleep(self.fate.pause(0.02, 0.4))
        heard = not lost_answer and not unreadable and life == connection.life
        if heard and booked is not None:
            connection.known[booked.number] = trade.trade_id
        if unreadable:
            answer(AnswerLost())
        elif not heard:
            await asyncio.sleep(max(gives_up - self.loop.time(), 0.0))
            answer(AnswerLost())
        elif booked is not None:
            answer(Placed(booked.seen(self._broker_now(), trade.trade_id)))
        else:
            answer(refusal or PurchaseWindowClosedError())

    def _expiry(self, trade: Trade) -> datetime:
        """Choose what the connector chooses: the full minute nearest to what was asked that can still be bought."""
        now = self._broker_now()
        marks = [now.replace(second=0, microsecond=0) + timedelta(minutes=number) for number in range(1, 7)]
        on_sale = [mark for mark in marks if (mark - now).total_seconds() > _DEADTIME + 0.5]
        return min(on_sale, key=lambda mark: abs(mark - now - trade.duration))

    def _book(self, trade: Trade, expiry: datetime | None) -> Position | None:
        """The broker: books whatever arrives in time, the same order twice if it comes twice."""
        now = self._broker_now()
        if expiry is not None and (expiry - now).total_seconds() <= _DEADTIME:
            return None
        outcome = self.fate.rng.choice((TradeState.WON, TradeState.LOST, TradeState.TIED))
        won = (trade.amount * Decimal(str(PAYOUT))).quantize(Decimal("0.01"))
        profit = {TradeState.WON: won, TradeState.LOST: -trade.amount, TradeState.TIED: Decimal(0)}[outcome]
        position = Position(
            number=f"p{len(self.journal) + 1}",
            tag=trade.trade_id,
            trade=trade,
            open_time=now,
            expiry_time=expiry or now + trade.duration,
            outcome=outcome,
            profit=profit,
        )
        self.journal.append(position)
        self.loop.outside(self._tell(position))
        return position

    async def _tell(self, position: Position) -> None:
        """Push the opening and the result to everybody who watches the balance, not always and not always once."""
        await asyncio.sleep(self.fate.pause(0.0, 2.0))
        self._push(position)
        await asyncio.sleep((position.expiry_time - self._broker_now()).total_seconds() + self.fate.pause(1.0, 3.0))
        self._push(position)

    def _push(self, position: Position) -> None:
        for connection in self._connections.values():
            if connection.account.balance_id != position.trade.balance_id or not connection.up:
                continue
            times = 0 if self.fate.strikes(self.fate.faults.lost_pushes) else 1 + self.fate.strikes(0.05)
            for _ in range(times):
                connection.push(position.seen(self._broker_now(), connection.known.get(position.number)))

    def _standing(self, key: SessionKey) -> _Connection:
        connection = self._connections.get(key)
        if connection is None:
            raise NotConnectedError
        if not connection.up:
            raise BrokerUnavailableError
        return connection

    async def _travel(self) -> None:
        await asyncio.sleep(self.fate.pause(0.001, 0.02))

    async def _maybe_die(self) -> None:
        """Kill or stop the calling process exactly here, right before or right after an order."""
        process = current_process()
        if process is None:
            return
        if self.fate.strikes(self.fate.faults.kills_at_sending):
            process.kill()
            await asyncio.Event().wait()
        if self.fate.strikes(self.fate.faults.drains_at_sending):
            self.stop_caller(process)


def _candle(start: int, timeframe: int) -> Candle:
    opened = datetime.fromtimestamp(start, UTC)
    price = 1.1 + start // timeframe * 7 % 5 / 1000
    return Candle(opened, opened + timedelta(seconds=timeframe), price, price, price, price)
