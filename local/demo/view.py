"""The demo in the terminal: a live table, or plain lines where there is no terminal."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from local.demo.trader import Trader

_REFRESH: Final = 0.25
_LINE_EVERY: Final = 10.0


class View:
    """Shows traders while they trade."""

    def __init__(self, console: Console, traders: Sequence[Trader], seconds: float) -> None:
        self._console = console
        self._traders = traders
        self._seconds = seconds

    async def show(self) -> None:
        """Show them until cancelled."""
        if self._console.is_terminal:
            await self._live()
        else:
            await self._lines()

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with Live(self._table(self._seconds), console=self._console, refresh_per_second=8) as live:
            try:
                while True:
                    live.update(self._table(max(0.0, self._seconds - (loop.time() - began))))
                    await asyncio.sleep(_REFRESH)
            finally:
                live.update(self._table(0))

    async def _lines(self) -> None:
        while True:
            for trader in self._traders:
                state = " ".join(f"{head}={cell}" for head, cell in zip(_HEADS, _cells(trader), strict=True))
                self._console.print(state, soft_wrap=True)
            await asyncio.sleep(_LINE_EVERY)

    def _table(self, left: float) -> Table:
        table = Table(title=f"three users, one gateway · {left:.0f} s left")
        for head in _HEADS:
            table.add_column(head, justify="right" if head in _NUMBERS else "left")
        for trader in self._traders:
            table.add_row(*_cells(trader))
        return table


_HEADS: Final = (
    "user",
    "broker",
    "account",
    "bot",
    "doing",
    "balance",
    "profit",
    "won",
    "lost",
    "tied",
    "open",
    "last",
)
_NUMBERS: Final = frozenset({"balance", "profit", "won", "lost", "tied", "open"})


def _cells(trader: Trader) -> tuple[str, ...]:
    status = trader.status
    numbers = ("wins", "losses", "ties", "active_trades")
    return (
        trader.role.name,
        trader.role.broker,
        trader.role.account_type,
        trader.role.asset,
        trader.doing,
        f"{status.get('balance', 0):,.2f}",
        f"{status.get('profit', 0):+.2f}",
        *(str(status.get(name, 0)) for name in numbers),
        _last(trader),
    )


def _last(trader: Trader) -> str:
    """Describe the last event in a few words."""
    if trader.feed is None or not trader.feed.events:
        return "-"
    event: dict[str, Any] = trader.feed.events[-1]
    data = event["data"]
    match event["type"]:
        case "signal":
            return f"signal {data['action']} {data['confidence']:.2f}"
        case "trade_opened":
            return f"{data['direction']} {data['amount']:g} opened"
        case "trade_closed":
            return f"{data['direction']} {data['status']} {data['profit']:+.2f}"
        case kind:
            return str(kind)
