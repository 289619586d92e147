"""The least a gRPC service can do: answers GetBalance and PlaceTrade from nothing. ``python -m bench.support.echo PORT``."""

import asyncio
import sys
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tradebot.session.v1 import session_service_pb2, trade_pb2


class Echo:
    """Answers at once."""

    async def GetBalance(self, request: Any, _context: Any) -> session_service_pb2.GetBalanceResponse:
        """Answer with the session's own id."""
        return session_service_pb2.GetBalanceResponse(
            success=True,
            session_id=request.session_id,
            balance=1000.25,
            currency="USD",
            account_type="REAL",
            broker="iq",
        )

    async def PlaceTrade(self, request: Any, _context: Any) -> trade_pb2.Trade:
        """Answer with the order."""
        return trade_pb2.Trade(
            success=True, trade_id="9d1f9f38-0a55-4f0b-8a39-54d1b0a4c6ae", status="open", asset=request.asset,
            direction=request.direction, amount=request.amount, currency="USD", payout_rate=0.87,
        )  # fmt: skip


async def serve(port: int) -> None:
    """Serve until killed."""
    # As our own servers: channels may ping when nothing is sent.
    server = grpc.aio.server(options=[("grpc.http2.max_ping_strikes", 0)])
    names = ("GetBalance", "PlaceTrade")
    service = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"]
    echo = Echo()
    handlers: dict[str, Any] = {}
    for name in names:
        method = service.methods_by_name[name]
        request = getattr(session_service_pb2, method.input_type.name)
        handlers[name] = grpc.unary_unary_rpc_method_handler(
            getattr(echo, name),
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
