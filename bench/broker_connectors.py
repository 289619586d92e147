"""What a session costs with our own connector and with the iqoptionapi library in a child process.

``python -m bench.broker_connectors [--sessions N]``: each session is connected to the simulator with a live 1-second candle.
Memory and CPU are those of the broker process and all its children, above an idle broker process.
"""

import argparse
import asyncio
import json
import logging
import time

import psutil
import structlog
import uvloop
from tradebot.broker.v1 import account_pb2, broker_service_pb2_grpc
from tradebot.broker.v1 import broker_service_pb2 as pb

from bench.broker_sessions import line, process
from services.runtime.channel import open_channel
from simulator.server import Simulator
from tests.support.environments import FARIA, Environments

SECONDS = 10.0


def family(root: psutil.Process) -> list[psutil.Process]:
    """Return a process and all its children."""
    return [root, *root.children(recursive=True)]


def proportional_kilobytes(root: psutil.Process) -> float:
    """Return the memory of a process and its children, pages they share counted once."""
    return sum(member.memory_full_info().pss for member in family(root)) / 1024


def cpu_seconds(root: psutil.Process) -> float:
    """Return the CPU time that a process and its children have used."""
    return sum(sum(member.cpu_times()[:2]) for member in family(root))


async def measure(name: str, sessions: int, env: dict[str, str]) -> str:
    """Measure one connector and return its row."""
    async with Simulator() as simulator:
        iq = simulator.addresses["iq"]
        env = {"BROKER_IQ_HTTP_URL": iq["http"], "BROKER_IQ_WS_URL": iq["ws"], **env}
        async with process("services.broker", env=env) as service:
            port = 0
            while not port:
                event = json.loads(await line(service.stderr))
                port = event.get("port", 0) if event["event"] == "serving" else 0
            root = psutil.Process(service.pid)
            async with open_channel(f"127.0.0.1:{port}") as channel:
                stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
                idle = proportional_kilobytes(root)
                streams = []
                for n in range(sessions):
                    await stub.Connect(
                        pb.ConnectRequest(
                            session_key=f"key-{n}",
                            broker=account_pb2.BROKER_IQ,
                            account_type=account_pb2.ACCOUNT_TYPE_PRACTICE,
                            credentials=pb.Credentials(email=f"user-{n}@example.com", password="secret"),  # noqa: S106 - the simulator's
                        )
                    )
                    request = pb.WatchCandlesRequest(session_key=f"key-{n}", asset="EURUSD-OTC", timeframe=1)
                    stream = stub.WatchCandles(request)
                    await stream.read()
                    streams.append(stream)
                cpu, began = cpu_seconds(root), time.monotonic()
                await asyncio.sleep(SECONDS)
                used = (cpu_seconds(root) - cpu) / (time.monotonic() - began) / sessions
                memory = (proportional_kilobytes(root) - idle) / sessions
                for stream in streams:
                    stream.cancel()
    return f"{name:<14} {sessions:>9} {memory:>14,.0f} {used:>16.2%}"


async def main(sessions: int) -> None:
    """Print both rows."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(f"{'connector':<14} {'sessions':>9} {'KB a session':>14} {'CPU a session':>16}")
    print(await measure("native", sessions, {}), flush=True)
    library = {"BROKER_CONNECTOR": "iqoptionapi", "BROKER_IQOPTIONAPI_PYTHON": str(Environments()(FARIA))}
    print(await measure("iqoptionapi", sessions, library), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=8)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(main(parser.parse_args().sessions))
