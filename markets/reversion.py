"""Mean reversion around an anchor that wanders itself: the optimum is a Kalman filter."""

from dataclasses import dataclass

import numpy as np

from markets.process import FloatArray, Parameter, Shape, normal_cdf, over_time, shape_of


@dataclass(frozen=True, slots=True)
class AnchoredReversion:
    """An AR(1) deviation (discrete Ornstein-Uhlenbeck) around a random walk; only their sum, the price, is seen."""

    rho: Parameter = 0.9
    """Share of the deviation that is left a bar later, 0 <= rho < 1."""
    anchor_step: Parameter = 0.5
    """Standard deviation of the anchor's step."""
    shock: Parameter = 1.0
    """Standard deviation of what is added to the deviation in a bar."""

    def returns(self, rng: np.random.Generator, shape: Shape) -> FloatArray:
        """Draw returns; see ``Process``."""
        size = shape_of(shape)
        anchor = over_time(self.anchor_step) * rng.standard_normal(size)
        shocks = over_time(self.shock) * rng.standard_normal(size)
        before = np.sqrt(self._stationary_variance()) * rng.standard_normal(size[:-1])
        out = np.empty(size)
        for t in range(size[-1]):
            after = self.rho * before + shocks[..., t]
            out[..., t] = anchor[..., t] + after - before
            before = after
        return out

    def p_up(self, returns: FloatArray, horizon: int = 1) -> FloatArray:
        """Kalman filter of the deviation, then the normal law of the move over the horizon."""
        rho, shock = self.rho, np.square(self.shock)
        step = np.square(self.anchor_step)
        left = rho**horizon
        noise = horizon * step + shock * (1.0 - left * left) / (1.0 - rho * rho)
        mean = np.zeros(returns.shape[:-1])
        variance = np.broadcast_to(self._stationary_variance(), mean.shape)
        z = np.empty(returns.shape)
        for t in range(returns.shape[-1]):
            covariance = rho * (rho - 1.0) * variance + shock
            seen = np.square(1.0 - rho) * variance + shock + step
            gain = covariance / seen
            mean = rho * mean + gain * (returns[..., t] - (rho - 1.0) * mean)
            variance = rho * rho * variance + shock - gain * covariance
            z[..., t] = (left - 1.0) * mean / np.sqrt(np.square(left - 1.0) * variance + noise)
        return normal_cdf(z)

    def _stationary_variance(self) -> Parameter:
        return np.square(self.shock) / (1.0 - np.square(self.rho))
