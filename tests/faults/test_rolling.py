"""The big form of the rolling restarts: ten of each service, ten thousand calls, none fails."""

import logging

import pytest

from tests.support.rolling import REPLICAS, restart_in_turn
from tests.support.stack import running_stack

ROUNDS = 10
CALLS = 10_000
_log = logging.getLogger(__name__)


@pytest.mark.faults
@pytest.mark.timeout(1800)
async def test_ten_restarts_of_each_service_fail_no_call_of_ten_thousand() -> None:
    with running_stack(REPLICAS) as stack:
        report = await restart_in_turn(stack, rounds=ROUNDS, users=12, pause=0.05, at_least=CALLS)
    _log.info("%s", report)
    assert report.tally.failed == []
    assert report.faults == []
    assert report.tally.calls.total() >= CALLS
    assert report.resumes > 0
