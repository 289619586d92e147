"""Real quotes: what the models would have done on them, at three fills, with every losing result.

The models were trained on simulated markets only, so all of this data is new to them. A baseline that *is* fitted to it,
walking forward, stands beside them. A fill at the close that the decision was made on cannot be had: it is shown to
show what it hides.
"""

import gzip
import hashlib
import importlib.util
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from markets import FloatArray
from services.agent.domain.candles import RECENT_BARS
from services.agent.features import FEATURES, ODD_FEATURES, FeatureArray, advance, break_off, describe, new_state
from training.dataset import MIN_HISTORY
from training.evaluation.candidates import ActionArray, Candidate, threshold
from training.publish import ROOT

FILLS: Final = ("signal close", "next quote", "one bar later")
Z95: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Series:
    """Bars of real quotes. Consecutive rows may have a gap between them."""

    name: str
    period: str
    open_time: npt.NDArray[np.int64]
    """Unix seconds."""
    timeframe: int
    close: FloatArray
    following: FloatArray
    """The first quote after the close."""
    sha256: str
    """Of the source file."""

    @property
    def whole(self) -> npt.NDArray[np.bool_]:
        """Whether a bar follows the one before it without a gap."""
        return np.concatenate([[False], np.diff(self.open_time) == self.timeframe])


def real_series() -> Iterator[Series]:
    """Yield the real data: hourly EUR/USD of 2017 in two disjoint halves, and an index future's trades as bars."""
    hours = ROOT / "simulator" / "data" / "eurusd_1h_2017.csv.gz"
    with gzip.open(hours, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", skiprows=1, dtype=np.int64)
    times = table[:, 0] * 3600
    prices: FloatArray = table[:, 1:].astype(np.float64) * 1e-5
    opens, closes = prices[:, 0], prices[:, 3]
    following = np.concatenate([opens[1:], closes[-1:]])
    for part, rows in (("January to June", times < 1498867200), ("July to December", times >= 1498867200)):
        yield Series(f"EUR/USD 1 h, {part}", "2017", times[rows], 3600, closes[rows], following[rows], _digest(hours))
    ticks = _mlfinpy_ticks()
    if ticks is None:
        return
    when, price = _read_ticks(ticks)
    for timeframe in (60, 5):
        yield _bars_of_ticks(when, price, timeframe, _digest(ticks))


def _mlfinpy_ticks() -> Path | None:
    spec = importlib.util.find_spec("mlfinpy")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "dataset" / "data" / "tick_data.csv"
    return path if path.exists() else None


def _read_ticks(path: Path) -> tuple[FloatArray, FloatArray]:
    when, price = [], []
    with path.open() as lines:
        next(lines)
        for line in lines:
            stamp, value, _ = line.split(",")
            when.append(datetime.fromisoformat(f"{stamp}+00:00").timestamp())
            price.append(float(value))
    return np.array(when), np.array(price)


def _bars_of_ticks(when: FloatArray, price: FloatArray, timeframe: int, digest: str) -> Series:
    bar = (when // timeframe).astype(np.int64)
    last = np.flatnonzero(np.concatenate([np.diff(bar) != 0, [True]]))
    after = np.minimum(last + 1, len(price) - 1)
    name = f"index future {timeframe // 60} min" if timeframe >= 60 else f"index future {timeframe} s"
    return Series(name, "1-3 September 2013", bar[last] * timeframe, timeframe, price[last], price[after], digest)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Rows:
    """The bars of a series on which a model may decide, by the service's own rules."""

    at: npt.NDArray[np.intp]
    """Their places in the series."""
    features: FeatureArray


def rows_of(series: Series) -> Rows:
    """Return the feature rows of all bars that have enough history and no gap or standstill behind them."""
    state = new_state()
    returns = np.concatenate([[0.0], np.diff(np.log(series.close))])
    places, rows = [], []
    bars = since_gap = since_change = 0
    for place, follows in enumerate(series.whole):
        if follows:
            advance(state, returns[place : place + 1])
            bars += 1
            since_gap += 1
            since_change = 0 if returns[place] else since_change + 1
        else:
            break_off(state)
            since_gap, since_change = 1, 0
        if bars + 1 >= MIN_HISTORY and since_gap >= RECENT_BARS and since_change < RECENT_BARS:
            places.append(place)
            rows.append(describe(state)[0])
    return Rows(np.array(places, dtype=np.intp), np.array(rows, dtype=np.float32).reshape(-1, FEATURES))


@dataclass(frozen=True, slots=True)
class FillResult:
    """What trades came to at one fill."""

    fill: str
    bars: int
    """Bars on which a decision was possible."""
    trades: int
    wins: int
    ties: int
    hit: float
    """Share of the decided trades that won."""
    hit_low: float
    hit_high: float
    profit: float
    """Mean profit a trade, stake 1, a tie gives the stake back."""
    profit_low: float
    profit_high: float
    outcomes: FloatArray
    """Profit of each trade in order."""


def trade(series: Series, places: npt.NDArray[np.intp], actions: ActionArray, payout_rate: float) -> list[FillResult]:
    """Trade one-bar options at the three fills; trades that would run over a gap are left out at every fill."""
    whole = series.whole
    usable = places + 2 < len(series.close)
    usable[usable] = whole[places[usable] + 1] & whole[places[usable] + 2]
    at, chosen = places[usable], actions[usable]
    close = series.close
    moves = {
        FILLS[0]: close[at + 1] - close[at],
        FILLS[1]: close[at + 1] - series.following[at],
        FILLS[2]: close[at + 2] - close[at + 1],
    }
    return [_fill(fill, move, chosen, payout_rate) for fill, move in moves.items()]


def _fill(fill: str, move: FloatArray, actions: ActionArray, payout_rate: float) -> FillResult:
    traded = actions != 0
    signed = move[traded] * actions[traded]
    outcomes = np.where(signed > 0, payout_rate, np.where(signed < 0, -1.0, 0.0))
    wins, ties, trades = int((signed > 0).sum()), int((signed == 0).sum()), int(traded.sum())
    decided = trades - ties
    low, high = _wilson(wins, decided)
    mean = float(outcomes.mean()) if trades else float("nan")
    reach = Z95 * float(outcomes.std(ddof=1)) / np.sqrt(trades) if trades > 1 else float("nan")
    return FillResult(
        fill=fill,
        bars=len(actions),
        trades=trades,
        wins=wins,
        ties=ties,
        hit=wins / decided if decided else float("nan"),
        hit_low=low,
        hit_high=high,
        profit=mean,
        profit_low=mean - reach,
        profit_high=mean + reach,
        outcomes=outcomes,
    )


def _wilson(wins: int, n: int) -> tuple[float, float]:
    if n == 0:
        return float("nan"), float("nan")
    rate, weight = wins / n, Z95 * Z95 / n
    centre = (rate + weight / 2) / (1 + weight)
    reach = Z95 / (1 + weight) * float(np.sqrt(rate * (1 - rate) / n + weight / (4 * n)))
    return centre - reach, centre + reach


def judge_real(series: Series, rows: Rows, candidate: Candidate, payout_rate: float, margin: float) -> list[FillResult]:
    """Trade a candidate on a series."""
    return trade(series, rows.at, candidate.actions(rows.features, payout_rate, margin), payout_rate)


def walk_forward(series: Series, rows: Rows, payout_rate: float, margin: float, folds: int = 4) -> list[FillResult]:
    """Trade a ridge logistic regression on the odd features, fitted anew before each fold on all that came before.

    Labels that reach into the fold are purged. It is what a careful person would fit to this data first.
    """
    odd = rows.features[:, :ODD_FEATURES].astype(np.float64)
    move = np.zeros(len(rows.at))
    known = rows.at + 1 < len(series.close)
    known[known] = series.whole[rows.at[known] + 1]
    move[known] = np.sign(series.close[rows.at[known] + 1] - series.close[rows.at[known]])
    edges = np.linspace(0, len(rows.at), folds + 2).astype(int)
    places, actions = [], []
    for first, last in itertools.pairwise(edges[1:]):
        learn = np.flatnonzero(move[: max(first - 2, 0)])
        if len(learn) < 100:
            continue
        weights = _fit(odd[learn], move[learn])
        p_up = 1.0 / (1.0 + np.exp(-odd[first:last] @ weights))
        places.append(rows.at[first:last])
        actions.append(threshold(p_up, payout_rate, margin))
    if not places:
        return trade(series, np.empty(0, dtype=np.intp), np.empty(0, dtype=np.int8), payout_rate)
    return trade(series, np.concatenate(places), np.concatenate(actions), payout_rate)


def _fit(odd: FloatArray, side: FloatArray, ridge: float = 10.0) -> FloatArray:
    """Fit a logistic regression without intercept (mirror-symmetric) by Newton's method."""
    weights = np.zeros(odd.shape[1])
    for _ in range(25):
        p_right = 1.0 / (1.0 + np.exp(-side * (odd @ weights)))
        slope = odd.T @ (side * (1.0 - p_right)) - ridge * weights
        curve = (odd * (p_right * (1.0 - p_right))[:, np.newaxis]).T @ odd + ridge * np.eye(odd.shape[1])
        weights = weights + np.linalg.solve(curve, slope)
    return weights
