"""Planes of bytes to elements in their place, on a device (spec/encodings/float_split.md, narrow.md).

One launch serves all tensors of a batch that have the same types. Planes stand as bytes or packed
(spec/codecs/bitpack.md); each element is put together from its planes, given its upper bits where it is
an exception, widened, and stored where it belongs, by rows where a tensor is scattered by rows. Tensors
that are no floats are one plane of bytes.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from cmpk.kernels.triton.elements import (
    BLOCK,
    HEAD_FIELDS,
    PLANE_FIELDS,
    load_plane,
    report,
    store_elements,
    with_exceptions,
)
from cmpk.kernels.triton.errors import REST_HAS_TOO_MANY_BITS, UPPER_BITS_ARE_TOO_MANY

__all__ = ["ITEM_FIELDS", "MAX_PLANES", "merge"]

MAX_PLANES: Final = 8

ITEM_FIELDS: Final = (
    *HEAD_FIELDS,
    "base",
    "lower_nbits",
    "upper_nbits",
    *(f"{field}{plane}" for plane in range(MAX_PLANES) for field in PLANE_FIELDS),
)
"""What the kernel is told of a range of a tensor, an int64 each; an exception's value are its upper bits."""

_N_ITEM_FIELDS = tl.constexpr(len(ITEM_FIELDS))
_N_ELEMENTS = tl.constexpr(1)
_BASE = tl.constexpr(len(HEAD_FIELDS))
_LOWER_NBITS = tl.constexpr(len(HEAD_FIELDS) + 1)
_UPPER_NBITS = tl.constexpr(len(HEAD_FIELDS) + 2)
_PLANES = tl.constexpr(len(HEAD_FIELDS) + 3)
_N_PLANE_FIELDS = tl.constexpr(len(PLANE_FIELDS))

_BLOCK = tl.constexpr(BLOCK)
_TOO_MANY_UPPER = tl.constexpr(UPPER_BITS_ARE_TOO_MANY)
_TOO_MANY_REST = tl.constexpr(REST_HAS_TOO_MANY_BITS)


@triton.jit
def merge(
    items,
    programs,
    N_REST: tl.constexpr,
    EXPONENT: tl.constexpr,
    MANTISSA: tl.constexpr,
    OUT_EXPONENT: tl.constexpr,
    OUT_MANTISSA: tl.constexpr,
    PACKED: tl.constexpr,
    BY_ROWS: tl.constexpr,
    N_BLOCKS: tl.constexpr,
):
    """Put ``N_BLOCKS`` blocks together; ``programs`` tells which.

    ``N_REST`` 0 copies bytes; the next four constants are then those of a type of one byte. Bit j of
    ``PACKED`` tells that plane j is packed: as constants such choices let the loads of all planes be under
    way at once.
    """
    # An address below 2**31, as a heap on the host may have, is passed as an int32.
    program = programs.to(tl.int64).to(tl.pointer_type(tl.int32)) + tl.program_id(0) * 4
    item = items.to(tl.int64).to(tl.pointer_type(tl.int64)) + tl.load(program) * _N_ITEM_FIELDS
    block = tl.load(program + 1)
    n = tl.load(item + _N_ELEMENTS).to(tl.int32)
    flags = tl.zeros([_BLOCK], tl.int32)
    end = tl.minimum(block + N_BLOCKS, (n + _BLOCK - 1) // _BLOCK)
    while block < end:
        element, block_flags = _elements(item, program, block, n, N_REST, EXPONENT, MANTISSA, PACKED)
        element = _widened(element, EXPONENT, MANTISSA, OUT_EXPONENT, OUT_MANTISSA)
        flags = flags | block_flags
        store_elements(item, element, block, n, BY_ROWS, 1 + OUT_EXPONENT + OUT_MANTISSA)
        block += 1
    if N_REST > 0:
        report(item, flags)


@triton.jit
def _elements(
    item,
    program,
    block,
    n,
    N_REST: tl.constexpr,
    EXPONENT: tl.constexpr,
    MANTISSA: tl.constexpr,
    PACKED: tl.constexpr,
):
    """The elements of a block as unsigned integers, and flags for those that break a rule."""
    is_wide: tl.constexpr = EXPONENT + MANTISSA >= 32
    word: tl.constexpr = tl.uint64 if is_wide else tl.uint32
    i = block * _BLOCK + tl.arange(0, _BLOCK)
    flags = tl.zeros([_BLOCK], tl.int32)
    planes = item + _PLANES
    high = load_plane(planes, block, PACKED & 1)
    element = high.to(word)
    if N_REST > 0:
        upper = high + tl.load(item + _BASE).to(tl.int32)
        upper = with_exceptions(item, program, i, upper)
        rest = tl.zeros([_BLOCK], word)
        for plane in tl.static_range(N_REST):
            symbols = load_plane(planes + (plane + 1) * _N_PLANE_FIELDS, block, PACKED >> (plane + 1) & 1)
            rest = rest | symbols.to(word) << (8 * plane)
        lower_nbits = tl.load(item + _LOWER_NBITS).to(word)
        sign = rest >> lower_nbits
        is_inside = i < n
        is_upper_too_large = is_inside & (upper >> tl.load(item + _UPPER_NBITS).to(tl.int32) != 0)
        flags = tl.where(is_upper_too_large, _TOO_MANY_UPPER, 0)
        flags = flags | tl.where(is_inside & (sign > 1), _TOO_MANY_REST, 0)
        lower = rest ^ sign << lower_nbits
        element = sign << (EXPONENT + MANTISSA) | upper.to(word) << lower_nbits | lower
    return element, flags


@triton.jit
def _widened(
    element,
    EXPONENT: tl.constexpr,
    MANTISSA: tl.constexpr,
    OUT_EXPONENT: tl.constexpr,
    OUT_MANTISSA: tl.constexpr,
):
    """The same number in the wider type, bit by bit."""
    wide: tl.constexpr = tl.uint64 if OUT_EXPONENT + OUT_MANTISSA >= 32 else tl.uint32
    shift: tl.constexpr = OUT_MANTISSA - MANTISSA
    if OUT_EXPONENT == EXPONENT:
        element = element.to(wide) << shift
    else:
        bias: tl.constexpr = (1 << (EXPONENT - 1)) - 1
        rebias: tl.constexpr = (1 << (OUT_EXPONENT - 1)) - (1 << (EXPONENT - 1))
        top: tl.constexpr = (1 << EXPONENT) - 1
        sign = (element >> (EXPONENT + MANTISSA)).to(wide)
        exponent = (element >> MANTISSA).to(wide) & top
        mantissa = element.to(wide) & ((1 << MANTISSA) - 1)
        wide_exponent = tl.where(exponent == top, (1 << OUT_EXPONENT) - 1, exponent + rebias).to(wide)
        magnitude = wide_exponent << OUT_MANTISSA | mantissa << shift
        # A subnormal number is its mantissa, a whole number that the wider type holds, scaled down.
        if OUT_EXPONENT == 8:
            whole = mantissa.to(tl.int32).to(tl.float32).to(tl.uint32, bitcast=True)
        else:
            whole = mantissa.to(tl.int64).to(tl.float64).to(tl.uint64, bitcast=True)
        scaled = whole - (tl.full([_BLOCK], bias + MANTISSA - 1, wide) << OUT_MANTISSA)
        magnitude = tl.where(exponent == 0, tl.where(mantissa == 0, mantissa, scaled), magnitude)
        element = sign << (OUT_EXPONENT + OUT_MANTISSA) | magnitude
    return element
