"""Judges every published model and puts a new card into its folder: ``python -m training.evaluation [model…]``."""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from stable_baselines3 import PPO

from markets import closes, standard_markets
from services.agent.decider import Decider
from services.agent.domain.candles import Candles
from services.agent.domain.decision import Action, Terms
from services.agent.features import FeatureArray
from services.agent.onnx_model import OnnxModel
from services.agent.registry.catalogue import Catalogue, Selection
from services.agent.registry.files import read_verified
from services.agent.registry.manifest import CARD_FILE, MODEL_FILE, Manifest
from services.agent.registry.signature import load_trusted_keys
from training.evaluation import card, known, real
from training.evaluation.audit import audit, cheats, judge_of
from training.evaluation.candidates import ACTIONS, ActionArray, Candidate, FunctionCandidate, OnnxCandidate
from training.evaluation.timing import MARKETS, TimingResult, run_timing
from training.policy import BarsEnv, PolicySettings
from training.progress import Progress
from training.publish import MODELS, SHIPPED_KEYS, republish, signing_key

SEED: Final = 90_001
PAYOUT: Final = 0.87
HISTORIES: Final = (200, 500, 1000, 1200, 2000, 4000)


def main() -> None:
    """Judge what the command line names."""
    parser = argparse.ArgumentParser(prog="make evaluate", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="model", help="names; all published models by default")
    parser.add_argument("--models-folder", type=Path, default=MODELS)
    parser.add_argument("--seed", type=int, default=SEED, help="of the unseen paths")
    parser.add_argument("--paths", type=int, default=known.PATHS, help="unseen paths a market")
    parser.add_argument("--print-only", action="store_true", help="print the scores and leave the folders alone")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    signer = signing_key()
    keys = load_trusted_keys((SHIPPED_KEYS, signer.public_path.parent))
    folders = sorted(path.parent for path in wanted.models_folder.glob(f"[!.]*/[!.]*/{MODEL_FILE}"))
    folders = [path for path in folders if not wanted.models or path.parent.name in wanted.models]
    if not folders:
        sys.exit("no such model is published")
    progress = Progress()
    benches = known.unseen(wanted.seed, wanted.paths)
    candidates = {path: OnnxCandidate(path / MODEL_FILE, _manifest(path, keys).kind) for path in folders}
    scores = {path: _score(candidate, benches, _manifest(path, keys)) for path, candidate in candidates.items()}
    for path, results in scores.items():
        _print(progress, path, results)
    if wanted.print_only:
        return
    baseline = FunctionCandidate(_original_settings(progress))
    baseline_scores = [known.judge_market(name, bench, baseline, PAYOUT, 0.0) for name, bench in benches.items()]
    series = [(one, real.rows_of(one)) for one in progress.track(list(real.real_series()), "real data")]
    timing = [run_timing(market, wanted.seed) for market in progress.track(MARKETS, "timing experiment")]
    for path in folders:
        others: dict[str, Sequence[known.MarketResult]] = {
            f"{other.parent.name} {other.name}": results for other, results in scores.items() if other != path
        }
        others["PPO, library defaults, 10,000 steps, sampled actions"] = baseline_scores
        report = _report(
            path=path,
            keys=keys,
            seed=wanted.seed,
            benches=benches,
            scores=scores[path],
            others=others,
            candidate=candidates[path],
            series=series,
            timing=timing,
            progress=progress,
        )
        files = {CARD_FILE: card.write_card(report).encode(), **card.draw_plots(report)}
        data = {one.name: one.sha256 for one, _ in series}
        republish(path, files, _results(report), data, signer.key)
        progress.say(f"wrote {path / CARD_FILE}")


def _manifest(path: Path, keys: Any) -> Manifest:
    return read_verified(path, keys).manifest


def _score(candidate: Candidate, benches: Mapping[str, known.Bench], manifest: Manifest) -> list[known.MarketResult]:
    low, high = manifest.payout_range
    return [
        known.judge_market(name, bench, candidate, payout, manifest.margin)
        for payout in known.PAYOUTS
        if low <= payout <= high
        for name, bench in benches.items()
    ]


def _print(progress: Progress, path: Path, results: Sequence[known.MarketResult]) -> None:
    progress.say(f"{path.parent.name} {path.name}")
    for result in results:
        figure = result.share or result.trade_rate
        what = "share of the optimum" if result.share else "trades, share of bars"
        progress.say(
            f"  payout {result.payout_rate:.2f}  {result.market:<7} {what:<22} {figure.value:.4f} "
            f"[{figure.low:.4f}, {figure.high:.4f}]"
        )


def _report(
    *,
    path: Path,
    keys: Any,
    seed: int,
    benches: Mapping[str, known.Bench],
    scores: Sequence[known.MarketResult],
    others: Mapping[str, Sequence[known.MarketResult]],
    candidate: OnnxCandidate,
    series: Sequence[tuple[real.Series, real.Rows]],
    timing: Sequence[TimingResult],
    progress: Progress,
) -> card.Report:
    verified = read_verified(path, keys)
    manifest = verified.manifest
    margin = manifest.margin
    calibrations = [known.calibrate(name, bench, candidate) for name, bench in benches.items()]
    paths, bars = benches["rw"].p_up.shape
    by_history = {
        candles: {
            name: (result.share or result.trade_rate).value
            for name, bench in known.unseen(seed + 1, 200, candles + 60, candles - 1).items()
            for result in [known.judge_market(name, bench, candidate, PAYOUT, margin)]
        }
        for candles in progress.track(HISTORIES, f"{manifest.name}: histories")
    }
    real_results = [
        card.RealResult(
            one.name,
            one.period,
            real.judge_real(one, rows, candidate, PAYOUT, margin),
            real.walk_forward(one, rows, PAYOUT, margin),
        )
        for one, rows in series
    ]
    judge = judge_of(candidate, PAYOUT, margin)
    return card.Report(
        manifest=manifest,
        seed=seed,
        paths=paths,
        bars=bars,
        known=scores,
        others=others,
        calibrations=[c for c in calibrations if c is not None],
        by_history=by_history,
        early_trades=asyncio.run(_early_trades(OnnxModel(verified), seed)),
        audit=audit(judge),
        planted={name: audit(cheat) for name, cheat in cheats(judge).items()},
        parity={
            "ONNX beside torch, largest difference of an answer": manifest.training["torch_difference"],
            "Batches of 1, 2, 7, 32, 255 beside 256 rows, largest difference of an answer": _batch_difference(
                candidate, benches
            ),
        },
        real=real_results,
        equities=[_equity(name, benches[name], candidate, margin) for name in ("ar_rev", "ou_rw", "rw")],
        timing=timing,
    )


async def _early_trades(model: OnnxModel, seed: int) -> tuple[int, int]:
    """Ask the service's own use case on short histories of the richest markets."""
    catalogue = Catalogue([model], Selection(default=model.manifest.name))
    decider = Decider(lambda: catalogue)
    terms = Terms(timeframe=60, expiry=60, payout_rate=PAYOUT)
    trades = decisions = 0
    rng = np.random.default_rng(seed)
    for market in standard_markets().values():
        path = closes(market.returns(rng, model.manifest.min_history - 2))
        times = 1_700_000_040 + 60 * np.arange(len(path))
        for count in range(1, len(path) + 1, 7):
            block = path[:count]
            answer = await decider.decide(terms, "", "", Candles(times[:count], block, block, block, block))
            trades += answer.active.decision.action is not Action.HOLD
            decisions += 1
    return trades, decisions


def _batch_difference(candidate: OnnxCandidate, benches: Mapping[str, known.Bench]) -> float:
    rows = np.concatenate(
        [bench.features[:4, ::50].reshape(-1, bench.features.shape[-1]) for bench in benches.values()]
    )
    whole = candidate.run(rows)
    worst = 0.0
    for size in (1, 2, 7, 32, 255):
        blocks = [candidate.run(rows[start : start + size]) for start in range(0, len(rows), size)]
        worst = max(worst, float(np.abs(np.concatenate(blocks) - whole).max()))
    return worst


def _equity(name: str, bench: known.Bench, candidate: Candidate, margin: float, trades: int = 500) -> card.Equity:
    rows = bench.features.reshape(-1, bench.features.shape[-1])
    actions = candidate.actions(rows, PAYOUT, margin).reshape(bench.p_up.shape)
    outcomes = np.where(np.sign(bench.returns) == actions, PAYOUT, -1.0)
    curves = []
    for path in range(len(actions)):
        made = outcomes[path][actions[path] != 0][:trades]
        curve = np.full(trades, made.sum())
        curve[: len(made)] = np.cumsum(made)
        curves.append(curve)
    return card.Equity(name, np.array(curves))


def _original_settings(progress: Progress) -> Any:
    """Train what the project's forerunner trained: PPO with the library's defaults, 10,000 steps, actions sampled."""
    settings = replace(PolicySettings(), envs=1)
    env = BarsEnv(settings)
    progress.say("training the baseline: PPO with the library's defaults")
    model = PPO("MlpPolicy", env, seed=settings.seed, device="cpu").learn(10_000)

    def act(features: FeatureArray) -> ActionArray:
        torch.manual_seed(settings.seed)
        chosen: ActionArray = ACTIONS[model.predict(env.standardise(features), deterministic=False)[0]]
        return chosen

    return act


def _results(report: card.Report) -> dict[str, Any]:
    return {
        "seed": report.seed,
        "paths": report.paths,
        "markets": [
            {
                "market": r.market,
                "payout_rate": r.payout_rate,
                "share": r.share.value if r.share else None,
                "trade_rate": r.trade_rate.value,
                "profit_per_trade": None if np.isnan(r.profit_per_trade) else r.profit_per_trade,
            }
            for r in report.known
        ],
    }


if __name__ == "__main__":
    main()
