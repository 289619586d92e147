"""Fifty users in one process: nobody's order, money or event ever turns up at another's. And the proof can fail."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from services.broker.connectors.quadcode.connector import QuadcodeConnector
from services.broker.domain.ports import Connector, ConnectorFactory
from services.broker.domain.values import Account, AccountType, Broker, Credentials, TwoFactor
from services.runtime.secret import Secret
from tests.support.brokers import a_world
from tests.support.isolation import play, users, violations


async def test_fifty_users_never_meet() -> None:
    people = users(50)
    async with a_world() as world:
        await play(world, people, seed=1)
        assert await violations(world, people) == []
        assert len([o for o in await world.ledger() if o["booked_time"] is not None]) > 50
        assert len([user for user in people if user.events]) > 45


# -- the mutation check: bugs of other systems, put into ours, must turn the proof red ---------------------------------


def sharing_the_token(factory: ConnectorFactory) -> ConnectorFactory:
    """The first login's token is everybody's (iqoptionapi's global SSID), and nobody looks whose it is."""
    first: dict[Broker, Secret] = {}

    def make(broker: Broker, account_type: AccountType, credentials: Credentials) -> Connector:
        connector = factory(broker, account_type, credentials)
        assert isinstance(connector, QuadcodeConnector)
        connect = connector.connect

        async def with_shared_token(token: Secret | None, two_factor: TwoFactor | None) -> None:
            await connect(first.get(broker, token), two_factor)
            first.setdefault(broker, connector.broker_token)

        connector.__dict__.update(connect=with_shared_token, _is_ours=lambda _profile: True)
        return connector

    return make


def sharing_the_balance(factory: ConnectorFactory) -> ConnectorFactory:
    """The first balance is everybody's (iqoptionapi's global balance_id)."""
    first: dict[Broker, int] = {}

    def make(broker: Broker, account_type: AccountType, credentials: Credentials) -> Connector:
        connector = factory(broker, account_type, credentials)
        assert isinstance(connector, QuadcodeConnector)
        read = connector._read_account

        async def with_shared_balance(user_id: int) -> Account:
            account = await read(user_id)
            return replace(account, balance_id=first.setdefault(broker, account.balance_id))

        connector.__dict__.update(_read_account=with_shared_balance)
        return connector

    return make


@pytest.mark.parametrize("bug", [sharing_the_token, sharing_the_balance])
async def test_the_proof_fails_when_sessions_share(bug: Callable[[ConnectorFactory], ConnectorFactory]) -> None:
    people = users(8)
    async with a_world(spoil=bug) as world:
        await play(world, people, seed=2, faults=())
        assert await violations(world, people) != []
