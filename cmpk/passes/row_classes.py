"""Rows of codes of like magnitude, which get a code table of their own (spec/encodings/row_groups.md)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cmpk import kernels
from cmpk.values import tiles

__all__ = ["row_classes"]

F64 = NDArray[np.float64]

_LEVELS_PER_OCTAVE: Final = 2
"""Rows within half an octave are coded alike: the wrong table costs less than 0.02 bits there."""

_LARGEST: Final = 127
"""Larger codes are counted together: of most rows they are rare, or no class will help."""

_STREAM_NBYTES: Final = 200
"""What a further class costs: a manifest entry and the heads of its streams."""


def row_classes(codes: NDArray[Any], max_classes: int, class_nbytes: int = 0) -> NDArray[np.uint8]:
    """Classes of rows whose codes take the fewest bytes together, tables included.

    Rows start in classes by the logarithm of their mean magnitude; then neighbouring classes are merged, the
    two that it costs least first, while there are too many or it pays.

    Parameters
    ----------
    codes : signed integer array, shape (rows, columns)
    max_classes : int
    class_nbytes : int
        What else every class takes, such as scales.

    Returns
    -------
    uint8 array, shape (rows,)
        Every number below the largest occurs; larger numbers stand for larger codes.
    """
    one = np.zeros(len(codes), np.uint8)
    if max_classes < 2 or not codes.size:
        return one
    clipped, magnitude = _clipped(codes)
    levels = np.rint(_LEVELS_PER_OCTAVE * np.log2(magnitude + 1 / 16)).astype(np.int64)
    found, level = np.unique(levels, return_inverse=True)
    histograms = _histograms(clipped, level, len(found))
    overhead = 8.0 * (class_nbytes + _STREAM_NBYTES)
    sizes = [_nbits(histogram) + overhead for histogram in histograms]
    members = [[index] for index in range(len(found))]
    # Sizes of neighbours as one class; merging changes two of them.
    merged = [_nbits(a + b) + overhead for a, b in pairwise(histograms)]
    while len(members) > 1:
        added = [size - a - b for size, a, b in zip(merged, sizes, sizes[1:], strict=False)]
        at = int(np.argmin(added))
        if len(members) <= max_classes and added[at] > 0:
            break
        histograms[at : at + 2] = [histograms[at] + histograms[at + 1]]
        members[at : at + 2] = [members[at] + members[at + 1]]
        sizes[at : at + 2] = [merged.pop(at)]
        for left in range(max(0, at - 1), min(at + 1, len(merged))):
            merged[left] = _nbits(histograms[left] + histograms[left + 1]) + overhead
    class_of = np.empty(len(found), np.uint8)
    for index, levels_of_class in enumerate(members):
        class_of[levels_of_class] = index
    return class_of[level]


def _clipped(codes: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """The codes, the larger ones counted together, and each row's mean magnitude."""
    clipped = np.empty(codes.shape, np.int8)
    total = np.zeros(len(codes), np.int64)
    for block in tiles(*codes.shape):
        total[block[0]] += np.abs(codes[block]).sum(axis=1, dtype=np.int64)
        clipped[block] = np.clip(codes[block], -_LARGEST, _LARGEST)
    return clipped, total / codes.shape[1]


def _histograms(codes: NDArray[np.int8], level: NDArray[np.intp], n_levels: int) -> list[F64]:
    """How often each code occurs in the rows of each level; shape (256,) each."""
    # Level by level: the kernel counts bytes, and of one histogram at a time.
    rows = codes[np.argsort(level, kind="stable")].view(np.uint8)
    ends = np.cumsum(np.bincount(level, minlength=n_levels))[:-1]
    count = kernels.active().byte_histogram
    return [
        count(of_level.reshape(-1).view(np.uint8)).astype(np.float64) for of_level in np.split(rows, ends)
    ]


def _nbits(histogram: F64) -> float:
    """Bits of an ideal code for a histogram's symbols, its table included, a byte a symbol."""
    present = histogram[histogram > 0]
    return float(present @ np.log2(present.sum() / present)) + 8.0 * len(present)
