"""The simulator as a process: run file, signals, death, TLS."""

import asyncio
import datetime
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from simulator.server import Simulator
from simulator.settings import Settings
from tests.integration.simulator.client import connected, control, ledger
from tests.support.eventually import eventually

EMAIL = "trader@example.com"


@asynccontextmanager
async def process(run_file: Path, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    variables = os.environ | {"SIMULATOR_RUN_FILE": str(run_file), "SIMULATOR_LOG_LEVEL": "WARNING"}
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "simulator", env=variables | environment)

    async def listens() -> bool:
        assert child.returncode is None
        return run_file.exists()  # noqa: ASYNC240  # a stat of a local file, in a test

    try:
        await eventually(listens, within=20)
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_run_file_says_where_it_listens_and_a_signal_ends_it_cleanly(tmp_path: Path) -> None:
    run_file = tmp_path / "run.json"
    async with process(run_file) as child:
        addresses = json.loads(run_file.read_text())
        assert set(addresses) == {"iq", "exnova", "control"}
        async with aiohttp.ClientSession() as http:
            health = await (await http.get(addresses["control"] + "/health")).json()
        assert health["status"] == "ok"
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 10) == 0
        assert not run_file.exists()


async def test_accounts_logins_and_orders_survive_a_restart(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, ack_delay=0.005)
    async with Simulator(settings) as first, connected(first, EMAIL) as client:
        settled = (await client.blitz(5))["msg"]["id"]
        await control(first, "/settle", {"order_id": settled, "outcome": "won"})
        running = (await client.blitz(7, seconds=5))["msg"]["id"]
        before = await ledger(first, EMAIL)
    async with Simulator(settings) as second, connected(second, EMAIL, ssid=client.ssid) as again:

        async def both_closed() -> bool:
            return [o["status"] for o in await ledger(second, EMAIL)] == ["closed", "closed"]

        await eventually(both_closed)
        after = await ledger(second, EMAIL)
        assert after[0] == before[0]
        assert after[1]["broker_order_id"] == running
        assert after[1]["settle_time"] == before[1]["settle_time"]
        balances = await again.call("get-balances", {})
        amount = next(b["amount"] for b in balances["msg"] if b["type"] == 4)
        assert amount == after[1]["balance_after"] == pytest.approx(10_000 + sum(o["profit"] for o in after))
        assert (await again.blitz())["msg"]["id"] > running


async def test_order_ids_are_not_used_again_after_reset_and_restart(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, ack_delay=0.005)
    async with Simulator(settings) as first, connected(first, EMAIL) as client:
        before = (await client.blitz())["msg"]["id"]
        await control(first, "/reset", {})
    async with Simulator(settings) as second, connected(second, EMAIL) as again:
        assert await ledger(second, EMAIL) == []
        assert (await again.blitz())["msg"]["id"] > before


async def test_nothing_that_was_answered_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    run_file = tmp_path / "run.json"
    variables = {"SIMULATOR_DATA_DIR": str(tmp_path / "data")}
    settings = Settings(data_dir=tmp_path / "data")
    async with process(run_file, **variables) as child:
        addresses = json.loads(run_file.read_text())
        remote = Simulator(Settings())
        remote.addresses, remote.control = addresses, addresses["control"]
        async with connected(remote, EMAIL) as client:
            known = [(await client.blitz())["msg"]["id"] for _ in range(5)]
            child.kill()
            await child.wait()
    async with Simulator(settings) as again:
        assert [o["broker_order_id"] for o in await ledger(again, EMAIL)] == known


async def test_same_seed_means_the_same_market_in_another_process(tmp_path: Path) -> None:
    async with process(tmp_path / "run.json", SIMULATOR_SEED="42") as _:
        addresses = json.loads((tmp_path / "run.json").read_text())
        remote = Simulator(Settings())
        remote.addresses, remote.control = addresses, addresses["control"]
        body = {"active_id": 86, "size": 60, "to": 1_780_000_000, "count": 50}
        async with Simulator(Settings(seed=42)) as here, connected(here) as mine, connected(remote) as other:
            assert (await mine.call("get-candles", body, "2.0"))["msg"] == (
                await other.call("get-candles", body, "2.0")
            )["msg"]


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "cert.pem", folder / "key.pem"


async def test_brands_can_be_served_over_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with (
        Simulator(Settings(tls_certificate=certificate, tls_key=key)) as simulator,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as http,
    ):
        at = simulator.addresses["exnova"]
        assert at["http"].startswith("https://")
        assert at["ws"].startswith("wss://")
        login = await http.post(at["http"] + "/v2/login", json={"identifier": "a@x", "password": "secret"})
        ssid = (await login.json())["ssid"]
        async with http.ws_connect(at["ws"]) as socket:
            await socket.send_json({"name": "authenticate", "request_id": "1", "msg": {"ssid": ssid}})
            names = [(await socket.receive_json(timeout=5))["name"] for _ in range(3)]
    assert "authenticated" in names


async def test_fault_file_is_in_force_from_the_start(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text('[{"kind": "suspended", "email": "trader*"}]')
    async with Simulator(Settings(fault_file=faults)) as simulator, connected(simulator, EMAIL) as client:
        assert (await client.blitz())["status"] == 4119
