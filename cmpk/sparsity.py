"""Tensors in which one value is frequent: in which forms it can be left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from cmpk import kernels
from cmpk.dtypes import DTYPES
from cmpk.encodings import Bitmask, GapIndex
from cmpk.encodings.base import Encoded, Part

__all__ = ["Frequent", "frequent_value", "sparse_forms"]

_SAMPLE_ELEMENTS: Final = 1 << 14
_MIN_ELEMENTS: Final = 256
_MIN_SHARE_OF_GAPS: Final = 0.75
"""Below, values stand so close that a mask is never larger."""

_MAX_GAP: Final = 63
"""Fillers are rare, and gaps have few symbols (measured in spec/encodings/bitmask.md)."""


class Frequent(NamedTuple):
    """A value, as its bits, and about which share of the elements it is."""

    bits: int
    share: float


def frequent_value(part: Part) -> Frequent | None:
    """The most frequent byte of a tensor of bytes; of wider elements zero, if it occurs at all.

    From a sample. None for tensors that are too small or whose elements are no whole bytes.
    """
    itemsize = DTYPES[part.spec.dtype].nbytes
    if itemsize not in (1, 2, 4, 8) or part.spec.numel < _MIN_ELEMENTS:
        return None
    elements = part.data.view(f"<u{itemsize}")
    # Odd, lest it be a multiple of a row whose elements take turns.
    sample = np.ascontiguousarray(elements[:: len(elements) // _SAMPLE_ELEMENTS | 1])
    if itemsize > 1:
        share = 1 - np.count_nonzero(sample) / len(sample)
        return Frequent(0, share) if share else None
    counts = kernels.active().byte_histogram(sample)
    value = int(np.argmax(counts))
    return Frequent(value, int(counts[value]) / len(sample))


def sparse_forms(part: Part, frequent: Frequent) -> Iterator[tuple[str, Encoded]]:
    """A tensor without its frequent value: by a mask, of neighbours and of columns, and by gaps.

    Yields
    ------
    str
        The encoding.
    Encoded
        Two parts: where values are, and the values.
    """
    columns = part.spec.shape[-1] if len(part.spec.shape) > 1 else 1
    for stride in dict.fromkeys((1, columns)):
        if part.spec.numel >= 8 * stride:
            yield Bitmask.id, Bitmask().encode(part.data, part.spec, frequent.bits, stride)
    if frequent.share >= _MIN_SHARE_OF_GAPS:
        yield GapIndex.id, GapIndex().encode(part.data, part.spec, frequent.bits, _MAX_GAP)
