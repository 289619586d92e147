"""The agent service over gRPC, with real models."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from tradebot.agent.v1 import agent_pb2
from tradebot.agent.v1 import agent_service_pb2 as pb

from services.runtime.interceptors import error_info
from tests.integration.agent.world import (
    Agent,
    ModelShop,
    candles_of,
    following,
    opening,
    running_agent,
    some_closes,
    terms,
)

HISTORY = 1200


@pytest.fixture
def shop(tmp_path: Path) -> ModelShop:
    shop = ModelShop.at(tmp_path)
    shop.publish("1.0.0")
    return shop


@pytest.fixture
async def agent(shop: ModelShop) -> AsyncIterator[Agent]:
    async with running_agent(shop.settings()) as running:
        yield running


async def decide(agent: Agent, path: list[float], **changes: object) -> agent_pb2.Decision:
    request = pb.DecideRequest(context=terms(**changes), candles=candles_of(path))
    return (await agent.stub.Decide(request, timeout=60)).decision


async def test_stream_and_window_decide_the_same(agent: Agent) -> None:
    path = some_closes("ar_rev", HISTORY + 60)
    stream = agent.converse()
    questions = [opening(path[:HISTORY]), *(following(path, place) for place in range(HISTORY, len(path)))]
    streamed = [await stream.ask(question) for question in questions]
    await stream.end()
    windows = [await decide(agent, path[: HISTORY + n]) for n in range(len(streamed))]
    for one, other in zip(streamed, windows, strict=True):
        assert one.p_up == pytest.approx(other.p_up, abs=1e-6)
        assert (one.action, one.bar_open_time) == (other.action, other.bar_open_time)
    actions = {decision.action for decision in streamed}
    assert actions >= {agent_pb2.ACTION_CALL, agent_pb2.ACTION_PUT}


async def test_many_streams_at_once_decide_as_each_would_alone(agent: Agent) -> None:
    paths = [some_closes("ou_rw", HISTORY + 10, seed) for seed in range(40)]

    async def run(path: list[float]) -> list[float]:
        stream = agent.converse()
        questions = [opening(path[:HISTORY]), *(following(path, place) for place in range(HISTORY, len(path)))]
        answers = [(await stream.ask(question)).p_up for question in questions]
        await stream.end()
        return answers

    together = await asyncio.gather(*(run(path) for path in paths))
    for path, answers in zip(paths[:5], together[:5], strict=True):
        assert await run(path) == answers


async def test_every_answer_says_what_it_rests_on(agent: Agent) -> None:
    path = some_closes("ar_mom", HISTORY)
    decision = await decide(agent, path, margin=0.01)
    assert (decision.model, decision.model_version, len(decision.model_sha256)) == ("edge", "1.0.0", 64)
    assert decision.break_even == pytest.approx(1 / 1.87)
    assert decision.margin == 0.01
    assert decision.bar_open_time == candles_of(path)[-1].open_time
    better = max(decision.p_up, 1 - decision.p_up)
    assert decision.expected_value == pytest.approx(better * 1.87 - 1)


async def test_random_walk_is_held_and_below_a_thousand_bars_everything_is(agent: Agent) -> None:
    held = [await decide(agent, some_closes("rw", HISTORY, seed)) for seed in range(40)]
    assert sum(decision.action == agent_pb2.ACTION_HOLD for decision in held) >= 38
    assert {d.abstain_reason for d in held} <= {agent_pb2.ABSTAIN_REASON_NO_EDGE, 0}
    short = await decide(agent, some_closes("ar_rev", 999))
    assert short.abstain_reason == agent_pb2.ABSTAIN_REASON_INSUFFICIENT_HISTORY
    enough = await decide(agent, some_closes("ar_rev", 1000))
    assert enough.abstain_reason in (0, agent_pb2.ABSTAIN_REASON_NO_EDGE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0])
async def test_nonsense_is_held_with_its_reason(agent: Agent, value: float) -> None:
    path = some_closes("ar_rev", HISTORY)
    path[600] = value
    decision = await decide(agent, path)
    assert (decision.action, decision.abstain_reason) == (
        agent_pb2.ACTION_HOLD,
        agent_pb2.ABSTAIN_REASON_BAD_INPUT,
    )
    assert decision.p_up == 0.5


async def test_stream_ignores_a_nonsense_candle_and_goes_on(agent: Agent) -> None:
    path = some_closes("ar_rev", HISTORY + 3)
    stream = agent.converse()
    await stream.ask(opening(path[:HISTORY]))
    spoilt = following(path, HISTORY)
    spoilt.next.candle.close = math.nan
    assert (await stream.ask(spoilt)).abstain_reason == agent_pb2.ABSTAIN_REASON_BAD_INPUT
    repeated = following(path, HISTORY - 1)
    assert (await stream.ask(repeated)).abstain_reason == agent_pb2.ABSTAIN_REASON_BAD_INPUT
    decision = await stream.ask(following(path, HISTORY))
    assert decision.p_up == pytest.approx((await decide(agent, path[: HISTORY + 1])).p_up, abs=1e-6)
    await stream.end()


async def test_a_missing_candle_silences_stream_and_window_alike(agent: Agent) -> None:
    path = some_closes("ar_rev", HISTORY + 2)
    stream = agent.converse()
    await stream.ask(opening(path[:HISTORY]))
    assert (await stream.ask(following(path, HISTORY + 1))).abstain_reason == agent_pb2.ABSTAIN_REASON_STALE_OR_GAP
    await stream.end()
    candles = candles_of(path)
    del candles[HISTORY]
    answer = await agent.stub.Decide(pb.DecideRequest(context=terms(), candles=candles), timeout=60)
    assert answer.decision.abstain_reason == agent_pb2.ABSTAIN_REASON_STALE_OR_GAP


async def test_old_candles_are_stale_by_the_brokers_clock(agent: Agent) -> None:
    path = some_closes("ar_rev", HISTORY)
    closed = candles_of(path)[-1].open_time + 5
    assert (await decide(agent, path, as_of_time=closed)).abstain_reason != agent_pb2.ABSTAIN_REASON_STALE_OR_GAP
    late = await decide(agent, path, as_of_time=closed + 5)
    assert late.abstain_reason == agent_pb2.ABSTAIN_REASON_STALE_OR_GAP


@pytest.mark.parametrize("change", [{"expiry": 25}, {"expiry": 7}, {"payout_rate": 2.0}, {"payout_rate": 0.3}])
async def test_terms_the_model_was_not_made_for_are_held(agent: Agent, change: dict[str, float]) -> None:
    decision = await decide(agent, some_closes("ar_rev", HISTORY), **change)
    assert decision.abstain_reason == agent_pb2.ABSTAIN_REASON_UNSUPPORTED_TERMS


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payout_rate": math.nan}, "payout_rate"),
        ({"payout_rate": 0.0}, "payout_rate"),
        ({"timeframe": 0}, "timeframe"),
        ({"expiry": 1}, "expiry"),
        ({"margin": 0.5}, "margin"),
        ({"asset": ""}, "asset"),
    ],
)
async def test_terms_out_of_range_are_an_error_that_names_the_field(
    agent: Agent, change: dict[str, object], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await decide(agent, some_closes("rw", 10), **change)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = error_info(raised.value, "agent.tradebot")
    assert info is not None
    assert (info.reason, dict(info.metadata)) == ("INVALID_ARGUMENT", {"field": field})


async def test_too_many_candles_are_refused(agent: Agent) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await decide(agent, some_closes("rw", 5001))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("change", [{"model": "nobody"}, {"model_version": "9.9"}])
async def test_unknown_model_is_not_found(agent: Agent, change: dict[str, str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await decide(agent, some_closes("rw", 10), **change)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    info = error_info(raised.value, "agent.tradebot")
    assert info is not None
    assert info.reason == "MODEL_NOT_FOUND"


async def test_a_stream_must_open_first_and_only_once(agent: Agent) -> None:
    path = some_closes("rw", 20)
    for before, wrong in (
        ([], following(path, 0)),
        ([], pb.DecideStreamRequest()),
        ([opening(path)], opening(path)),
    ):
        stream = agent.converse()
        for message in before:
            await stream.ask(message)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.ask(wrong)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_stream_takes_a_new_payout_and_refuses_an_impossible_one(agent: Agent) -> None:
    path = some_closes("ar_rev", HISTORY + 3)
    stream = agent.converse()
    await stream.ask(opening(path[:HISTORY]))
    assert (await stream.ask(following(path, HISTORY, payout_rate=0.8))).break_even == pytest.approx(1 / 1.8)
    assert (await stream.ask(following(path, HISTORY + 1))).break_even == pytest.approx(1 / 1.8)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stream.ask(following(path, HISTORY + 2, payout_rate=math.nan))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_draining_ends_streams_with_a_reason(agent: Agent) -> None:
    stream = agent.converse()
    await stream.ask(opening(some_closes("rw", 20)))
    stopping = asyncio.create_task(agent.server.stop())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stream.listen()
    await stopping
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    info = error_info(raised.value, "agent.tradebot")
    assert info is not None
    assert info.reason == "DRAINING"


async def test_models_are_listed_in_pages_and_shown_with_their_card(shop: ModelShop) -> None:
    shop.publish("1.2.0")
    shop.publish("1.10.0")
    shop.publish("0.1.0", name="other")
    async with running_agent(shop.settings()) as agent:
        first = await agent.stub.ListModels(pb.ListModelsRequest(page_size=3))
        assert [(m.name, m.version, m.active, m.is_default) for m in first.models] == [
            ("edge", "1.10.0", True, True),
            ("edge", "1.2.0", False, True),
            ("edge", "1.0.0", False, True),
        ]
        assert not any(m.card for m in first.models)
        rest = await agent.stub.ListModels(pb.ListModelsRequest(page_size=3, page_token=first.next_page_token))
        assert [(m.name, m.is_default) for m in rest.models] == [("other", False)]
        assert rest.next_page_token == ""
        shown = (await agent.stub.GetModel(pb.GetModelRequest(name="edge", version="1.2.0"))).model
        assert (shown.card, shown.min_history, shown.expiry_bars) == ("# edge 1.2.0\n", 1000, 1)
        assert (await agent.stub.GetModel(pb.GetModelRequest(name="edge"))).model.version == "1.10.0"
        for request in (pb.GetModelRequest(name="edge", version="7"), pb.GetModelRequest(name="nobody")):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await agent.stub.GetModel(request)
            assert raised.value.code() is grpc.StatusCode.NOT_FOUND
