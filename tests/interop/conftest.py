"""Builds an environment for each community client, once per set of requirements."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_TIMEOUT = 300.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "interop_full: trades of the community clients run to their real expiry (minutes)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long form to ``make interop``, which asks for it by its marker."""
    if "interop_full" in config.getoption("markexpr", ""):
        return
    long = [item for item in items if item.get_closest_marker("interop_full")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def client_python() -> "Environments":
    return Environments(ROOT / ".data" / "interop")


class Environments:
    """Virtual environments in the data folder, told apart by a hash of what is in them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, requirements: str) -> Path:
        """Return the interpreter of an environment, building it if need be; skips the test if that fails."""
        wanted = Path(__file__).with_name(requirements)
        home = self._folder / f"{wanted.stem}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
        done = home / ".installed"
        python = home / "bin" / "python"
        if not done.exists():
            try:
                self._run(sys.executable, "-m", "venv", "--clear", str(home))
                self._run(
                    str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(wanted)
                )
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                pytest.skip(f"the environment of {wanted.name} cannot be built: {error}")
            done.touch()
        return python

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=BUILD_TIMEOUT)  # noqa: S603  # our own command
