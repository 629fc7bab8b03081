"""Codec raw: the bytes as they are (spec/codecs/raw.md)."""

from __future__ import annotations

from typing import ClassVar, Final

from cmpk.codecs.base import Codec
from cmpk.kernels.interface import U8, Buffer

__all__ = ["MAX_EXPANSION", "Raw"]

MAX_EXPANSION: Final = 1


class Raw(Codec):
    """Stores what it is given."""

    id: ClassVar[str] = "raw"
    max_expansion: ClassVar[int] = MAX_EXPANSION
    fused: ClassVar[bool] = True
    is_order0: ClassVar[bool] = True

    def encode(self, data: U8, threads: int = 1) -> Buffer:
        """The data itself, not a copy."""
        return data

    def decode_range(self, stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
        """Copy; see `Codec.decode_range`."""
        import numpy as np

        stored = np.frombuffer(stream, np.uint8)
        if len(stored) != n:
            raise self.corrupt(f"{len(stored)} bytes are stored where {n} are expected")
        out[:] = stored[start : start + len(out)]

    def estimate(self, data: U8) -> int:
        """The size of the data."""
        return len(data)
