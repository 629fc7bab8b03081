"""Encoding float_split: upper bits apart from sign and lower mantissa (spec/encodings/float_split.md)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, Buffer
from cmpk.kernels.reference.buffers import words_of

__all__ = ["Layout", "exponent_histograms", "float_merge", "float_split", "layout_of", "upper_bits_histogram"]

_BLOCK = 1 << 20


class Layout(NamedTuple):
    """How the bits of an element are divided.

    Attributes
    ----------
    nbytes : int
        Bytes of an element.
    upper_nbits : int
        H: exponent and the mantissa bits that go with it.
    lower_nbits : int
        L: the other mantissa bits; with the sign above them they are the rest.
    n_rest : int
        t: bytes of the rest.
    base : int
        Subtracted from the upper bits.
    """

    nbytes: int
    upper_nbits: int
    lower_nbits: int
    n_rest: int
    base: int


def layout_of(dtype: str, mantissa_bits: int, base: int) -> Layout:
    """The layout for these parameters; ValueError if the spec does not allow them."""
    if dtype not in FLOAT_LAYOUTS:
        raise ValueError(f"no float_split for dtype {dtype!r}; it takes {', '.join(FLOAT_LAYOUTS)}")
    exponent, mantissa = FLOAT_LAYOUTS[dtype]
    upper = exponent + mantissa_bits
    if not 0 <= mantissa_bits <= mantissa or upper > 16:
        raise ValueError(
            f"mantissa_bits is {mantissa_bits}; {dtype} takes 0 .. {min(mantissa, 16 - exponent)}"
        )
    if not 0 <= base <= max(0, (1 << upper) - 256):
        raise ValueError(f"base is {base}; with {upper} upper bits it is 0 .. {max(0, (1 << upper) - 256)}")
    lower = mantissa - mantissa_bits
    return Layout(DTYPES[dtype].nbytes, upper, lower, (lower + 8) // 8, base)


def float_split(
    data: Buffer,
    dtype: str,
    mantissa_bits: int,
    base: int,
    rows: NDArray[np.uint32] | None = None,
    row_elements: int = 0,
) -> tuple[U8, U8, NDArray[np.uint64], NDArray[np.uint16]]:
    """Split n elements: all, or those of some rows.

    Parameters
    ----------
    data : buffer
        The elements, n of them.
    dtype : str
        A key of `FLOAT_LAYOUTS`.
    mantissa_bits, base : int
        Parameters of the encoding.
    rows : uint32 array, optional
        The rows to take, one after another.
    row_elements : int
        Elements in a row; not looked at without ``rows``.

    Returns
    -------
    high : uint8 array, shape (n,)
        0 at an exception.
    rest : uint8 array, shape (t, n)
    exception_index : uint64 array, shape (x,)
    exception_high : uint16 array, shape (x,)

    Raises
    ------
    ValueError
        If the data are no whole number of elements or rows, or a row is not there.
    """
    layout = layout_of(dtype, mantissa_bits, base)
    words = words_of(data, dtype)
    if rows is not None:
        words = _picked(words, rows, row_elements)
    high = np.empty(words.size, np.uint8)
    rest = np.empty((layout.n_rest, words.size), np.uint8)
    indices, values = [np.empty(0, np.uint64)], [np.empty(0, np.uint16)]
    for start in range(0, words.size, _BLOCK):
        block = words[start : start + _BLOCK].astype(np.uint64)
        upper = _upper_bits(block, layout)
        below = block & np.uint64((1 << layout.lower_nbits) - 1)
        sign = block >> np.uint64(8 * layout.nbytes - 1)
        low = sign << np.uint64(layout.lower_nbits) | below
        for j in range(layout.n_rest):
            rest[j, start : start + block.size] = (low >> np.uint64(8 * j)).astype(np.uint8)
        fits = (upper >= base) & (upper <= base + 255)
        high[start : start + block.size] = np.where(fits, upper - base, 0)
        index = np.flatnonzero(~fits)
        indices.append((index + start).astype(np.uint64))
        values.append(upper[index].astype(np.uint16))
    return high, rest, np.concatenate(indices), np.concatenate(values)


def float_merge(
    layout: Layout,
    high: U8,
    rest: list[U8],
    exception_index: NDArray[np.int64],
    exception_high: NDArray[np.uint16],
) -> NDArray[Any]:
    """Undo `float_split` for some elements.

    Parameters
    ----------
    layout : Layout
    high : uint8 array, shape (m,)
    rest : list of t uint8 arrays, shape (m,)
    exception_index : int64 array, shape (x,)
        Positions in ``high``, ascending.
    exception_high : uint16 array, shape (x,)

    Returns
    -------
    unsigned integer array of the element's width, shape (m,)

    Raises
    ------
    CorruptStreamError
        If upper bits or the rest of an element have more bits than the layout gives them.
    """
    upper = high.astype(np.uint64) + np.uint64(layout.base)
    upper[exception_index] = exception_high
    low = np.zeros(high.size, np.uint64)
    for j, plane in enumerate(rest):
        low |= plane.astype(np.uint64) << np.uint64(8 * j)
    if (upper >> np.uint64(layout.upper_nbits)).any():
        raise CorruptStreamError(f"encoding 'float_split': upper bits exceed {layout.upper_nbits} bits")
    sign = low >> np.uint64(layout.lower_nbits)
    if (sign > 1).any():
        raise CorruptStreamError(f"encoding 'float_split': the rest exceeds {layout.lower_nbits + 1} bits")
    below = low & np.uint64((1 << layout.lower_nbits) - 1)
    element = sign << np.uint64(8 * layout.nbytes - 1) | upper << np.uint64(layout.lower_nbits) | below
    elements: NDArray[Any] = element.astype(f"<u{layout.nbytes}")
    return elements


def upper_bits_histogram(data: Buffer, dtype: str, mantissa_bits: int) -> NDArray[np.uint64]:
    """How often each value of the upper E + mantissa_bits bits (without the sign) occurs; (2**H,)."""
    layout = layout_of(dtype, mantissa_bits, 0)
    words = words_of(data, dtype)
    counts = np.zeros(1 << layout.upper_nbits, np.uint64)
    for start in range(0, words.size, _BLOCK):
        upper = _upper_bits(words[start : start + _BLOCK].astype(np.uint64), layout)
        counts += np.bincount(upper, minlength=counts.size).astype(np.uint64)
    return counts


def exponent_histograms(
    data: Buffer, dtype: str, row_elements: int, rows: NDArray[np.uint32], limit: int
) -> NDArray[np.uint32]:
    """How often each exponent occurs in some rows.

    Parameters
    ----------
    data : buffer
        Rows of ``row_elements`` elements.
    dtype : str
        A key of `FLOAT_LAYOUTS`.
    row_elements : int
    rows : uint32 array, shape (r,)
        Numbers of rows.
    limit : int
        Elements of each row that are counted, from its first on; at most all.

    Returns
    -------
    uint32 array, shape (r, 2**E)

    Raises
    ------
    ValueError
        If the data are no whole number of rows, or a row is not there.
    """
    layout = layout_of(dtype, 0, 0)
    if not 0 <= limit < 1 << 32:
        raise ValueError(f"limit is {limit}; it is 0 .. 2**32 - 1")
    words = _picked(words_of(data, dtype), rows, row_elements).reshape(len(rows), row_elements)[:, :limit]
    counts = np.zeros((len(rows), 1 << layout.upper_nbits), np.uint32)
    for row, found in zip(words, counts, strict=True):
        found[:] = np.bincount(_upper_bits(row.astype(np.uint64), layout), minlength=found.size)
    return counts


def _picked(words: NDArray[Any], rows: NDArray[np.uint32], row_elements: int) -> NDArray[Any]:
    if row_elements < 1 or words.size % row_elements:
        raise ValueError(f"{words.size} elements are no whole number of rows of {row_elements}")
    if rows.size and int(rows.max()) >= words.size // row_elements:
        raise ValueError("a row is not there")
    return words.reshape(-1, row_elements)[rows].reshape(-1)


def _upper_bits(words: NDArray[np.uint64], layout: Layout) -> NDArray[np.int64]:
    """The upper bits of each element, base included."""
    return (words >> np.uint64(layout.lower_nbits)).astype(np.int64) & ((1 << layout.upper_nbits) - 1)
