"""Codec huffman on a device: a lane decodes a sync interval (spec/codecs/huffman.md).

Two launches serve all streams of a batch. `build_tables` expands the code lengths of each stream into
look-up tables, `decode_intervals` decodes: each lane starts at its sync point, looks up three symbols
at a time, and must end where the next lane begins.

Whatever the bits are: every look-up consumes at least one bit and gives at least one symbol, so that
an interval takes at most 1024; words are loaded from within the staged bytes, whatever position the
bits lead to; and a lane stores only to the 1024 bytes that are its own.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from cmpk.kernels.triton.errors import RUN_MISSES_ITS_SYNC_POINT, SYNC_POINT_OUTSIDE_ITS_CHUNK

__all__ = [
    "INTERVAL",
    "SOURCE_FIELDS",
    "TABLES_NBYTES",
    "build_tables",
    "decode_intervals",
]

INTERVAL: Final = 1024
"""Symbols between sync points."""

SOURCE_FIELDS: Final = (
    "lengths",
    "tables",
    "words",
    "n_words",
    "chunks",
    "sync",
    "sync_width",
    "chunk_log2",
    "n_symbols",
    "n_lanes",
    "out",
    "error",
)
"""What the kernels are told of a stream, an int64 each.

Addresses: ``lengths``, of the 256 symbols' codes, a byte each, then the symbols that have one, ordered by
length and symbol, in 256 bytes; ``tables``, `TABLES_NBYTES`, written by `build_tables`; ``words``, the
chunks' bytes, aligned to 8, with a readable word behind the last; ``chunks``, pairs of int64, the bit of
``words`` at which each chunk begins and the bits it takes; ``sync``, the sync points of these chunks, each
in an int32; ``out``, ``n_lanes`` times 1024 bytes, aligned to 16; ``error``, an int32 to set bits in.

Numbers: ``n_words``, of 8 bytes each; ``sync_width``, the spec's w; ``chunk_log2``; ``n_symbols``, from the
first of these chunks to the end of the stream; ``n_lanes``, the intervals to decode.
"""

_N_SOURCE_FIELDS = tl.constexpr(len(SOURCE_FIELDS))
_LENGTHS = tl.constexpr(0)
_TABLES = tl.constexpr(1)
_WORDS = tl.constexpr(2)
_N_WORDS = tl.constexpr(3)
_CHUNKS = tl.constexpr(4)
_SYNC = tl.constexpr(5)
_SYNC_WIDTH = tl.constexpr(6)
_CHUNK_LOG2 = tl.constexpr(7)
_N_SYMBOLS = tl.constexpr(8)
_N_LANES = tl.constexpr(9)
_OUT = tl.constexpr(10)
_ERROR = tl.constexpr(11)

_WINDOWS = tl.constexpr(4096)
TABLES_NBYTES: Final = 4096 * 4 + 4096 * 2
"""Two tables: of up to three symbols for each 12 bits, then of one."""

_SINGLES_AT = tl.constexpr(4096 * 4)
_SYNC_SYMBOLS = tl.constexpr(INTERVAL)
_MISSES = tl.constexpr(RUN_MISSES_ITS_SYNC_POINT)
_OUTSIDE = tl.constexpr(SYNC_POINT_OUTSIDE_ITS_CHUNK)


@triton.jit
def build_tables(sources, WINDOW_NBITS: tl.constexpr):
    """Expand the code lengths of one stream; a program each.

    An entry of the first table, for ``WINDOW_NBITS`` bits, holds up to three symbols in its low bytes, the
    bits that they take from bit 24 and their number from bit 28; 0 where not even one code ends within
    these bits. One of the second, for 12 bits, holds a symbol, and its bits from bit 8.
    """
    # An address below 2**31, as a heap on the host may have, is passed as an int32.
    source = sources.to(tl.int64).to(tl.pointer_type(tl.int64)) + tl.program_id(0) * _N_SOURCE_FIELDS
    lengths = tl.load(source + _LENGTHS).to(tl.pointer_type(tl.uint8))
    tables = tl.load(source + _TABLES)
    triples = tables.to(tl.pointer_type(tl.int32))
    singles = (tables + _SINGLES_AT).to(tl.pointer_type(tl.int16))
    length = tl.load(lengths + tl.arange(0, 256)).to(tl.int32)
    window = tl.arange(0, _WINDOWS)
    code = _reversed(window)
    # Codes of one length follow each other, and the next length's follow them.
    begin = 0
    first_rank = 0
    rank = tl.zeros([_WINDOWS], tl.int32)
    nbits = tl.full([_WINDOWS], 1, tl.int32)  # also that of the bit which a stream of one symbol has not
    for n in tl.static_range(1, 13):
        count = tl.sum((length == n).to(tl.int32), axis=0)
        end = begin + (count << (12 - n))
        is_here = (code >= begin) & (code < end)
        rank = tl.where(is_here, first_rank + ((code - begin) >> (12 - n)), rank)
        nbits = tl.where(is_here, n, nbits)
        begin = end
        first_rank += count
    symbol = tl.load(lengths + 256 + rank).to(tl.int32)
    tl.store(singles + window, (symbol | nbits << 8).to(tl.int16))
    tl.debug_barrier()
    window = tl.arange(0, 1 << WINDOW_NBITS)
    one = tl.load(singles + window).to(tl.int32)
    nbits = one >> 8
    entry = one & 255
    two = tl.load(singles + (window >> nbits)).to(tl.int32)
    has_two = nbits + (two >> 8) <= WINDOW_NBITS
    more_nbits = nbits + tl.where(has_two, two >> 8, 0)
    entry |= tl.where(has_two, (two & 255) << 8, 0)
    three = tl.load(singles + (window >> more_nbits)).to(tl.int32)
    has_three = has_two & (more_nbits + (three >> 8) <= WINDOW_NBITS)
    more_nbits += tl.where(has_three, three >> 8, 0)
    entry |= tl.where(has_three, (three & 255) << 16, 0)
    count = 1 + has_two.to(tl.int32) + has_three.to(tl.int32)
    entry |= more_nbits << 24 | count << 28
    tl.store(triples + window, tl.where(nbits <= WINDOW_NBITS, entry, 0))


@triton.jit
def decode_intervals(sources, programs, LANES: tl.constexpr, WINDOW_NBITS: tl.constexpr):
    """Decode ``LANES`` sync intervals of one stream; ``programs`` tells which: pairs of int32.

    A program's pair is the number of its stream and its first interval.
    """
    program = programs.to(tl.int64).to(tl.pointer_type(tl.int32)) + tl.program_id(0) * 2
    source = sources.to(tl.int64).to(tl.pointer_type(tl.int64)) + tl.load(program) * _N_SOURCE_FIELDS
    lane = tl.load(program + 1) + tl.arange(0, LANES)
    is_active = lane < tl.load(source + _N_LANES).to(tl.int32)
    n_symbols = tl.load(source + _N_SYMBOLS)
    left = tl.minimum(n_symbols - lane.to(tl.int64) * _SYNC_SYMBOLS, _SYNC_SYMBOLS).to(tl.int32)
    left = tl.where(is_active, left, 0)
    bit, end, is_outside = _bounds(source, lane, is_active, n_symbols)

    words = tl.load(source + _WORDS).to(tl.pointer_type(tl.uint64))
    last_word = tl.load(source + _N_WORDS).to(tl.int32)
    tables = tl.load(source + _TABLES)
    triples = tables.to(tl.pointer_type(tl.uint32))
    singles = (tables + _SINGLES_AT).to(tl.pointer_type(tl.uint16))
    out = tl.load(source + _OUT).to(tl.pointer_type(tl.uint64)) + lane.to(tl.int64) * (_SYNC_SYMBOLS // 8)
    # The 128 bits from ``word`` on; ``bit`` is among the first 64.
    word = bit >> 6
    low = tl.load(words + tl.minimum(word, last_word))
    high = tl.load(words + tl.minimum(word + 1, last_word))
    # Symbols wait in ``queue`` until there are eight of them.
    queue = tl.zeros([LANES], tl.uint64)
    n_queued = tl.zeros([LANES], tl.int32)
    while tl.max(left, axis=0) > 2:
        shift = (bit & 63).to(tl.uint64)
        buffer = low >> shift | high << 1 << (63 - shift)
        for _ in tl.static_range(5):  # 5 * 12 of 64 bits
            is_going = left > 2
            index = (buffer & ((1 << WINDOW_NBITS) - 1)).to(tl.int32)
            entry = tl.load(triples + index, mask=is_going, other=0)
            if WINDOW_NBITS < 12:
                is_long = is_going & (entry == 0)
                single = tl.load(singles + (buffer & 4095).to(tl.int32), mask=is_long, other=0).to(tl.uint32)
                entry = tl.where(is_long, single & 255 | single >> 8 << 24 | 1 << 28, entry)
            nbits = (entry >> 24).to(tl.int32) & 15
            count = (entry >> 28).to(tl.int32)
            buffer = buffer >> nbits.to(tl.uint64)
            bit += nbits
            left -= count
            queue, n_queued, out = _append(queue, n_queued, out, entry & 0xFFFFFF, count)
        low, high, word = _advance(words, last_word, bit, low, high, word)
    shift = (bit & 63).to(tl.uint64)
    buffer = low >> shift | high << 1 << (63 - shift)
    for _ in tl.static_range(2):
        entry = tl.load(singles + (buffer & 4095).to(tl.int32), mask=left > 0, other=0)
        nbits = (entry >> 8).to(tl.int32)
        count = (left > 0).to(tl.int32)
        buffer = buffer >> nbits.to(tl.uint64)
        bit += nbits
        left -= count
        queue, n_queued, out = _append(queue, n_queued, out, (entry & 255).to(tl.uint32), count)
    tl.store(out, queue, mask=n_queued > 0)
    flags = tl.where(is_active & (bit != end), _MISSES, 0) | tl.where(is_outside, _OUTSIDE, 0)
    _report(tl.load(source + _ERROR), flags)


@triton.jit
def _report(address, flags):
    """Set the highest flag of all lanes."""
    flag = tl.max(flags, axis=0)
    tl.atomic_or(address.to(tl.pointer_type(tl.int32)), flag, mask=flag != 0)


@triton.jit
def _reversed(window):
    """The 12 bits of a window in reverse: codes stand in the stream first bit lowest."""
    window = (window & 0x555) << 1 | (window >> 1 & 0x555)
    window = (window & 0x333) << 2 | (window >> 2 & 0x333)
    return (window & 0x00F) << 8 | window & 0x0F0 | window >> 8


@triton.jit
def _advance(words, last_word, bit, low, high, word):
    """Move on to the word that ``bit`` is in: the same or the next."""
    is_next = bit >> 6 > word
    word += is_next.to(tl.int32)
    low = tl.where(is_next, high, low)
    high = tl.load(words + tl.minimum(word + 1, last_word), mask=is_next, other=0) | tl.where(
        is_next, 0, high
    )
    return low, high, word


@triton.jit
def _append(queue, n_queued, out, symbols, count):
    """Queue up to three symbols; eight go out when they are there."""
    symbols = symbols.to(tl.uint64)
    queue = queue | symbols << (n_queued * 8).to(tl.uint64)
    n_queued += count
    is_full = n_queued >= 8
    tl.store(out, queue, mask=is_full)
    n_queued = tl.where(is_full, n_queued - 8, n_queued)
    # What did not fit: the last n_queued of the count symbols.
    rest = symbols >> ((count - n_queued) * 8 & 63).to(tl.uint64)
    queue = tl.where(is_full, rest, queue)
    return queue, n_queued, tl.where(is_full, out + 1, out)


@triton.jit
def _bounds(source, lane, is_active, n_symbols):
    """The bits at which each lane begins and must end, and whether one lies outside its chunk."""
    chunk_log2 = tl.load(source + _CHUNK_LOG2).to(tl.int32)
    chunks = tl.load(source + _CHUNKS).to(tl.pointer_type(tl.int64))
    chunk = lane >> (chunk_log2 - 10)
    begin_of_chunk = tl.load(chunks + 2 * chunk, mask=is_active, other=0)
    total = tl.load(chunks + 2 * chunk + 1, mask=is_active, other=0)
    size = tl.minimum(n_symbols - (chunk.to(tl.int64) << chunk_log2), 1 << chunk_log2)
    size = tl.where(is_active, size, 1)
    j = lane - (chunk << (chunk_log2 - 10))
    begin = _sync_position(source, lane - chunk - 1, j, size, total, is_active)
    end = _sync_position(source, lane - chunk, j + 1, size, total, is_active)
    is_outside = is_active & ((begin < 0) | (begin > total) | (end < 0) | (end > total))
    begin = tl.minimum(tl.maximum(begin, 0), total)
    return (begin_of_chunk + begin).to(tl.int32), (begin_of_chunk + end).to(tl.int32), is_outside


@triton.jit
def _sync_position(source, number, j, size, total, is_active):
    """Bit of its chunk at which interval ``j`` begins; sync point ``number`` of all says so."""
    is_inner = is_active & (j > 0) & (j * _SYNC_SYMBOLS < size)
    sync = tl.load(source + _SYNC).to(tl.pointer_type(tl.int32))
    sync_width = tl.load(source + _SYNC_WIDTH).to(tl.int32)
    deviation = tl.load(sync + number, mask=is_inner & (sync_width > 0), other=0) - ((1 << sync_width) >> 1)
    # Below 2**20 * 2**24.
    line = (j * _SYNC_SYMBOLS).to(tl.int64) * total // size
    return tl.where(is_inner, line + deviation, tl.where(j == 0, 0, total))
