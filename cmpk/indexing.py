"""Which rows of a tensor an index touches, and how many threads may decode them."""

from __future__ import annotations

import operator
import os
from types import EllipsisType
from typing import Any, TypeAlias

from cmpk.errors import SourceError

__all__ = ["Index", "default_threads", "row_range"]

Index: TypeAlias = int | slice | EllipsisType


def default_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row_range(shape: tuple[int, ...], index: tuple[Any, ...]) -> tuple[int, int, tuple[int | slice, ...]]:
    """Which rows an index touches, and the index into just these rows.

    Parameters
    ----------
    shape : tuple of int
    index : tuple of int, slice and ``...``
        Integers are whatever Python takes as one for an index.

    Returns
    -------
    first, last : int
        Rows ``first .. last - 1`` of the first dimension; 0 and 1 without dimensions.
    index : tuple of int and slice
        To be applied to these rows; within the shape, with positive steps.

    Raises
    ------
    SourceError
        If the index does not fit the shape, or is of another kind.
    """
    items = list(index)
    ellipses = [at for at, item in enumerate(items) if item is Ellipsis]
    n_missing = len(shape) - (len(items) - len(ellipses))
    if n_missing < 0 or len(ellipses) > 1:
        raise SourceError(f"the index {index!r} does not fit the shape {list(shape)}")
    at = ellipses[0] if ellipses else len(items)
    items[at : at + 1] = [slice(None)] * n_missing
    within = [_within(item, shape, dimension) for dimension, item in enumerate(items)]
    if not within:
        return 0, 1, ()
    row, *rest = within
    if isinstance(row, int):
        return row, row + 1, (0, *rest)
    return row.start, row.stop, (slice(None, None, row.step), *rest)


def _within(item: Any, shape: tuple[int, ...], dimension: int) -> int | slice:
    """An integer or slice for one dimension, counted from its start."""
    size = shape[dimension]
    if isinstance(item, slice):
        try:
            start, stop, step = item.indices(size)
        except (TypeError, ValueError) as error:
            raise SourceError(f"{item!r}: {error}") from None
        if step < 1:
            raise SourceError(f"slices need a positive step, not {step}")
        # A step beyond the last element is as good as any other, and frameworks take none beyond 64 bits.
        return slice(start, max(start, stop), min(step, size + 1))
    try:
        if isinstance(item, bool):
            raise TypeError
        number = operator.index(item)
    except TypeError:
        raise SourceError(f"slices take integers, slices and ..., not {item!r}") from None
    if not -size <= number < size:
        raise SourceError(f"index {number} is not within dimension {dimension} of the shape {list(shape)}")
    return number % size
