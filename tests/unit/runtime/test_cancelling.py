"""A loop that outlives errors ends all the same when it is cancelled."""

import asyncio

import pytest

from services.runtime.cancelling import end_if_cancelled


async def outlives_errors(met: list[BaseException]) -> None:
    while True:
        try:
            try:
                await asyncio.Event().wait()
            finally:
                raise ConnectionError
        except ConnectionError as error:
            met.append(error)
            end_if_cancelled(error)


async def test_a_failure_on_the_way_out_does_not_lose_the_cancellation() -> None:
    met: list[BaseException] = []
    task = asyncio.create_task(outlives_errors(met))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as ended:
        await task
    assert ended.value.__cause__ is met[0]


async def test_a_time_out_is_no_cancellation() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    end_if_cancelled()
