"""What ships: signed, the same in every batch, as good as promised on paths nobody trained on, silent when young."""

from pathlib import Path

import numpy as np
import pytest

from markets import closes, standard_markets
from services.agent.decider import Decider
from services.agent.domain.candles import Candles
from services.agent.domain.decision import Action, Terms
from services.agent.features import FEATURES
from services.agent.onnx_model import OnnxModel
from services.agent.registry.catalogue import Catalogue, Selection
from services.agent.registry.files import VerifiedModel, read_verified
from services.agent.registry.signature import load_trusted_keys
from services.agent.settings import AgentSettings
from training.evaluation.candidates import OnnxCandidate
from training.evaluation.known import Bench, judge_market, unseen

SETTINGS = AgentSettings()
FOLDERS = sorted(path.parent for path in SETTINGS.models.glob("[!.]*/[!.]*/manifest.json"))
PROMISED = {"ar_mom": 0.97, "ar_rev": 0.98, "ou_rw": 0.90, "regime": 0.98, "msar": 0.82}


def verified(folder: Path) -> VerifiedModel:
    return read_verified(folder, load_trusted_keys(SETTINGS.trusted_keys))


@pytest.fixture(scope="module")
def edge() -> VerifiedModel:
    return verified(max(path for path in FOLDERS if path.parent.name == "edge"))


@pytest.fixture(scope="module")
def benches() -> dict[str, Bench]:
    return unseen(seed=31_337, paths=48, bars=2400)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_shipped_model_is_signed_complete_and_loads(folder: Path) -> None:
    model = verified(folder)
    OnnxModel(model)
    assert model.card.startswith(f"# {model.manifest.name} {model.manifest.version}")
    for name in model.manifest.files:
        assert (folder / name).exists()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_answers_do_not_depend_on_the_batch(folder: Path) -> None:
    model = OnnxModel(verified(folder))
    rows = np.random.default_rng(1).standard_normal((300, FEATURES)).astype(np.float32) * 0.5
    whole = list(model.judge(rows))
    for size in (1, 2, 3, 7, 8, 31, 256):
        assert [o for start in range(0, 300, size) for o in model.judge(rows[start : start + size])] == whole


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_file_is_the_trained_network(folder: Path) -> None:
    assert verified(folder).manifest.training["torch_difference"] <= 1e-6


@pytest.mark.parametrize("market", PROMISED)
def test_default_model_earns_the_promised_share(edge: VerifiedModel, benches: dict[str, Bench], market: str) -> None:
    candidate = OnnxCandidate(edge.onnx, edge.manifest.kind)
    result = judge_market(market, benches[market], candidate, 0.87, 0.005)
    assert result.share is not None
    assert result.share.value >= PROMISED[market]


@pytest.mark.parametrize("market", ["rw", "garch"])
@pytest.mark.parametrize("payout_rate", [0.80, 0.87, 0.92])
def test_default_model_holds_where_there_is_nothing_to_earn(
    edge: VerifiedModel, benches: dict[str, Bench], market: str, payout_rate: float
) -> None:
    candidate = OnnxCandidate(edge.onnx, edge.manifest.kind)
    assert judge_market(market, benches[market], candidate, payout_rate, 0.005).trade_rate.value <= 0.01


async def test_nothing_is_traded_below_a_thousand_candles(edge: VerifiedModel) -> None:
    catalogue = Catalogue([OnnxModel(edge)], Selection(default="edge"))
    decider = Decider(lambda: catalogue)
    path = closes(standard_markets()["ar_rev"].returns(np.random.default_rng(1), 1200))
    times = 1_700_000_040 + 60 * np.arange(len(path))

    async def action(count: int) -> Action:
        block = path[:count]
        candles = Candles(times[:count], block, block, block, block)
        return (await decider.decide(Terms(60, 60, 0.87), "", "", candles)).active.decision.action

    assert {await action(count) for count in range(0, 1000, 9)} == {Action.HOLD}
    assert {await action(count) for count in range(1000, 1200, 9)} > {Action.HOLD}
