"""Encoding product: a matrix as the product of two (spec/encodings/product.md)."""

from __future__ import annotations

import numpy as np

from cmpk.dtypes import DTYPES
from cmpk.kernels.interface import PRODUCT_DTYPES, U8, Buffer
from cmpk.kernels.reference.buffers import bytes_of, writable_bytes_of
from cmpk.kernels.reference.rounding import round_float32

__all__ = ["matrix_product"]


def matrix_product(left: Buffer, right: Buffer, rank: int, dtype: str, out: U8, threads: int = 1) -> None:
    """Multiply two matrices.

    Parameters
    ----------
    left : buffer of float32, shape (rows, rank)
    right : buffer of float32, shape (rank, columns)
    rank : int
        1 or more.
    dtype : str
        Of the elements; a key of `FLOAT_LAYOUTS`.
    out : uint8 array
        All bytes of the elements.
    threads : int
        Not used.

    Raises
    ------
    ValueError
        If sizes do not go together.
    """
    if dtype not in PRODUCT_DTYPES:
        raise ValueError(f"{dtype!r} is not one of {', '.join(PRODUCT_DTYPES)}")
    factors, target = [bytes_of(left), bytes_of(right)], writable_bytes_of(out)
    if rank < 1 or any(factor.size % (4 * rank) for factor in factors):
        raise ValueError(f"the matrices have no whole number of rows and columns for a rank of {rank}")
    rows, columns = (factor.size // (4 * rank) for factor in factors)
    if target.size != rows * columns * DTYPES[dtype].nbytes:
        raise ValueError(f"an output of {target.size} bytes is not for {rows} rows of {columns} {dtype}")
    tall = factors[0].view("<f4").reshape(rows, rank)
    wide = factors[1].view("<f4").reshape(rank, columns)
    sums = np.zeros((rows, columns), np.float32)
    with np.errstate(all="ignore"):
        for k in range(rank):
            # Two operations, each rounded: no fused one, nor the sums of a library in its own order.
            sums += tall[:, k : k + 1] * wide[k]
        target[:] = round_float32(sums.reshape(-1), dtype).view(np.uint8)
