"""Between the wire's messages and the domain's values."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from google.protobuf import timestamp_pb2
from tradebot.agent.v1 import agent_pb2, agent_service_pb2

from services.agent.decider import Answer, Judgement
from services.agent.domain.candles import Candle, Candles
from services.agent.domain.decision import AbstainReason, Action, Terms
from services.agent.domain.errors import InvalidArgumentError
from services.agent.registry.catalogue import Entry

MAX_CANDLES: Final = 5000

_ACTIONS: Final = {
    Action.HOLD: agent_pb2.ACTION_HOLD,
    Action.CALL: agent_pb2.ACTION_CALL,
    Action.PUT: agent_pb2.ACTION_PUT,
}
_REASONS: Final = {
    None: agent_pb2.ABSTAIN_REASON_UNSPECIFIED,
    AbstainReason.NO_EDGE: agent_pb2.ABSTAIN_REASON_NO_EDGE,
    AbstainReason.INSUFFICIENT_HISTORY: agent_pb2.ABSTAIN_REASON_INSUFFICIENT_HISTORY,
    AbstainReason.STALE_OR_GAP: agent_pb2.ABSTAIN_REASON_STALE_OR_GAP,
    AbstainReason.BAD_INPUT: agent_pb2.ABSTAIN_REASON_BAD_INPUT,
    AbstainReason.GATE_CLOSED: agent_pb2.ABSTAIN_REASON_GATE_CLOSED,
    AbstainReason.UNSUPPORTED_TERMS: agent_pb2.ABSTAIN_REASON_UNSUPPORTED_TERMS,
}


def terms_from_proto(context: agent_pb2.DecisionContext) -> Terms:
    """Read the terms.

    Raises:
        InvalidArgumentError: A field is missing or out of range.
    """
    if not context.asset or len(context.asset) > 64:
        raise InvalidArgumentError("asset", "must be 1 to 64 characters")
    return Terms(
        timeframe=context.timeframe,
        expiry=context.expiry,
        payout_rate=context.payout_rate,
        margin=context.margin if context.HasField("margin") else None,
        as_of_time=context.as_of_time if context.HasField("as_of_time") else None,
    )


def candle_from_proto(candle: agent_pb2.Candle) -> Candle:
    """Read one candle."""
    return Candle(candle.open_time, candle.open, candle.high, candle.low, candle.close)


def candles_from_proto(candles: Sequence[agent_pb2.Candle]) -> Candles:
    """Read candles as columns.

    Raises:
        InvalidArgumentError: There are too many.
    """
    count = len(candles)
    if count > MAX_CANDLES:
        raise InvalidArgumentError("candles", f"must be at most {MAX_CANDLES}")
    return Candles(
        open_time=np.fromiter((c.open_time for c in candles), np.int64, count),
        open=np.fromiter((c.open for c in candles), np.float64, count),
        high=np.fromiter((c.high for c in candles), np.float64, count),
        low=np.fromiter((c.low for c in candles), np.float64, count),
        close=np.fromiter((c.close for c in candles), np.float64, count),
    )


def decision_to_proto(judgement: Judgement) -> agent_pb2.Decision:
    """Write one decision."""
    decision, manifest = judgement.decision, judgement.model.manifest
    return agent_pb2.Decision(
        action=_ACTIONS[decision.action],
        abstain_reason=_REASONS[decision.abstain_reason],
        p_up=decision.p_up,
        break_even=decision.break_even,
        expected_value=decision.expected_value,
        margin=decision.margin,
        model=manifest.name,
        model_version=manifest.version,
        model_sha256=manifest.sha256,
        bar_open_time=decision.bar_open_time,
    )


def decide_response(answer: Answer) -> agent_service_pb2.DecideResponse:
    """Write the answer of Decide."""
    return agent_service_pb2.DecideResponse(
        decision=decision_to_proto(answer.active), shadows=[decision_to_proto(shadow) for shadow in answer.shadows]
    )


def stream_response(answer: Answer) -> agent_service_pb2.DecideStreamResponse:
    """Write one answer of DecideStream."""
    return agent_service_pb2.DecideStreamResponse(
        decision=decision_to_proto(answer.active), shadows=[decision_to_proto(shadow) for shadow in answer.shadows]
    )


def model_to_proto(entry: Entry, *, with_card: bool) -> agent_pb2.Model:
    """Write one version of a model."""
    manifest = entry.model.manifest
    created = timestamp_pb2.Timestamp()
    created.FromDatetime(manifest.create_time)
    low, high = manifest.payout_range
    return agent_pb2.Model(
        name=manifest.name,
        version=manifest.version,
        sha256=manifest.sha256,
        is_default=entry.is_default,
        active=entry.active,
        shadow=entry.shadow,
        min_history=manifest.min_history,
        min_payout_rate=low,
        max_payout_rate=high,
        features_version=manifest.features_version,
        description=manifest.description,
        card=entry.model.card if with_card else "",
        create_time=created,
        expiry_bars=manifest.expiry_bars,
        margin=manifest.margin,
        pinned=entry.pinned,
    )
