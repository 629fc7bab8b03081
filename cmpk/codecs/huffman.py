"""Codec huffman: canonical prefix codes over bytes (spec/codecs/huffman.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from cmpk import kernels
from cmpk.codecs.base import Codec
from cmpk.kernels.interface import U8, Buffer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "MAX_CHUNK_LOG2",
    "MAX_CODE_LENGTH",
    "MAX_EXPANSION",
    "MAX_SYNC_WIDTH",
    "MIN_CHUNK_LOG2",
    "SYNC_SYMBOLS",
    "Huffman",
]

MAX_CODE_LENGTH: Final = 12
SYNC_SYMBOLS: Final = 1024
MIN_CHUNK_LOG2: Final = 12
MAX_CHUNK_LOG2: Final = 20
MAX_SYNC_WIDTH: Final = 25
MAX_EXPANSION: Final = 8

_CHUNK_LOG2: Final = 18
_SYNC_NBITS: Final = 11
"""What a sync point usually takes; for estimates only."""


class Huffman(Codec):
    """Order-0 entropy coding at several symbols a table look-up."""

    id: ClassVar[str] = "huffman"
    max_expansion: ClassVar[int] = MAX_EXPANSION
    fused: ClassVar[bool] = True
    is_order0: ClassVar[bool] = True

    def encode(self, data: U8, threads: int = 1) -> Buffer | None:
        """Encode; None for no bytes at all. See `Codec.encode`."""
        if not len(data):
            return None
        counts = kernels.active().byte_histogram(data)
        lengths = kernels.active().code_lengths(counts, MAX_CODE_LENGTH)
        return kernels.active().huffman_encode(data, lengths, _CHUNK_LOG2, threads)

    def decode_range(self, stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
        """Decode from the sync points that the range needs; see `Codec.decode_range`."""
        kernels.active().huffman_decode(stream, n, start, out, threads)

    def check(self, stream: Buffer, n: int) -> None:
        """Check all, every sync point included; see `Codec.check`."""
        kernels.active().huffman_check(stream, n)

    def estimate(self, data: U8) -> int:
        """The size to a few bytes, from the histogram."""
        return stream_nbytes(kernels.active().byte_histogram(data))

    def estimate_counted(self, counts: NDArray[np.uint64]) -> int:
        """The size to a few bytes; see `Codec.estimate_counted`."""
        return stream_nbytes(counts)


def stream_nbytes(counts: NDArray[np.uint64]) -> int:
    """Size of the stream of bytes with a histogram, to a few bytes.

    Parameters
    ----------
    counts : uint64 array, shape (256,)
    """
    n = int(counts.sum())
    lengths = kernels.active().code_lengths(counts, MAX_CODE_LENGTH)
    nbits = int(counts @ lengths) + n // SYNC_SYMBOLS * _SYNC_NBITS
    n_lengths = len(lengths.tobytes().strip(b"\0"))
    return 4 + (n_lengths + 1) // 2 + 4 * (-(-n >> _CHUNK_LOG2)) + nbits // 8
