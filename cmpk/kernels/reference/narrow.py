"""Encoding narrow: floats that are really of a narrower type (spec/encodings/narrow.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, Buffer
from cmpk.kernels.reference.buffers import words_of

__all__ = ["NARROWER", "narrow", "narrows_to", "widen", "widen_words"]

NARROWER = {"F32": ("F16", "BF16"), "F64": ("F16", "BF16", "F32")}
"""What each type may be narrowed to."""

_BLOCK = 1 << 20


def narrows_to(data: Buffer, dtype: str, narrower: str, row_elements: int) -> NDArray[np.bool_]:
    """For each row, whether every element is exactly one of the narrower type (bits, not values)."""
    words = _words_of(data, dtype, narrower)
    if row_elements < 1 or words.size % row_elements:
        raise ValueError(f"{words.size} elements are no whole number of rows of {row_elements}")
    exact = np.empty(words.size, np.bool_)
    for start in range(0, words.size, _BLOCK):
        block = words[start : start + _BLOCK]
        exact[start : start + _BLOCK] = _widen(_narrow(block, dtype, narrower), narrower, dtype) == block
    rows: NDArray[np.bool_] = np.logical_and.reduce(exact.reshape(-1, row_elements), axis=1)
    return rows


def narrow(data: Buffer, dtype: str, narrower: str) -> U8:
    """The elements in the narrower type, as bytes; ValueError if one is not exact."""
    words = _words_of(data, dtype, narrower)
    out = np.empty(words.size, f"<u{DTYPES[narrower].nbytes}")
    for start in range(0, words.size, _BLOCK):
        block = words[start : start + _BLOCK]
        out[start : start + _BLOCK] = _narrow(block, dtype, narrower)
        if not np.array_equal(_widen(out[start : start + _BLOCK], narrower, dtype), block):
            raise ValueError(f"an element of the {dtype} data is not exactly a {narrower}")
    return out.view(np.uint8)


def widen(data: Buffer, narrower: str, dtype: str) -> U8:
    """Undo `narrow`, bit by bit."""
    if narrower not in NARROWER.get(dtype, ()):
        raise ValueError(f"{narrower} does not widen to {dtype}")
    return widen_words(words_of(data, narrower), narrower, dtype).view(np.uint8)


def widen_words(words: NDArray[Any], narrower: str, dtype: str) -> NDArray[Any]:
    """`widen` on elements as unsigned integers; the same type gives the same elements."""
    if narrower == dtype:
        return words
    out = np.empty(words.size, f"<u{DTYPES[dtype].nbytes}")
    for start in range(0, words.size, _BLOCK):
        out[start : start + _BLOCK] = _widen(words[start : start + _BLOCK], narrower, dtype)
    return out


def _words_of(data: Buffer, dtype: str, narrower: str) -> NDArray[Any]:
    if narrower not in NARROWER.get(dtype, ()):
        raise ValueError(f"{dtype} does not narrow to {narrower}")
    return words_of(data, dtype)


def _fields(
    words: NDArray[Any], dtype: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Sign, exponent and mantissa of each element, as they stand."""
    exponent_nbits, mantissa_nbits = FLOAT_LAYOUTS[dtype]
    wide = words.astype(np.uint64)
    sign = (wide >> np.uint64(exponent_nbits + mantissa_nbits)).astype(np.int64)
    exponent = (wide >> np.uint64(mantissa_nbits)).astype(np.int64) & ((1 << exponent_nbits) - 1)
    return sign, exponent, wide & np.uint64((1 << mantissa_nbits) - 1)


def _join(
    sign: NDArray[np.int64], exponent: NDArray[np.int64], mantissa: NDArray[np.uint64], dtype: str
) -> NDArray[Any]:
    """Undo `_fields`."""
    exponent_nbits, mantissa_nbits = FLOAT_LAYOUTS[dtype]
    upper = (sign << exponent_nbits | exponent).astype(np.uint64) << np.uint64(mantissa_nbits)
    return (upper | mantissa).astype(f"<u{DTYPES[dtype].nbytes}")


def _widen(words: NDArray[Any], narrower: str, dtype: str) -> NDArray[Any]:
    """The same numbers in the wider type."""
    sign, exponent, mantissa = _fields(words, narrower)
    (e_from, m_from), (e_to, m_to) = FLOAT_LAYOUTS[narrower], FLOAT_LAYOUTS[dtype]
    rebias = (1 << (e_to - 1)) - (1 << (e_from - 1))
    special = exponent == (1 << e_from) - 1
    small = exponent == 0
    wide_exponent = np.where(special, (1 << e_to) - 1, np.where(small, 0, exponent + rebias))
    wide_mantissa = mantissa << np.uint64(m_to - m_from)
    if e_to > e_from:
        # A subnormal number is normal in the wider type: its leading bit goes, and sets the exponent.
        subnormal = small & (mantissa != 0)
        # Exact: a mantissa of at most 52 bits is a double.
        leading = np.frexp(mantissa[subnormal].astype(np.float64))[1].astype(np.int64) - 1
        wide_exponent[subnormal] = leading + 1 - m_from + rebias
        shifted = mantissa[subnormal] << (m_to - leading).astype(np.uint64)
        wide_mantissa[subnormal] = shifted & np.uint64((1 << m_to) - 1)
    return _join(sign, wide_exponent, wide_mantissa, dtype)


def _narrow(words: NDArray[Any], dtype: str, narrower: str) -> NDArray[Any]:
    """The same numbers in the narrower type; where one is not exact, any number that differs."""
    sign, exponent, mantissa = _fields(words, dtype)
    (e_from, m_from), (e_to, m_to) = FLOAT_LAYOUTS[dtype], FLOAT_LAYOUTS[narrower]
    rebias = (1 << (e_from - 1)) - (1 << (e_to - 1))
    dropped = m_from - m_to
    special = exponent == (1 << e_from) - 1
    rebiased = exponent - rebias
    narrow_exponent = np.where(special, (1 << e_to) - 1, np.clip(rebiased, 0, (1 << e_to) - 1))
    narrow_mantissa = mantissa >> np.uint64(dropped)
    # Below the smallest normal number the leading bit is written out, further right by one bit each step.
    subnormal = (rebiased <= 0) & (exponent > 0)
    shift = np.minimum(dropped + 1 - rebiased[subnormal], 63).astype(np.uint64)
    narrow_mantissa[subnormal] = (mantissa[subnormal] | np.uint64(1 << m_from)) >> shift
    return _join(sign, narrow_exponent, narrow_mantissa, narrower)
