"""Codec rans on a device: a warp decodes a chunk, a lane each of its 32 states (spec/codecs/rans.md).

Two launches serve all streams of a batch. `build_slots` expands the frequencies of each stream, and
`decode_chunks` decodes: in each step every state gives a symbol, and those that fell below their bound take
the chunk's next words, in the order of the lanes.

Whatever the bits are: a chunk takes as many steps as its symbols do, words are loaded from within the chunk
only, and symbols are stored only where the chunk's belong.
"""

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl

from cmpk.kernels.triton.errors import RANS_ENDS_WRONG, RANS_STATE_TOO_LOW

__all__ = ["RANS_FIELDS", "SLOTS_NBYTES", "build_slots", "decode_chunks"]

RANS_FIELDS: Final = (
    "starts",
    "slots",
    "octets",
    "chunks",
    "n_chunks",
    "chunk_log2",
    "n_symbols",
    "out",
    "error",
)
"""What the kernels are told of a stream, an int64 each.

Addresses: ``starts``, 256 uint16, the sum of the frequencies of all symbols below each; ``slots``,
`SLOTS_NBYTES`, written by `build_slots`; ``octets``, the chunks' bytes, aligned to 2; ``chunks``, pairs of
int64, the even byte of ``octets`` at which each chunk begins and how many it takes, 128 at least; ``out``,
where the symbols of the first of these chunks go, and those of the next after them; ``error``, an int32 to
set bits in. Numbers: ``n_symbols``, from the first of these chunks to the end of the stream.
"""

SLOTS_NBYTES: Final = 4096 * 4

_N_FIELDS = tl.constexpr(len(RANS_FIELDS))
_SLOTS = tl.constexpr(4096)
_BOUND = tl.constexpr(1 << 16)
_TOO_LOW = tl.constexpr(RANS_STATE_TOO_LOW)
_ENDS_WRONG = tl.constexpr(RANS_ENDS_WRONG)


@triton.jit
def build_slots(sources):
    """Expand the frequencies of one stream; a program each.

    The entry of a slot holds its symbol, from bit 8 on the symbol's frequency, and from bit 20 on how many
    slots of the symbol stand before this one.
    """
    # An address below 2**31, as a heap on the host may have, is passed as an int32.
    source = sources.to(tl.int64).to(tl.pointer_type(tl.int64)) + tl.program_id(0) * _N_FIELDS
    starts = tl.load(source).to(tl.pointer_type(tl.uint16))
    slots = tl.load(source + 1).to(tl.pointer_type(tl.int32))
    slot = tl.arange(0, _SLOTS)
    # The last symbol that starts at or below the slot: those without a slot start where the next one does.
    symbol = tl.zeros([_SLOTS], tl.int32)
    for bit in tl.static_range(8):
        probe = symbol + (128 >> bit)
        symbol = tl.where(tl.load(starts + probe).to(tl.int32) <= slot, probe, symbol)
    start = tl.load(starts + symbol).to(tl.int32)
    end = tl.load(starts + symbol + 1, mask=symbol < 255, other=0).to(tl.int32)
    end = tl.where(symbol < 255, end, _SLOTS)
    tl.store(slots + slot, symbol | (end - start) << 8 | (slot - start) << 20)


@triton.jit
def decode_chunks(sources, programs, CHUNKS: tl.constexpr):
    """Decode ``CHUNKS`` chunks of one stream; ``programs`` tells which: pairs of int32.

    A program's pair is the number of its stream and its first chunk.
    """
    program = programs.to(tl.int64).to(tl.pointer_type(tl.int32)) + tl.program_id(0) * 2
    source = sources.to(tl.int64).to(tl.pointer_type(tl.int64)) + tl.load(program) * _N_FIELDS
    chunk = tl.load(program + 1) + tl.arange(0, CHUNKS)[:, None]
    lane = tl.arange(0, 32)[None, :]
    is_active = chunk < tl.load(source + 4).to(tl.int32)
    chunk_log2 = tl.load(source + 5).to(tl.int32)
    skipped = chunk.to(tl.int64) << chunk_log2
    n_symbols = tl.minimum(tl.load(source + 6) - skipped, 1 << chunk_log2).to(tl.int32)
    n_symbols = tl.where(is_active, n_symbols, 0)
    chunks = tl.load(source + 3).to(tl.pointer_type(tl.int64))
    begin = tl.load(chunks + 2 * chunk, mask=is_active, other=0)
    n_words = (tl.load(chunks + 2 * chunk + 1, mask=is_active, other=128) // 2).to(tl.int32)
    words = tl.load(source + 2).to(tl.pointer_type(tl.uint16)) + begin // 2
    slots = tl.load(source + 1).to(tl.pointer_type(tl.uint32))
    out = tl.load(source + 7).to(tl.pointer_type(tl.uint8)) + skipped
    low = tl.load(words + 2 * lane, mask=is_active, other=0).to(tl.uint32)
    state = low | tl.load(words + 2 * lane + 1, mask=is_active, other=1).to(tl.uint32) << 16
    is_too_low = state < _BOUND
    used = tl.full([CHUNKS, 1], 64, tl.int32)
    first = 0
    last = tl.max(tl.max(n_symbols, axis=1), axis=0)
    while first < last:
        is_inside = first + lane < n_symbols
        slot = tl.load(slots + (state & 4095).to(tl.int32), mask=is_inside, other=0)
        tl.store(out + first + lane, (slot & 255).to(tl.uint8), mask=is_inside)
        x = (slot >> 8 & 4095) * (state >> 12) + (slot >> 20)
        needs = is_inside & (x < _BOUND)
        at = used + tl.cumsum(needs.to(tl.int32), axis=1) - 1
        word = tl.load(words + at, mask=needs & (at < n_words), other=0).to(tl.uint32)
        state = tl.where(is_inside, tl.where(needs, x << 16 | word, x), state)
        used += tl.sum(needs.to(tl.int32), axis=1)[:, None]
        first += 32
    is_wrong = is_active & ((state != _BOUND) | (used != n_words))
    flags = tl.where(is_active & is_too_low, _TOO_LOW, tl.where(is_wrong, _ENDS_WRONG, 0))
    flag = tl.max(tl.max(flags, axis=1), axis=0)
    tl.atomic_or(tl.load(source + 8).to(tl.pointer_type(tl.int32)), flag, mask=flag != 0)
