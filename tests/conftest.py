"""The order of the tests, and what no test may depend on: the speed of the machine, and luck."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("explore", deadline=None, max_examples=10_000, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any machine", settings.get_profile("explore"), max_examples=100, derandomize=True)
settings.load_profile("any machine")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that no worker is left alone with it; the rest stays in its random order."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
