"""Which weights share a scale, and scales that a narrow type holds (spec/encodings/affine.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.passes.base import Statistics
from cmpk.passes.options import choice, integer
from cmpk.values import from_float32, to_float32

__all__ = ["SCALE_DTYPES", "Layout", "Slices", "layout", "stored_scales"]

SCALE_DTYPES: Final = ("F32", "F16", "BF16")

_MAX_LOSS: Final = 1 / 64

Scalar = TypeVar("Scalar", bound=np.generic)


class Slices(NamedTuple):
    """Parts of a tensor that have a scale each.

    Attributes
    ----------
    shape : tuple of int
        The tensor's.
    axis : int
        Each slice along it is a part; -1: the whole tensor is one, or runs are.
    group_size : int
        Each run of so many elements along the last axis is a part, the last one of a line may be shorter;
        0: none are.
    """

    shape: tuple[int, ...]
    axis: int
    group_size: int

    def largest(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """The largest number of each part, in the order of the scales; shape (parts,)."""
        return self._reduced(np.maximum, values).astype(np.float64)

    def total(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The sum of each part, in double precision; shape (parts,)."""
        return self._reduced(np.add, values, np.float64)

    def _reduced(self, ufunc: np.ufunc, values: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
        if self.group_size:
            lines = values.reshape(-1, self.shape[-1])
            return np.asarray(ufunc.reduceat(lines, self._starts(), axis=1, dtype=dtype)).reshape(-1)
        others = tuple(index for index in range(len(self.shape)) if index != self.axis)
        return np.asarray(ufunc.reduce(values, axis=others, dtype=dtype)).reshape(-1)

    def spread(self, numbers: NDArray[Scalar]) -> NDArray[Scalar]:
        """Each part's number where its elements are: an array that broadcasts against the tensor."""
        if self.group_size:
            sizes = np.diff(np.append(self._starts(), self.shape[-1]))
            lines = numbers.reshape(-1, len(sizes))
            return np.repeat(lines, sizes, axis=1).reshape(self.shape)
        if self.axis < 0:
            return numbers.reshape(())
        return numbers.reshape([-1 if index == self.axis else 1 for index in range(len(self.shape))])

    def sizes(self) -> NDArray[np.int64]:
        """How many elements each part has; shape (parts,)."""
        if self.group_size:
            sizes = np.diff(np.append(self._starts(), self.shape[-1]))
            return np.tile(sizes, int(np.prod(self.shape[:-1])))
        numel = int(np.prod(self.shape))
        n_parts = 1 if self.axis < 0 else self.shape[self.axis]
        return np.full(n_parts, numel // n_parts)

    def _starts(self) -> NDArray[np.intp]:
        return np.arange(0, self.shape[-1], self.group_size)


class Layout(NamedTuple):
    """The options ``per`` and ``group_size``: what has a scale of its own."""

    per: str
    group_size: int

    def slices(self, shape: tuple[int, ...], statistics: Statistics | None) -> Slices:
        """What that is in a tensor.

        A row is an output feature: a slice along the first axis, the second of a transposed linear layer.
        A tensor of fewer than two dimensions has one scale, or groups.
        """
        if self.per == "group" and shape:
            return Slices(shape, -1, min(self.group_size, shape[-1]))
        if self.per == "row" and len(shape) > 1:
            transposed = statistics is not None and statistics.kind == "conv1d"
            return Slices(shape, 1 if transposed else 0, 0)
        return Slices(shape, -1, 0)


def layout(pass_id: str, options: Mapping[str, object], default: str = "row") -> Layout:
    """Read the options.

    Raises
    ------
    RecipeError
        If they are something else than these.
    """
    per = choice(pass_id, {"per": default, **options}, "per", ("row", "tensor", "group"))
    return Layout(per, integer(pass_id, options, "group_size", 64, 1, 1 << 32))


def stored_scales(scales: NDArray[np.float64], dtype: str) -> tuple[NDArray[np.float32], str]:
    """The lowest numbers of a type that are no smaller than the scales.

    Parameters
    ----------
    scales : float64 array, shape (n,)
        Not negative, and small enough for single precision.
    dtype : str
        One of `SCALE_DTYPES`; ``F32`` takes its place where it would enlarge a scale by more than a 64th.

    Returns
    -------
    float32 array, shape (n,)
    str
        The type that holds them.
    """
    bits = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}[dtype]
    with np.errstate(over="ignore"):
        nearest = from_float32(scales.astype(np.float32), dtype)
    spec = TensorSpec(dtype, scales.shape)
    # Not negative: the next number up has the next bits.
    lower = to_float32(Part(spec, nearest)) < scales
    stored = to_float32(Part(spec, (nearest.view(bits) + lower).astype(bits).view(np.uint8)))
    if dtype != "F32" and not (stored <= scales * (1 + _MAX_LOSS)).all():
        return stored_scales(scales, "F32")
    return stored, dtype
