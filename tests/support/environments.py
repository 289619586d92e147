"""Environments of the community's clients, which cannot live in ours."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "tests" / "interop"
BUILD_TIMEOUT = 300.0
FARIA = "requirements-faria-7.1.2.txt"


class Environments:
    """Virtual environments in the data folder, told apart by a hash of what is in them."""

    def __init__(self, folder: Path = ROOT / ".data" / "interop") -> None:
        self._folder = folder

    def __call__(self, requirements: str) -> Path:
        """Return the interpreter of an environment, building it if need be; skips the test if that fails."""
        wanted = REQUIREMENTS / requirements
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
