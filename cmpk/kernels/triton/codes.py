"""Codes to elements on a device: scaled, or looked up (spec/encodings/affine.md, cast.md, codebook.md).

Codes are one plane, as it stands or as the codec's kernel has decoded it. Whatever they are, scales and
lists are read within what was staged: the number of a scale is taken modulo how many there are, and a
code beyond its list is reported and read as 0.
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
from cmpk.kernels.triton.errors import CODE_IS_NOT_IN_ITS_CODEBOOK

__all__ = ["CODE_FIELDS", "LOOKUP_FIELDS", "dequantize", "look_up"]

CODE_FIELDS: Final = (
    *HEAD_FIELDS,
    "first_code",
    "first_codes",
    "scales",
    "n_scales",
    "line",
    "run",
    "runs_per_line",
    "within",
    "skipped_runs",
    "numbers",
    *PLANE_FIELDS,
)
"""What `dequantize` is told of a range, an int64 each; an exception's value is its code less its zero point.

A code less its zero point is a byte plus ``first_code``, or with zero points plus the int32 of its scale at
``first_codes``. Element i of the range has, with p = ``within`` + i, the scale of number p // ``line`` *
``runs_per_line`` + p % ``line`` // ``run`` - ``skipped_runs``, modulo ``n_scales``, of the float32 at
``scales``. Each p fits 31 bits. ``numbers`` are the 256 float32 that bytes stand for, if they do.
"""

LOOKUP_FIELDS: Final = (*HEAD_FIELDS, "table", "size", "run", "within", *PLANE_FIELDS)
"""What `look_up` is told of a range, an int64 each: element i has list (``within`` + i) // ``run`` at
``table``, each of ``size`` elements. There are no exceptions."""

_BLOCK = tl.constexpr(BLOCK)
_N_ELEMENTS = tl.constexpr(1)
_OWN = tl.constexpr(len(HEAD_FIELDS))
_N_CODE_FIELDS = tl.constexpr(len(CODE_FIELDS))
_N_LOOKUP_FIELDS = tl.constexpr(len(LOOKUP_FIELDS))
_PLANE_OF_CODES = tl.constexpr(len(CODE_FIELDS) - len(PLANE_FIELDS))
_PLANE_OF_LOOKUPS = tl.constexpr(len(LOOKUP_FIELDS) - len(PLANE_FIELDS))
_NOT_IN_CODEBOOK = tl.constexpr(CODE_IS_NOT_IN_ITS_CODEBOOK)


@triton.jit
def dequantize(
    items,
    programs,
    EXPONENT: tl.constexpr,
    MANTISSA: tl.constexpr,
    TOP: tl.constexpr,
    IS_FNUZ: tl.constexpr,
    HAS_ZERO_POINTS: tl.constexpr,
    HAS_NUMBERS: tl.constexpr,
    IS_PACKED: tl.constexpr,
    BY_ROWS: tl.constexpr,
    N_BLOCKS: tl.constexpr,
):
    """Scale ``N_BLOCKS`` blocks of codes, or of the numbers that bytes stand for.

    ``TOP`` stands for all that is too large: infinity, or the largest number where there is none.
    """
    # An address below 2**31, as a heap on the host may have, is passed as an int32.
    program = programs.to(tl.int64).to(tl.pointer_type(tl.int32)) + tl.program_id(0) * 4
    item = items.to(tl.int64).to(tl.pointer_type(tl.int64)) + tl.load(program) * _N_CODE_FIELDS
    own = item + _OWN
    block = tl.load(program + 1)
    n = tl.load(item + _N_ELEMENTS).to(tl.int32)
    scales = tl.load(own + 2).to(tl.pointer_type(tl.float32))
    n_scales = tl.load(own + 3).to(tl.int32)
    within = tl.load(own + 7).to(tl.int32)
    end = tl.minimum(block + N_BLOCKS, (n + _BLOCK - 1) // _BLOCK)
    while block < end:
        i = block * _BLOCK + tl.arange(0, _BLOCK)
        octets = load_plane(item + _PLANE_OF_CODES, block, IS_PACKED)
        # Most blocks have one scale, and need no division for each element.
        position = within + block * _BLOCK
        number = _scale_number(own, position)
        last = within + tl.minimum((block + 1) * _BLOCK, n) - 1
        if number == _scale_number(own, last):
            which = tl.zeros([_BLOCK], tl.int32) + number % n_scales
        else:
            which = _scale_number(own, within + i) % n_scales
        scale = tl.load(scales + which)
        if HAS_NUMBERS:
            numbers = tl.load(own + 9).to(tl.pointer_type(tl.float32))
            factor = tl.load(numbers + (octets & 255))
        else:
            if HAS_ZERO_POINTS:
                first = tl.load(tl.load(own + 1).to(tl.pointer_type(tl.int32)) + which)
            else:
                first = tl.load(own).to(tl.int32)
            distance = with_exceptions(item, program, i, octets + first)
            factor = distance.to(tl.float32)
        element = _rounded(factor * scale, EXPONENT, MANTISSA, TOP, IS_FNUZ, HAS_NUMBERS)
        store_elements(item, element, block, n, BY_ROWS, 1 + EXPONENT + MANTISSA)
        block += 1


@triton.jit
def look_up(
    items,
    programs,
    NBYTES: tl.constexpr,
    IS_PACKED: tl.constexpr,
    BY_ROWS: tl.constexpr,
    N_BLOCKS: tl.constexpr,
):
    """Look ``N_BLOCKS`` blocks of codes up in lists of elements of ``NBYTES``."""
    program = programs.to(tl.int64).to(tl.pointer_type(tl.int32)) + tl.program_id(0) * 4
    item = items.to(tl.int64).to(tl.pointer_type(tl.int64)) + tl.load(program) * _N_LOOKUP_FIELDS
    block = tl.load(program + 1)
    n = tl.load(item + _N_ELEMENTS).to(tl.int32)
    flags = tl.zeros([_BLOCK], tl.int32)
    end = tl.minimum(block + N_BLOCKS, (n + _BLOCK - 1) // _BLOCK)
    while block < end:
        if NBYTES == 1:
            flags = flags | _look_block_up(item, block, n, IS_PACKED, BY_ROWS, tl.uint8)
        elif NBYTES == 2:
            flags = flags | _look_block_up(item, block, n, IS_PACKED, BY_ROWS, tl.uint16)
        elif NBYTES == 4:
            flags = flags | _look_block_up(item, block, n, IS_PACKED, BY_ROWS, tl.uint32)
        else:
            flags = flags | _look_block_up(item, block, n, IS_PACKED, BY_ROWS, tl.uint64)
        block += 1
    report(item, flags)


@triton.jit
def _look_block_up(item, block, n, IS_PACKED: tl.constexpr, BY_ROWS: tl.constexpr, WORD: tl.constexpr):
    """Look up and store a block; flags for the codes that are in no list."""
    own = item + _OWN
    i = block * _BLOCK + tl.arange(0, _BLOCK)
    is_inside = i < n
    code = load_plane(item + _PLANE_OF_LOOKUPS, block, IS_PACKED)
    size = tl.load(own + 1).to(tl.int32)
    is_wrong = is_inside & (code >= size)
    table = tl.load(own).to(tl.pointer_type(WORD))
    number = (tl.load(own + 3).to(tl.int32) + i) // tl.load(own + 2).to(tl.int32)
    at = number * size + tl.where(is_wrong, 0, code)
    elements = tl.load(table + at, mask=is_inside, other=0)
    store_elements(item, elements, block, n, BY_ROWS, WORD.primitive_bitwidth)
    return tl.where(is_wrong, _NOT_IN_CODEBOOK, 0)


@triton.jit
def _scale_number(own, position):
    """The number of the scale at a position, or at each of several."""
    line = tl.load(own + 4).to(tl.int32)
    run = tl.load(own + 5).to(tl.int32)
    number = position // line
    return (
        number * tl.load(own + 6).to(tl.int32)
        + (position - number * line) // run
        - tl.load(own + 8).to(tl.int32)
    )


@triton.jit
def _rounded(
    product,
    EXPONENT: tl.constexpr,
    MANTISSA: tl.constexpr,
    TOP: tl.constexpr,
    IS_FNUZ: tl.constexpr,
    MAY_BE_NAN: tl.constexpr,
):
    """The nearest number of a type, ties to the even mantissa, as an unsigned integer.

    Integer arithmetic but for subnormal numbers, which a sum rounds: nothing for the compiler to contract.
    """
    bits = product.to(tl.uint32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    if EXPONENT == 11:
        element = product.to(tl.float64).to(tl.uint64, bitcast=True)
    elif MANTISSA == 23:
        element = bits
    elif EXPONENT == 8:
        # Carries go into the exponent, up to that of infinity.
        element = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    else:
        bias: tl.constexpr = (1 << (EXPONENT - 1)) - 1 + IS_FNUZ
        dropped: tl.constexpr = 23 - MANTISSA
        half: tl.constexpr = (1 << (dropped - 1)) - 1
        # The power of two whose last bit is worth the type's smallest number: a sum with it is rounded to
        # that number's multiples.
        unit = tl.full([_BLOCK], (128 - bias + dropped) << 23, tl.uint32)
        total = magnitude.to(tl.float32, bitcast=True) + unit.to(tl.float32, bitcast=True)
        subnormal = total.to(tl.uint32, bitcast=True) - unit
        normal = (magnitude - ((127 - bias) << 23) + half + (magnitude >> dropped & 1)) >> dropped
        rounded = tl.minimum(tl.where(magnitude < (128 - bias) << 23, subnormal, normal), TOP)
        sign = bits >> 31 << (EXPONENT + MANTISSA)
        if IS_FNUZ:
            sign = tl.where(rounded == 0, 0, sign)
        element = sign | rounded
    if MAY_BE_NAN:
        # All bits of the exponent, and the highest of the mantissa.
        quiet_nan: tl.constexpr = ((1 << (EXPONENT + 1)) - 1) << (MANTISSA - 1)
        element = tl.where(magnitude > 0x7F800000, quiet_nan, element)
    return element
