"""Which rows of a tensor an index touches, and how many threads may decode them."""

from __future__ import annotations

import os
from types import EllipsisType
from typing import Any, TypeAlias

from cmpk.errors import SourceError

__all__ = ["Index", "default_threads", "row_range"]

Index: TypeAlias = int | slice | EllipsisType


def default_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row_range(shape: tuple[int, ...], index: tuple[Any, ...]) -> tuple[int, int, tuple[Any, ...]]:
    """Which rows an index touches, and the index into just these rows.

    Parameters
    ----------
    shape : tuple of int
    index : tuple of int, slice and ``...``

    Returns
    -------
    first, last : int
        Rows ``first .. last - 1`` of the first dimension; 0 and 1 without dimensions.
    index : tuple
        To be applied to these rows.

    Raises
    ------
    SourceError
        If the index does not fit the shape, or is of another kind.
    """
    for item in index:
        if not (isinstance(item, int | slice) or item is Ellipsis) or isinstance(item, bool):
            raise SourceError(f"slices take integers, slices and ..., not {item!r}")
    given = [item for item in index if item is not Ellipsis]
    if len(given) > len(shape) or len(index) - len(given) > 1:
        raise SourceError(f"the index {index!r} does not fit the shape {list(shape)}")
    if not shape:
        return 0, 1, index
    if not index or (index[0] is Ellipsis and len(given) < len(shape)):
        return 0, shape[0], index
    if index[0] is Ellipsis:
        index = index[1:]
    row, rest = index[0], index[1:]
    if isinstance(row, int):
        if not -shape[0] <= row < shape[0]:
            raise SourceError(f"row {row} is not within the shape {list(shape)}")
        return row % shape[0], row % shape[0] + 1, (0, *rest)
    start, stop, step = row.indices(shape[0])
    if step < 1:
        raise SourceError(f"slices need a positive step, not {step}")
    stop = max(start, stop)
    return start, stop, (slice(None, None, step), *rest)
