"""What a price process promises, and the few pieces of mathematics that all of them share."""

import math
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Parameter = float | FloatArray
"""A number, or one number per path: an array that broadcasts against everything but the time axis."""

Shape = int | tuple[int, ...]
"""Bars, or (paths, bars): time is the last axis."""


class Process(Protocol):
    """A seeded source of bar returns whose optimal forecast is known exactly."""

    def returns(self, rng: np.random.Generator, shape: Shape) -> FloatArray:
        """Draw log returns in units of the process's own volatility (about 1 a bar).

        Each path starts from the stationary law, so there is no burn-in to throw away.
        """
        ...

    def p_up(self, returns: FloatArray, horizon: int = 1) -> FloatArray:
        """Return P(price ``horizon`` bars on is higher | returns up to and including this bar), exactly.

        The parameters are known to it, the hidden state is not. Same shape as ``returns``; time is the last axis.
        """
        ...


_erfc = np.frompyfunc(math.erfc, 1, 1)


def normal_cdf(z: FloatArray) -> FloatArray:
    """Return the standard normal distribution function, to double precision."""
    return 0.5 * np.asarray(_erfc(z * -math.sqrt(0.5)), dtype=np.float64)


def shape_of(shape: Shape) -> tuple[int, ...]:
    """Return the shape as a tuple."""
    return (shape,) if isinstance(shape, int) else shape


def over_time(parameter: Parameter) -> Parameter:
    """Give a per-path parameter a time axis of length one, so that it broadcasts against (paths, bars)."""
    return parameter[..., np.newaxis] if isinstance(parameter, np.ndarray) else parameter


def closes(returns: FloatArray, *, start: float = 1.1, volatility: float = 1e-4) -> FloatArray:
    """Return close prices: ``start`` moved by the returns, ``volatility`` being the size of one unit of return.

    The result has one close more than there are returns: the first one is ``start`` itself.
    """
    path = np.cumsum(returns * volatility, axis=-1)
    first = np.zeros((*path.shape[:-1], 1))
    return cast(FloatArray, start * np.exp(np.concatenate([first, path], axis=-1)))
