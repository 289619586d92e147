"""What a forecast is worth under a fixed payout, and a policy's exact score against the optimum."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from markets.process import FloatArray


def break_even(payout_rate: float) -> float:
    """Return the hit rate at which trades neither win nor lose: 1 / (1 + payout_rate)."""
    return 1.0 / (1.0 + payout_rate)


def expected_profit(p_win: FloatArray, payout_rate: float) -> FloatArray:
    """Return the expected profit of one trade as a fraction of the stake."""
    return p_win * (1.0 + payout_rate) - 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """A policy beside the optimum on the same bars, by exact expectation: luck cannot raise it."""

    bars: int
    """Bars that were judged."""
    trade_rate: float
    """Share of bars with a trade."""
    hit_rate: float
    """Expected share of trades that win; NaN without trades."""
    profit_per_trade: float
    """Expected profit a trade, fraction of the stake; NaN without trades."""
    profit_per_bar: float
    """Expected profit a bar, fraction of the stake."""
    optimum_per_bar: float
    """The same for the policy that knows the true probability."""
    optimum_rate: float
    """Share of bars that the optimum trades."""

    @property
    def share(self) -> float:
        """The policy's expected profit as a share of the optimum's; NaN where there is nothing to earn."""
        return self.profit_per_bar / self.optimum_per_bar if self.optimum_per_bar > 0 else float("nan")


def score(actions: npt.NDArray[np.int8], p_up: FloatArray, payout_rate: float) -> Score:
    """Score actions (1 call, -1 put, 0 hold) against the exact probabilities of the same bars."""
    p_win = np.where(actions > 0, p_up, 1.0 - p_up)
    traded = actions != 0
    profit = np.where(traded, expected_profit(p_win, payout_rate), 0.0)
    best = np.maximum(expected_profit(np.maximum(p_up, 1.0 - p_up), payout_rate), 0.0)
    any_trade = bool(traded.any())
    return Score(
        bars=int(actions.size),
        trade_rate=float(traded.mean()),
        hit_rate=float(p_win[traded].mean()) if any_trade else float("nan"),
        profit_per_trade=float(profit[traded].mean()) if any_trade else float("nan"),
        profit_per_bar=float(profit.mean()),
        optimum_per_bar=float(best.mean()),
        optimum_rate=float((best > 0).mean()),
    )
