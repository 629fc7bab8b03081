"""Rows of codes of like magnitude, which get a code table of their own (spec/encodings/row_groups.md)."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["row_classes"]

F64 = NDArray[np.float64]

_LEVELS_PER_OCTAVE: Final = 2
"""Rows within half an octave are coded alike: the wrong table costs less than 0.02 bits there."""

_LARGEST: Final = 256
"""Larger codes are counted together."""

_STREAM_NBYTES: Final = 200
"""What a further class costs: a manifest entry and the heads of its streams."""


def row_classes(codes: NDArray[np.int32], max_classes: int, class_nbytes: int = 0) -> NDArray[np.uint8]:
    """Classes of rows whose codes take the fewest bytes together, tables included.

    Rows start in classes by the logarithm of their mean magnitude; then neighbouring classes are merged, the
    two that it costs least first, while there are too many or it pays.

    Parameters
    ----------
    codes : int32 array, shape (rows, columns)
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
    magnitude = np.abs(codes).sum(axis=1, dtype=np.int64) / codes.shape[1]
    levels = np.rint(_LEVELS_PER_OCTAVE * np.log2(magnitude + 1 / 16)).astype(np.int64)
    found, level = np.unique(levels, return_inverse=True)
    n_symbols = 2 * _LARGEST + 1
    cells = np.clip(codes, -_LARGEST, _LARGEST) + (level * n_symbols + _LARGEST)[:, None]
    counts = np.bincount(cells.reshape(-1), minlength=len(found) * n_symbols)
    histograms = list(counts.reshape(len(found), n_symbols).astype(np.float64))
    overhead = 8.0 * (class_nbytes + _STREAM_NBYTES)
    sizes = [_nbits(histogram) + overhead for histogram in histograms]
    members = [[index] for index in range(len(found))]
    while len(members) > 1:
        merged = [_nbits(a + b) + overhead for a, b in pairwise(histograms)]
        added = [size - a - b for size, a, b in zip(merged, sizes, sizes[1:], strict=False)]
        at = int(np.argmin(added))
        if len(members) <= max_classes and added[at] > 0:
            break
        histograms[at : at + 2] = [histograms[at] + histograms[at + 1]]
        sizes[at : at + 2] = [merged[at]]
        members[at : at + 2] = [members[at] + members[at + 1]]
    class_of = np.empty(len(found), np.uint8)
    for index, levels_of_class in enumerate(members):
        class_of[levels_of_class] = index
    return class_of[level]


def _nbits(histogram: F64) -> float:
    """Bits of an ideal code for a histogram's symbols, its table included, a byte a symbol."""
    present = histogram[histogram > 0]
    return float(present @ np.log2(present.sum() / present)) + 8.0 * len(present)
