"""The use cases: decide on a window, and decide bar by bar on a stream."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from services.agent.batching import Batcher
from services.agent.domain.candles import Candle, Candles, History, Tape, read_history
from services.agent.domain.decision import AbstainReason, Decision, Opinion, Terms, abstain, decide
from services.agent.features import FeatureArray, FloatArray, describe, new_state, state_of
from services.agent.features.states import StreamStates
from services.agent.registry.catalogue import Catalogue, Choice, Model

_REMEMBERED_WINDOWS: Final = 1024


class Judgement(msgspec.Struct, frozen=True):
    """One model's decision."""

    model: Model
    decision: Decision


class Answer(msgspec.Struct, frozen=True):
    """The active model's decision and those of its shadows, which are for the record and never to be traded."""

    active: Judgement
    shadows: tuple[Judgement, ...]


class _Windows:
    """Remembers the states and features of the windows seen last, by content: each is computed once."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[FloatArray, FeatureArray]] = OrderedDict()

    def of(self, history: History) -> tuple[FloatArray, FeatureArray]:
        content = hashlib.blake2b(len(history.returns).to_bytes(8), digest_size=16)
        content.update(history.returns.tobytes())
        content.update(history.starts.tobytes())
        key = content.digest()
        found = self._known.get(key)
        if found is None:
            state = state_of(history.returns, history.starts)
            found = self._known[key] = (state, describe(state))
            if len(self._known) > _REMEMBERED_WINDOWS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return found


class Decider:
    """Decides for all sessions. Holds no state of any of them beyond their open streams."""

    def __init__(self, catalogue: Callable[[], Catalogue]) -> None:
        self._catalogue = catalogue
        self._states = StreamStates()
        self._batcher = Batcher(self._states)
        self._windows = _Windows()

    async def decide(self, terms: Terms, name: str, version: str, candles: Candles) -> Answer:
        """Decide on the newest of the closed candles.

        Raises:
            ModelNotFoundError: There is no such model or version.
        """
        choice = self._catalogue().resolve(name, version)
        history = read_history(candles, terms.timeframe)
        if history is None:
            return _refuse(choice, terms, _newest(candles), AbstainReason.BAD_INPUT)
        tape, bars = history.tape, len(history.returns)
        objections = [_objection(model, terms, tape, bars) for model in _models(choice)]
        if all(objections):
            return _answer(choice, terms, tape.open_time, objections)
        _, row = self._windows.of(history)
        opinions = await self._batcher.judge(row, _models(choice))
        return _answer(choice, terms, tape.open_time, objections, opinions)

    def open(self, terms: Terms, name: str, version: str, candles: Candles) -> "DecisionStream":
        """Open a stream on a history; close it by leaving its ``with`` block.

        Raises:
            ModelNotFoundError: There is no such model or version.
        """
        self._catalogue().resolve(name, version)
        history = read_history(candles, terms.timeframe)
        state = new_state() if history is None else self._windows.of(history)[0]
        return DecisionStream(
            terms=terms,
            name=name,
            version=version,
            catalogue=self._catalogue,
            batcher=self._batcher,
            states=self._states,
            slot=self._states.take(state),
            history=history,
        )


class DecisionStream:
    """One bot's candles. Each answer is that of the model that is active at its time."""

    def __init__(
        self,
        *,
        terms: Terms,
        name: str,
        version: str,
        catalogue: Callable[[], Catalogue],
        batcher: Batcher,
        states: StreamStates,
        slot: int,
        history: History | None,
    ) -> None:
        self._terms = terms
        self._name = name
        self._version = version
        self._catalogue = catalogue
        self._batcher = batcher
        self._states = states
        self._slot = slot
        self._bad_history = history is None
        # After a history that was nonsense the stream begins empty.
        self._tape = history.tape if history else Tape(terms.timeframe)
        self._bars = len(history.returns) if history else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._states.give_back(self._slot)

    async def first(self) -> Answer:
        """Decide on the newest candle of the history."""
        choice = self._choice()
        if self._bad_history:
            return _refuse(choice, self._terms, 0, AbstainReason.BAD_INPUT)
        objections = self._objections(choice)
        if all(objections):
            return _answer(choice, self._terms, self._tape.open_time, objections)
        opinions = await self._batcher.judge(self._states.describe(self._slot), _models(choice))
        return _answer(choice, self._terms, self._tape.open_time, objections, opinions)

    async def next(self, candle: Candle, payout_rate: float | None, as_of_time: int | None) -> Answer:
        """Decide on the next closed candle.

        A candle that is nonsense or not newer than the last one is answered with ``bad_input`` and otherwise ignored.

        Raises:
            InvalidArgumentError: The payout rate is out of range; the candle was not taken in.
            ModelNotFoundError: The stream's model is gone.
        """
        choice = self._choice()
        terms = self._terms
        if (payout_rate is not None and payout_rate != terms.payout_rate) or as_of_time != terms.as_of_time:
            payout_rate = terms.payout_rate if payout_rate is None else payout_rate
            terms = Terms(terms.timeframe, terms.expiry, payout_rate, terms.margin, as_of_time)
            self._terms = terms
        if not self._tape.accepts(candle):
            return _refuse(choice, terms, self._tape.open_time, AbstainReason.BAD_INPUT)
        log_return = self._tape.follow(candle)
        if log_return is None:
            self._states.break_off(self._slot)
            return _answer(choice, terms, self._tape.open_time, self._objections(choice))
        self._bars += 1
        opinions = await self._batcher.step(self._slot, log_return, _models(choice))
        return _answer(choice, terms, self._tape.open_time, self._objections(choice), opinions)

    def _choice(self) -> Choice:
        return self._catalogue().resolve(self._name, self._version)

    def _objections(self, choice: Choice) -> list[AbstainReason | None]:
        return [_objection(model, self._terms, self._tape, self._bars) for model in _models(choice)]


def _objection(model: Model, terms: Terms, tape: Tape, bars: int) -> AbstainReason | None:
    manifest = model.manifest
    low, high = manifest.payout_range
    if terms.expiry != manifest.expiry_bars * terms.timeframe or not low <= terms.payout_rate <= high:
        return AbstainReason.UNSUPPORTED_TERMS
    return tape.objection(terms, bars, manifest.min_history)


def _models(choice: Choice) -> tuple[Model, ...]:
    return (choice.active, *choice.shadows)


def _newest(candles: Candles) -> int:
    return int(candles.open_time[-1]) if len(candles) else 0


def _refuse(choice: Choice, terms: Terms, bar_open_time: int, reason: AbstainReason) -> Answer:
    return _answer(choice, terms, bar_open_time, [reason] * (1 + len(choice.shadows)))


def _answer(
    choice: Choice,
    terms: Terms,
    bar_open_time: int,
    objections: Sequence[AbstainReason | None],
    opinions: Sequence[Opinion | None] = (),
) -> Answer:
    """Put the models' decisions together; without opinions there must be an objection for every model.

    A shadow without an opinion has failed and is left out.
    """
    judgements = []
    for place, model in enumerate(_models(choice)):
        margin = model.manifest.margin if terms.margin is None else terms.margin
        reason = objections[place]
        if reason is not None:
            judgements.append(Judgement(model, abstain(reason, terms, margin, bar_open_time)))
        elif (opinion := opinions[place]) is not None:
            judgements.append(Judgement(model, decide(opinion, terms, margin, bar_open_time)))
    return Answer(judgements[0], tuple(judgements[1:]))
