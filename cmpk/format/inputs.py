"""Ranges of the numbers that a weight's layer is given (spec/container.md, section 3.1.2)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any

import msgspec

__all__ = ["InputRanges"]

_FLOAT = struct.Struct("<f")
_BITS = struct.Struct("<I")


class InputRanges(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The lowest and the highest number in a layer's input, as calibration saw it, chosen in three ways.

    Each a pair of the bits of single precision floats: canonical JSON has integers alone.
    """

    minmax: tuple[int, int]
    percentile: tuple[int, int]
    mse: tuple[int, int]

    @classmethod
    def of(cls, ranges: Iterable[Iterable[float]]) -> InputRanges:
        """From pairs of numbers, in the order of the members."""
        return cls(*((_bits_of(low), _bits_of(high)) for low, high in ranges))

    def range(self, name: str) -> tuple[float, float]:
        """One of the ranges, by the name of the member."""
        low, high = getattr(self, name)
        return _float_of(low), _float_of(high)

    @property
    def is_valid(self) -> bool:
        """Whether all bits are those of finite numbers, the first of each pair at most the second."""
        if not all(0 <= bits < 1 << 32 for pair in msgspec.structs.astuple(self) for bits in pair):
            return False
        pairs = (self.range(name) for name in self.__struct_fields__)
        return all(math.isfinite(low) and math.isfinite(high) and low <= high for low, high in pairs)

    def to_json(self) -> dict[str, Any]:
        """As the command line gives it."""
        return {name: self.range(name) for name in self.__struct_fields__}


def _bits_of(value: float) -> int:
    bits: int
    (bits,) = _BITS.unpack(_FLOAT.pack(value))
    return bits


def _float_of(bits: int) -> float:
    value: float
    (value,) = _FLOAT.unpack(_BITS.pack(bits))
    return value
