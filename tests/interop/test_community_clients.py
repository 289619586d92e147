"""Clients that we did not write, unmodified but for the host, trade on the simulator."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from simulator.server import Simulator
from simulator.settings import Settings
from tests.support.environments import ROOT, Environments

FARIA = ("requirements-faria-7.1.2.txt", "tests.interop.client_faria")
OLDEST = ("requirements-iqoptionapi-0.5.txt", "tests.interop.client_iqoptionapi")


async def run_steps(python: Path, script: str, brand: str, form: str) -> list[dict[str, object]]:
    """Run a client against a fresh simulator and return what it says of its steps."""
    async with Simulator(Settings(login_attempts=50)) as simulator:
        client = await asyncio.create_subprocess_exec(
            str(python),
            "-m",
            script,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ
            | {
                "SIMULATOR_BRAND": brand,
                "SIMULATOR_HTTP": simulator.addresses[brand]["http"],
                "SIMULATOR_WS": simulator.addresses[brand]["ws"],
                "SIMULATOR_CONTROL": simulator.control,
                "INTEROP_FORM": form,
            },
        )
        try:
            output, _ = await client.communicate()
        finally:
            if client.returncode is None:
                client.kill()
                await client.wait()
    assert client.returncode == 0, "the script broke off"
    return [json.loads(line) for line in output.splitlines() if line.startswith(b'{"step"')]


async def check(environments: Environments, client: tuple[str, str], brand: str, form: str, steps: int) -> None:
    requirements, script = client
    python = await asyncio.to_thread(environments, requirements)
    results = await run_steps(python, script, brand, form)
    for result in results:
        sys.stdout.write(f"  {'ok ' if result['ok'] else 'BAD'} {result['step']}\n")
    failed = [result for result in results if not result["ok"]]
    assert not failed, "\n".join(f"{result['step']}: {result['detail']}" for result in failed)
    assert len(results) == steps


@pytest.mark.timeout(420)
async def test_faria_7_1_2_passes_every_step_with_trades_settled_early(client_python: Environments) -> None:
    await check(client_python, FARIA, "iq", "small", steps=35)


@pytest.mark.timeout(420)
async def test_iqoptionapi_0_5_passes_every_step_with_trades_settled_early(client_python: Environments) -> None:
    await check(client_python, OLDEST, "iq", "small", steps=10)


@pytest.mark.interop_full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("brand", ["iq", "exnova"])
async def test_faria_7_1_2_passes_every_step_with_trades_run_to_expiry(client_python: Environments, brand: str) -> None:
    await check(client_python, FARIA, brand, "full", steps=35)


@pytest.mark.interop_full
@pytest.mark.timeout(600)
async def test_iqoptionapi_0_5_passes_every_step_with_trades_run_to_expiry(client_python: Environments) -> None:
    await check(client_python, OLDEST, "iq", "full", steps=10)
