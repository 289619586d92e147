"""Processes that need no filter: no edge at all (random walk, GARCH) and first-order autocorrelation."""

from dataclasses import dataclass

import numpy as np

from markets.process import FloatArray, Parameter, Shape, normal_cdf, over_time, shape_of


@dataclass(frozen=True, slots=True)
class RandomWalk:
    """Independent normal returns: nothing to earn, whatever one does."""

    def returns(self, rng: np.random.Generator, shape: Shape) -> FloatArray:
        """Draw returns; see ``Process``."""
        return rng.standard_normal(shape_of(shape))

    def p_up(self, returns: FloatArray, horizon: int = 1) -> FloatArray:
        """One half, always."""
        _ = horizon
        return np.full(returns.shape, 0.5)


@dataclass(frozen=True, slots=True)
class Garch:
    """GARCH(1,1) with Student-t innovations: fat tails and volatility clusters, and still nothing to earn."""

    alpha: Parameter = 0.10
    """Weight of the last squared return in the next variance."""
    beta: Parameter = 0.85
    """Weight of the last variance; alpha + beta < 1."""
    degrees: Parameter = 5.0
    """Degrees of freedom of the innovations, above 2."""

    def returns(self, rng: np.random.Generator, shape: Shape) -> FloatArray:
        """Draw returns; see ``Process``. The first variance is the stationary one."""
        size = shape_of(shape)
        degrees = over_time(self.degrees)
        innovations = rng.standard_t(degrees, size) * np.sqrt((degrees - 2.0) / degrees)
        out = np.empty(size)
        variance = np.ones(size[:-1])
        for t in range(size[-1]):
            out[..., t] = np.sqrt(variance) * innovations[..., t]
            variance = 1.0 - self.alpha - self.beta + self.alpha * out[..., t] ** 2 + self.beta * variance
        return out

    def p_up(self, returns: FloatArray, horizon: int = 1) -> FloatArray:
        """One half, always: the innovations are symmetric."""
        _ = horizon
        return np.full(returns.shape, 0.5)


@dataclass(frozen=True, slots=True)
class Autoregressive:
    """AR(1) returns: momentum where ``phi`` > 0, reversal where it is < 0."""

    phi: Parameter = 0.25
    """Correlation of a return with the one before, -1 < phi < 1."""

    def returns(self, rng: np.random.Generator, shape: Shape) -> FloatArray:
        """Draw returns; see ``Process``. Innovations have variance 1."""
        out = rng.standard_normal(shape_of(shape))
        out[..., 0] /= np.sqrt(1.0 - np.square(self.phi))
        for t in range(1, out.shape[-1]):
            out[..., t] += self.phi * out[..., t - 1]
        return out

    def p_up(self, returns: FloatArray, horizon: int = 1) -> FloatArray:
        """Closed form: the sum of the next returns is normal, given the last one."""
        mean, variance = ar_sum(over_time(self.phi), horizon)
        return normal_cdf(returns * mean / np.sqrt(variance))


def ar_sum(phi: Parameter, horizon: int) -> tuple[Parameter, Parameter]:
    """Return the mean (per unit of the last return) and the variance of the sum of the next AR(1) returns."""
    # An innovation j steps before the end adds 1 + phi + ... + phi^(j-1) of itself to the sum.
    reach: Parameter = 0.0
    variance: Parameter = 0.0
    for _ in range(horizon):
        reach = 1.0 + phi * reach
        variance = variance + reach * reach
    return phi * reach, variance
