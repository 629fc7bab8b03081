"""Rounding in order, errors made up for in what is still to come."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["feed_errors"]

_MAX_CODE: Final = np.float32(1 << 30)


def feed_errors(
    values: NDArray[np.float32],
    steps: NDArray[np.float32],
    factor: NDArray[np.float32],
    threads: int = 1,
) -> NDArray[np.int32]:
    """Codes of rows in order; see `cmpk.kernels.interface.KernelBackend.feed_errors`.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    """
    n_rows = len(values)
    if steps.shape != values.shape or factor.shape != (n_rows, n_rows):
        raise ValueError("steps or factor have a shape that does not fit that of the values")
    wanted = np.array(values)
    codes = np.empty(values.shape, np.int32)
    with np.errstate(all="ignore"):
        for row in range(n_rows):
            rounded = np.clip(np.rint(wanted[row] / steps[row]), -_MAX_CODE, _MAX_CODE)
            rounded[np.isnan(rounded)] = 0
            codes[row] = rounded
            error = values[row] - rounded * steps[row]
            wanted[row + 1 :] += factor[row, row + 1 :, None] * error
    return codes
