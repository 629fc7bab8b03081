"""How far the numbers of a tensor are from those of another, in one pass and bounded memory."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import Part
from cmpk.format.quality import decibels
from cmpk.kernels.interface import U8
from cmpk.values import FLOAT_NAMES, to_float32

__all__ = ["Deviation", "deviation"]

_BLOCK_ELEMENTS: Final = 1 << 15
"""The few arrays that a block takes stay in a core's cache."""

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Deviation:
    r"""Sums over the elements of x, the source, and y, what became of it, where both are finite.

    Attributes
    ----------
    numel : int
    error_squares, source_squares, squares : float
        Sums of (y − x)², x² and y².
    largest : float
        The largest \|y − x\|; infinite where an element is finite in one of the two only, or not the
        same infinity.
    zeros, source_zeros : int
        How many elements of y and of x are zero.
    """

    numel: int = 0
    error_squares: float = 0.0
    source_squares: float = 0.0
    squares: float = 0.0
    largest: float = 0.0
    zeros: int = 0
    source_zeros: int = 0

    def __add__(self, other: Deviation) -> Deviation:
        return Deviation(
            self.numel + other.numel,
            self.error_squares + other.error_squares,
            self.source_squares + other.source_squares,
            self.squares + other.squares,
            max(self.largest, other.largest),
            self.zeros + other.zeros,
            self.source_zeros + other.source_zeros,
        )

    @property
    def error(self) -> float:
        """The relative error √Σ(y−x)² / √Σx²; 0 for 0 / 0."""
        if math.isinf(self.largest):
            return math.inf
        if not self.error_squares:
            return 0.0
        if math.isinf(self.source_squares):
            return 0.0 if math.isfinite(self.error_squares) else math.inf
        return math.sqrt(self.error_squares / self.source_squares) if self.source_squares else math.inf

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise in decibels; infinite without an error."""
        return decibels(self.error)

    @property
    def cosine(self) -> float:
        """Of the angle between x and y; 1 where both are zero, 0 where one of them is."""
        if not self.source_squares or not self.squares:
            return 1.0 if self.source_squares == self.squares else 0.0
        if math.isinf(self.source_squares) or math.isinf(self.squares):
            return 1.0 if math.isfinite(self.error_squares) else 0.0
        # From the law of cosines, which keeps the digits of 1 − cos for small angles.
        source, found = math.sqrt(self.source_squares), math.sqrt(self.squares)
        return 1 - max(0.0, self.error_squares - (source - found) ** 2) / (2 * source * found)


def deviation(spec: TensorSpec, source: U8, found: U8, found_dtype: str = "") -> Deviation | None:
    """How far the elements of a tensor are from those of another of the same shape.

    Parameters
    ----------
    spec : TensorSpec
    source : uint8 array, shape (spec.nbytes,)
    found : uint8 array
        The other's bytes.
    found_dtype : str
        Its type, if it is another one.

    Returns
    -------
    Deviation or None
        None for the types whose elements are no numbers to this module: packed floats, scales, complex.

    Notes
    -----
    Sums are in double precision, block by block, and each block pairwise: the same on every machine.
    """
    found_dtype = found_dtype or spec.dtype
    if not _is_known(spec.dtype) or not _is_known(found_dtype):
        return None
    total = Deviation()
    for start in range(0, spec.numel, _BLOCK_ELEMENTS):
        total += _of_block(_numbers(spec.dtype, source, start), _numbers(found_dtype, found, start))
    return total


def _is_known(dtype: str) -> bool:
    return dtype in FLOAT_NAMES or (bool(DTYPES[dtype].numpy_name) and dtype != "C64")


def _numbers(dtype: str, data: U8, start: int) -> F64:
    """The elements of the block that begins at element ``start``."""
    itemsize, numpy_name = DTYPES[dtype].nbytes, DTYPES[dtype].numpy_name
    data = data[start * itemsize : (start + _BLOCK_ELEMENTS) * itemsize]
    if numpy_name:
        return data.view(numpy_name).astype(np.float64)
    part = Part(TensorSpec(dtype, (len(data) // itemsize,)), data)
    return to_float32(part).astype(np.float64)


def _of_block(x: F64, y: F64) -> Deviation:
    numel = len(x)
    zeros, source_zeros = numel - int(np.count_nonzero(y)), numel - int(np.count_nonzero(x))
    with np.errstate(over="ignore", invalid="ignore"):
        error = y - x
        largest = max(float(error.max(initial=0.0)), -float(error.min(initial=0.0)))
        found = Deviation(numel, _sum(error * error), _sum(x * x), _sum(y * y), largest, zeros, source_zeros)
    if math.isfinite(found.error_squares + found.source_squares + found.squares):
        return found
    # Values that are the same need not be numbers; others must be, to have a distance.
    finite = np.isfinite(x) & np.isfinite(y)
    if finite.all():  # the squares of the largest doubles are not
        return found
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    found = _of_block(x[finite], y[finite])
    largest = found.largest if (finite | same).all() else math.inf
    return dataclasses.replace(found, numel=numel, largest=largest, zeros=zeros, source_zeros=source_zeros)


def _sum(values: NDArray[Any]) -> float:
    # Not a dot product: what that adds in which order depends on the processor.
    return float(np.add.reduce(values))
