"""Streams of every codec, made slowly and by hand (spec/codecs)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import xxhash

__all__ = [
    "balanced",
    "bitpack",
    "checksum",
    "frame",
    "frame_of_runs",
    "huffman",
    "huffman_head",
    "noise",
    "rans",
    "rans_chunk",
    "rans_head",
    "raw_block",
    "repeating_block",
    "rle_block",
    "skewed",
    "zstd",
]


def noise(n: int, seed: int = 1) -> bytes:
    """Bytes without pattern: the upper bits of a linear congruential generator."""
    out = bytearray()
    for _ in range(n):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(seed >> 56)
    return bytes(out)


def skewed(n: int, lengths: dict[int, int], seed: int = 1) -> bytes:
    """Symbols that occur about as often as codes of these lengths suggest."""
    table = bytes(symbol for symbol, length in lengths.items() for _ in range(1 << 12 - length))
    low, high = noise(n, seed), noise(n, seed + 1)
    return bytes(table[(a | b << 8) % len(table)] for a, b in zip(low, high, strict=True))


# codecs/bitpack.md


def bitpack(data: bytes, width: int, fill: int = 0) -> bytes:
    """The stream of symbols below 2^width; the last block is extended with ``fill``."""
    out = bytearray([width])
    for start in range(0, len(data), 1024):
        block = data[start : start + 1024]
        block += bytes([fill]) * (-len(block) % 8)
        shift = width
        for f in (4, 2, 1):
            if width & f:
                shift -= f
                s = len(block) * f // 8
                plane = bytearray(s)
                for i, symbol in enumerate(block):
                    plane[i % s] |= (symbol >> shift & (1 << f) - 1) << f * (i // s)
                out += plane
    return bytes(out)


# codecs/huffman.md


def balanced(symbols: Iterable[int]) -> dict[int, int]:
    """Code lengths for symbols that are about equally frequent."""
    symbols = sorted(symbols)
    if len(symbols) == 1:
        return {symbols[0]: 1}
    length = (len(symbols) - 1).bit_length()
    n_shorter = (1 << length) - len(symbols)
    return {symbol: length - (i < n_shorter) for i, symbol in enumerate(symbols)}


def huffman(data: bytes, lengths: dict[int, int], chunk_log2: int = 18, width: int | None = None) -> bytes:
    """The stream.

    Parameters
    ----------
    data : bytes
    lengths : dict of int to int
        Code length of each symbol.
    chunk_log2 : int
    width : int, optional
        Bits of a sync point; by default as few as will do.
    """
    codes: dict[int, str] = {}
    code = 0
    previous = 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        code <<= length - previous
        codes[symbol] = f"{code:0{length}b}"
        code, previous = code + 1, length
    totals, deviations, chunks = [], [], []
    for start in range(0, len(data), 1 << chunk_log2):
        chunk = data[start : start + (1 << chunk_log2)]
        bits = "".join(codes[symbol] for symbol in chunk)
        totals.append(len(bits))
        chunks.append(pack_bits(bits))
        position = 0
        for i, symbol in enumerate(chunk):
            if i and i % 1024 == 0:
                deviations.append(position - i * len(bits) // len(chunk))
            position += len(codes[symbol])
    if width is None:
        width = next(w for w in range(26) if all(fits(d, w) for d in deviations))
    points = "".join(f"{d + (1 << width >> 1):0{width}b}"[::-1] for d in deviations) if width else ""
    return huffman_head(lengths, totals, chunk_log2, width) + pack_bits(points) + b"".join(chunks)


def huffman_head(lengths: dict[int, int], totals: list[int], chunk_log2: int, width: int) -> bytes:
    """All that stands before the sync points."""
    first, last = min(lengths), max(lengths)
    packed = pack_nibbles([lengths.get(symbol, 0) for symbol in range(first, last + 1)])
    return bytes([chunk_log2, width, first, last]) + packed + struct.pack(f"<{len(totals)}I", *totals)


def pack_nibbles(values: list[int]) -> bytes:
    """Four bits each, the lower half of a byte first."""
    values = values + [0] * (len(values) % 2)
    return bytes(low | high << 4 for low, high in zip(values[::2], values[1::2], strict=True))


def fits(deviation: int, width: int) -> bool:
    """Whether a sync point of this width can hold a deviation."""
    return -(1 << width >> 1) <= deviation < max(1, 1 << width >> 1)


def pack_bits(bits: str) -> bytes:
    """Bytes of bits, the first in the least significant place."""
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


# codecs/rans.md


def rans(data: bytes, frequencies: dict[int, int], chunk_log2: int = 18) -> bytes:
    """The stream of symbols with these frequencies, which add up to 4096."""
    size = 1 << chunk_log2
    chunks = [rans_chunk(data[at : at + size], frequencies) for at in range(0, len(data), size)]
    head = rans_head(frequencies, chunk_log2)
    return head + struct.pack(f"<{len(chunks)}I", *map(len, chunks)) + b"".join(chunks)


def rans_head(frequencies: dict[int, int], chunk_log2: int) -> bytes:
    """All that stands before the sizes of the chunks."""
    first, last = min(frequencies), max(frequencies)
    given = [frequencies.get(symbol, 0) for symbol in range(first, last + 1)]
    lower = "".join(f"{f:b}"[:0:-1] for f in given)
    return bytes([chunk_log2, first, last]) + pack_nibbles([f.bit_length() for f in given]) + pack_bits(lower)


def rans_chunk(data: bytes, frequencies: dict[int, int]) -> bytes:
    """States, then words."""
    below = {}
    total = 0
    for symbol in sorted(frequencies):
        below[symbol] = total
        total += frequencies[symbol]
    states = [65536] * 32
    words = []
    for i in reversed(range(len(data))):
        f = frequencies[data[i]]
        x = states[i % 32]
        if x >= f << 20:
            words.append(x % 65536)
            x //= 65536
        states[i % 32] = (x // f << 12) + x % f + below[data[i]]
    return struct.pack("<32I", *states) + struct.pack(f"<{len(words)}H", *reversed(words))


# codecs/zstd.md; the frames are those of RFC 8878


MAX_BLOCK = 1 << 17
"""Bytes that a block may decode to."""


def zstd(frames: list[bytes], chunk_log2: int = 22) -> bytes:
    """The stream of frames."""
    return bytes([chunk_log2]) + struct.pack(f"<{len(frames)}I", *map(len, frames)) + b"".join(frames)


def frame(nbytes: int, *blocks: tuple[int, int, bytes], head: bytes | None = None) -> bytes:
    """A frame that states ``nbytes``.

    Parameters
    ----------
    nbytes : int
    *blocks : tuple of int, int, bytes
        Type, size and content, as the functions below give them.
    head : bytes, optional
        Frame header descriptor and what belongs to it, instead of a single segment with the size in
        four bytes.
    """
    out = b"\x28\xb5\x2f\xfd" + (b"\xa0" + struct.pack("<I", nbytes) if head is None else head)
    for i, (kind, size, content) in enumerate(blocks):
        is_last = i + 1 == len(blocks)
        out += (is_last | kind << 1 | size << 3).to_bytes(3, "little") + content
    return out


def checksum(data: bytes) -> bytes:
    """What follows the blocks of a frame whose header announces it."""
    return struct.pack("<Q", xxhash.xxh64_intdigest(data))[:4]


def raw_block(data: bytes) -> tuple[int, int, bytes]:
    """A block of bytes as they are."""
    return 0, len(data), data


def rle_block(byte: int, n: int) -> tuple[int, int, bytes]:
    """A block of one byte, ``n`` times."""
    return 1, n, bytes([byte])


def repeating_block(literals: bytes, offset: int, length: int) -> tuple[int, int, bytes]:
    """A compressed block: literals (fewer than 16), then ``length`` bytes from ``offset`` bytes back.

    One sequence, all of whose code tables are of the kind that has a single code (RFC 8878, section
    3.1.1.3.2). The length is 131 .. 131072 less the literals.
    """
    literal_section = bytes([len(literals) << 3]) + literals
    # Offset codes count three repeated offsets first: code c stands for 2^c - 3 and c more bits. So do
    # those of the match length from 131 on, but for 36 that come first.
    offset_nbits = (offset + 3).bit_length() - 1
    match_nbits = (length - 3).bit_length() - 1
    fields = (offset + 3 - (1 << offset_nbits)) << match_nbits | length - 3 - (1 << match_nbits)
    marked = 1 << offset_nbits + match_nbits | fields
    bitstream = marked.to_bytes((marked.bit_length() + 7) // 8, "little")
    sequences = bytes([1, 0b01010100, len(literals), offset_nbits, match_nbits + 36]) + bitstream
    content = literal_section + sequences
    return 2, len(content), content


def frame_of_runs(*runs: tuple[bytes, int]) -> bytes:
    """A frame of patterns, each repeated a number of times."""
    blocks = []
    for pattern, count in runs:
        blocks.append(raw_block(pattern))
        left = len(pattern) * (count - 1)
        while left >= 131:
            length = min(left, MAX_BLOCK)
            blocks.append(repeating_block(b"", len(pattern), length))
            left -= length
        if left:
            blocks.append(raw_block((pattern * 132)[-left:]))
    return frame(sum(len(pattern) * count for pattern, count in runs), *blocks)
