"""Finding out what a lossy tensor has kept of its source (spec/container.md, section 3.1.1)."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from cmpk.chain import Outcome
from cmpk.coding import Coded, stored_nbytes
from cmpk.deviation import Deviation, deviation
from cmpk.dtypes import DTYPES
from cmpk.encodings.base import Part
from cmpk.format.quality import MOST, Quality
from cmpk.kernels.interface import U8
from cmpk.passes.base import Planned, Split

__all__ = ["error_of", "quality_of"]

_BILLION: Final = 10**9


def error_of(source: Part, result: U8) -> float:
    """Relative error of what a tensor has become; infinite if it is of no type of numbers."""
    found = deviation(source.spec, source.data, result)
    return math.inf if found is None else found.error


def quality_of(outcome: Outcome, coded: Coded, result: U8) -> Quality:
    """The figures of a tensor that is not what it was.

    Parameters
    ----------
    outcome : Outcome
        What the passes made of it.
    coded : Coded
        How it is stored.
    result : uint8 array, shape (nbytes of the tensor,)
        What it decodes to.
    """
    spec = outcome.source.spec
    found = deviation(spec, outcome.source.data, result)
    if found is None:
        # No numbers to compare: all that is known is that they are not the same.
        found = Deviation(spec.numel, largest=math.inf)
    pruned = _pruned_bits(outcome) if outcome.part is not outcome.source else 0.0
    quantized = 0 if outcome.is_exact else _fixed_width_nbits(outcome.planned)
    return Quality(
        error_ppb=_integer(found.error * _BILLION),
        cosine_ppb=_integer((1 - found.cosine) * _BILLION),
        zeros=found.zeros,
        pruned_millibits=_integer(pruned * 1000),
        quantized_millibits=_integer(quantized * 1000 / spec.numel),
        coded_millibits=_integer(stored_nbytes(coded) * 8000 / spec.numel),
    )


def _pruned_bits(outcome: Outcome) -> float:
    """Bits an element of what pruning left; 0 if there are no more zeros than there were."""
    spec = outcome.source.spec
    found = deviation(spec, outcome.source.data, outcome.part.data)
    if found is None or found.zeros <= found.source_zeros:
        return 0.0
    return DTYPES[spec.dtype].nbits * (1 - found.zeros / spec.numel)


def _fixed_width_nbits(planned: Planned) -> int:
    """Bits of all parts, each element of a part in as few as the part's largest needs."""
    if isinstance(planned, Split):
        return sum(_fixed_width_nbits(part) for part in planned.parts.values())
    return planned.spec.numel * _width(planned)


def _width(part: Part) -> int:
    dtype = DTYPES[part.spec.dtype]
    if part.spec.dtype not in ("U8", "U16", "U32", "U64") or not part.spec.numel:
        return dtype.nbits
    return max(1, int(np.max(part.data.view(dtype.numpy_name))).bit_length())


def _integer(value: float) -> int:
    return round(value) if value < MOST else MOST
