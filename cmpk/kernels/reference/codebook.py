"""Encoding codebook: codes looked up in lists."""

from __future__ import annotations

import numpy as np

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, Buffer
from cmpk.kernels.reference.buffers import bytes_of, writable_bytes_of

__all__ = ["codebook_expand"]


def codebook_expand(
    codes: Buffer,
    code_nbytes: int,
    first: int,
    centroids: Buffer,
    size: int,
    run: int,
    out: U8,
    threads: int = 1,
) -> None:
    """Write the centroid of each code.

    Parameters
    ----------
    codes : buffer
        Of ``code_nbytes`` bytes each.
    code_nbytes : int
        1, 2 or 4.
    first : int
        Number of the first of these codes among those of the tensor.
    centroids : buffer
        Of all codebooks, one after another.
    size : int
        Centroids in a codebook.
    run : int
        Codes in a row that share a codebook, counted from that of number 0; 0: all do.
    out : uint8 array
        As many bytes for each code as a centroid has.
    threads : int
        Not used.

    Raises
    ------
    CorruptStreamError
        If a code is ``size`` or more.
    ValueError
        If sizes do not go together.
    """
    octets, table, target = bytes_of(codes), bytes_of(centroids), writable_bytes_of(out)
    if code_nbytes not in (1, 2, 4):
        raise ValueError(f"codes have 1, 2 or 4 bytes, not {code_nbytes}")
    n = octets.size // code_nbytes
    if octets.size % code_nbytes or (target.size % n if n else target.size):
        raise ValueError("codes and output are no whole number of units")
    if first < 0 or size < 1 or run < 0:
        raise ValueError("first, size and run are out of range")
    unit = target.size // n if n else 0
    if not unit:
        return
    n_books = (first + n - 1) // run + 1 if run else 1
    if table.size % unit or table.size // unit < n_books * size:
        raise ValueError("the centroids are too few, or no whole number of units")
    index = octets.view(f"<u{code_nbytes}")
    if int(index.max()) >= size:
        raise CorruptStreamError(f"encoding 'codebook': a code is not in a codebook of {size}")
    if run:
        index = (np.arange(first, first + n) // run * size) + index
    if unit in (1, 2, 4, 8):
        np.take(table.view(f"<u{unit}"), index, out=target.view(f"<u{unit}"), mode="clip")
    else:
        np.take(table.reshape(-1, unit), index, axis=0, out=target.reshape(n, unit), mode="clip")
