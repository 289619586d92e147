"""The small form of the rolling restarts; ``make faults`` has the big one."""

import logging

import pytest

from tests.support.rolling import REPLICAS, restart_in_turn
from tests.support.stack import running_stack

pytestmark = pytest.mark.slow

_log = logging.getLogger(__name__)


@pytest.mark.timeout(300)
async def test_restarts_of_every_service_in_turn_fail_no_call_and_break_no_stream() -> None:
    with running_stack(REPLICAS) as stack:
        report = await restart_in_turn(stack, rounds=2, users=4, pause=0.1)
    _log.info("%s", report)
    assert report.tally.failed == []
    assert report.faults == []
    assert report.resumes > 0
