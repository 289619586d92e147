"""The seven markets on which every model is judged, with fixed parameters and short names."""

from markets.process import Process
from markets.processes import Autoregressive, Garch, RandomWalk
from markets.reversion import AnchoredReversion
from markets.switching import SwitchingAutoregressive, TrendingRegimes


def standard_markets() -> dict[str, Process]:
    """Return the standard markets by name; the first two hold nothing to earn."""
    return {
        "rw": RandomWalk(),
        "garch": Garch(),
        "ar_mom": Autoregressive(0.25),
        "ar_rev": Autoregressive(-0.25),
        "ou_rw": AnchoredReversion(0.9, 0.5, 1.0),
        "regime": TrendingRegimes(0.35, 0.98),
        "msar": SwitchingAutoregressive(0.35, 0.99),
    }
