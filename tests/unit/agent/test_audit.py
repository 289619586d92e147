"""The audit clears the shipped default model and catches every cheat that is planted for it."""

from pathlib import Path

import pytest

from training.evaluation.audit import Judge, audit, cheats, judge_of
from training.evaluation.candidates import OnnxCandidate

SHIPPED = Path(__file__).resolve().parents[3] / "models" / "edge"


@pytest.fixture(scope="module")
def honest() -> Judge:
    newest = max(SHIPPED.glob("[!.]*/model.onnx"))
    return judge_of(OnnxCandidate(newest, "probability"), 0.87, 0.005)


def test_shipped_model_is_caught_at_nothing(honest: Judge) -> None:
    assert audit(honest) == []


@pytest.mark.parametrize(
    ("cheat", "crime"),
    [
        ("reading the next bar", "changes with the future"),
        ("normalising by the whole series", "decides differently once later bars are known"),
        ("sampling its actions", "answers differently when asked again"),
        ("acting a bar before it knows", "decides differently once later bars are known"),
        ("only ever buying calls", "prefers a direction"),
        ("thresholds in units of price", "depends on the unit of the prices"),
    ],
)
def test_planted_cheat_is_caught(honest: Judge, cheat: str, crime: str) -> None:
    assert crime in audit(cheats(honest)[cheat])


def test_foretelling_noise_is_caught(honest: Judge) -> None:
    assert "foretells noise" in audit(cheats(honest)["reading the next bar"])
