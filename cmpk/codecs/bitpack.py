"""Codec bitpack: bytes without their upper zero bits (spec/codecs/bitpack.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from cmpk import kernels
from cmpk.codecs.base import Codec
from cmpk.kernels.interface import U8, Buffer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BLOCK_SYMBOLS", "MAX_EXPANSION", "Bitpack"]

BLOCK_SYMBOLS: Final = 1024
MAX_EXPANSION: Final = 8

_MAX_WIDTH: Final = 7


class Bitpack(Codec):
    """As many bits a byte as the largest byte needs."""

    id: ClassVar[str] = "bitpack"
    max_expansion: ClassVar[int] = MAX_EXPANSION
    fused: ClassVar[bool] = True
    is_order0: ClassVar[bool] = True

    def encode(self, data: U8, threads: int = 1) -> Buffer | None:
        """Encode; None where a byte needs all eight bits. See `Codec.encode`."""
        width = _width(data)
        return kernels.active().bitpack_encode(data, width) if width <= _MAX_WIDTH else None

    def decode_range(self, stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
        """Decode the blocks that the range touches; see `Codec.decode_range`."""
        kernels.active().bitpack_decode(stream, n, start, out)

    def estimate(self, data: U8) -> int | None:
        """The exact size but for the last block's rounding."""
        return _stream_nbytes(_width(data), len(data))

    def estimate_counted(self, counts: NDArray[np.uint64]) -> int | None:
        """The exact size but for the last block's rounding; see `Codec.estimate_counted`."""
        largest = len(counts.tobytes().rstrip(b"\0")) - 1 >> 3
        return _stream_nbytes(max(1, largest.bit_length()), int(counts.sum()))


def _stream_nbytes(width: int, n: int) -> int | None:
    return 1 + -(-n // 8) * width if width <= _MAX_WIDTH else None


def _width(data: U8) -> int:
    import numpy as np

    return max(1, int(np.bitwise_or.reduce(data)).bit_length())
