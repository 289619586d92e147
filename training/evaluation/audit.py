"""Catches cheats: features or policies that read the future, normalise with it, answer by chance, or trade on nonsense.

A judge is a function from the returns of one path to an action a bar; an honest one decides bar t from the returns up to
t alone, the same way every time.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from markets import FloatArray
from services.agent.domain.candles import RECENT_BARS
from training.dataset import MIN_HISTORY, feature_rows
from training.evaluation.candidates import ActionArray, Candidate

Judge = Callable[[FloatArray], ActionArray]

BARS: Final = 1600
CUTS: Final = (1100, 1250, 1399, 1598)


def audit(judge: Judge) -> list[str]:
    """Return what the judge was caught at; an empty list is a clean record."""
    rng = np.random.default_rng(123)
    # Strong momentum: a judge that never trades could hide anything.
    returns = rng.standard_normal(BARS)
    for t in range(1, BARS):
        returns[t] += 0.4 * returns[t - 1]
    whole = judge(returns.copy())
    caught = []
    if not np.array_equal(whole, judge(returns.copy())):
        caught.append("answers differently when asked again")
    for cut in CUTS:
        short = judge(returns[:cut].copy())
        if not np.array_equal(short, whole[:cut]):
            caught.append("decides differently once later bars are known")
            break
    for cut in CUTS:
        changed = returns.copy()
        # The future turned round and made wild: a decision before it must not move.
        changed[cut:] = -5.0 * changed[cut:]
        if not np.array_equal(judge(changed)[:cut], whole[:cut]):
            caught.append("changes with the future")
            break
    if not np.array_equal(judge(-returns), -whole):
        caught.append("prefers a direction")
    for unit in (1e-6, 1e3):
        if not np.array_equal(judge(returns * unit), whole):
            caught.append("depends on the unit of the prices")
            break
    if judge(np.zeros(BARS)).any():
        caught.append("trades a market that does not move")
    # On independent returns nobody can foretell more than half: 4 standard errors.
    noise = rng.standard_normal((8, BARS))
    right = total = 0
    for path in noise:
        actions = judge(path.copy())
        traded = np.flatnonzero(actions[:-1])
        right += int((np.sign(path[traded + 1]) == actions[traded]).sum())
        total += len(traded)
    if total and abs(right / total - 0.5) > 2.0 / np.sqrt(total):
        caught.append("foretells noise")
    return caught


def judge_of(candidate: Candidate, payout_rate: float, margin: float) -> Judge:
    """Return a candidate as a judge, with the service's rules for short histories and standing markets."""

    def judge(returns: FloatArray) -> ActionArray:
        actions = np.zeros(len(returns), dtype=np.int8)
        # After so many returns there is one candle more.
        first = MIN_HISTORY - 2
        if len(returns) > first and returns[-RECENT_BARS:].any():
            rows = feature_rows(returns[np.newaxis, :], range(first, len(returns)))[0]
            actions[first:] = candidate.actions(rows, payout_rate, margin)
        return actions

    return judge


def cheats(judge: Judge) -> dict[str, Judge]:
    """Return cheats that an audit must catch, some of them built on an honest judge."""
    rng = np.random.default_rng(5)

    def peeking(returns: FloatArray) -> ActionArray:
        future: FloatArray = np.concatenate([returns[1:], [0.0]])
        return np.sign(future).astype(np.int8)

    def normalising(returns: FloatArray) -> ActionArray:
        score = (returns - returns.mean()) / (returns.std() or 1.0)
        return np.where(np.abs(score) > 1.0, np.sign(score), 0).astype(np.int8)

    def sampling(returns: FloatArray) -> ActionArray:
        return np.where(rng.random(len(returns)) < 0.9, judge(returns), 0).astype(np.int8)

    def early(returns: FloatArray) -> ActionArray:
        return np.concatenate([judge(returns)[1:], [0]]).astype(np.int8)

    def hopeful(returns: FloatArray) -> ActionArray:
        return np.where(judge(returns) > 0, 1, 0).astype(np.int8)

    def scaled(returns: FloatArray) -> ActionArray:
        return np.where(np.abs(returns) > 1e-5, judge(returns), 0).astype(np.int8)

    return {
        "reading the next bar": peeking,
        "normalising by the whole series": normalising,
        "sampling its actions": sampling,
        "acting a bar before it knows": early,
        "only ever buying calls": hopeful,
        "thresholds in units of price": scaled,
    }
