"""Turns a service's errors into gRPC statuses at one place, and lets nothing else out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.runtime.errors import InternalError, ServiceError, StoppingError

Metadata = tuple[tuple[str, str | bytes], ...]
Context = grpc.aio.ServicerContext[Any, Any]

NOT_PROCESSED: Final = "not-processed.tradebot"
"""The ``ErrorInfo.domain`` of a call that was refused before anything was done for it."""
_HEALTH: Final = "/grpc.health."

_log = structlog.get_logger(__name__)


def _no_metadata(_error: ServiceError) -> Metadata:
    return ()


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps ``ServiceError`` to its status with google.rpc.ErrorInfo, and any other exception to INTERNAL.

    Args:
        domain: The ``ErrorInfo.domain`` of this service ("broker.tradebot").
        present: More trailing metadata for an error; the session service puts the REST contract's error body there.
    """

    def __init__(self, domain: str, present: Callable[[ServiceError], Metadata] = _no_metadata) -> None:
        self._domain = domain
        self._present = present
        self._refusing = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def refuse_new(self, patience: float) -> None:
        """Refuse every call from now on as not processed, and wait for the unary ones that are under way.

        Args:
            patience: Seconds to wait at most.
        """
        self._refusing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._idle.wait()

    async def intercept_service(
        self,
        # Quoted: generic in the type stubs only.
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap the method's handler."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, method), **codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream, method), **codecs)
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(self._stream(handler.stream_stream, method), **codecs)
        return handler

    def _unary(self, behaviour: Callable[..., Any], method: str) -> Callable[..., Any]:
        async def call(request: Any, context: Context) -> Any:
            await self._admit(context, method)
            self._under_way += 1
            self._idle.clear()
            try:
                return await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the last line before the wire
                await self._abort(context, method, error)
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.set()

        return call

    def _stream(self, behaviour: Callable[..., Any], method: str) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            await self._admit(context, method)
            try:
                async for response in behaviour(request, context):
                    yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the last line before the wire
                await self._abort(context, method, error)

        return call

    async def _admit(self, context: Context, method: str) -> None:
        # Whoever asks after our health is told by the health service that it ends.
        if self._refusing and not method.startswith(_HEALTH):
            await self._refuse(context, StoppingError(), NOT_PROCESSED)

    async def _abort(self, context: Context, method: str, error: Exception) -> None:
        if not isinstance(error, ServiceError):
            _log.error("call_failed", method=method, exc_info=error)
            error = InternalError("internal error")
        else:
            _log.info("call_refused", method=method, reason=error.reason)
        await self._refuse(context, error, self._domain)

    async def _refuse(self, context: Context, error: ServiceError, domain: str) -> None:
        status = status_of(error, domain)
        code = grpc.StatusCode[error.code.value]
        metadata = rpc_status.to_status(status).trailing_metadata
        await context.abort(code, error.message, (*metadata, *self._present(error)))


def status_of(error: ServiceError, domain: str) -> status_pb2.Status:
    """Render an error as google.rpc.Status with one ErrorInfo; tuples in its facts become comma-separated text."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=domain,
        metadata={k: ",".join(v) if isinstance(v, tuple) else str(v) for k, v in error.facts.items()},
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    return status_pb2.Status(code=code_pb2.Code.Value(error.code.value), message=error.message, details=[detail])


def error_info(error: grpc.aio.AioRpcError, domain: str) -> error_details_pb2.ErrorInfo | None:
    """Return the ErrorInfo of a failed call if the service of that domain itself raised it, else None.

    None means that the failure is the transport's (broken connection, deadline) and proves nothing about the call.
    """
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) and detail.Unpack(info) and info.domain == domain:
                return info
    return None


def was_not_processed(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a process that is about to end refused the call before it did anything for it."""
    return error_info(error, NOT_PROCESSED) is not None
