"""Turns a service's errors into gRPC statuses at one place, and lets nothing else out."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.runtime.errors import InternalError, ServiceError

Metadata = tuple[tuple[str, str | bytes], ...]
Context = grpc.aio.ServicerContext[Any, Any]

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
            try:
                return await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the last line before the wire
                await self._abort(context, method, error)

        return call

    def _stream(self, behaviour: Callable[..., Any], method: str) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async for response in behaviour(request, context):
                    yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the last line before the wire
                await self._abort(context, method, error)

        return call

    async def _abort(self, context: Context, method: str, error: Exception) -> None:
        if not isinstance(error, ServiceError):
            _log.error("call_failed", method=method, exc_info=error)
            error = InternalError("internal error")
        else:
            _log.info("call_refused", method=method, reason=error.reason)
        status = status_of(error, self._domain)
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
