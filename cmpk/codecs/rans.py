"""Codec rans: asymmetric numeral systems over bytes (spec/codecs/rans.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from cmpk import kernels
from cmpk.codecs.base import Codec
from cmpk.kernels.interface import U8, Buffer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "FREQUENCY_NBITS",
    "LOWER_BOUND",
    "MAX_CHUNK_LOG2",
    "MAX_EXPANSION",
    "MIN_CHUNK_LOG2",
    "N_STATES",
    "Rans",
    "normalized",
]

FREQUENCY_NBITS: Final = 12
N_STATES: Final = 32
LOWER_BOUND: Final = 65536
MIN_CHUNK_LOG2: Final = 12
MAX_CHUNK_LOG2: Final = 20
MAX_EXPANSION: Final = 8192

_CHUNK_LOG2: Final = 17
_SLOTS: Final = 1 << FREQUENCY_NBITS


class Rans(Codec):
    """Order-0 entropy coding to within a few thousandths of a bit."""

    id: ClassVar[str] = "rans"
    max_expansion: ClassVar[int] = MAX_EXPANSION
    fused: ClassVar[bool] = True
    is_order0: ClassVar[bool] = True

    def encode(self, data: U8, threads: int = 1) -> Buffer | None:
        """Encode; None for fewer than two distinct bytes. See `Codec.encode`."""
        import numpy as np

        counts = kernels.active().byte_histogram(data)
        if np.count_nonzero(counts) < 2:
            return None
        return kernels.active().rans_encode(data, normalized(counts), _CHUNK_LOG2, threads)

    def decode_range(self, stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
        """Decode the chunks that the range touches; see `Codec.decode_range`."""
        kernels.active().rans_decode(stream, n, start, out, threads)

    def estimate(self, data: U8) -> int | None:
        """The size to a few bytes, from the histogram."""
        return self.estimate_counted(kernels.active().byte_histogram(data))

    def estimate_counted(self, counts: NDArray[np.uint64]) -> int | None:
        """The size to a few bytes; see `Codec.estimate_counted`."""
        import numpy as np

        return stream_nbytes(counts) if np.count_nonzero(counts) >= 2 else None


def stream_nbytes(counts: NDArray[np.uint64]) -> int:
    """Size of the stream of bytes with a histogram of two symbols or more, to a few bytes.

    Parameters
    ----------
    counts : uint64 array, shape (256,)
    """
    import numpy as np

    present = np.flatnonzero(counts)
    used = counts[present].astype(np.float64)
    frequencies = normalized(counts)[present].astype(np.float64)
    nbits = float(used @ (FREQUENCY_NBITS - np.log2(frequencies)))
    n_chunks = -(-int(counts.sum()) >> _CHUNK_LOG2)
    table = (int(present[-1] - present[0]) + 2) // 2 + int(np.log2(frequencies).sum()) // 8
    return 3 + table + n_chunks * (4 + 4 * N_STATES) + int(nbits) // 8


def normalized(counts: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Frequencies that add up to 4096 and cost the least for a histogram.

    Parameters
    ----------
    counts : uint64 array, shape (256,)
        At least two are positive.

    Returns
    -------
    uint16 array, shape (256,)
        Positive where the count is.

    Notes
    -----
    Rounded shares, then single steps where they cost least or save most. What a step costs is the
    derivative of ``-count * log2(frequency)`` half-way; unlike logarithms, quotients come out the
    same on every machine. Ties go to the lower symbol.
    """
    import numpy as np

    present = np.flatnonzero(counts)
    weight = counts[present].astype(np.float64)
    shares = np.maximum(1, np.rint(weight * (_SLOTS / weight.sum()))).astype(np.int64)
    while (excess := int(shares.sum()) - _SLOTS) != 0:
        if excess > 0:
            cost = np.where(shares > 1, weight / (2 * shares - 1), np.inf)
            shares[np.argmin(cost)] -= 1
        else:
            shares[np.argmax(weight / (2 * shares + 1))] += 1
    frequencies = np.zeros(256, np.uint16)
    frequencies[present] = shares
    return frequencies
