"""Runs the broker service: ``python -m services.broker``."""

from services.broker.bootstrap import bootstrap
from services.broker.settings import Settings
from services.runtime.server import run


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    run("broker", settings, lambda: bootstrap(settings))


if __name__ == "__main__":
    main()
