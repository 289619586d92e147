"""Users who connect, trade, leave and come back at random, and the comparison of all they were told with the ledger."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.broker.domain.errors import BrokerError, NotConnectedError
from services.broker.domain.ports import Connector
from services.broker.domain.values import Account, AccountType, Broker, InstrumentType, Order, OrderState
from tests.support.brokers import World, an_order

ROUNDS: Final = 6
FAULTS: Final[list[dict[str, Any]]] = [
    {"kind": "lost", "on": "reply", "name": "open-option", "probability": 0.1},
    {"kind": "late", "on": "reply", "seconds": 0.2, "jitter": 0.3, "probability": 0.1},
    {"kind": "duplicate", "on": "push", "name": "*", "probability": 0.1},
    {"kind": "disconnect_after", "name": "open-option", "probability": 0.05},
    {"kind": "disconnect_before", "name": "open-option", "probability": 0.05},
    {"kind": "malformed", "on": "push", "name": "position-changed", "probability": 0.05},
    {"kind": "token_expired", "name": "get-balances", "probability": 0.01},
]


@dataclass
class User:
    """One user: whom he is, what he asked for, and what he was told."""

    email: str
    broker: Broker
    account_type: AccountType
    asked: set[str] = field(default_factory=set)
    """Ids of the orders he asked for."""
    answers: list[Order] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    account: Account | None = None


def users(count: int) -> list[User]:
    kinds = [(broker, account_type) for broker in Broker for account_type in AccountType]
    return [User(f"trader-{n}@example.com", *kinds[n % len(kinds)]) for n in range(count)]


async def watch(user: User, connector: Connector) -> None:
    try:
        async for event in connector.watch_account():
            user.events.append(event)
    except BrokerError:
        return


async def live(world: World, user: User, rng: random.Random) -> None:
    """Connect, trade, disconnect and come back, at random."""
    connector: Connector | None = None
    watching: asyncio.Task[None] | None = None
    token = None
    for turn in range(ROUNDS):
        if connector is None:
            connector = world.connector(user.email, broker=user.broker, account_type=user.account_type)
            try:
                await connector.connect(token, None)
            except BrokerError:
                connector = None
                continue
            user.account = connector.account
            watching = asyncio.create_task(watch(user, connector))
        wanted = an_order(
            f"{user.email}/{turn}",
            account_type=user.account_type,
            instrument_type=rng.choice([InstrumentType.TURBO, InstrumentType.BLITZ, InstrumentType.DIGITAL]),
            duration=60,
            amount=str(rng.randint(1, 9)),
        )
        user.asked.add(wanted.client_order_id)
        with contextlib.suppress(BrokerError):
            user.answers.append(await connector.place_order(wanted))
        if rng.random() < 0.3:
            await world.settle(user.email)
        if rng.random() < 0.3:
            token = connector.broker_token
            await connector.close(NotConnectedError(), log_out=rng.random() < 0.5)
            connector = None
    if watching is not None:
        if connector is not None:
            await connector.close(NotConnectedError())
        await asyncio.wait({watching})


async def play(world: World, people: Sequence[User], seed: int, faults: Sequence[dict[str, Any]] = FAULTS) -> None:
    for rule in faults:
        await world.fault(**rule)
    async with asyncio.TaskGroup() as tasks:
        for n, user in enumerate(people):
            tasks.create_task(live(world, user, random.Random(f"{seed}/{n}")))


async def violations(world: World, people: Sequence[User]) -> list[str]:
    """Compare what each was told with the broker's own ledger."""
    found = []
    ledger = await world.ledger()
    booked = {(o["broker"], str(o["external_id"])): o for o in ledger if o["booked_time"] is not None}
    by_email = {user.email: user for user in people}
    for order in ledger:
        user = by_email[order["email"]]
        if (order["broker"], order["account_type"]) != (user.broker, user.account_type):
            found.append(f"order of {user.email} on {order['broker']} {order['account_type']}")
        if user.account is not None and order["balance_id"] != user.account.balance_id:
            found.append(f"order of {user.email} on balance {order['balance_id']}")
    for user in people:
        mine = [o for o in ledger if o["email"] == user.email]
        if len(mine) > len(user.asked):
            found.append(f"{user.email} asked for {len(user.asked)} orders, the broker was sent {len(mine)}")
        told = [*user.answers, *(event for event in user.events if isinstance(event, Order))]
        for said in told:
            if said.client_order_id and said.client_order_id not in user.asked:
                found.append(f"{user.email} was told of {said.client_order_id}")
            if said.state is OrderState.SUBMITTED:
                continue
            real = booked.get((user.broker, said.broker_order_id))
            if real is None or real["email"] != user.email or real["amount"] != float(said.amount):
                found.append(f"{user.email} was told of order {said.broker_order_id}, which is not his")
        accounts = [event for event in user.events if isinstance(event, Account)]
        if user.account is not None and {a.balance_id for a in accounts} - {user.account.balance_id}:
            found.append(f"{user.email} was told of another balance")
    return found
