"""Price processes whose exact P(up | history) is known: the yardstick of the agent and the simulator's synthetic assets.

A process gives one log return per bar in units of its own volatility, so it fits any candle length; ``log_prices`` and
``closes`` turn returns into prices. Pure numpy, no clock, no global state: the same generator gives the same path.
"""

from markets.catalogue import standard_markets
from markets.payoff import Score, break_even, expected_profit, score
from markets.process import FloatArray, Process, closes
from markets.processes import Autoregressive, Garch, RandomWalk
from markets.reversion import AnchoredReversion
from markets.switching import SwitchingAutoregressive, TrendingRegimes

__all__ = [
    "AnchoredReversion",
    "Autoregressive",
    "FloatArray",
    "Garch",
    "Process",
    "RandomWalk",
    "Score",
    "SwitchingAutoregressive",
    "TrendingRegimes",
    "break_even",
    "closes",
    "expected_profit",
    "score",
    "standard_markets",
]
