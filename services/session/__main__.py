"""Runs the session service: ``python -m services.session``."""

from services.runtime.server import run
from services.session.bootstrap import bootstrap
from services.session.settings import SessionSettings

if __name__ == "__main__":
    settings = SessionSettings()  # type: ignore[call-arg]  # the environment gives the rest
    run("session", settings, lambda: bootstrap(settings))
