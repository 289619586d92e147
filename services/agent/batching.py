"""Puts the questions of many sessions into one run of the network, without making any of them wait.

Questions that arrive while the event loop works through one round of its ready tasks are answered together at the end
of that round. A question that comes alone is answered alone, in the same round.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import structlog

from services.agent.domain.decision import Opinion
from services.agent.features import FeatureArray
from services.agent.features.states import StreamStates
from services.agent.registry.catalogue import Model

MAX_ROWS: Final = 256
"""Rows in one run: more fit no cache and keep the event loop too long."""

Models = tuple[Model, ...]
Opinions = tuple[Opinion | None, ...]
"""One of each model; None of a shadow that failed."""

_log = structlog.get_logger(__name__)


class _Question(msgspec.Struct, frozen=True):
    models: Models
    """Who answers."""
    answer: "asyncio.Future[Opinions]"
    row: FeatureArray | None
    """A feature row that is known already; None for a step of a stream."""
    slot: int = 0
    log_return: float = 0.0


class Batcher:
    """Collects questions and answers them in batches. Belongs to one event loop."""

    def __init__(self, states: StreamStates) -> None:
        self._states = states
        self._waiting: list[_Question] = []

    def judge(self, row: FeatureArray, models: Models) -> "asyncio.Future[Opinions]":
        """Ask for the models' opinions on a feature row (1, FEATURES), in the models' order.

        The first model decides: its failure is the caller's. The others shadow it and cannot harm it.
        """
        return self._ask(_Question(models, asyncio.get_running_loop().create_future(), row))

    def step(self, slot: int, log_return: float, models: Models) -> "asyncio.Future[Opinions]":
        """Move a stream's state on by one bar and ask for opinions on it.

        The state moves on exactly once, even if the caller does not wait for the answer.
        """
        future: asyncio.Future[Opinions] = asyncio.get_running_loop().create_future()
        return self._ask(_Question(models, future, None, slot, log_return))

    def _ask(self, question: _Question) -> "asyncio.Future[Opinions]":
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(question)
        return question.answer

    def _flush(self) -> None:
        questions, self._waiting = self._waiting, []
        for start in range(0, len(questions), MAX_ROWS):
            batch = questions[start : start + MAX_ROWS]
            try:
                self._answer(batch)
            except Exception as error:  # noqa: BLE001 - every caller must hear of it; the interceptor logs it
                for question in batch:
                    if not question.answer.done():
                        question.answer.set_exception(error)

    def _answer(self, batch: list[_Question]) -> None:
        steps = [question for question in batch if question.row is None]
        known = [question for question in batch if question.row is not None]
        blocks: list[FeatureArray] = []
        if steps:
            blocks.append(self._states.advance([q.slot for q in steps], [q.log_return for q in steps]))
        # Questions on the same window share one row object: it is run once.
        places: dict[int, int] = {}
        for question in known:
            if question.row is not None and id(question.row) not in places:
                places[id(question.row)] = len(steps) + len(places)
                blocks.append(question.row)
        rows = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        asked = [*enumerate(steps), *((places[id(question.row)], question) for question in known)]
        groups: dict[Models, list[tuple[int, _Question]]] = {}
        for place, question in asked:
            groups.setdefault(question.models, []).append((place, question))
        for models, members in groups.items():
            wanted = sorted({place for place, _ in members})
            part = rows if len(wanted) == len(rows) else rows[wanted]
            position = {place: at for at, place in enumerate(wanted)}
            opinions = [models[0].judge(part), *(_shadow(model, part) for model in models[1:])]
            for place, question in members:
                if not question.answer.done():
                    question.answer.set_result(tuple(given[position[place]] for given in opinions))


def _shadow(model: Model, rows: FeatureArray) -> Sequence[Opinion | None]:
    try:
        return model.judge(rows)
    except Exception as error:  # noqa: BLE001 - a shadow must not fail the call that it watches
        _log.error("shadow_failed", model=model.manifest.name, version=model.manifest.version, exc_info=error)
        return [None] * len(rows)
