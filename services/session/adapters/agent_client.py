"""The agent service over gRPC: one stream per running bot, deadlines on every answer."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC
from typing import Final, Literal

import grpc
from tradebot.agent.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc

from services.runtime.errors import ServiceError
from services.runtime.interceptors import error_info
from services.session.domain.bot import BotSettings
from services.session.domain.errors import InvalidArgumentError, ModelNotFoundError, UnavailableError
from services.session.domain.model import ModelState, ModelVersion
from services.session.domain.values import Candle
from services.session.ports import Decision, DecisionFeed

_DOMAIN: Final = "agent.tradebot"
_TIMEOUT: Final = 5.0
"""Seconds for a call, and for each answer on a stream."""
_MAX_HISTORY: Final = 5_000
"""Candles the agent takes at most."""

_ACTIONS: Final[dict[int, Literal["HOLD", "CALL", "PUT"]]] = {
    agent_pb2.ACTION_HOLD: "HOLD",
    agent_pb2.ACTION_CALL: "CALL",
    agent_pb2.ACTION_PUT: "PUT",
}
_REASONS: Final = {
    agent_pb2.ABSTAIN_REASON_UNSPECIFIED: "",
    agent_pb2.ABSTAIN_REASON_NO_EDGE: "no_edge",
    agent_pb2.ABSTAIN_REASON_INSUFFICIENT_HISTORY: "insufficient_history",
    agent_pb2.ABSTAIN_REASON_STALE_OR_GAP: "stale_or_gap",
    agent_pb2.ABSTAIN_REASON_BAD_INPUT: "bad_input",
    agent_pb2.ABSTAIN_REASON_GATE_CLOSED: "gate_closed",
    agent_pb2.ABSTAIN_REASON_UNSUPPORTED_TERMS: "unsupported_terms",
}


def _error(error: grpc.aio.AioRpcError) -> ServiceError:
    info = error_info(error, _DOMAIN)
    if info is not None and info.reason == "MODEL_NOT_FOUND":
        return ModelNotFoundError()
    if info is not None and info.reason == "INVALID_ARGUMENT":
        return InvalidArgumentError(info.metadata.get("field", "request"), "was refused by the agent service")
    return UnavailableError("The agent")


def _candle(candle: Candle) -> agent_pb2.Candle:
    return agent_pb2.Candle(
        open_time=int(candle.open_time.timestamp()),
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
    )


def _parse_decision(decision: agent_pb2.Decision) -> Decision:
    return Decision(
        # An action that is not known is no reason to trade.
        action=_ACTIONS.get(decision.action, "HOLD"),
        reason=_REASONS.get(decision.abstain_reason, "unknown"),
        p_up=decision.p_up,
        break_even=decision.break_even,
        expected_value=decision.expected_value,
        model=decision.model,
        model_version=decision.model_version,
        model_sha256=decision.model_sha256,
    )


def _parse_model(model: agent_pb2.Model) -> ModelVersion:
    state = ModelState.ACTIVE if model.active else ModelState.SHADOW if model.shadow else ModelState.IDLE
    return ModelVersion(
        name=model.name,
        version=model.version,
        state=state,
        pinned=model.pinned,
        is_default=model.is_default,
        sha256=model.sha256,
        features_version=model.features_version,
        min_payout_rate=model.min_payout_rate,
        max_payout_rate=model.max_payout_rate,
        expiry_bars=model.expiry_bars,
        min_history=model.min_history,
        margin=model.margin,
        description=model.description,
        card=model.card,
        create_time=model.create_time.ToDatetime(tzinfo=UTC) if model.HasField("create_time") else None,
    )


class _GrpcFeed:
    """A DecideStream: one question, one answer, in turn."""

    def __init__(
        self,
        call: "grpc.aio.StreamStreamCall[agent_service_pb2.DecideStreamRequest, agent_service_pb2.DecideStreamResponse]",
    ) -> None:
        self._call = call

    async def next(self, candle: Candle, payout_rate: float) -> Decision:
        """Decide at the close of ``candle``."""
        following = agent_service_pb2.DecideStreamRequest.Next(candle=_candle(candle), payout_rate=payout_rate)
        return await self.ask(agent_service_pb2.DecideStreamRequest(next=following))

    async def ask(self, request: agent_service_pb2.DecideStreamRequest) -> Decision:
        """Write one message and read its answer."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._call.write(request)
                response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _error(error) from error
        except (TimeoutError, asyncio.InvalidStateError) as error:
            raise UnavailableError("The agent") from error
        if not isinstance(response, agent_service_pb2.DecideStreamResponse):  # grpc.aio.EOF
            raise UnavailableError("The agent")
        return _parse_decision(response.decision)


class GrpcAgent:
    """The agent service behind one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = agent_service_pb2_grpc.AgentServiceStub(channel)

    def decide_on(
        self, settings: BotSettings, payout_rate: float, history: Sequence[Candle]
    ) -> AbstractAsyncContextManager[DecisionFeed]:
        """Open a feed on closed candles, ascending."""
        return self._decide_on(settings, payout_rate, history)

    @asynccontextmanager
    async def _decide_on(
        self, settings: BotSettings, payout_rate: float, history: Sequence[Candle]
    ) -> AsyncIterator[DecisionFeed]:
        context = agent_pb2.DecisionContext(
            asset=settings.asset,
            timeframe=settings.timeframe,
            expiry=int(settings.duration.total_seconds()),
            payout_rate=payout_rate,
            model=settings.model,
        )
        opening = agent_service_pb2.DecideStreamRequest.Open(
            context=context, candles=[_candle(candle) for candle in history[-_MAX_HISTORY:]]
        )
        call = self._stub.DecideStream()
        feed = _GrpcFeed(call)
        try:
            # The answer to the opening is about a candle that closed before: nothing to act on.
            await feed.ask(agent_service_pb2.DecideStreamRequest(open=opening))
            yield feed
        finally:
            call.cancel()

    async def models(self) -> Sequence[ModelVersion]:
        """List every version of every model, by name, then newest first, without cards."""
        found: list[ModelVersion] = []
        request = agent_service_pb2.ListModelsRequest(page_size=100)
        try:
            while True:
                page = await self._stub.ListModels(request, timeout=_TIMEOUT)
                found += [_parse_model(model) for model in page.models]
                if not page.next_page_token:
                    return found
                request.page_token = page.next_page_token
        except grpc.aio.AioRpcError as error:
            raise _error(error) from error

    async def model(self, name: str, version: str = "") -> ModelVersion:
        """Return one version with its card; no name means the default model, no version the active one."""
        if not name:
            defaults = [model for model in await self.models() if model.is_default and model.state is ModelState.ACTIVE]
            if not defaults:
                raise ModelNotFoundError
            name = defaults[0].name
        try:
            request = agent_service_pb2.GetModelRequest(name=name, version=version)
            return _parse_model((await self._stub.GetModel(request, timeout=_TIMEOUT)).model)
        except grpc.aio.AioRpcError as error:
            raise _error(error) from error

    async def min_history(self, model: str) -> int:
        """Return how many closed candles the model wants before it decides."""
        return (await self.model(model)).min_history
