"""Writes model cards: Markdown and plots from the measures, the losing ones first among equals."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Plot

from markets import FloatArray
from services.agent.registry.manifest import Manifest
from training.evaluation.known import NO_EDGE, PAYOUTS, Calibration, MarketResult
from training.evaluation.real import FillResult
from training.evaluation.timing import TimingResult

MARKET_WORDS: Final = {
    "rw": "random walk",
    "garch": "GARCH, Student-t",
    "ar_mom": "AR momentum",
    "ar_rev": "AR reversal",
    "ou_rw": "OU around a random walk",
    "regime": "trending regimes",
    "msar": "switching AR",
}
ACCENT, MUTED, WARN = "#1f6f8b", "#9aa5ad", "#b5482f"


@dataclass(frozen=True, slots=True)
class RealResult:
    """What happened on one real series."""

    series: str
    period: str
    fills: Sequence[FillResult]
    baseline: Sequence[FillResult]
    """The walk-forward logistic regression on the same bars."""


@dataclass(frozen=True, slots=True)
class Equity:
    """Accumulated profit of many paths of one market, by trade."""

    market: str
    paths: FloatArray
    """(paths, trades): profit so far, stakes of 1."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured of one model."""

    manifest: Manifest
    seed: int
    """Of the unseen paths."""
    paths: int
    bars: int
    known: Sequence[MarketResult]
    others: Mapping[str, Sequence[MarketResult]]
    """The same measures of other candidates, by name."""
    calibrations: Sequence[Calibration]
    by_history: Mapping[int, Mapping[str, float]]
    """Share of the optimum, or trade rate without an edge, by candles of history."""
    early_trades: tuple[int, int]
    """Trades and decisions of the service below the demanded history."""
    audit: Sequence[str]
    """What the audit caught; empty is clean."""
    planted: Mapping[str, Sequence[str]]
    """What it caught of the cheats that were planted."""
    parity: Mapping[str, float]
    real: Sequence[RealResult]
    equities: Sequence[Equity]
    timing: Sequence[TimingResult]


def percent(value: float, digits: int = 2) -> str:
    """Write a share as a percentage."""
    return "–" if np.isnan(value) else f"{100 * value:.{digits}f} %"


def _signed(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:+.3f}"


def write_card(report: Report) -> str:
    """Return the card in Markdown."""
    m = report.manifest
    parts = [
        f"# {m.name} {m.version}",
        m.description,
        _facts(report),
        _what_it_earns(report),
        _history(report),
        _calibration(report),
        _real(report),
        _timing(report),
        _checks(report),
        _limits(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(report: Report) -> str:
    m = report.manifest
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(m.training["libraries"].items()))
    ranges = "; ".join(
        f"{MARKET_WORDS[name]}: "
        + (", ".join(f"{key} {low:g} to {high:g}" for key, (low, high) in sorted(values.items())) or "no parameters")
        for name, values in m.training["ranges"].items()
    )
    baked = "" if m.policy_payout is None else f", {m.policy_payout:g} baked in"
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| Task | {m.expiry_bars}-candle option: will the close {m.expiry_bars} candle ahead be higher? |",
            f"| Answers | {'P(up); the service applies the threshold' if m.kind == 'probability' else 'hold, call or put itself'} |",
            f"| Payout rates | {m.payout_range[0]:g} to {m.payout_range[1]:g}{baked} |",
            f"| Margin | {m.margin:g} beyond break-even, unless the caller sets one |",
            f"| History | at least {m.min_history} closed candles, else HOLD |",
            f"| Features | definition {m.features_version}, closes only (`services/agent/features`) |",
            f"| Trained on | simulated markets alone. {ranges} |",
            f"| Seed, versions | {m.training['seed']}; {libraries} |",
            f"| File | ONNX opset {m.onnx['opset']}, IR {m.onnx['ir']}, SHA-256 `{m.sha256}` |",
            f"| Judged on | seed {report.seed}, {report.paths} unseen paths a market, {report.bars} bars each after 1,200 candles |",
        ]
    )


def _share(result: MarketResult) -> str:
    figure = result.share or result.trade_rate
    if result.share is None:
        return f"trades {percent(figure.value)} [{percent(figure.low)}, {percent(figure.high)}]"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _what_it_earns(report: Report) -> str:
    lines = [
        "## Where the truth is known",
        (
            "Share of the profit of the optimum, which knows the market and its parameters, with a 95 % interval over paths; "
            "where there is nothing to earn, the share of bars with a trade. Both are exact expectations: luck cannot raise "
            "them."
        ),
        "",
        "| market | "
        + " | ".join(f"payout {p:g}" for p in PAYOUTS)
        + " | hit (0.87) | best hit | trades | best trades | profit a trade |",
        "|---|" + "---|" * (len(PAYOUTS) + 5),
    ]
    by = {(r.market, r.payout_rate): r for r in report.known}
    for market, words in MARKET_WORDS.items():
        cells = [_share(by[market, p]) if (market, p) in by else "not served" for p in PAYOUTS]
        r = by[market, 0.87]
        lines.append(
            f"| {words} | {' | '.join(cells)} | {percent(r.hit_rate, 1)} | {percent(r.optimum_hit_rate, 1)} "
            f"| {percent(r.trade_rate.value, 1)} | {percent(r.optimum_trade_rate, 1)} | {_signed(r.profit_per_trade)} |"
        )
    lines += ["", "![Share of the optimum](share.png)", "", "![Profit of 500 trades](equity.png)"]
    if report.others:
        lines += [
            "",
            "Others on the same bars at payout 0.87:",
            "",
            "| | " + " | ".join(MARKET_WORDS.values()) + " |",
            "|---|" + "---|" * len(MARKET_WORDS),
        ]
        for name, results in report.others.items():
            found = {r.market: r for r in results if r.payout_rate == 0.87}
            cells = [_short(found[market]) for market in MARKET_WORDS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(result: MarketResult) -> str:
    if result.share is not None:
        return f"{result.share.value:.3f}"
    loss = "" if np.isnan(result.profit_per_trade) else f", {100 * result.profit_per_trade:+.1f} % each"
    return f"trades {percent(result.trade_rate.value, 1)}{loss}"


def _history(report: Report) -> str:
    lines = [
        "## How much history it needs",
        (
            "The same measures (payout 0.87) by candles of history. Nobody can do much better with little: a policy that is "
            "Bayes-optimal over these families and may trade at most 1 % of a random walk's bars gets 0.70 to 0.83 of the "
            "optimum from 200 bars, and 0.99 and more from 1,000."
        ),
        "",
        "| candles | " + " | ".join(MARKET_WORDS.values()) + " |",
        "|---|" + "---|" * len(MARKET_WORDS),
    ]
    for candles, shares in report.by_history.items():
        cells = [
            f"trades {percent(shares[market])}" if market in NO_EDGE else f"{shares[market]:.3f}"
            for market in MARKET_WORDS
        ]
        note = " (the service holds here)" if candles < report.manifest.min_history else ""
        lines.append(f"| {candles:,}{note} | {' | '.join(cells)} |")
    trades, decisions = report.early_trades
    lines += [
        "",
        f"Through the service, below {report.manifest.min_history} candles: {trades} trades in {decisions:,} decisions.",
    ]
    return "\n".join(lines)


def _calibration(report: Report) -> str:
    if not report.calibrations:
        return ""
    lines = [
        "## Calibration",
        "| market | error of P(up) (rms) | calibration error | excess log loss |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {MARKET_WORDS[c.market]} | {c.error:.4f} | {c.expected_calibration_error:.4f} | {c.excess_log_loss:.5f} |"
        for c in report.calibrations
    ]
    return "\n".join([*lines, "", "![Calibration](calibration.png)"])


def _real(report: Report) -> str:
    lines = [
        "## On real quotes",
        (
            "**No evidence of profit on real markets.** None of this data was seen in training. A fill at the close that the "
            "decision was made on cannot be had; most of what looks like an edge there is gone one quote later, which is "
            "what bid-ask bounce looks like. Quotes are not option prices either. Payout 0.87, break-even 53.5 %, ties give "
            "the stake back. The baseline is a logistic regression fitted walk-forward to the same data."
        ),
        "",
        "| data | who | fill | bars | trades | ties | hit [95 %] | profit a trade [95 %] |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in report.real:
        for who, fills in ((report.manifest.name, result.fills), ("baseline", result.baseline)):
            for fill in fills:
                if fill.trades == 0:
                    if fill is fills[0]:
                        lines.append(
                            f"| {result.series} ({result.period}) | {who} | all | {fill.bars} | 0 (HOLD) | | | |"
                        )
                    continue
                lines.append(
                    f"| {result.series} ({result.period}) | {who} | {fill.fill} | {fill.bars} | {fill.trades} | {fill.ties} "
                    f"| {percent(fill.hit, 1)} [{100 * fill.hit_low:.1f}, {100 * fill.hit_high:.1f}] "
                    f"| {100 * fill.profit:+.1f} % [{100 * fill.profit_low:+.1f}, {100 * fill.profit_high:+.1f}] |"
                )
    return "\n".join([*lines, "", "![Profit on real quotes](real.png)"])


def _timing(report: Report) -> str:
    if not report.timing:
        return ""
    lines = [
        "## Experiment: one position at a time",
        (
            "With options of 5 candles and one open trade at a time, taking a small edge now can cost a better one soon: the only "
            "place here where decisions depend on one another. Gain in profit a bar over trading every edge, with the true "
            "probability known; not part of the model."
        ),
        "",
        "| market | trade every edge | best fixed waiting margin | PPO, gamma 0.99 |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {MARKET_WORDS[t.market]} | {t.greedy:.4f} a bar | {100 * (t.waiting / t.greedy - 1):+.1f} % (margin {t.margin:.3f}) "
        f"| {100 * (t.learnt / t.greedy - 1):+.1f} % |"
        for t in report.timing
    ]
    return "\n".join(lines)


def _checks(report: Report) -> str:
    found = "; ".join(report.audit) or "nothing"
    lines = [
        "## Checks",
        f"- Audit for look-ahead, chance, direction and scale: found {found}. It catches the cheats that are planted for it: "
        + "; ".join(f"{name} ({', '.join(caught) or 'NOT CAUGHT'})" for name, caught in report.planted.items())
        + ".",
    ]
    lines += [f"- {words}: {value:.2g}" for words, value in report.parity.items()]
    return "\n".join(lines)


def _limits(report: Report) -> str:
    lines = [
        "## What it is not for",
        "- It claims no profit on any real market, and none was shown.",
        "- Its edge markets have normal innovations; fat tails make it hold. That errs on the side of the account.",
        "- Options of other lengths than one candle, and payout rates outside its range: the service holds.",
        (
            "- A gap silences it for 60 candles, a market that stands still until it moves; ties count as returns of 0 and give "
            "the stake back."
        ),
        "- OTC quotes are made by the broker and may change their nature on any day.",
    ]
    if report.manifest.kind == "policy":
        lines.append(
            "- Its probability is the one that its own forecast of profit implies: do not read it as calibrated."
        )
    return "\n".join(lines)


def draw_plots(report: Report) -> dict[str, bytes]:
    """Return the plots as PNG files by name."""
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    plots = {"share.png": _plot_share(report), "equity.png": _plot_equity(report), "real.png": _plot_real(report)}
    if report.calibrations:
        plots["calibration.png"] = _plot_calibration(report)
    return {name: _png(plot) for name, plot in plots.items()}


def _png(plot: Plot) -> bytes:
    buffer = io.BytesIO()
    # Without the library's version the same measures give the same bytes.
    plot.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _plot_share(report: Report) -> Plot:
    plot = Plot(figsize=(7.2, 2.8), layout="constrained")
    left, right = plot.subplots(1, 2, width_ratios=(5, 2))
    results = {r.market: r for r in report.known if r.payout_rate == 0.87}
    edges = [m for m in MARKET_WORDS if m not in NO_EDGE]
    for axis, names, scale in ((left, edges, 1.0), (right, list(NO_EDGE), 100.0)):
        figures = [results[n].share or results[n].trade_rate for n in names]
        values = np.array([f.value for f in figures]) * scale
        spread = np.abs(np.array([[f.low, f.high] for f in figures]).T * scale - values)
        axis.bar(names, values, yerr=spread, color=ACCENT if axis is left else WARN, capsize=3)
    left.set_ylim(0, 1.05)
    left.axhline(1.0, color=MUTED, linewidth=0.8, linestyle="--")
    left.set_title("share of the optimum's profit")
    right.set_title("traded on noise, % of bars")
    right.axhline(1.0, color=MUTED, linewidth=0.8, linestyle="--")
    return plot


def _plot_equity(report: Report) -> Plot:
    plot = Plot(figsize=(7.2, 2.8), layout="constrained")
    axes = plot.subplots(1, max(len(report.equities), 1), sharey=True, squeeze=False)[0]
    for axis, equity in zip(axes, report.equities, strict=False):
        trades = np.arange(1, equity.paths.shape[1] + 1)
        low, middle, high = np.quantile(equity.paths, [0.025, 0.5, 0.975], axis=0)
        axis.fill_between(trades, low, high, color=ACCENT, alpha=0.2, linewidth=0)
        axis.plot(trades, middle, color=ACCENT)
        axis.axhline(0.0, color=MUTED, linewidth=0.8)
        axis.set_title(MARKET_WORDS[equity.market], fontsize=8)
        axis.set_xlabel("trades")
    axes[0].set_ylabel("profit, stakes (median, 95 %)")
    return plot


def _plot_real(report: Report) -> Plot:
    plot = Plot(figsize=(7.2, 2.8), layout="constrained")
    axis = plot.subplots()
    for result, colour in zip(report.real, (ACCENT, WARN, "#6b8e23", "#7a5195"), strict=False):
        fill = result.fills[1]
        if fill.trades < 2:
            continue
        total = np.cumsum(fill.outcomes)
        reach = 1.96 * fill.outcomes.std() * np.sqrt(np.arange(1, fill.trades + 1))
        steps = np.arange(1, fill.trades + 1)
        axis.plot(steps, total, color=colour, label=f"{result.series}, next quote")
        axis.fill_between(steps, total - reach, total + reach, color=colour, alpha=0.12, linewidth=0)
    axis.axhline(0.0, color=MUTED, linewidth=0.8)
    axis.set_xlabel("trades")
    axis.set_ylabel("profit, stakes (95 %)")
    if axis.lines[1:]:
        axis.legend(frameon=False, fontsize=8)
    else:
        axis.set_title("no trades")
    return plot


def _plot_calibration(report: Report) -> Plot:
    plot = Plot(figsize=(3.6, 3.4), layout="constrained")
    axis = plot.subplots()
    counts = np.sum([c.counts for c in report.calibrations], axis=0)
    weight = np.maximum(counts, 1.0)
    claimed = np.sum([c.claimed * c.counts for c in report.calibrations], axis=0) / weight
    happened = np.sum([c.happened * c.counts for c in report.calibrations], axis=0) / weight
    shown = counts > 200
    reach = 1.96 * np.sqrt(happened * (1 - happened) / weight)
    axis.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    axis.errorbar(claimed[shown], happened[shown], yerr=reach[shown], fmt="o", color=ACCENT, markersize=4)
    axis.set_xlabel("claimed P(up)")
    axis.set_ylabel("share of rises, all markets")
    return plot
