"""Where integers of a fixed number of bits stop: the largest weight, a percentile, or the least error."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.passes.scales import Slices, stored_scales

__all__ = ["CLIPS", "Grid", "grid_of"]

F64 = NDArray[np.float64]

CLIPS: Final = ("absmax", "percentile", "mse")

_SHRINKS: Final = np.linspace(1.0, 0.3, 36)
"""Shares of the largest weight that are tried for the least squared error."""


class Grid(NamedTuple):
    """Evenly spaced numbers for each part of a tensor.

    Attributes
    ----------
    scale : float32 array, shape (parts,)
    zero_point : int32 array, shape (parts,), or None
        None: all are 0.
    low, high : int
        The smallest and the largest code.
    scale_dtype : str
        The type that holds the scales.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32] | None
    low: int
    high: int
    scale_dtype: str

    def codes(self, values: NDArray[np.float32], slices: Slices) -> NDArray[np.int32]:
        """The nearest code of each value; a scale of 0 has the code that means zero."""
        scale = slices.spread(self.scale)
        zero = np.int32(0) if self.zero_point is None else slices.spread(self.zero_point)
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.where(scale > 0, values / scale, np.float32(0))
        codes: NDArray[np.int32] = np.clip(np.rint(scaled) + zero, self.low, self.high).astype(np.int32)
        return codes


def grid_of(
    values: NDArray[np.float32],
    slices: Slices,
    bits: int,
    *,
    clip: str = "absmax",
    percentile: float = 0.999,
    symmetric: bool = True,
    scale_dtype: str = "F32",
) -> Grid:
    """Choose a grid of ``2**bits`` codes, one less where it is symmetric, for each part of a tensor.

    Parameters
    ----------
    values : float32 array
        Finite.
    slices : Slices
        The parts.
    bits : int
    clip : str
        ``absmax``: the grid reaches to the largest weights; ``percentile``: as far as this share of them;
        ``mse``: as far as gives the least squared error, of 36 shares of the largest weight.
    percentile : float
        Share of the weights within the grid.
    symmetric : bool
        Whether the grid is the same to both sides, with zero in its middle; else it has a zero point.
    scale_dtype : str
        See `cmpk.passes.scales.stored_scales`.
    """
    if clip == "percentile":
        low, high = _percentiles(values, slices, percentile, symmetric)
    elif symmetric:
        high = slices.largest(np.abs(values))
        low = -high
    else:
        low, high = -slices.largest(-values), slices.largest(values)
    make = _symmetric if symmetric else _with_zero_point
    if clip != "mse":
        return make(low, high, bits, scale_dtype)
    best_error: F64 = np.full(len(high), np.inf)
    best = np.ones(len(high))
    for shrink in _SHRINKS:
        grid = make(low * shrink, high * shrink, bits, scale_dtype)
        zero = np.int32(0) if grid.zero_point is None else slices.spread(grid.zero_point)
        decoded = (grid.codes(values, slices) - zero) * slices.spread(grid.scale)
        error = slices.total(np.square(decoded - values, dtype=np.float64))
        best = np.where(error < best_error, shrink, best)
        best_error = np.minimum(error, best_error)
    return make(low * best, high * best, bits, scale_dtype)


def _symmetric(low: F64, high: F64, bits: int, scale_dtype: str) -> Grid:
    limit = (1 << bits - 1) - 1
    scale, dtype = stored_scales(high / limit, scale_dtype)
    return Grid(scale, None, -limit, limit, dtype)


def _with_zero_point(low: F64, high: F64, bits: int, scale_dtype: str) -> Grid:
    # Zero is on the grid: what is pruned stays zero.
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    largest = (1 << bits) - 1
    scale, dtype = stored_scales((high - low) / largest, scale_dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = np.where(scale > 0, np.rint(-low / scale), 0)
    return Grid(scale, np.clip(zero, 0, largest).astype(np.int32), 0, largest, dtype)


def _percentiles(
    values: NDArray[np.float32], slices: Slices, percentile: float, symmetric: bool
) -> tuple[F64, F64]:
    """Bounds of the parts that hold a share of their weights."""
    parts = _parts(values, slices)
    if symmetric:
        high = np.nanquantile(np.abs(parts), percentile, axis=1).astype(np.float64)
        return -high, high
    bounds = np.nanquantile(parts, [1 - percentile, percentile], axis=1).astype(np.float64)
    return bounds[0], bounds[1]


def _parts(values: NDArray[np.float32], slices: Slices) -> NDArray[np.float32]:
    """The weights of each part in a row, shorter ones filled up with NaN."""
    if slices.group_size:
        lines = values.reshape(-1, slices.shape[-1])
        missing = -slices.shape[-1] % slices.group_size
        filled = np.pad(lines, ((0, 0), (0, missing)), constant_values=np.nan)
        return filled.reshape(-1, slices.group_size)
    if slices.axis < 0:
        return values.reshape(1, -1)
    return np.moveaxis(values, slices.axis, 0).reshape(slices.shape[slices.axis], -1)
