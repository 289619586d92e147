"""What ``make up`` says to the person at the terminal: one line an event, coloured where there is a terminal."""

import contextlib
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text


class Terminal:
    """Reports on stderr; stdout carries only the ``ready`` line, for tools."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, words: str, style: str = "") -> None:
        """Print a line. A terminal that has been closed is no reason to stop."""
        with contextlib.suppress(OSError):
            self._console.print(Text(words, style=style))

    def announce(self, url: str) -> None:
        """Print the line that tools wait for."""
        with contextlib.suppress(OSError):
            print(f"ready {url}", flush=True)

    def starting(self, name: str) -> None:
        """Tell that a process is being started for the first time."""
        self.say(f"  {name:<18} starting", "dim")

    def ready(self, name: str, seconds: float, *, again: bool) -> None:
        """Tell that a process is ready."""
        self.say(f"  {name:<18} {'back' if again else 'ready'} after {seconds:.1f} s", "green")

    def died(self, name: str, how: str, delay: float, log_tail: Sequence[str]) -> None:
        """Tell that a process died and will be restarted."""
        self.say(f"  {name:<18} {how}, restarting in {delay:.1f} s", "bold yellow")
        for line in log_tail:
            self.say(f"  {name:<18} | {line}", "dim")

    def stopping(self, name: str) -> None:
        """Tell that a process is being stopped."""
        self.say(f"  {name:<18} stopping", "dim")
