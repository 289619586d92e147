"""Versions come, are pinned, shadowed, rolled back and spoilt while calls are being answered: none of them fails."""

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tradebot.agent.v1 import agent_service_pb2 as pb

from services.agent.domain.errors import ModelNotFoundError
from services.agent.registry.signature import sign
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
from tests.support.eventually import eventually

HISTORY = 1000


@pytest.fixture
def shop(tmp_path: Path) -> ModelShop:
    shop = ModelShop.at(tmp_path)
    shop.publish("1.0")
    return shop


async def active_version(agent: Agent) -> str:
    return (await agent.stub.GetModel(pb.GetModelRequest(name="edge"))).model.version


async def test_new_version_takes_over_in_an_open_stream(shop: ModelShop) -> None:
    path = some_closes("ar_rev", HISTORY + 2)
    async with running_agent(shop.settings()) as agent:
        stream = agent.converse()
        assert (await stream.ask(opening(path[:HISTORY]))).model_version == "1.0"
        shop.publish("1.1")

        async def arrived() -> bool:
            return await active_version(agent) == "1.1"

        await eventually(arrived)
        assert (await stream.ask(following(path, HISTORY))).model_version == "1.1"
        shop.select(models={"edge": {"active": "1.0"}})

        async def rolled_back() -> bool:
            return await active_version(agent) == "1.0"

        await eventually(rolled_back)
        assert (await stream.ask(following(path, HISTORY + 1))).model_version == "1.0"
        await stream.end()


async def test_shadow_decides_beside_the_active_version(shop: ModelShop) -> None:
    shop.publish("2.0", margin=0.2)
    shop.select(models={"edge": {"active": "1.0", "shadow": ["2.0"]}})
    async with running_agent(shop.settings()) as agent:
        request = pb.DecideRequest(context=terms(), candles=candles_of(some_closes("ar_rev", HISTORY)))
        answer = await agent.stub.Decide(request)
        assert answer.decision.model_version == "1.0"
        assert [(s.model_version, s.margin, s.p_up) for s in answer.shadows] == [("2.0", 0.2, answer.decision.p_up)]
        parts = {m.version: (m.active, m.shadow) for m in (await agent.stub.ListModels(pb.ListModelsRequest())).models}
        assert parts == {"1.0": (True, False), "2.0": (False, True)}
        request.context.model_version = "2.0"
        pinned = await agent.stub.Decide(request)
        assert (pinned.decision.model_version, list(pinned.shadows)) == ("2.0", [])


async def test_fifty_swaps_under_load_fail_no_call(shop: ModelShop) -> None:
    shop.publish("1.1")
    shop.select(models={"edge": {"active": "1.0"}})
    path = some_closes("ar_rev", HISTORY + 400)
    async with running_agent(shop.settings()) as agent:
        swapping = True
        seen: dict[str, int] = {}

        async def ask_windows() -> None:
            request = pb.DecideRequest(context=terms(), candles=candles_of(path[:HISTORY]))
            while swapping:
                decision = (await agent.stub.Decide(request, timeout=60)).decision
                seen[decision.model_version] = seen.get(decision.model_version, 0) + 1

        async def ask_stream() -> None:
            stream = agent.converse()
            await stream.ask(opening(path[:HISTORY]))
            for place in range(HISTORY, len(path)):
                if not swapping:
                    break
                decision = await stream.ask(following(path, place))
                seen[decision.model_version] = seen.get(decision.model_version, 0) + 1
            await stream.end()

        async def swap() -> None:
            nonlocal swapping
            for n in range(50):
                wanted = f"1.{(n + 1) % 2}"
                shop.select(models={"edge": {"active": wanted}})

                async def swapped(wanted: str = wanted) -> bool:
                    return await active_version(agent) == wanted

                await eventually(swapped)
            swapping = False

        # A call that fails ends the group, and the test with it.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(swap())
            for _ in range(4):
                tasks.create_task(ask_windows())
                tasks.create_task(ask_stream())
        assert min(seen.get("1.0", 0), seen.get("1.1", 0)) > 50


async def test_flipped_bit_is_refused_and_what_was_verified_stays(
    shop: ModelShop, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_agent(shop.settings()) as agent:
        spoilt = shop.publish("1.1")
        model = spoilt / "model.onnx"

        async def arrived() -> bool:
            return await active_version(agent) == "1.1"

        await eventually(arrived)
        content = bytearray(model.read_bytes())
        content[len(content) // 2] ^= 1
        model.write_bytes(content)
        shop.publish("1.2")

        async def replaced() -> bool:
            return await active_version(agent) == "1.2"

        await eventually(replaced)
        request = pb.DecideRequest(context=terms(model_version="1.1"), candles=candles_of(some_closes("rw", HISTORY)))
        assert (await agent.stub.Decide(request)).decision.model_version == "1.1"
    assert "model.onnx is not the file that was signed" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json", "manifest.sig", "card.md"])
async def test_service_does_not_start_on_a_spoilt_model(shop: ModelShop, file: str) -> None:
    path = shop.folder / "edge" / "1.0" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelNotFoundError):
        async with running_agent(shop.settings()):
            pass


@pytest.mark.parametrize("file", ["model.onnx", "manifest.sig", "card.md"])
async def test_service_does_not_start_on_an_incomplete_model(shop: ModelShop, file: str) -> None:
    (shop.folder / "edge" / "1.0" / file).unlink()
    with pytest.raises(ModelNotFoundError):
        async with running_agent(shop.settings()):
            pass


async def test_a_stranger_s_signature_is_refused(shop: ModelShop) -> None:
    folder = shop.folder / "edge" / "1.0"
    (folder / "manifest.sig").write_bytes(sign((folder / "manifest.json").read_bytes(), Ed25519PrivateKey.generate()))
    with pytest.raises(ModelNotFoundError):
        async with running_agent(shop.settings()):
            pass


@pytest.mark.parametrize("change", [{"features_version": "0"}, {"kind": "policy"}, {"name": "another"}])
async def test_a_signed_model_that_does_not_fit_is_refused(shop: ModelShop, change: dict[str, str]) -> None:
    shop.publish("2.0", **change)
    async with running_agent(shop.settings()) as agent:
        assert await active_version(agent) == "1.0"


async def test_selection_of_what_is_not_there_changes_nothing(shop: ModelShop) -> None:
    shop.publish("1.1")
    shop.select(models={"edge": {"active": "1.0"}})
    async with running_agent(shop.settings()) as agent:
        for nonsense in ({"default": "nobody"}, {"models": {"edge": {"active": "9"}}}, {"unknown": 1}):
            shop.select(**nonsense)
            shop.publish(f"0.{len(str(nonsense))}")
            assert await active_version(agent) == "1.0"
        shop.select(models={"edge": {"active": "1.1"}})

        async def selected() -> bool:
            return await active_version(agent) == "1.1"

        await eventually(selected)
