"""Environments of the community clients, and what only ``make interop`` runs."""

import pytest

from tests.support.environments import Environments


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
def client_python() -> Environments:
    return Environments()
