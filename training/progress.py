"""Progress bars for the long steps; silent bars where nobody watches."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Item = TypeVar("Item")


class Progress:
    """One bar at a time, and lines that stay."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._note = ""

    def track(self, items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
        """Yield the items and move a bar on."""
        count = total if total is not None else len(items) if isinstance(items, Sized) else None
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._note = ""
        with Bars(*columns, console=self._console) as bars:
            task = bars.add_task(label, total=count, note="")
            for item in items:
                yield item
                bars.update(task, advance=1, note=self._note)

    def note(self, text: str) -> None:
        """Show a few words beside the bar."""
        self._note = text

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False)
