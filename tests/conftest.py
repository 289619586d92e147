"""The order of the tests."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that no worker is left alone with it; the rest stays in its random order."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
