"""Where the programs are that come inside Python packages."""

import importlib.util
from pathlib import Path


def package_folder(package: str) -> Path:
    """Return the folder of an installed package without importing it.

    Raises:
        ModuleNotFoundError: It is not installed; ``make up`` installs it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed; install tradebot[local]")
    return Path(spec.origin).parent
