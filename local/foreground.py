"""Runs the whole system in the foreground and tells the terminal about it."""

import asyncio
import signal
from collections.abc import Mapping

import psutil
from pydantic import ValidationError

from local.bots import running_bots
from local.folder import DataFolder, FolderInUseError, ForeignFolderError, read_run_file
from local.leftovers import end_leftovers, record
from local.parent import make_was_told_to_end
from local.ports import PortBlock, PortTakenError, require_free
from local.process import StartError
from local.settings import CHECKOUT, LocalSettings
from local.supervisor import Supervisor
from local.system import System, describe
from local.terminal import Terminal


async def run(folder: DataFolder, system: System, terminal: Terminal) -> None:
    """Run a described system until a signal says stop.

    Raises:
        StartError: A process did not become ready.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    announced = asyncio.Event()

    def on_spawn(pids: Mapping[str, int]) -> None:
        record(folder.run / "pids.json", pids)
        if announced.is_set():
            folder.publish(system.facts(pids))

    def on_ready() -> None:
        announced.set()
        folder.publish(system.facts(supervisor.pids))
        terminal.announce(system.gateway)
        terminal.say("Ctrl-C stops everything; data stays in the data folder", "dim")

    supervisor = Supervisor(system.processes, logs=folder.logs, cwd=CHECKOUT, reporter=terminal, on_spawn=on_spawn)

    async def follow_make() -> None:
        await make_was_told_to_end()
        stop.set()

    async def tell_of_bots() -> None:
        await announced.wait()
        for account_type, bots in (await running_bots(system.addresses["postgres"])).items():
            words = f"{bots} {account_type} bot{'s' if bots > 1 else ''} ran before: going on, unless the session has expired"
            terminal.say(words, "bold red" if account_type == "REAL" else "")

    besides = [asyncio.create_task(work()) for work in (follow_make, tell_of_bots)]
    try:
        await supervisor.run(stop, on_ready)
    finally:
        for task in besides:
            task.cancel()


def main() -> int:
    """Return the exit status: 0 after a stop by signal, 1 if the system could not be started."""
    terminal = Terminal()
    try:
        settings = LocalSettings()
    except ValidationError as error:
        for problem in error.errors():
            terminal.say(f"TRADEBOT_{str(problem['loc'][0]).upper()}: {problem['msg']}", "bold red")
        return 1
    try:
        with DataFolder(settings.data) as folder:
            folder.belong_to(settings.brokers)
            for name in end_leftovers(folder.run / "pids.json"):
                terminal.say(f"  {name:<18} ended: it was left over from a run that was killed", "yellow")
            require_free(settings.port, settings.host)
            with PortBlock.claim() as ports:
                system = describe(settings, folder, ports)
                terminal.say(f"tradebot: data in {folder.root}, logs in {folder.logs}", "bold")
                if settings.brokers == "real":
                    terminal.say(
                        "Sessions log in at the REAL brokers; an account_type of REAL trades real money.", "bold red"
                    )
                asyncio.run(run(folder, system, terminal))
        terminal.say("stopped")
    except FolderInUseError:
        facts = read_run_file(settings.data)
        where = f" at {facts['gateway']}" if facts else ""
        terminal.say(f"A system already runs on {settings.data}{where}.", "bold red")
        terminal.say("Stop it first, or give this one its own folder and port: TRADEBOT_DATA, TRADEBOT_PORT.")
        return 1
    except ForeignFolderError as error:
        terminal.say(f"The sessions in {settings.data} belong to the brokers: {error}.", "bold red")
        terminal.say(f"Give TRADEBOT_BROKERS={settings.brokers} a folder of its own: TRADEBOT_DATA.")
        return 1
    except PortTakenError as error:
        terminal.say(f"Port {error.port} is taken{_holder(error.port)}.", "bold red")
        terminal.say(f"Choose another: TRADEBOT_PORT={error.port + 1} make up")
        return 1
    except StartError as error:
        terminal.say(f"{error.name} {error.why}; its log {error.log} ends with:", "bold red")
        for line in error.log_tail:
            terminal.say(f"  | {line}")
        return 1
    except OSError as error:
        terminal.say(f"Cannot use the data folder {settings.data}: {error}", "bold red")
        return 1
    return 0


def _holder(port: int) -> str:
    """Name the program that listens on a port, as far as we may see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""
