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

from cmpk.kernels.triton.errors import REST_HAS_TOO_MANY_BITS, UPPER_BITS_ARE_TOO_MANY

__all__ = ["BLOCK", "ITEM_FIELDS", "MAX_PLANES", "PLANE_FIELDS", "merge"]

BLOCK: Final = 1024
"""Elements that are handled together; as many as a block of the codec bitpack."""

MAX_PLANES: Final = 8

PLANE_FIELDS: Final = ("address", "width", "n_symbols")
"""What the kernel is told of a plane: where it is, 8 or the width of packed symbols, and how many symbols
there are from its start to the end of its stream. A plane of bytes is aligned to 16 and can be read up to a
multiple of `BLOCK`."""

ITEM_FIELDS: Final = (
    "out",
    "n_elements",
    "base",
    "lower_nbits",
    "upper_nbits",
    "error",
    "rows",
    "row_elements",
    "skipped",
    "exception_index",
    "exception_high",
    *(f"{field}{plane}" for plane in range(MAX_PLANES) for field in PLANE_FIELDS),
)
"""What the kernel is told of a range of a tensor, an int64 each.

``out`` is the address of the range, aligned to 16, or with ``rows`` of the whole tensor; ``error`` that of an
int32 to set bits in; ``rows``, uint32 each, where the rows of the range go; ``skipped``, how many elements of
the first of these rows stand before the range. ``exception_index``, int32, counts from the range's start;
``exception_high`` is uint16. All but addresses and ``n_symbols`` fit 31 bits.
"""

_N_ITEM_FIELDS = tl.constexpr(len(ITEM_FIELDS))
_OUT = tl.constexpr(0)
_N_ELEMENTS = tl.constexpr(1)
_BASE = tl.constexpr(2)
_LOWER_NBITS = tl.constexpr(3)
_UPPER_NBITS = tl.constexpr(4)
_ERROR = tl.constexpr(5)
_ROWS = tl.constexpr(6)
_ROW_ELEMENTS = tl.constexpr(7)
_SKIPPED = tl.constexpr(8)
_EXCEPTION_INDEX = tl.constexpr(9)
_EXCEPTION_HIGH = tl.constexpr(10)
_PLANES = tl.constexpr(11)
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
    """Put ``N_BLOCKS`` blocks together; ``programs`` tells which: four int32 for each program.

    They are the number of the item, the first block within it, and the first and last + 1 of the item's
    exceptions that are in these blocks. ``N_REST`` 0 copies bytes; the next four constants are then those
    of a type of one byte. Bit j of ``PACKED`` tells that plane j is packed: as constants such choices let
    the loads of all planes be under way at once.
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
        if OUT_EXPONENT + OUT_MANTISSA == 7:
            _store(item, element.to(tl.uint8), block, n, BY_ROWS, tl.uint8)
        elif OUT_EXPONENT + OUT_MANTISSA == 15:
            _store(item, element.to(tl.uint16), block, n, BY_ROWS, tl.uint16)
        elif OUT_EXPONENT + OUT_MANTISSA == 31:
            _store(item, element.to(tl.uint32), block, n, BY_ROWS, tl.uint32)
        else:
            _store(item, element.to(tl.uint64), block, n, BY_ROWS, tl.uint64)
        block += 1
    if N_REST > 0:
        flag = tl.max(flags, axis=0)
        tl.atomic_or(tl.load(item + _ERROR).to(tl.pointer_type(tl.int32)), flag, mask=flag != 0)


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
    high = _plane(item, 0, block, PACKED & 1)
    element = high.to(word)
    if N_REST > 0:
        upper = high + tl.load(item + _BASE).to(tl.int32)
        at = tl.load(program + 2)
        last = tl.load(program + 3)
        while at < last:
            index = tl.load(tl.load(item + _EXCEPTION_INDEX).to(tl.pointer_type(tl.int32)) + at)
            given = tl.load(tl.load(item + _EXCEPTION_HIGH).to(tl.pointer_type(tl.uint16)) + at)
            upper = tl.where(i == index, given.to(tl.int32), upper)
            at += 1
        rest = tl.zeros([_BLOCK], word)
        for plane in tl.static_range(N_REST):
            rest = rest | _plane(item, plane + 1, block, PACKED >> (plane + 1) & 1).to(word) << (8 * plane)
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
def _plane(item, NUMBER: tl.constexpr, block, IS_PACKED: tl.constexpr):
    """The symbols of a plane in one block, as int32; undefined behind the last element."""
    plane = item + _PLANES + NUMBER * _N_PLANE_FIELDS
    octets = tl.load(plane).to(tl.pointer_type(tl.uint8))
    k = tl.arange(0, _BLOCK)
    start = block.to(tl.int64) * _BLOCK
    if IS_PACKED:
        width = tl.load(plane + 1).to(tl.int32)
        # Bytes of a plane of single bits; the symbols of the last block are extended to a multiple of eight.
        nbytes = ((tl.minimum(tl.load(plane + 2) - start, _BLOCK) + 7) // 8).to(tl.int32)
        octets += start // 8 * width
        is_inside = k < nbytes * 8
        fours = _field(octets, nbytes, k, is_inside & (width & 4 != 0), 4)
        octets += (width & 4) * nbytes
        twos = _field(octets, nbytes, k, is_inside & (width & 2 != 0), 2)
        octets += (width & 2) * nbytes
        ones = _field(octets, nbytes, k, is_inside & (width & 1 != 0), 1)
        symbols = fours << (width & 3) | twos << (width & 1) | ones
    else:
        octets = tl.multiple_of(octets + start, 16)
        symbols = tl.load(octets + k).to(tl.int32)
    return symbols


@triton.jit
def _field(octets, nbytes, k, is_there, NBITS: tl.constexpr):
    """The field of ``NBITS`` bits of symbols ``k`` of a block; 0 where it is not there."""
    size = nbytes * NBITS
    # No division by a variable where a block is whole.
    part = k // (_BLOCK // 8 * NBITS) if nbytes == _BLOCK // 8 else k // size
    octet = tl.load(octets + (k - part * size), mask=is_there, other=0).to(tl.int32)
    return octet >> part * NBITS & ((1 << NBITS) - 1)


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


@triton.jit
def _store(item, elements, block, n, BY_ROWS: tl.constexpr, WORD: tl.constexpr):
    """Store the elements of a block in place, or by rows."""
    i = block * _BLOCK + tl.arange(0, _BLOCK)
    out = tl.load(item + _OUT).to(tl.pointer_type(WORD))
    if BY_ROWS:
        row_elements = tl.load(item + _ROW_ELEMENTS).to(tl.int32)
        at = i + tl.load(item + _SKIPPED).to(tl.int32)
        number = at // row_elements
        rows = tl.load(item + _ROWS).to(tl.pointer_type(tl.uint32))
        row = tl.load(rows + number, mask=i < n, other=0)
        column = at - number * row_elements
        tl.store(out + row.to(tl.int64) * row_elements + column, elements, mask=i < n)
    else:
        out = tl.multiple_of(out, 16)
        if (block + 1) * _BLOCK <= n:  # without a mask, so that many bytes go out at a time
            tl.store(out + i, elements)
        else:
            tl.store(out + i, elements, mask=i < n)
