"""Ranges of the numbers that a layer is given, found without keeping the numbers.

What lies outside of a range that activations are rounded within is clipped; the wider the range, the larger
the steps. Three ways to choose.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["RANGES", "Histogram"]

RANGES: Final = ("minmax", "percentile", "mse")
"""All numbers that were seen; all but one in ten thousand; the range with the least mean square error."""

_CLIPPED: Final = 1e-4
"""Share of the numbers outside of range ``percentile``, half of them on each side."""

_STEPS: Final = 255
"""Steps from the lowest to the highest of 256 levels."""

_MAX_ENDS: Final = 512
"""Ends that are tried on each side for ``mse``."""

_MAX_CLIPPED: Final = 0.25
"""No more than this share of the numbers is clipped on each side for ``mse``."""

_MAX_TRIED: Final = 64
"""Pairs of ends that are tried."""


class Histogram:
    """How often numbers occur: a bin for each value of bfloat16, so that no range is needed beforehand."""

    def __init__(self) -> None:
        self._counts = np.zeros(1 << 16, np.int64)
        self._low = np.float32(np.inf)
        self._high = np.float32(-np.inf)

    def add(self, x: torch.Tensor, times: int = 1) -> None:
        """Count numbers; those that are not finite are passed over.

        Parameters
        ----------
        x : floating-point tensor of any shape, on any device
        times : int
            How often each counts.
        """
        import torch

        x = x.detach().float().reshape(-1)
        x = x[x.isfinite()]
        if not len(x):
            return
        low, high = (float(end) for end in x.aminmax())
        self._low, self._high = min(self._low, np.float32(low)), max(self._high, np.float32(high))
        bins = x.bfloat16().view(torch.int16).int().bitwise_and_(0xFFFF)
        self._counts += times * torch.bincount(bins, minlength=1 << 16).cpu().numpy()

    def ranges(self) -> NDArray[np.float32] | None:
        """The lowest and the highest number of each of `RANGES`, shape (3, 2); None if none was seen."""
        if self._low > self._high:
            return None
        values, counts = self._values()
        below = counts.cumsum()
        tail = _CLIPPED / 2 * below[-1]
        percentile = values[np.searchsorted(below, tail)], values[np.searchsorted(below, below[-1] - tail)]
        return np.array([(self._low, self._high), percentile, _least_squares(values, counts)], np.float32)

    def _values(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The numbers that occur, ascending, and how often each does."""
        bits = np.flatnonzero(self._counts)
        values = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        # What is finite may round to infinity.
        values = values.clip(float(self._low), float(self._high))
        order = np.argsort(values, kind="stable")
        return values[order], self._counts[bits[order]]


def _least_squares(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """The range with the least mean square of rounding and clipping errors.

    Rounding within steps of size s costs s² / 12 a number, and clipping costs each side by itself: all pairs
    of ends are one table. Where many numbers lie closely about 0, it matters whether 0 is a level; so the
    best pairs by the table are tried as they are and moved by less than a step.
    """
    low_ends, low_costs = _clipping(values, counts)
    high_ends, high_costs = _clipping(-values[::-1], counts[::-1])
    steps = (-high_ends[None, :] - low_ends[:, None]).clip(0) / _STEPS
    costs = counts.sum() / 12 * steps**2 + low_costs[:, None] + high_costs[None, :]
    rows, columns = np.unravel_index(np.argsort(costs, axis=None)[:_MAX_TRIED], costs.shape)
    pairs = list(zip(low_ends[rows].tolist(), (-high_ends[columns]).tolist(), strict=True))
    pairs += [_with_zero(low, high) for low, high in pairs if low < 0 < high]
    return min(pairs, key=lambda pair: _square_error(values, counts, *pair))


def _with_zero(low: float, high: float) -> tuple[float, float]:
    """The range moved by half a step at most, so that 0 is a level."""
    step = (high - low) / _STEPS
    low = round(low / step) * step
    return low, low + _STEPS * step


def _square_error(values: NDArray[np.float64], counts: NDArray[np.int64], low: float, high: float) -> float:
    """Sum of the squares of what rounding within a range changes."""
    step = max((high - low) / _STEPS, sys.float_info.min)
    rounded = low + step * ((values - low) / step).round().clip(0, _STEPS)
    return float(counts @ (values - rounded) ** 2)


def _clipping(
    values: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends on the lower side, and the sum of squares by which numbers below each are clipped."""
    below = counts.cumsum()
    n_ends = max(1, int(np.searchsorted(below, _MAX_CLIPPED * below[-1])))
    at = np.unique(np.linspace(0, n_ends - 1, min(n_ends, _MAX_ENDS)).astype(np.int64))
    first, second = (counts * values).cumsum()[at], (counts * values**2).cumsum()[at]
    ends = values[at]
    return ends, (below[at] * ends**2 - 2 * ends * first + second).clip(0)
