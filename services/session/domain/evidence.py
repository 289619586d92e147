"""What a bot's record proves: the evidence gate over shadow decisions, and honest statistics over settled trades.

Pure arithmetic on plain values. A hit rate counts decided trades only: a tie gives the stake back and says nothing.
"""

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

CONFIDENCE_Z: Final = 1.959964
"""Two-sided 95 %."""

ENOUGH_TRADES: Final = 30
"""Decided trades below which no verdict is given."""

BET: Final = 0.12
"""Share of its wealth that the gate's imagined gambler stakes on every shadow decision."""

OPEN_WEALTH: Final = 100.0
"""The gate opens here: without an edge that happens to at most one gate in a hundred, however long it runs."""

CLOSE_WEALTH: Final = 10.0
"""An open gate closes here, and its wealth starts anew from 1."""

WEALTH_CAP: Final = 1000.0
"""More wealth is not kept, so that an edge that has gone is noticed after hundreds of decisions, not thousands."""


class Verdict(StrEnum):
    """What the record shows about an edge after payout."""

    TOO_FEW = "too_few"
    NO_EVIDENCE = "no_evidence"
    EDGE = "edge"
    LOSS = "loss"


VERDICT_WORDS: Final[dict[Verdict, str]] = {
    Verdict.TOO_FEW: "too few to say",
    Verdict.NO_EVIDENCE: "no evidence of an edge",
    Verdict.EDGE: "evidence of an edge",
    Verdict.LOSS: "evidence of a loss",
}


class GateMode(StrEnum):
    """Who decides whether signals become orders."""

    EVIDENCE = "evidence"
    """Only a gate that the evidence has opened lets signals through."""
    OPEN = "open"
    """Signals pass whatever the evidence says."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval of rates, 0 to 1."""

    low: float
    high: float


def wilson(hits: int, decided: int, z: float = CONFIDENCE_Z) -> Interval:
    """Return the Wilson score interval of a hit rate (E. B. Wilson, 1927); the whole of [0, 1] without trials.

    It is meant for one look at the record. Looking after every trade until it pleases finds edges that are not
    there; the gate's wealth is the measure that may be watched all the time.
    """
    if decided == 0:
        return Interval(0.0, 1.0)
    rate = hits / decided
    weight = z * z / decided
    centre = (rate + weight / 2.0) / (1.0 + weight)
    reach = z / (1.0 + weight) * math.sqrt(rate * (1.0 - rate) / decided + weight / (4.0 * decided))
    return Interval(max(0.0, centre - reach), min(1.0, centre + reach))


def break_even(payout_rate: float) -> float:
    """Return the hit rate at which trades neither win nor lose."""
    return 1.0 / (1.0 + payout_rate)


def judge(hits: int, decided: int, needed: float) -> Verdict:
    """Compare the interval of the hit rate with the break-even rate ``needed``."""
    if decided < ENOUGH_TRADES:
        return Verdict.TOO_FEW
    interval = wilson(hits, decided)
    if interval.low > needed:
        return Verdict.EDGE
    return Verdict.LOSS if interval.high < needed else Verdict.NO_EVIDENCE


@dataclass(frozen=True, slots=True)
class Record:
    """Settled trades of one account in one currency, summed up. Add trades with ``and_trade``."""

    wins: int = 0
    losses: int = 0
    ties: int = 0
    sold: int = 0
    """Trades closed early: they count for the profit, not for the hit rate."""
    staked: Decimal = Decimal(0)
    profit: Decimal = Decimal(0)
    payout_weight: Decimal = Decimal(0)
    """Sum of amount times payout rate over the decided trades."""
    decided_stake: Decimal = Decimal(0)
    """Sum of the amounts of the decided trades."""

    def and_trade(self, outcome: str, amount: Decimal, profit: Decimal, payout_rate: Decimal) -> "Record":
        """Return the record with one more settled trade.

        Args:
            outcome: ``won``, ``lost``, ``tied`` or ``sold``.
            amount: The stake.
            profit: What the broker booked, net and signed.
            payout_rate: The rate the broker accepted the trade at, as a fraction.

        Raises:
            ValueError: On any other outcome.
        """
        summed = replace(self, staked=self.staked + amount, profit=self.profit + profit)
        if outcome == "tied":
            return replace(summed, ties=self.ties + 1)
        if outcome == "sold":
            return replace(summed, sold=self.sold + 1)
        if outcome not in ("won", "lost"):
            raise ValueError("not a settled outcome")
        won = outcome == "won"
        return replace(
            summed,
            wins=self.wins + won,
            losses=self.losses + (not won),
            payout_weight=self.payout_weight + amount * payout_rate,
            decided_stake=self.decided_stake + amount,
        )

    @property
    def decided(self) -> int:
        """Trades that won or lost."""
        return self.wins + self.losses

    @property
    def hit_rate(self) -> float | None:
        """Share of the decided trades that won; None before the first."""
        return self.wins / self.decided if self.decided else None

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the hit rate."""
        return wilson(self.wins, self.decided)

    @property
    def break_even(self) -> float | None:
        """The hit rate needed at the payouts of these very trades, weighted by stake; None before the first."""
        return break_even(float(self.payout_weight / self.decided_stake)) if self.decided_stake else None

    @property
    def profit_per_stake(self) -> float | None:
        """Profit per unit staked, ties and early sales included; None before the first trade."""
        return float(self.profit / self.staked) if self.staked else None

    @property
    def verdict(self) -> Verdict:
        """What the record shows."""
        needed = self.break_even
        return Verdict.TOO_FEW if needed is None else judge(self.wins, self.decided, needed)

    def words(self) -> str:
        """Say it in one line, for the status."""
        return _words(self.verdict, self.wins, self.decided, "trades", self.break_even)


def shadow_profit(direction: str, entry_price: float, exit_price: float, payout_rate: float) -> float:
    """Return what a shadow decision would have made per unit staked.

    ``entry_price`` is the first quote after the decision, never the close it was made on: the difference is most of
    the edge that backtests find in quotes.
    """
    move = exit_price - entry_price if direction == "call" else entry_price - exit_price
    if move == 0.0:
        return 0.0
    return payout_rate if move > 0.0 else -1.0


@dataclass(frozen=True, slots=True)
class Gate:
    """The evidence of one session and model: a test martingale (e-process) over its shadow decisions.

    A gambler starts with wealth 1 and stakes 12 % of it on each decision. Where decisions earn nothing after payout
    the wealth is a supermartingale, so it ever reaches 100 with probability at most 1 % (Ville's inequality), no
    matter when one looks. Every decision counts, those that were traded too.
    """

    hits: int = 0
    decided: int = 0
    ties: int = 0
    payout_sum: float = 0.0
    """Sum of the payout rates of the decided ones."""
    wealth: float = 1.0
    opened: bool = False

    def after(self, profit: float, payout_rate: float) -> "Gate":
        """Return the gate after one more shadow decision.

        Args:
            profit: Per unit staked, as ``shadow_profit`` gives it: ``payout_rate``, -1, or 0 for a tie.
            payout_rate: The rate on offer when it was decided.

        Raises:
            ValueError: If a value is not finite or outside [-1, payout_rate]: evidence is never guessed.
        """
        if not (0.0 < payout_rate <= 10.0 and -1.0 <= profit <= payout_rate):
            raise ValueError("not a possible profit at this payout rate")
        if profit == 0.0:
            return replace(self, ties=self.ties + 1)
        wealth = min(self.wealth * (1.0 + BET * profit), WEALTH_CAP)
        opened = self.opened or wealth >= OPEN_WEALTH
        if opened and wealth <= CLOSE_WEALTH:
            wealth, opened = 1.0, False
        return replace(
            self,
            hits=self.hits + (profit > 0.0),
            decided=self.decided + 1,
            payout_sum=self.payout_sum + payout_rate,
            wealth=wealth,
            opened=opened,
        )

    def lets_through(self, mode: GateMode) -> bool:
        """Tell whether a signal may become an order."""
        return mode is GateMode.OPEN or self.opened

    @property
    def break_even(self) -> float | None:
        """The hit rate needed at the payouts that were on offer; None before the first decision."""
        return break_even(self.payout_sum / self.decided) if self.decided else None

    def words(self) -> str:
        """Say it in one line: ``no evidence of an edge: 412 shadow decisions, hit 51.2 % [46.4, 56.0], …``."""
        # The gate's own test rules here, not the interval: only the former may be looked at after each decision.
        verdict = Verdict.EDGE if self.opened else Verdict.NO_EVIDENCE
        return _words(verdict, self.hits, self.decided, "shadow decisions", self.break_even)


def default_gate_mode(account_type: str) -> GateMode:
    """Return the mode that a new bot gets: evidence first where money is real, and in every case of doubt."""
    return GateMode.OPEN if account_type == "PRACTICE" else GateMode.EVIDENCE


def _words(verdict: Verdict, hits: int, decided: int, noun: str, needed: float | None) -> str:
    if needed is None:
        return f"{VERDICT_WORDS[verdict]}: 0 {noun}"
    interval = wilson(hits, decided)
    return (
        f"{VERDICT_WORDS[verdict]}: {decided} {noun}, hit {hits / decided:.1%} "
        f"[{interval.low * 100:.1f}, {interval.high * 100:.1f}], break-even {needed:.1%}"
    ).replace("%", " %")
