"""What the connector over the library owes beyond the acceptance matrix: no unverified TLS, no process left behind."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.broker.domain.errors import BrokerUnavailableError, NotConnectedError
from services.broker.domain.values import AccountType, Broker, ConnectionState, OrderState
from simulator.settings import Settings as SimulatorSettings
from tests.integration.broker.test_login import self_signed
from tests.support.brokers import Watcher, a_world, an_order
from tests.support.environments import FARIA, Environments
from tests.support.eventually import eventually

pytestmark = pytest.mark.interop_full


@pytest.fixture(scope="module")
def library() -> dict[str, Any]:
    return {"connector": "iqoptionapi", "iqoptionapi_python": str(Environments()(FARIA))}


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        # One that has just ended has no command line any more.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "child.py" in " ".join(child.cmdline()):
                found.append(child)
    return found


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, library: dict[str, Any]) -> None:
    certificate, key = self_signed(tmp_path)
    tls = SimulatorSettings(ack_delay=0.005, tls_certificate=certificate, tls_key=key)
    async with a_world() as plain, a_world(simulator_settings=tls, **library) as world:
        # Logged in where there is no TLS, so that the library's own socket is what is tried.
        token = (await plain.connected("user@example.com")).broker_token
        with pytest.raises(BrokerUnavailableError):
            await world.connected("user@example.com", token=token)


async def test_each_session_has_a_process_that_knows_no_password_and_ends_with_it(library: dict[str, Any]) -> None:
    async with a_world(**library) as world:
        one = await world.connected("one@example.com")
        two = await world.connected("two@example.com", broker=Broker.EXNOVA, account_type=AccountType.REAL)
        assert one.account.user_id != two.account.user_id
        running = children()
        assert len(running) == 2
        for child in running:
            shown = " ".join(child.cmdline()) + str(child.environ())
            assert one.broker_token.reveal() not in shown
            assert two.broker_token.reveal() not in shown
        await one.close(NotConnectedError())
        assert len(children()) == 1
    assert children() == []


async def test_a_process_that_dies_is_replaced_and_its_order_is_unknown_or_known_but_not_sent_again(
    library: dict[str, Any],
) -> None:
    async with a_world(order_timeout=4.0, **library) as world:
        connector = await world.connected("user@example.com")
        watcher = Watcher(connector)
        await world.fault("lost", on="reply", name="open-option")
        (child,) = children()

        async def killed_with_the_order_sent() -> bool:
            sent = bool(await world.ledger())
            if sent:
                child.kill()
            return sent

        placed, _ = await asyncio.gather(
            connector.place_order(an_order("mine")), eventually(killed_with_the_order_sent)
        )
        assert placed.state is OrderState.SUBMITTED

        async def back() -> bool:
            return connector.state is ConnectionState.CONNECTED and children() != [child]

        await eventually(back, within=20)
        await world.settle("user@example.com", "won")
        closed = await watcher.seen(lambda order: order.state is OrderState.CLOSED)
        assert closed.client_order_id == "mine"
        assert len(await world.ledger()) == 1
        await watcher.stop()
