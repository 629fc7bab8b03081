"""Float32 numbers rounded to another float type (spec/encodings/affine.md, decoding)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES

__all__ = ["round_float32"]


class _Grid(NamedTuple):
    """The numbers of a type.

    Attributes
    ----------
    mantissa_nbits : int
    smallest : int
        Exponent of the smallest normal number.
    top : int
        Infinity, or the largest number where there is none.
    has_negative_zero : bool
    """

    mantissa_nbits: int
    smallest: int
    top: int
    has_negative_zero: bool = True


_GRIDS: Final = {
    "F16": _Grid(10, -14, 0x7C00),
    "BF16": _Grid(7, -126, 0x7F80),
    "F8_E4M3": _Grid(3, -6, 0x7E),
    "F8_E5M2": _Grid(2, -14, 0x7C),
    "F8_E4M3FNUZ": _Grid(3, -7, 0x7F, has_negative_zero=False),
    "F8_E5M2FNUZ": _Grid(2, -15, 0x7F, has_negative_zero=False),
}


def round_float32(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """The nearest numbers of a type, ties to the even mantissa; unsigned integers of its width.

    What is too large becomes infinity, or the largest number in types without infinities.

    Parameters
    ----------
    values : float32 array, shape (n,)
        Every NaN becomes the same one, in the types that have quiet NaNs; the others are given none.
    dtype : str
        A key of `FLOAT_LAYOUTS`.
    """
    if dtype == "F32":
        return np.where(np.isnan(values), np.uint32(0x7FC00000), values.view("<u4"))
    if dtype == "F64":
        return np.where(np.isnan(values), np.uint64(0x7FF8 << 48), values.astype("<f8").view("<u8"))
    grid = _GRIDS[dtype]
    # All bits of the exponent and the highest of the mantissa, where infinities and NaNs are of IEEE 754.
    quiet_nan = grid.top | 1 << (grid.mantissa_nbits - 1)
    finite = np.isfinite(values)
    magnitude = np.abs(np.where(finite, values, 0)).astype(np.float64)
    exponent = np.where(magnitude > 0, np.frexp(magnitude)[1].astype(np.int64) - 1, grid.smallest)
    exponent = np.maximum(exponent, grid.smallest)
    # In units of the last place: whole numbers below 2^53 and a fraction, exact in a double.
    units = np.rint(np.ldexp(magnitude, (grid.mantissa_nbits - exponent).astype(np.int32))).astype(np.int64)
    code = ((exponent - grid.smallest) << grid.mantissa_nbits) + units
    code = np.where(finite, np.minimum(code, grid.top), grid.top)
    sign = (np.signbit(values) & (grid.has_negative_zero | (code > 0))).astype(np.int64) << (
        DTYPES[dtype].nbits - 1
    )
    return np.where(np.isnan(values), quiet_nan, sign | code).astype(f"<u{DTYPES[dtype].nbytes}")
