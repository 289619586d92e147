"""The agent: one decision in process, batches, and streams over gRPC beside an empty gRPC echo and the bare network.

Each figure stands beside its floor in the same run: the raw onnxruntime call, or an echo server that streams empty
messages back. The clients share the machine with the servers.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
import uvloop
from tradebot.agent.v1 import agent_pb2, agent_service_pb2

from markets import closes, standard_markets
from services.agent.decider import Decider
from services.agent.domain.candles import Candle, Candles, read_history
from services.agent.domain.decision import Terms
from services.agent.features import FEATURES, state_of
from services.agent.features.states import StreamStates
from services.agent.onnx_model import OnnxModel
from services.agent.registry.catalogue import Model
from services.agent.registry.signature import load_trusted_keys
from services.agent.registry.watcher import Registry
from services.agent.settings import AgentSettings
from services.runtime.channel import open_channel

HISTORY = 1200
BARS = 3000
SESSIONS = (1, 32, 256)
SECONDS = 3.0
TERMS = Terms(timeframe=5, expiry=5, payout_rate=0.87)
METHOD = "/tradebot.agent.v1.AgentService/DecideStream"
START = 1_700_000_000


def main() -> None:
    """Run everything."""
    settings = AgentSettings(log_level="WARNING")
    registry = Registry(settings.models, load_trusted_keys(settings.trusted_keys), OnnxModel)
    registry.refresh()
    path = closes(standard_markets()["ou_rw"].returns(np.random.default_rng(1), HISTORY + BARS)).tolist()
    raw_network(settings.models)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        batches(registry.catalogue.resolve("", "").active, path)
        runner.run(in_process(Decider(lambda: registry.catalogue), path))
        runner.run(over_grpc(path))


def raw_network(models: Path) -> None:
    """Time onnxruntime alone on ready feature rows."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    file = max((models / "edge").glob("*/model.onnx"))
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    for rows in SESSIONS:
        features = np.random.default_rng(1).standard_normal((rows, FEATURES)).astype(np.float32)
        spent = timed(lambda x=features: session.run(None, {"features": x}), 2000)  # type: ignore[misc]
        show(f"raw onnxruntime, {rows} rows", spent, rows)


def batches(model: Model, path: Sequence[float]) -> None:
    """Time what a batch costs beside the waiting: features moved on by a bar, and the network on them."""
    history = read_history(columns(path[:HISTORY]), TERMS.timeframe)
    if history is None:
        raise RuntimeError("the path is not a history")
    for rows in SESSIONS:
        states = StreamStates()
        slots = [states.take(state_of(history.returns, history.starts)) for _ in range(rows)]
        returns = [1e-4] * rows

        def decide_all(states: StreamStates = states, slots: list[int] = slots, moves: list[float] = returns) -> object:
            return model.judge(states.advance(slots, moves))

        show(f"features and network, {rows} rows", timed(decide_all, 1000), rows)


async def in_process(decider: Decider, path: Sequence[float]) -> None:
    """Time decisions without the wire: one stream, then many whose candles close together."""
    spent = []
    candles = columns(path[:HISTORY])
    for _ in range(50):
        candles.close[-1] *= 1.0 + 1e-9  # a window not seen before
        candles.high[-1] = candles.open[-1] = candles.low[-1] = candles.close[-1]
        began = time.perf_counter()
        await decider.decide(TERMS, "", "", candles)
        spent.append(time.perf_counter() - began)
    show(f"in process, window of {HISTORY} candles", spent)
    for streams in SESSIONS:
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(decider.open(TERMS, "", "", columns(path[:HISTORY]))) for _ in range(streams)]
            spent = []
            for place in range(HISTORY, HISTORY + (2000 if streams == 1 else 200)):
                candle = one_candle(path, place)
                began = time.perf_counter()
                if streams == 1:
                    await opened[0].next(candle, 0.87, None)
                else:
                    await asyncio.gather(*(stream.next(candle, 0.87, None) for stream in opened))
                spent.append(time.perf_counter() - began)
            show(f"in process, {streams} streams", spent, streams)


async def over_grpc(path: Sequence[float]) -> None:
    """Drive streams against the service and against the echo, in turn, with the same client."""
    first, later = messages(path)
    async with process("services.agent") as agent, process("bench.support.echo_stream") as echo:
        for sessions in SESSIONS:
            floor = await drive(echo, sessions, b"", [b""] * len(later))
            figure = await drive(agent, sessions, first, later)
            share = figure[0] / floor[0]
            print(
                f"gRPC, {sessions:>3} sessions: {figure[0]:7.0f} decisions/s  p50 {figure[1]:6.2f}  p99 {figure[2]:6.2f} ms"
                f"   | echo {floor[0]:7.0f}/s  p50 {floor[1]:6.2f}  p99 {floor[2]:6.2f} ms   | {share:.0%} of the echo",
                flush=True,
            )


async def drive(port: int, sessions: int, first: bytes, later: Sequence[bytes]) -> tuple[float, float, float]:
    """Return answers a second and their median and 99th percentile in milliseconds."""
    latencies: list[float] = []
    channel = open_channel(f"127.0.0.1:{port}")
    call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
    ready = asyncio.Barrier(sessions + 1)
    until = 0.0

    async def session() -> None:
        stream: Any = call()
        await stream.write(first)
        await stream.read()
        await ready.wait()
        for message in later:
            began = time.perf_counter()
            if began > until:
                break
            await stream.write(message)
            if await stream.read() is grpc.aio.EOF:
                raise RuntimeError("the stream ended")
            latencies.append(time.perf_counter() - began)
        stream.cancel()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(sessions):
            tasks.create_task(session())
        until = time.perf_counter() + 3600.0
        await ready.wait()
        began = time.perf_counter()
        until = began + SECONDS
    lasted = time.perf_counter() - began
    await channel.close()
    latencies.sort()
    return (
        len(latencies) / lasted,
        1000 * latencies[len(latencies) // 2],
        1000 * latencies[int(len(latencies) * 0.99)],
    )


@contextlib.asynccontextmanager
async def process(module: str) -> AsyncIterator[int]:
    """Run a server module; gives the port that it logs as ``{"event": "serving", "port": …}``."""
    server = await asyncio.create_subprocess_exec(sys.executable, "-m", module, stderr=asyncio.subprocess.PIPE)
    try:
        if server.stderr is None:
            raise RuntimeError("no log to read the port from")
        async with asyncio.timeout(30):
            async for line in server.stderr:
                event = json.loads(line)
                if event["event"] == "serving":
                    yield event["port"]
                    break
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        await server.wait()


def one_candle(path: Sequence[float], place: int) -> Candle:
    """The candle at a place of the path."""
    close = path[place]
    return Candle(START + 5 * place, close, close, close, close)


def columns(path: Sequence[float]) -> Candles:
    """A history as columns."""
    close = np.array(path, dtype=np.float64)
    times = START + 5 * np.arange(len(close))
    return Candles(times, close.copy(), close.copy(), close.copy(), close)


def messages(path: Sequence[float]) -> tuple[bytes, list[bytes]]:
    """The opening and all following messages of a stream, serialised."""

    def wire(place: int) -> agent_pb2.Candle:
        candle = one_candle(path, place)
        return agent_pb2.Candle(
            open_time=candle.open_time, open=candle.open, high=candle.high, low=candle.low, close=candle.close
        )

    kind = agent_service_pb2.DecideStreamRequest
    context = agent_pb2.DecisionContext(asset="EURUSD-OTC", timeframe=5, expiry=5, payout_rate=0.87)
    opening = kind(open=kind.Open(context=context, candles=[wire(place) for place in range(HISTORY)]))
    later = [
        kind(next=kind.Next(candle=wire(place), payout_rate=0.87)).SerializeToString()
        for place in range(HISTORY, len(path))
    ]
    return opening.SerializeToString(), later


def timed(call: Callable[[], object], times: int) -> list[float]:
    """Return the seconds of each of many calls, after a warm-up."""
    for _ in range(100):
        call()
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return spent


def show(what: str, spent: Sequence[float], rows: int = 1) -> None:
    """Print a figure in microseconds."""
    ordered = sorted(spent)
    middle, tail = 1e6 * median(ordered), 1e6 * ordered[int(len(ordered) * 0.99)]
    print(f"{what:<36} p50 {middle:8.1f}  p99 {tail:8.1f} us   {middle / rows:7.2f} us a row", flush=True)


if __name__ == "__main__":
    main()
