"""tradebot.agent.v1.AgentService: decode, call, encode."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from tradebot.agent.v1 import agent_service_pb2 as pb
from tradebot.agent.v1 import agent_service_pb2_grpc

from services.agent import codec
from services.agent.decider import Decider
from services.agent.domain.errors import DrainingError, InvalidArgumentError
from services.agent.registry.catalogue import Catalogue

Context = grpc.aio.ServicerContext[Any, Any]

_DEFAULT_PAGE: Final = 50
_LARGEST_PAGE: Final = 100


class AgentServicer(agent_service_pb2_grpc.AgentServiceServicer):
    """Serves decisions and the models that make them."""

    def __init__(self, decider: Decider, catalogue: Callable[[], Catalogue]) -> None:
        self._decider = decider
        self._catalogue = catalogue
        self._streams: set[asyncio.Task[Any]] = set()
        self._draining = False

    async def Decide(self, request: pb.DecideRequest, _context: Context) -> pb.DecideResponse:
        """Decide on a window."""
        terms = codec.terms_from_proto(request.context)
        candles = codec.candles_from_proto(request.candles)
        answer = await self._decider.decide(terms, request.context.model, request.context.model_version, candles)
        return codec.decide_response(answer)

    async def DecideStream(
        self, request_iterator: AsyncIterator[pb.DecideStreamRequest], _context: Context
    ) -> AsyncIterator[pb.DecideStreamResponse]:
        """Decide candle by candle."""
        if self._draining:
            raise DrainingError
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in a task
        self._streams.add(task)
        try:
            async for response in self._stream(request_iterator):
                yield response
        except asyncio.CancelledError:
            if self._draining:
                raise DrainingError from None
            raise
        finally:
            self._streams.discard(task)

    async def _stream(
        self, request_iterator: AsyncIterator[pb.DecideStreamRequest]
    ) -> AsyncIterator[pb.DecideStreamResponse]:
        opening = await anext(aiter(request_iterator), None)
        if opening is None:
            return
        if opening.WhichOneof("message") != "open":
            raise InvalidArgumentError("open", "must be the first message")
        wanted = opening.open.context
        terms = codec.terms_from_proto(wanted)
        candles = codec.candles_from_proto(opening.open.candles)
        with self._decider.open(terms, wanted.model, wanted.model_version, candles) as stream:
            yield codec.stream_response(await stream.first())
            async for message in request_iterator:
                if message.WhichOneof("message") != "next":
                    raise InvalidArgumentError("next", "must be every message after the first")
                following = message.next
                answer = await stream.next(
                    codec.candle_from_proto(following.candle),
                    following.payout_rate if following.HasField("payout_rate") else None,
                    following.as_of_time if following.HasField("as_of_time") else None,
                )
                yield codec.stream_response(answer)

    async def ListModels(self, request: pb.ListModelsRequest, _context: Context) -> pb.ListModelsResponse:
        """List the loaded models."""
        if request.page_size < 0:
            raise InvalidArgumentError("page_size", "must not be negative")
        if request.page_token and not (request.page_token.isascii() and request.page_token.isdigit()):
            raise InvalidArgumentError("page_token", "must come from the last answer")
        start = int(request.page_token or "0")
        size = min(request.page_size or _DEFAULT_PAGE, _LARGEST_PAGE)
        entries = self._catalogue().entries()
        page = entries[start : start + size]
        return pb.ListModelsResponse(
            models=[codec.model_to_proto(entry, with_card=False) for entry in page],
            next_page_token=str(start + size) if start + size < len(entries) else "",
        )

    async def GetModel(self, request: pb.GetModelRequest, _context: Context) -> pb.GetModelResponse:
        """Return one model with its card."""
        if not request.name:
            raise InvalidArgumentError("name", "must be given")
        entry = self._catalogue().get(request.name, request.version)
        return pb.GetModelResponse(model=codec.model_to_proto(entry, with_card=True))

    async def drain(self) -> None:
        """End the open streams; their clients open them again elsewhere."""
        self._draining = True
        streams = list(self._streams)
        for task in streams:
            task.cancel()
        if streams:
            await asyncio.wait(streams, timeout=1.0)
