"""The promises of ``make up``: it starts, says so, stops without a trace, and keeps what it had."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

from local.client import Gateway
from local.folder import read_run_file
from local.ports import PortBlock
from local.process import has_ended
from local.settings import CHECKOUT
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.traders import PASSWORD, Trader

pytestmark = pytest.mark.timeout(600)

EMAIL = "trader-up@example.com"


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder with a space in its path, where PostgreSQL may live also if we are root."""
    folder = Path(tempfile.mkdtemp(prefix="tradebot test "))
    folder.chmod(0o711)
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def port() -> Iterator[int]:
    with PortBlock.claim() as ports:
        yield ports.pick()


def up(data: Path, port: int) -> subprocess.Popen[str]:
    env = {**os.environ, "TRADEBOT_DATA": str(data), "TRADEBOT_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-m", "local.up"],
        cwd=CHECKOUT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def first_line(system: subprocess.Popen[str]) -> str:
    assert system.stdout is not None
    return await asyncio.wait_for(asyncio.to_thread(system.stdout.readline), 120)


async def said(system: subprocess.Popen[str], words: str) -> None:
    """Wait for a line that holds the words."""
    assert system.stderr is not None
    while words not in await asyncio.wait_for(asyncio.to_thread(system.stderr.readline), 60):
        assert system.poll() is None


def processes_of(data: Path, pids: Iterable[int]) -> list[psutil.Process]:
    """What still runs: of the pids that were told, and by the environment that every child inherits."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.pid in pids or process.environ().get("TRADEBOT_DATA") == str(data)
            if ours and not has_ended(process):
                found.append(process)
        except psutil.Error:
            continue
    return found


def pids_of(data: Path) -> set[int]:
    facts = read_run_file(data)
    assert facts is not None
    return set(facts["pids"].values())


async def test_a_stop_leaves_no_process_and_a_new_start_finds_sessions_and_trades(data: Path, port: int) -> None:
    who = {"broker": "iq", "account_type": "REAL", "email": EMAIL, "password": PASSWORD}
    with up(data, port) as system:
        assert await first_line(system) == f"ready http://localhost:{port}\n"
        pids = pids_of(data)
        async with Gateway(f"http://localhost:{port}") as gateway:
            session = await gateway.connect(**who)
            async with session.follow() as feed:
                trader = Trader(session, feed)
                await session.post("start", asset="AUDCAD-OTC", timeframe=5, duration_seconds=5)
                settled = await trader.ended((await trader.trade(amount=3))["trade_id"])
                before = await session.get("status")
        system.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(system.wait, 60) == 0
    assert processes_of(data, pids) == []
    assert not (data / "run.json").exists()

    with up(data, port) as system:
        assert await first_line(system) == f"ready http://localhost:{port}\n"
        await said(system, "1 REAL bot ran before")
        async with Gateway(f"http://localhost:{port}") as gateway:
            again = await gateway.connect(**who, session_id=session.session_id)
            assert (again.session_id, again.connected["reconnected"]) == (session.session_id, True)
            assert settled in await again.trades()
            after = await again.get("status")
            assert (after["status"], after["seq"] >= before["seq"]) == ("running", True)
            # What the bot had bought is followed to its end by the new processes.
            async with again.follow() as feed:
                await again.post("stop")
                assert all(trade["status"] != "unknown" for trade in await Trader(again, feed).settled())
        system.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(system.wait, 60) == 0


async def test_nothing_survives_a_kill_of_the_supervisor_and_the_next_start_works(data: Path, port: int) -> None:
    with up(data, port) as system:
        await first_line(system)
        pids = pids_of(data)
        system.kill()

    async def all_gone() -> bool:
        return not await asyncio.to_thread(processes_of, data, pids)

    await eventually(all_gone, within=60, every=0.2)
    with up(data, port) as system:
        assert (await first_line(system)).startswith("ready")
        system.terminate()
        assert await asyncio.to_thread(system.wait, 60) == 0


async def test_a_second_system_on_the_same_folder_or_port_is_refused_in_words(stack: Stack, data: Path) -> None:
    port = int(stack.facts["gateway"].rpartition(":")[2])
    with up(stack.system.data, port + 1) as system:
        _, words = await asyncio.to_thread(system.communicate)
        assert (system.returncode, "already runs" in words, stack.facts["gateway"] in words) == (1, True, True)
    with up(data, port) as system:
        _, words = await asyncio.to_thread(system.communicate)
        assert (system.returncode, f"Port {port} is taken" in words) == (1, True)


async def test_the_run_file_tells_tools_where_everything_is(stack: Stack) -> None:
    facts = stack.facts
    assert set(facts) >= {"gateway", "simulator", "grpc", "redis", "postgres", "pids"}
    assert set(facts["simulator"]) == {"iq", "exnova", "control"}
    assert set(facts["grpc"]) == {"session", "broker", "agent"}
    assert all(psutil.pid_exists(pid) for pid in facts["pids"].values())
