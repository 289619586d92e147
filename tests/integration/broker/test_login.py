"""Logins over the wire: tokens, the second factor, throttling, and the breaker that all processes share."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.broker.domain.errors import BrokerUnavailableError, InvalidCredentialsError, LoginThrottledError
from services.broker.domain.values import ConnectionState
from simulator.settings import Settings as SimulatorSettings
from tests.support.brokers import a_world, broker_settings
from tests.support.engines import redis

PROCESSES: Final = 20
ATTEMPT: Final = """
import asyncio, json, sys
from contextlib import AsyncExitStack
from services.broker import redis_scripts
from services.broker.bootstrap import client_session, login_breaker, connector_factory
from services.broker.domain.errors import BrokerError, NotConnectedError
from services.broker.domain.values import AccountType, Broker, Credentials
from services.broker.settings import Settings
from services.runtime.clock import SystemClock
from services.runtime.secret import Secret

# With twenty processes on few cores a slow answer is no sign that the store is away.
redis_scripts.TIMEOUT = 30.0

async def main(settings, passwords):
    clock, reasons = SystemClock(), []
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(client_session())
        factory = connector_factory(settings, http, await login_breaker(settings, clock, stack), clock)
        for password in passwords:
            connector = factory(Broker.IQ, AccountType.PRACTICE, Credentials("bad@example.com", Secret(password)))
            try:
                await connector.connect(None, None)
                reasons.append("CONNECTED")
            except BrokerError as error:
                reasons.append(error.reason)
            await connector.close(NotConnectedError())
    print(json.dumps(reasons))

given = json.loads(sys.argv[1])
asyncio.run(main(Settings(**given["settings"]), given["passwords"]))
"""


async def attempt(settings: dict[str, object], passwords: list[str]) -> list[str]:
    """Try passwords in a process of its own and return what became of each."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ATTEMPT,
        json.dumps({"settings": settings, "passwords": passwords}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return list(json.loads(out.splitlines()[-1]))


async def test_twenty_processes_and_one_bad_account_make_three_logins() -> None:
    with redis() as store:
        async with a_world(simulator_settings=SimulatorSettings(ack_delay=0.005, login_attempts=10_000)) as world:
            settings = broker_settings(world.simulator).model_dump(mode="json") | {"redis_url": store.url}
            answers = await asyncio.gather(
                *(attempt(settings, [f"wrong-{n}-{again}" for again in range(3)]) for n in range(PROCESSES))
            )
            attempts = await world.logins("bad@example.com")
    flat = [reason for reasons in answers for reason in reasons]
    assert len(flat) == PROCESSES * 3
    assert 1 <= len(attempts) <= 3
    assert flat.count("INVALID_CREDENTIALS") == len(attempts)
    assert flat.count("LOGIN_THROTTLED") == len(flat) - len(attempts)


async def test_one_bad_account_does_not_keep_others_out() -> None:
    async with a_world() as world:
        for n in range(6):
            with pytest.raises((InvalidCredentialsError, LoginThrottledError)):
                await world.connected("bad@example.com", password=f"wrong-{n}")
        assert (await world.connected("good@example.com")).state is ConnectionState.CONNECTED
        with pytest.raises(LoginThrottledError):
            await world.connected("bad@example.com")


async def test_many_new_users_at_once_get_in() -> None:
    async with a_world() as world:
        connectors = await asyncio.gather(*(world.connected(f"user-{n}@example.com") for n in range(40)))
        assert len({connector.account.user_id for connector in connectors}) == 40


async def test_the_brokers_throttle_is_kept_for_as_long_as_it_says() -> None:
    async with a_world() as world:
        fault = await world.fault("login_throttled", email="busy@example.com", ttl=77)
        with pytest.raises(LoginThrottledError) as first:
            await world.connected("busy@example.com")
        assert first.value.retry_after == 77
        with pytest.raises(LoginThrottledError) as second:
            await world.connected("busy@example.com")
        assert 70 <= second.value.retry_after <= 77
        assert await world.struck(fault) == 1, "the second one must not reach the broker"
        assert (await world.connected("free@example.com")).state is ConnectionState.CONNECTED


async def test_a_token_of_another_login_is_not_used() -> None:
    async with a_world() as world:
        other = await world.connected("other@example.com")
        mine = await world.connected("mine@example.com", token=other.broker_token)
        (known,) = await world.accounts("mine@example.com")
        assert mine.account.user_id == known["user_id"] != other.account.user_id
        assert mine.broker_token != other.broker_token


async def test_a_broker_that_cannot_be_reached_is_unavailable() -> None:
    async with a_world(iq_http_url="http://127.0.0.1:9", iq_ws_url="ws://127.0.0.1:9/echo/websocket") as world:
        with pytest.raises(BrokerUnavailableError):
            await world.connected()


async def test_a_web_page_instead_of_the_login_is_unavailable_not_wrong_credentials() -> None:
    async with a_world() as world:
        # The WebSocket's address answers a login with something, but not with a login.
        page = world.simulator.addresses["exnova"]["http"] + "/echo"
        elsewhere = broker_settings(world.simulator, iq_http_url=page)
    async with a_world(iq_http_url=elsewhere.iq_http_url) as world:
        with pytest.raises(BrokerUnavailableError):
            await world.connected()


async def test_tls_is_verified(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    async with a_world(
        simulator_settings=SimulatorSettings(ack_delay=0.005, tls_certificate=certificate, tls_key=key)
    ) as world:
        assert world.simulator.addresses["iq"]["ws"].startswith("wss://")
        with pytest.raises(BrokerUnavailableError):
            await world.connected()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a certificate that nobody has vouched for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(encoding))
    return folder / "certificate.pem", folder / "key.pem"
