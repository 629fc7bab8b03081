"""The numbers in a tensor's bytes, in single precision, and back (spec/container.md, section 1).

Without torch: a process that packs a file needs no framework. All roundings are to nearest, ties to even,
and equal torch's. Numbers beyond a type's range become infinity; in types that lack it, the largest number
(F8_E4M3, as in torch 2.13) or NaN (those of FNUZ).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES

if TYPE_CHECKING:
    from cmpk.encodings.base import Part

__all__ = ["BLOCK_ELEMENTS", "FLOAT_NAMES", "blocks", "from_float32", "tiles", "to_float32"]

BLOCK_ELEMENTS: Final = 1 << 16
"""Elements that `blocks` gives at a time: a few arrays of them fit a core's cache."""


class _Narrow(NamedTuple):
    """A float of 8 bits: its exponent's bias, largest finite code, what is beyond that, and NaN."""

    bias: int
    largest: int
    overflow: int
    nan: int


_NARROW: Final = {
    "F8_E4M3": _Narrow(7, 0x7E, 0x7E, 0x7F),
    "F8_E5M2": _Narrow(15, 0x7B, 0x7C, 0x7E),
    "F8_E4M3FNUZ": _Narrow(8, 0x7F, 0x80, 0x80),
    "F8_E5M2FNUZ": _Narrow(16, 0x7F, 0x80, 0x80),
}

FLOAT_NAMES: Final = frozenset({"F64", "F32", "F16", "BF16", *_NARROW})
"""Types whose numbers this module knows."""


def to_float32(part: Part) -> NDArray[np.float32]:
    """The numbers of a tensor in single precision: exact, but for F64, which is rounded.

    Parameters
    ----------
    part : Part
        Of a type in `FLOAT_NAMES`.

    Returns
    -------
    float32 array, shape ``part.spec.shape``
        Read only, and the part's own memory for F32.
    """
    return _widened(part.data, part.spec.dtype).reshape(part.spec.shape)


def from_float32(values: NDArray[np.float32], dtype: str) -> NDArray[np.uint8]:
    """Bytes of the nearest numbers that a type has.

    Parameters
    ----------
    values : float32 array, any shape
    dtype : str
        A type in `FLOAT_NAMES`.

    Returns
    -------
    uint8 array, shape (values.size * bytes an element,)
    """
    flat: NDArray[Any] = np.ascontiguousarray(values, np.float32).reshape(-1)
    if dtype == "BF16":
        flat = _to_bfloat16(flat)
    elif dtype in _NARROW:
        codes = np.empty(flat.size, np.uint8)
        for start in range(0, flat.size, BLOCK_ELEMENTS):
            cut = slice(start, start + BLOCK_ELEMENTS)
            codes[cut] = _to_narrow(flat[cut], dtype)
        flat = codes
    else:
        with np.errstate(over="ignore"):
            flat = flat.astype(f"<f{DTYPES[dtype].nbytes}", copy=False)
    return flat.view(np.uint8)


def blocks(part: Part, n_elements: int = BLOCK_ELEMENTS) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The numbers of a tensor piece by piece, in order, in memory that does not grow with it.

    Yields
    ------
    slice
        Which elements, counted through the tensor in row-major order.
    float32 array, shape (elements of the slice,)
    """
    itemsize = DTYPES[part.spec.dtype].nbytes
    for start in range(0, part.spec.numel, n_elements):
        stop = min(start + n_elements, part.spec.numel)
        data = part.data[start * itemsize : stop * itemsize]
        yield slice(start, stop), _widened(data, part.spec.dtype)


def tiles(n_rows: int, n_columns: int) -> Iterator[tuple[slice, slice]]:
    """Cut a matrix into pieces of whole rows, or of parts of a row, of half `BLOCK_ELEMENTS` at most.

    Work that takes several steps is best done piece by piece: what lies between the steps stays in a core's
    cache, and takes no memory that must be mapped first.

    Yields
    ------
    slice, slice
        Rows and columns, in row-major order.
    """
    n_elements = BLOCK_ELEMENTS // 2
    height, width = max(1, n_elements // max(1, n_columns)), n_elements
    for top in range(0, n_rows, height):
        for left in range(0, n_columns, width):
            yield slice(top, min(top + height, n_rows)), slice(left, min(left + width, n_columns))


def _widened(data: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    if dtype in _NARROW:
        found = _table(dtype)[data]
    elif dtype == "BF16":
        found = (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(over="ignore"):
            found = data.view(f"<f{DTYPES[dtype].nbytes}").astype(np.float32, copy=False)
    found = found.view()
    found.flags.writeable = False
    return found


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = values.view(np.uint32)
    # Half of what is cut off, less one where the bit above is even: a tie then carries to even.
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16
    nan = np.isnan(values)
    if nan.any():
        # The carry would run through a payload of ones into the sign.
        rounded[nan] = (bits[nan] >> 16) | 0x40
    return rounded.astype("<u2")


def _to_narrow(values: NDArray[np.float32], dtype: str) -> NDArray[np.uint8]:
    narrow, mantissa_nbits = _NARROW[dtype], DTYPES[dtype].mantissa_nbits
    with np.errstate(invalid="ignore"):
        magnitude = np.fmin(np.abs(values), np.float32(1e9))  # NaN, too, until the end
    lowest = 1 - narrow.bias  # exponent of the smallest normal number, and of all below it
    exponent = np.maximum((magnitude.view(np.uint32) >> 23).astype(np.int32) - 127, lowest)
    # In units of the last place: exact, as is what rint leaves.
    units = np.rint(np.ldexp(magnitude, mantissa_nbits - exponent)).astype(np.int32)
    # A carry into the next binade is one into the exponent's bits, too; normal numbers have an
    # implicit unit above the mantissa that their exponent's field makes up for.
    code = units + ((exponent - lowest) << mantissa_nbits)
    code = np.where(code > narrow.largest, narrow.overflow, code)
    negative = np.signbit(values)
    if narrow.nan == 0x80:
        negative &= (code != 0) & (code != narrow.nan)  # these types have one zero, and NaN in its place
    code = np.where(np.isnan(values), narrow.nan, code)
    signed: NDArray[np.uint8] = (code | (negative.astype(np.int32) << 7)).astype(np.uint8)
    return signed


@cache
def _table(dtype: str) -> NDArray[np.float32]:
    """The numbers of all 256 codes of a float of 8 bits."""
    narrow, mantissa_nbits = _NARROW[dtype], DTYPES[dtype].mantissa_nbits
    code = np.arange(128)
    field, mantissa = code >> mantissa_nbits, code & ((1 << mantissa_nbits) - 1)
    units = mantissa + (np.minimum(field, 1) << mantissa_nbits)
    found = np.ldexp(np.float32(units), np.maximum(field, 1) - narrow.bias - mantissa_nbits)
    found = np.where(code > narrow.largest, np.nan, found)
    if narrow.largest < narrow.overflow < narrow.nan:
        found[narrow.overflow] = np.inf
    found = np.concatenate([found, -found]).astype(np.float32)
    if narrow.nan == 0x80:
        found[0x80] = np.nan
    return found
