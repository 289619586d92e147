"""``make demo``: three users trade at once, and the simulator's ledger says whether everything was right.

It uses the system that runs on ``TRADEBOT_DATA``, or starts one of its own on a temporary folder. The exit status is 0
if everything held, 1 if something did not, 2 if the demo could not run.
"""

import argparse
import asyncio
import contextlib
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.table import Table

from local.client import Gateway
from local.demo.trader import Role, Trader
from local.demo.view import View
from local.folder import is_in_use, read_run_file
from local.ports import PortBlock
from local.running import RunningSystem, SystemEndedError
from local.settings import LocalSettings
from local.witness import Simulator, judge

# Each bot trades a simulated market that holds something to find (markets/catalogue.py); real markets need not.
ROLES: Final = (
    Role("A", "exnova", "PRACTICE", "AUDCAD-OTC"),
    Role("B", "iq", "REAL", "EURJPY-OTC"),
    Role("C", "exnova", "REAL", "NZDUSD-OTC"),
)


@contextlib.asynccontextmanager
async def _system(console: Console) -> AsyncIterator[dict[str, Any]]:
    """Yield the facts of the running system, or of an own one that ends with the demo."""
    data = LocalSettings().data
    facts = read_run_file(data)
    if facts is not None and is_in_use(data):
        console.print(f"using the system at {facts['gateway']}")
        yield facts
        return
    console.print("no system is running: starting one on a temporary folder")
    with (
        tempfile.TemporaryDirectory(prefix="tradebot-demo-", ignore_cleanup_errors=True) as own,
        PortBlock.claim() as ports,
    ):
        system = RunningSystem(Path(own), ports.pick())
        try:
            await asyncio.to_thread(system.wait_until_ready)
            yield system.facts
        finally:
            await asyncio.to_thread(system.stop)


async def _demo(console: Console, seconds: float) -> bool:
    run = secrets.token_hex(3)
    traders = [Trader(role, f"trader-{role.name.lower()}-{run}@example.com") for role in ROLES]
    async with (
        _system(console) as facts,
        Gateway(facts["gateway"]) as gateway,
        Simulator(facts["simulator"]["control"]) as simulator,
    ):
        view = asyncio.create_task(View(console, traders, seconds).show())
        try:
            async with asyncio.TaskGroup() as tasks:
                for trader in traders:
                    tasks.create_task(trader.run(gateway, seconds))
        finally:
            view.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await view
        for trader in traders:
            if trader.story is not None:
                orders = await simulator.ledger(trader.email)
                balance = await simulator.balance(trader.email, trader.role.broker, trader.role.account_type)
                trader.faults += judge(trader.story, orders, balance)
    _summary(console, traders)
    return not any(trader.faults for trader in traders)


def _summary(console: Console, traders: list[Trader]) -> None:
    table = Table(title="checked against the simulator's ledger")
    for head in ("user", "account", "bot + hand", "events", "balance", "profit", "ledger"):
        table.add_column(head)
    for trader in traders:
        verdict = "[red]differs" if trader.faults else "[green]agrees"
        table.add_row(trader.role.name, f"{trader.role.broker} {trader.role.account_type}", *_results(trader), verdict)
    console.print(table)
    for trader in traders:
        if trader.story is not None:
            console.print(f"{trader.role.name}: {trader.status['statistics']['verdict']}", markup=False)
        for fault in trader.faults:
            console.print(f"{trader.role.name}: {fault}", style="bold red", markup=False)
    console.print("A minute on a simulated market says nothing about profit anywhere else.", style="dim")


def _results(trader: Trader) -> tuple[str, ...]:
    story = trader.story
    if story is None or trader.feed is None:
        return ("-",) * 4
    placed = [trade for trade in story.trades if trade["broker_order_id"]]
    manual = sum(trade["source"] == "manual" for trade in placed)
    return (
        f"{len(placed) - manual} + {manual}",
        str(len(trader.feed.events)),
        f"{story.start_balance:,} → {story.end_balance:,}",
        f"{story.end_balance - story.start_balance:+}",
    )


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m local.demo", description="Three users trade at once.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the bots run (60)")
    seconds = parser.parse_args().seconds
    console = Console(highlight=False)
    try:
        held = asyncio.run(_demo(console, seconds))
    except (SystemEndedError, OSError, aiohttp.ClientError) as error:
        console.print(f"the demo could not run: {error}", style="bold red", markup=False)
        return 2
    except KeyboardInterrupt:
        return 130
    console.print("held" if held else "did not hold", style="bold green" if held else "bold red")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
