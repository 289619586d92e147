"""Questions of many sessions become one run; each is answered as if it had come alone, and a failure reaches all."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from services.agent.batching import MAX_ROWS, Batcher
from services.agent.domain.decision import Opinion
from services.agent.features import FEATURES, FeatureArray, new_state
from services.agent.features.states import StreamStates


class CountingModel:
    """Says the first feature of each row and remembers how many rows it was asked for."""

    manifest: Any = None
    card = ""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def judge(self, features: FeatureArray) -> Sequence[Opinion]:
        self.runs.append(len(features))
        return [Opinion(float(row[0])) for row in features]


class BrokenModel(CountingModel):
    manifest: Any = SimpleNamespace(name="broken", version="1")

    def judge(self, features: FeatureArray) -> Sequence[Opinion]:
        raise FloatingPointError("not finite")


def row(value: float) -> FeatureArray:
    features = np.zeros((1, FEATURES), dtype=np.float32)
    features[0, 0] = value
    return features


async def test_questions_of_one_round_are_one_run() -> None:
    model, batcher = CountingModel(), Batcher(StreamStates())
    answers = await asyncio.gather(*(batcher.judge(row(n), (model,)) for n in range(50)))
    assert [opinion.p_up for (opinion,) in answers if opinion] == list(range(50))
    assert model.runs == [50]


async def test_a_lone_question_does_not_wait_for_others() -> None:
    model, batcher = CountingModel(), Batcher(StreamStates())
    future = batcher.judge(row(1.0), (model,))
    await asyncio.sleep(0)
    assert future.done()


async def test_the_same_window_is_run_once() -> None:
    model, batcher = CountingModel(), Batcher(StreamStates())
    shared = row(0.5)
    answers = await asyncio.gather(
        *(batcher.judge(shared, (model,)) for _ in range(20)), batcher.judge(row(2), (model,))
    )
    assert [opinion.p_up for (opinion,) in answers if opinion] == [0.5] * 20 + [2.0]
    assert model.runs == [2]


async def test_models_get_only_their_own_rows() -> None:
    first, second, batcher = CountingModel(), CountingModel(), Batcher(StreamStates())
    answers = await asyncio.gather(
        batcher.judge(row(1), (first,)),
        batcher.judge(row(2), (second, first)),
        batcher.judge(row(3), (first,)),
    )
    assert [[opinion.p_up for opinion in answer if opinion] for answer in answers] == [[1.0], [2.0, 2.0], [3.0]]
    assert sorted(first.runs) == [1, 2]
    assert second.runs == [1]


async def test_large_rounds_are_cut() -> None:
    model, batcher = CountingModel(), Batcher(StreamStates())
    answers = await asyncio.gather(*(batcher.judge(row(n), (model,)) for n in range(MAX_ROWS + 10)))
    assert [opinion.p_up for (opinion,) in answers if opinion] == list(range(MAX_ROWS + 10))
    assert model.runs == [MAX_ROWS, 10]


async def test_a_failing_model_fails_every_caller_of_the_batch() -> None:
    batcher = Batcher(StreamStates())
    answers = await asyncio.gather(*(batcher.judge(row(n), (BrokenModel(),)) for n in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [FloatingPointError] * 3


async def test_a_failing_shadow_harms_nobody() -> None:
    model, batcher = CountingModel(), Batcher(StreamStates())
    answers = await asyncio.gather(*(batcher.judge(row(n), (model, BrokenModel())) for n in range(3)))
    assert answers == [(Opinion(float(n)), None) for n in range(3)]


async def test_a_caller_that_gives_up_disturbs_nobody_and_its_stream_still_moves_on() -> None:
    model, states = CountingModel(), StreamStates()
    batcher = Batcher(states)
    slots = [states.take(new_state()) for _ in range(2)]
    impatient = batcher.step(slots[0], 0.1, (model,))
    patient = batcher.step(slots[1], 0.1, (model,))
    impatient.cancel()
    await patient
    assert np.array_equal(states.describe(slots[0]), states.describe(slots[1]))


async def test_streams_and_windows_share_a_run() -> None:
    model, states = CountingModel(), StreamStates(capacity=1)
    batcher = Batcher(states)
    slots = [states.take(new_state()) for _ in range(3)]
    answers = await asyncio.gather(
        batcher.step(slots[0], 0.1, (model,)), batcher.judge(row(7), (model,)), batcher.step(slots[2], 0.2, (model,))
    )
    assert answers[1] == (Opinion(7.0),)
    assert model.runs == [3]


def test_a_row_given_back_is_taken_again() -> None:
    states = StreamStates(capacity=2)
    first = states.take(new_state())
    second = states.take(new_state())
    states.give_back(first)
    assert states.take(new_state()) == first
    assert states.take(new_state()) not in (first, second)


@pytest.mark.parametrize("count", [1, 3])
def test_advancing_together_or_alone_is_the_same(count: int) -> None:
    states = StreamStates(capacity=4)
    slots = [states.take(new_state()) for _ in range(count)]
    rng = np.random.default_rng(1)
    alone = StreamStates(capacity=1)
    single = alone.take(new_state())
    for _ in range(40):
        values = rng.standard_normal(count)
        together = states.advance(slots, values.tolist())
        apart = alone.advance([single], values[:1].tolist())
        assert np.array_equal(together[0], apart[0])
