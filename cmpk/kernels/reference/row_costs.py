"""What rows cost under several code tables; encoding row_groups is chosen by it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, Buffer
from cmpk.kernels.reference.buffers import words_of

__all__ = ["row_costs"]


def row_costs(data: Buffer, dtype: str, row_elements: int, costs: U8) -> NDArray[np.uint64]:
    """Sums of the costs of the exponents of each row, under each table.

    Parameters
    ----------
    data : buffer
        Rows of ``row_elements`` elements.
    dtype : str
        A key of `FLOAT_LAYOUTS`.
    row_elements : int
    costs : uint8 array, shape (G, 2**E)

    Returns
    -------
    uint64 array, shape (rows, G)

    Raises
    ------
    ValueError
        If the data are no whole number of rows, or the tables have another shape.
    """
    words = words_of(data, dtype)
    exponent_nbits, mantissa_nbits = FLOAT_LAYOUTS[dtype]
    if row_elements < 1 or words.size % row_elements:
        raise ValueError(f"{words.size} elements are no whole number of rows of {row_elements}")
    if costs.dtype != np.uint8 or costs.ndim != 2 or costs.shape[1] != 1 << exponent_nbits:
        raise ValueError(f"costs has shape {costs.shape}; each table has {1 << exponent_nbits} entries")
    exponents = (words >> mantissa_nbits) & ((1 << exponent_nbits) - 1)
    # Table by table: one array of costs as large as the data at a time is enough.
    sums = [table[exponents].reshape(-1, row_elements).sum(axis=1, dtype=np.uint64) for table in costs]
    return np.stack(sums, axis=1)
