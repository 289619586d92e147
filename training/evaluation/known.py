"""Judges candidates on markets whose optimum is known: shares, trade rates, calibration, by exact expectation."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from markets import FloatArray, score, standard_markets
from services.agent.features import FeatureArray
from training.dataset import feature_rows
from training.evaluation.candidates import Candidate

PAYOUTS: Final = (0.80, 0.87, 0.92)
NO_EDGE: Final = ("rw", "garch")
FIRST: Final = 1199
"""The first row that is judged has seen 1,200 candles: the start price and 1,199 returns."""
PATHS: Final = 64
BARS: Final = 3200


@dataclass(frozen=True, slots=True)
class Bench:
    """One market's unseen paths, ready to be judged."""

    features: FeatureArray
    """(paths, rows, FEATURES)."""
    p_up: FloatArray
    """(paths, rows): exact."""
    returns: FloatArray
    """(paths, rows): the return of the next bar, which the row does not know."""


def unseen(seed: int, paths: int = PATHS, bars: int = BARS, first: int = FIRST) -> dict[str, Bench]:
    """Draw unseen paths of every standard market, each with a stream of random numbers of its own."""
    benches = {}
    for number, (name, market) in enumerate(standard_markets().items()):
        returns = market.returns(np.random.default_rng([seed, number]), (paths, bars))
        features = feature_rows(returns, range(first - 1, bars - 1))
        benches[name] = Bench(features, market.p_up(returns)[:, first - 1 : -1], returns[:, first:])
    return benches


@dataclass(frozen=True, slots=True)
class Figure:
    """A measure with its 95 % interval over paths (bootstrap)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MarketResult:
    """A candidate on one market at one payout."""

    market: str
    payout_rate: float
    share: Figure | None
    """Share of the optimum's expected profit; None where there is nothing to earn."""
    trade_rate: Figure
    hit_rate: float
    profit_per_trade: float
    optimum_hit_rate: float
    optimum_trade_rate: float
    optimum_profit_per_bar: float


def judge_market(name: str, bench: Bench, candidate: Candidate, payout_rate: float, margin: float) -> MarketResult:
    """Score one candidate on one market."""
    paths, rows = bench.p_up.shape
    flat = bench.features.reshape(paths * rows, -1)
    actions = candidate.actions(flat, payout_rate, margin).reshape(paths, rows)
    each = [score(actions[path], bench.p_up[path], payout_rate) for path in range(paths)]
    whole = score(actions, bench.p_up, payout_rate)
    earned = np.array([s.profit_per_bar for s in each])
    best = np.array([s.optimum_per_bar for s in each])
    rates = np.array([s.trade_rate for s in each])
    picks = np.random.default_rng(0).integers(0, paths, (2000, paths))
    share = None
    if whole.optimum_per_bar > 0:
        share = _figure(whole.share, earned[picks].mean(axis=1) / best[picks].mean(axis=1))
    optimal = np.maximum(bench.p_up, 1.0 - bench.p_up)
    traded = optimal * (1.0 + payout_rate) > 1.0
    return MarketResult(
        market=name,
        payout_rate=payout_rate,
        share=share,
        trade_rate=_figure(whole.trade_rate, rates[picks].mean(axis=1)),
        hit_rate=whole.hit_rate,
        profit_per_trade=whole.profit_per_trade,
        optimum_hit_rate=float(optimal[traded].mean()) if traded.any() else float("nan"),
        optimum_trade_rate=float(traded.mean()),
        optimum_profit_per_bar=whole.optimum_per_bar,
    )


def _figure(value: float, drawn: FloatArray) -> Figure:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(value, float(low), float(high))


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far the claimed probabilities are from the true ones on one market."""

    market: str
    error: float
    """Root mean square of claimed minus true."""
    expected_calibration_error: float
    """Mean distance between claimed probability and what happened, over 20 bins."""
    excess_log_loss: float
    """Cross-entropy beyond that of the true probability, nats."""
    claimed: FloatArray
    """Mean claim of each bin."""
    happened: FloatArray
    """Share of rises in each bin."""
    counts: FloatArray


def calibrate(name: str, bench: Bench, candidate: Candidate) -> Calibration | None:
    """Compare a candidate's probabilities with the truth; None if it claims none."""
    flat = bench.features.reshape(bench.p_up.size, -1)
    claimed = candidate.p_up(flat)
    if claimed is None:
        return None
    true = bench.p_up.reshape(-1)
    rose = (bench.returns.reshape(-1) > 0).astype(np.float64)
    bins = np.clip((claimed * 20).astype(int), 0, 19)
    counts = np.bincount(bins, minlength=20).astype(np.float64)
    filled = np.maximum(counts, 1.0)
    mean_claim = np.bincount(bins, claimed, 20) / filled
    mean_rise = np.bincount(bins, rose, 20) / filled
    clipped = np.clip(claimed, 1e-9, 1.0 - 1e-9)

    def cross(p: FloatArray) -> float:
        return float(-(true * np.log(p) + (1.0 - true) * np.log(1.0 - p)).mean())

    return Calibration(
        market=name,
        error=float(np.sqrt(np.mean((claimed - true) ** 2))),
        expected_calibration_error=float((counts * np.abs(mean_claim - mean_rise)).sum() / counts.sum()),
        excess_log_loss=cross(clipped) - cross(np.clip(true, 1e-9, 1.0 - 1e-9)),
        claimed=mean_claim,
        happened=mean_rise,
        counts=counts,
    )
