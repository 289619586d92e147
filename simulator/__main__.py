"""``python -m simulator``: runs until SIGINT or SIGTERM. All settings come from the environment, see settings.py."""

import asyncio
import logging
import signal

import structlog
import uvloop

from simulator.server import Simulator
from simulator.settings import Settings


async def run(settings: Settings) -> None:
    """Run a simulator until a signal asks it to end."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(settings) as simulator:
        await simulator.run_until(ended)


def main() -> None:
    """Set up logging and run."""
    settings = Settings()
    level = logging.getLevelNamesMapping()[settings.log_level]
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(),
    )
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
