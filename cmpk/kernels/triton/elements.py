"""What the kernels that make elements have in common: where their bytes come from, where elements go.

One launch serves all ranges of tensors of one kind in a batch. Its items, a row of int64 each, are the
ranges; its programs, four int32 each, do a few blocks of one of them.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

__all__ = [
    "BLOCK",
    "HEAD_FIELDS",
    "NOWHERE",
    "PLANE_FIELDS",
    "load_plane",
    "report",
    "store_elements",
    "with_exceptions",
]

BLOCK: Final = 1024
"""Elements that are handled together; as many as a block of the codec bitpack."""

NOWHERE: Final = 0xFFFFFFFF
"""As the number of a row: its elements are stored nowhere."""

PLANE_FIELDS: Final = ("address", "width", "n_symbols")
"""What the kernels are told of a plane: where it is, 8 or the width of packed symbols, and how many symbols
there are from its start to the end of its stream. A plane of bytes is aligned to 16 and can be read up to a
multiple of `BLOCK`."""

HEAD_FIELDS: Final = (
    "out",
    "n_elements",
    "error",
    "rows",
    "row_elements",
    "skipped",
    "exception_index",
    "exception_value",
)
"""What every item begins with, an int64 each.

``out`` is the address of the range, aligned to 16, or with ``rows`` of the whole tensor; ``error`` that of an
int32 to set bits in; ``rows``, uint32 each, where the rows of the range go; ``skipped``, how many elements of
the first of these rows stand before the range. ``exception_index``, int32, counts from the range's start;
``exception_value`` is an int32. All but addresses fit 31 bits.

A program is told the number of its item, its first block within it, and the first and last + 1 of the item's
exceptions that are in its blocks.
"""

_OUT = tl.constexpr(0)
_ERROR = tl.constexpr(2)
_ROWS = tl.constexpr(3)
_ROW_ELEMENTS = tl.constexpr(4)
_SKIPPED = tl.constexpr(5)
_EXCEPTION_INDEX = tl.constexpr(6)
_EXCEPTION_VALUE = tl.constexpr(7)

_BLOCK = tl.constexpr(BLOCK)
_NOWHERE = tl.constexpr(NOWHERE)


@triton.jit
def report(item, flags):
    """Set the highest flag of all elements."""
    flag = tl.max(flags, axis=0)
    tl.atomic_or(tl.load(item + _ERROR).to(tl.pointer_type(tl.int32)), flag, mask=flag != 0)


@triton.jit
def with_exceptions(item, program, i, values):
    """Values, int32, of elements ``i``, with those that are given apart."""
    at = tl.load(program + 2)
    last = tl.load(program + 3)
    while at < last:
        index = tl.load(tl.load(item + _EXCEPTION_INDEX).to(tl.pointer_type(tl.int32)) + at)
        given = tl.load(tl.load(item + _EXCEPTION_VALUE).to(tl.pointer_type(tl.int32)) + at)
        values = tl.where(i == index, given, values)
        at += 1
    return values


@triton.jit
def load_plane(plane, block, IS_PACKED: tl.constexpr):
    """The symbols of a plane in one block, as int32; undefined behind the last element."""
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
def store_elements(item, elements, block, n, BY_ROWS: tl.constexpr, NBITS: tl.constexpr):
    """Store the elements of a block, of 8 to 64 bits, in place, or by rows."""
    if NBITS == 8:
        _store_words(item, elements.to(tl.uint8), block, n, BY_ROWS, tl.uint8)
    elif NBITS == 16:
        _store_words(item, elements.to(tl.uint16), block, n, BY_ROWS, tl.uint16)
    elif NBITS == 32:
        _store_words(item, elements.to(tl.uint32), block, n, BY_ROWS, tl.uint32)
    else:
        _store_words(item, elements.to(tl.uint64), block, n, BY_ROWS, tl.uint64)


@triton.jit
def _store_words(item, elements, block, n, BY_ROWS: tl.constexpr, WORD: tl.constexpr):
    i = block * _BLOCK + tl.arange(0, _BLOCK)
    out = tl.load(item + _OUT).to(tl.pointer_type(WORD))
    if BY_ROWS:
        row_elements = tl.load(item + _ROW_ELEMENTS).to(tl.int32)
        at = i + tl.load(item + _SKIPPED).to(tl.int32)
        number = at // row_elements
        rows = tl.load(item + _ROWS).to(tl.pointer_type(tl.uint32))
        row = tl.load(rows + number, mask=i < n, other=_NOWHERE)
        column = at - number * row_elements
        tl.store(out + row.to(tl.int64) * row_elements + column, elements, mask=row != _NOWHERE)
    else:
        out = tl.multiple_of(out, 16)
        if (block + 1) * _BLOCK <= n:  # without a mask, so that many bytes go out at a time
            tl.store(out + i, elements)
        else:
            tl.store(out + i, elements, mask=i < n)
