"""Frames that no broker should send: nothing crashes, hangs, grows, or reaches anybody else."""

import pytest

from tests.support.frame_fuzz import fuzz


@pytest.mark.parametrize("seed", range(4))
async def test_mutated_frames_do_no_harm(seed: int) -> None:
    counts = await fuzz(10_000, seed)
    assert counts.malformed > 1_000
    assert counts.understood > 500
