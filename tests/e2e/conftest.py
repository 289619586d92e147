from collections.abc import Iterator

import pytest

from tests.support.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One system for all end-to-end tests of a worker: starting one costs seconds."""
    with running_stack() as running:
        yield running
