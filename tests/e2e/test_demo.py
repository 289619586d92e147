"""The demo holds on a running system."""

import asyncio
import os
import sys

import pytest

from local.settings import CHECKOUT
from tests.support.stack import Stack

pytestmark = pytest.mark.slow


@pytest.mark.timeout(180)
async def test_the_demo_on_a_running_system_agrees_with_the_simulators_ledger(stack: Stack) -> None:
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local.demo", "--seconds", "30"),
        cwd=CHECKOUT,
        env={**os.environ, "TRADEBOT_DATA": str(stack.system.data)},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(demo.communicate(), 160)
    said = output.decode()
    assert demo.returncode == 0, said
    assert said.count("agrees") == 3
    assert said.endswith("held\n")
