"""The least a streaming gRPC service can do: sends every message back as it came, unread."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop


async def echo(messages: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    """Answer every message with itself."""
    async for message in messages:
        yield message


async def serve() -> None:
    """Serve DecideStream's method on a free port until killed."""
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "DecideStream": grpc.stream_stream_rpc_method_handler(echo)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tradebot.agent.v1.AgentService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"event": "serving", "port": port}), file=sys.stderr, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
