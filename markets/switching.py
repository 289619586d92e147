"""Markets that change their state unseen: the optimum is a Hamilton filter over the states."""

import itertools
from dataclasses import dataclass

import numpy as np

from markets.process import FloatArray, Parameter, Shape, normal_cdf, over_time, shape_of


@dataclass(frozen=True, slots=True)
class TrendingRegimes:
    """Returns drift up or down; the direction is hidden and flips now and then."""

    drift: Parameter = 0.35
    """Size of the drift in units of the noise."""
    stay: Parameter = 0.98
    """Probability that the direction lasts one more bar."""

    def returns(self, rng: np.random.Generator, shape: Shape) -> FloatArray:
        """Draw returns; see ``Process``. The noise has variance 1."""
        size = shape_of(shape)
        flips = rng.random(size) >= over_time(self.stay)
        first = rng.integers(0, 2, size[:-1])
        direction = 1.0 - 2.0 * ((first[..., np.newaxis] + np.cumsum(flips, axis=-1)) % 2)
        return over_time(self.drift) * direction + rng.standard_normal(size)

    def p_up(self, returns: FloatArray, horizon: int = 1) -> FloatArray:
        """Hamilton filter of the direction, then the law of the number of rising bars in the horizon."""
        rising = np.full(returns.shape[:-1], 0.5)
        filtered = np.empty(returns.shape)
        for t in range(returns.shape[-1]):
            predicted = self.stay * rising + (1.0 - self.stay) * (1.0 - rising)
            # Likelihood ratio of the two normals: exp(2 * drift * r).
            odds = np.exp(np.clip(-2.0 * self.drift * returns[..., t], -700.0, 700.0))
            rising = predicted / (predicted + (1.0 - predicted) * odds)
            filtered[..., t] = rising
        drift, stay = over_time(self.drift), over_time(self.stay)
        # paths[s][j]: probability of being in direction s (0 up, 1 down) now, after j rising bars.
        paths = {(0, 0): filtered, (1, 0): 1.0 - filtered}
        for _ in range(horizon):
            step: dict[tuple[int, int], FloatArray] = {}
            for (state, risen), weight in paths.items():
                for after in (0, 1):
                    key = (after, risen + (after == 0))
                    step[key] = step.get(key, 0.0) + weight * (stay if after == state else 1.0 - stay)
            paths = step
        total = np.zeros(returns.shape)
        for (_state, risen), weight in paths.items():
            reach = np.asarray((2.0 * risen - horizon) * drift / np.sqrt(horizon), dtype=np.float64)
            total = total + weight * normal_cdf(reach)
        return total


@dataclass(frozen=True, slots=True)
class SwitchingAutoregressive:
    """AR(1) returns whose coefficient is hidden and changes between none, momentum and reversal."""

    phi: Parameter = 0.35
    """The coefficients are 0, phi and -phi."""
    stay: Parameter = 0.99
    """Probability that the coefficient lasts one more bar; it leaves to either other one alike."""

    def returns(self, rng: np.random.Generator, shape: Shape) -> FloatArray:
        """Draw returns; see ``Process``. Innovations have variance 1."""
        size = shape_of(shape)
        leaves = rng.random(size) >= over_time(self.stay)
        moves = np.where(leaves, rng.integers(1, 3, size), 0)
        first = rng.integers(0, 3, size[:-1])
        states = (first[..., np.newaxis] + np.cumsum(moves, axis=-1)) % 3
        coefficients = np.array([0.0, 1.0, -1.0])[states] * over_time(self.phi)
        out = rng.standard_normal(size)
        for t in range(1, size[-1]):
            out[..., t] += coefficients[..., t] * out[..., t - 1]
        return out

    def p_up(self, returns: FloatArray, horizon: int = 1) -> FloatArray:
        """Hamilton filter of the coefficient, then the exact law over every course of the states.

        The courses are enumerated: 3 ** horizon of them, so a long horizon is slow.
        """
        filtered = self._filter(returns)
        phi, stay = over_time(self.phi), over_time(self.stay)
        leave = (1.0 - stay) / 2.0
        total = np.zeros(returns.shape)
        for course in itertools.product(range(3), repeat=horizon):
            weight: FloatArray = sum(  # type: ignore[assignment]  # sum() of arrays starts at int 0
                filtered[state] * (stay if state == course[0] else leave) for state in range(3)
            )
            for before, after in itertools.pairwise(course):
                weight = weight * (stay if before == after else leave)
            # Going back from the end: what one unit of a return adds to itself and all later ones.
            reach: Parameter = 0.0
            variance: Parameter = 0.0
            for state in reversed(course):
                reach = 1.0 + reach
                variance = variance + reach * reach
                reach = reach * (0.0, phi, -phi)[state]
            total = total + weight * normal_cdf(returns * reach / np.sqrt(variance))
        return total

    def _filter(self, returns: FloatArray) -> list[FloatArray]:
        """Return P(state | returns so far) for the coefficients 0, phi, -phi."""
        leave = (1.0 - self.stay) / 2.0
        weights = [np.full(returns.shape[:-1], 1.0 / 3.0) for _ in range(3)]
        filtered = [np.empty(returns.shape) for _ in range(3)]
        for t in range(returns.shape[-1]):
            # A sum of one: the other two together have 1 - w.
            weights = [self.stay * w + leave * (1.0 - w) for w in weights]
            if t:
                before, now = returns[..., t - 1], returns[..., t]
                # Log likelihood against coefficient 0.
                gain = self.phi * before * now
                cost = 0.5 * np.square(self.phi * before)
                weights = [weights[0], weights[1] * np.exp(gain - cost), weights[2] * np.exp(-gain - cost)]
                total = weights[0] + weights[1] + weights[2]
                weights = [w / total for w in weights]
            for state in range(3):
                filtered[state][..., t] = weights[state]
        return filtered
