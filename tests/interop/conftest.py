"""Environments of the community clients, and what only ``make interop`` runs."""

import pytest

from tests.support.environments import Environments


@pytest.fixture(scope="session")
def client_python() -> Environments:
    return Environments()
