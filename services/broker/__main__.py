"""Runs the broker service: ``python -m services.broker``."""

import gc
from typing import Final

from services.broker.bootstrap import bootstrap
from services.broker.settings import Settings
from services.runtime.server import run

GC_THRESHOLDS: Final = (50_000, 5, 5)
"""A full collection walks all that thousands of sessions hold, 0.1 to 1 s in which no order is sent. With these it comes about
once in 3,000 new sessions, which bounds what closed ones leave waiting to some 75 MB."""


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    run("broker", settings, lambda: bootstrap(settings))


if __name__ == "__main__":
    main()
