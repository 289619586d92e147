"""``make proof``: bots earn where the simulator's markets hold something to earn, and hold where they do not.

Starts a system of its own whose simulator gives many pairs a mean-reverting market each, and some a random walk; every
pair has a bot on 5-second options, through the gateway, under the model that is shipped. Each pair is a market of its own
chance, so that the trades add up. It ends when the reverting markets have settled the wanted trades. The exit status is 0
if those made more than their 95 % interval and the random walks were held, 1 if not, 2 if it could not run.
"""

import argparse
import asyncio
import contextlib
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.table import Table

from local.client import ApiError, Gateway, UserSession
from local.ports import PortBlock
from local.running import RunningSystem, SystemEndedError
from local.witness import Simulator
from services.session.domain.evidence import CONFIDENCE_Z, Record

REVERTING: Final = tuple(
    f"{pair}-OTC"
    for pair in (
        "EURJPY", "AUDJPY", "AUDUSD", "USDCAD", "GBPCAD", "EURCAD", "EURAUD", "USDNOK", "EURNZD", "USDSEK",
        "AUDCHF", "AUDNZD", "EURCHF", "GBPNZD", "NZDCAD", "NZDJPY",
    )
)  # fmt: skip
RANDOM: Final = ("GBPUSD-OTC", "GBPCHF-OTC", "CHFJPY-OTC", "CADCHF-OTC")
TIMEFRAME: Final = 5
MAX_TRADE_RATE: Final = 0.01
_POLL: Final = 5.0
_FINAL: Final = frozenset({"won", "lost", "tied"})


@dataclass(slots=True)
class Desk:
    """One bot on one pair."""

    asset: str
    email: str
    session: UserSession | None = field(default=None, repr=False)
    trades: list[dict[str, Any]] = field(default_factory=list, repr=False)

    async def open(self, gateway: Gateway) -> None:
        """Connect and start the bot."""
        self.session = await gateway.connect(
            broker="iq",
            account_type="PRACTICE",
            email=self.email,
            password="secret",  # noqa: S106  # the documented password of every simulated account
        )
        await self.session.post("start", asset=self.asset, timeframe=TIMEFRAME, duration_seconds=TIMEFRAME, amount=1)

    async def look(self) -> None:
        """Read the settled trades."""
        if self.session is not None:
            self.trades = [trade for trade in await self.session.trades() if trade["status"] in _FINAL]


def main() -> int:
    """Run the proof."""
    parser = argparse.ArgumentParser(prog="make proof", description=__doc__)
    parser.add_argument("--trades", type=int, default=1000, help="settled trades of the reverting markets to wait for")
    parser.add_argument("--minutes", type=float, default=30.0, help="give up after this time")
    wanted = parser.parse_args()
    # The table is read in logs too, where no terminal says how wide it may be.
    console = Console(width=max(Console().width, 120))
    try:
        return asyncio.run(_prove(console, wanted.trades, wanted.minutes))
    except (SystemEndedError, aiohttp.ClientError, ApiError, TimeoutError) as error:
        console.print(f"the proof could not run: {error or 'nothing came in time'}", style="bold red", markup=False)
        return 2


async def _prove(console: Console, trades: int, minutes: float) -> int:
    markets = dict.fromkeys(REVERTING, "ar_rev") | dict.fromkeys(RANDOM, "rw")
    with (
        tempfile.TemporaryDirectory(prefix="tradebot-proof-", ignore_cleanup_errors=True) as own,
        PortBlock.claim() as ports,
    ):
        system = RunningSystem(Path(own), ports.pick(), env={"SIMULATOR_ASSET_MARKETS": json.dumps(markets)})
        try:
            await asyncio.to_thread(system.wait_until_ready)
            async with (
                Gateway(system.facts["gateway"]) as gateway,
                Simulator(system.facts["simulator"]["control"]) as simulator,
            ):
                desks = [Desk(asset, f"trader-{asset.lower()}@example.com") for asset in markets]
                async with asyncio.timeout(60 * minutes):
                    bars = await _run(console, gateway, desks, trades)
                return await _judge(console, simulator, desks, bars)
        finally:
            await asyncio.to_thread(system.stop)


async def _run(console: Console, gateway: Gateway, desks: Sequence[Desk], trades: int) -> float:
    """Trade until the reverting markets have settled enough; returns the candles that each bot has seen."""
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(desk.open(gateway) for desk in desks))
    began = loop.time()
    with console.status("trading") as status:
        while True:
            await asyncio.sleep(_POLL)
            await asyncio.gather(*(desk.look() for desk in desks))
            record = _record(desk for desk in desks if desk.asset in REVERTING)
            status.update(f"{loop.time() - began:.0f} s, reverting markets: {record.words()}")
            if record.decided + record.ties >= trades:
                break
    bars = (loop.time() - began) / TIMEFRAME
    for desk in desks:
        if desk.session is not None:
            await desk.session.post("stop")
    await asyncio.sleep(TIMEFRAME + _POLL)
    await asyncio.gather(*(desk.look() for desk in desks))
    return bars


def _record(desks: Any) -> Record:
    record = Record()
    for desk in desks:
        for trade in desk.trades:
            profit, payout = Decimal(str(trade["profit"])), Decimal(str(trade["payout_rate"]))
            record = record.and_trade(trade["status"], Decimal(str(trade["amount"])), profit, payout)
    return record


async def _judge(console: Console, simulator: Simulator, desks: Sequence[Desk], bars: float) -> int:
    earning = [desk for desk in desks if desk.asset in REVERTING]
    holding = [desk for desk in desks if desk.asset in RANDOM]
    profits = [float(trade["profit"]) / float(trade["amount"]) for desk in earning for trade in desk.trades]
    mean = math.fsum(profits) / len(profits)
    deviation = math.sqrt(math.fsum((p - mean) ** 2 for p in profits) / (len(profits) - 1))
    reach = CONFIDENCE_Z * deviation / math.sqrt(len(profits))
    record = _record(earning)
    rate = sum(len(desk.trades) for desk in holding) / (bars * len(holding))
    differences = [desk.asset for desk in desks if not await _agrees(simulator, desk)]

    table = Table(title="through the gateway, on simulated markets")
    for head in ("markets", "bots", "trades", "hit", "break-even", "profit a stake [95 %]", "verdict"):
        table.add_column(head)
    earns, holds = mean - reach > 0.0, rate <= MAX_TRADE_RATE
    interval = record.interval
    table.add_row(
        "mean-reverting",
        str(len(earning)),
        str(len(profits)),
        f"{record.hit_rate or 0.0:.1%} [{interval.low:.1%}, {interval.high:.1%}]",
        f"{record.break_even or 0.0:.1%}",
        f"{mean:+.3f} [{mean - reach:+.3f}, {mean + reach:+.3f}]",
        "[green]earns more than its interval" if earns else "[red]not shown",
    )
    table.add_row(
        "random walk",
        str(len(holding)),
        f"{sum(len(desk.trades) for desk in holding)} on {bars * len(holding):.0f} candles",
        "",
        "",
        "",
        f"[green]held ({rate:.2%} traded)" if holds else f"[red]traded {rate:.2%}",
    )
    console.print(table)
    agreement = f"differs: {', '.join(differences)}" if differences else "agrees with every trade"
    console.print(f"The simulator's ledger {agreement}.", markup=False)
    console.print(
        "It shows that the machinery finds an edge that exists. It says nothing about any real market.", style="dim"
    )
    return 0 if earns and holds and not differences else 1


async def _agrees(simulator: Simulator, desk: Desk) -> bool:
    """Tell whether the simulator booked exactly the trades that the session tells of, with the same outcomes."""
    booked = {o.order_id: o.outcome for o in await simulator.ledger(desk.email) if o.order_id and o.outcome}
    told = {trade["broker_order_id"]: trade["status"] for trade in desk.trades}
    return booked == told


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
