"""Codec huffman: the head of a stream, its codes and its bit numbering (spec/codecs/huffman.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8

__all__ = [
    "MAX_CHUNK_LOG2",
    "MAX_CODE_LENGTH",
    "MAX_SYNC_WIDTH",
    "MIN_CHUNK_LOG2",
    "SYNC_SYMBOLS",
    "HuffmanStream",
    "canonical_codes",
    "check_lengths",
    "pack_bits",
    "parse_stream",
    "sync_line",
]

MAX_CODE_LENGTH = 12
SYNC_SYMBOLS = 1024
MIN_CHUNK_LOG2 = 12
MAX_CHUNK_LOG2 = 20
MAX_SYNC_WIDTH = 25


@dataclass(frozen=True)
class HuffmanStream:
    """A stream whose head is known to be sound; the chunks are not looked at yet.

    Attributes
    ----------
    octets : uint8 array
        The whole stream.
    n, chunk_log2, sync_width : int
    lengths : uint8 array, shape (256,)
    totals : int64 array, shape (c,)
        T of each chunk.
    offsets : int64 array, shape (c + 1,)
        Byte of the stream at which each chunk begins; the last entry is the stream's size.
    sync_points : uint8 array
    """

    octets: U8
    n: int
    chunk_log2: int
    sync_width: int
    lengths: U8
    totals: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sync_points: U8

    def chunk_symbols(self, chunk: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of symbols of each chunk."""
        symbols: NDArray[np.int64] = np.minimum(1 << self.chunk_log2, self.n - (chunk << self.chunk_log2))
        return symbols

    def check_chunks(self, first: int, stop: int) -> None:
        """Check what needs no decoding: zero bits after T, and all bits of a one-symbol stream."""
        last_bytes = self.octets[self.offsets[first + 1 : stop + 1] - 1]
        if (last_bytes >> ((self.totals[first:stop] - 1) % 8 + 1)).any():
            raise CorruptStreamError("codec 'huffman': the unused bits of a chunk's last byte are not zero")
        coded = self.octets[self.offsets[first] : self.offsets[stop]]
        if np.count_nonzero(self.lengths) == 1 and coded.any():
            raise CorruptStreamError("codec 'huffman': a stream of one symbol has bits that are not zero")

    def sync_deviations(self, first: int, stop: int) -> NDArray[np.int64]:
        """The number d of each sync point of the chunks ``first .. stop - 1``; none where w is 0."""
        begin, end = first << self.chunk_log2, min(stop << self.chunk_log2, self.n)
        n_points = -(-(end - begin) // SYNC_SYMBOLS) - (stop - first)
        at = first * ((1 << (self.chunk_log2 - 10)) - 1) * self.sync_width
        bits = at % 8 + np.arange(n_points if self.sync_width else 0, dtype=np.int64) * self.sync_width
        octets = self.sync_points[at // 8 : (at + n_points * self.sync_width + 7) // 8]
        return _read_bits(octets, bits, self.sync_width)

    def lane_bits(self, first: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the sync intervals ``first .. stop - 1`` begin and end, in bits of the stream."""
        lane = np.arange(first, stop + 1, dtype=np.int64)
        chunk = np.minimum((lane * SYNC_SYMBOLS) >> self.chunk_log2, len(self.totals) - 1)
        j = lane - (chunk << (self.chunk_log2 - 10))
        total = self.totals[chunk]
        position = j * SYNC_SYMBOLS * total // self.chunk_symbols(chunk)
        if self.sync_width:
            # Chunks before this one have 2**(chunk_log2 - 10) - 1 points each.
            g = lane - chunk - 1
            inner = (j > 0) & (lane * SYNC_SYMBOLS < self.n)
            deviation = _read_bits(self.sync_points, np.where(inner, g, 0) * self.sync_width, self.sync_width)
            position = np.where(inner, position + deviation - (1 << (self.sync_width - 1)), position)
        position = np.where(lane * SYNC_SYMBOLS >= self.n, total, position)
        if ((position < 0) | (position > total)).any():
            raise CorruptStreamError("codec 'huffman': a sync point lies outside its chunk")
        absolute = position + self.offsets[chunk] * 8
        # A lane that ends its chunk ends at T, not where the next chunk begins.
        ends_chunk = j[1:] == 0
        end = np.where(ends_chunk, (self.offsets[chunk] * 8 + total)[:-1], absolute[1:])
        return absolute[:-1].copy(), end

    def window_tables(self) -> tuple[U8, U8]:
        """Symbol and length of the code that each value of the next 12 bits begins with."""
        codes = canonical_codes(self.lengths)
        symbol = np.zeros(1 << MAX_CODE_LENGTH, np.uint8)
        length = np.ones(1 << MAX_CODE_LENGTH, np.uint8)
        for s in np.flatnonzero(self.lengths):
            symbol[int(codes[s]) :: 1 << int(self.lengths[s])] = s
            length[int(codes[s]) :: 1 << int(self.lengths[s])] = self.lengths[s]
        return symbol, length


def parse_stream(octets: U8, n: int) -> HuffmanStream:
    """Read and check all that stands before the chunks, and that they fill the rest.

    Raises
    ------
    CorruptStreamError
        If a rule of sections 1 to 3 is broken, as far as the chunks are not needed to tell.
    """
    if n < 1 or octets.size < 4:
        raise CorruptStreamError(f"codec 'huffman': {octets.size} bytes can't be a stream of {n} symbols")
    chunk_log2, width, first, last = (int(v) for v in octets[:4])
    if not MIN_CHUNK_LOG2 <= chunk_log2 <= MAX_CHUNK_LOG2 or width > MAX_SYNC_WIDTH or first > last:
        raise CorruptStreamError(
            f"codec 'huffman': chunk_log2 {chunk_log2}, sync_width {width}, first {first}, last {last} "
            f"are not {MIN_CHUNK_LOG2} .. {MAX_CHUNK_LOG2}, 0 .. {MAX_SYNC_WIDTH}, first <= last"
        )
    n_chunks = ((n - 1) >> chunk_log2) + 1
    n_points = -(-n // SYNC_SYMBOLS) - n_chunks
    totals_at = 4 + (last - first + 2) // 2
    points_at = totals_at + 4 * n_chunks
    chunks_at = points_at + (width * n_points + 7) // 8
    if chunks_at > octets.size:
        raise CorruptStreamError(
            f"codec 'huffman': the head of {n} symbols takes {chunks_at} bytes, the stream has {octets.size}"
        )
    lengths = _read_lengths(octets[4:totals_at], first, last)
    totals = octets[totals_at:points_at].copy().view("<u4").astype(np.int64)
    symbols = np.full(n_chunks, 1 << chunk_log2, np.int64)
    symbols[-1] = n - ((n_chunks - 1) << chunk_log2)
    longest = 1 if first == last else MAX_CODE_LENGTH
    if (totals < symbols).any() or (totals > symbols * longest).any():
        raise CorruptStreamError("codec 'huffman': a chunk takes fewer or more bits than its symbols can")
    sync_points = octets[points_at:chunks_at]
    if width * n_points % 8 and sync_points[-1] >> (width * n_points % 8):
        raise CorruptStreamError("codec 'huffman': the unused bits after the sync points are not zero")
    offsets = np.full(n_chunks + 1, chunks_at, np.int64)
    offsets[1:] += np.cumsum((totals + 7) // 8)
    if offsets[-1] != octets.size:
        raise CorruptStreamError(
            f"codec 'huffman': the chunks end at byte {offsets[-1]}, the stream has {octets.size}"
        )
    return HuffmanStream(octets, n, chunk_log2, width, lengths, totals, offsets, sync_points)


def canonical_codes(lengths: U8) -> NDArray[np.uint16]:
    """Assign each symbol its canonical prefix code.

    Parameters
    ----------
    lengths : uint8 array, shape (256,)
        Code length of each symbol in bits; 0 marks a symbol that does not occur.

    Returns
    -------
    uint16 array, shape (256,)
        The code of each symbol with its first bit in bit 0, as it stands in the stream.

    Raises
    ------
    CorruptStreamError
        If a length exceeds `MAX_CODE_LENGTH` or the lengths break Kraft's equality.

    References
    ----------
    Schwartz and Kallick, "Generating a canonical prefix encoding", 1964.
    """
    check_lengths(lengths)
    order = np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]
    widths = 1 << (MAX_CODE_LENGTH - lengths[order].astype(np.int64))
    left_aligned = (np.cumsum(widths) - widths).astype(">u2") << (16 - MAX_CODE_LENGTH)
    bits = np.unpackbits(left_aligned.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)
    codes = np.zeros(256, np.uint16)
    codes[order] = np.packbits(bits, axis=1, bitorder="little").view("<u2")[:, 0]
    return codes


def check_lengths(lengths: U8) -> None:
    """Check that code lengths, shape (256,), are those of a complete code.

    Raises
    ------
    CorruptStreamError
        If a length exceeds `MAX_CODE_LENGTH` or the lengths break Kraft's equality.
    """
    counts = np.bincount(lengths, minlength=256).tolist()
    if any(counts[MAX_CODE_LENGTH + 1 :]):
        raise CorruptStreamError(f"codec 'huffman': a code length exceeds {MAX_CODE_LENGTH}")
    n_used = sum(counts[1 : MAX_CODE_LENGTH + 1])
    space = sum(
        count << (MAX_CODE_LENGTH - n) for n, count in enumerate(counts[1 : MAX_CODE_LENGTH + 1], start=1)
    )
    full = 1 << (MAX_CODE_LENGTH - 1 if n_used == 1 else MAX_CODE_LENGTH)
    if space != full:
        raise CorruptStreamError(
            f"codec 'huffman': lengths fill {space} of {full} codes; the length table is damaged"
        )


def sync_line(n_symbols: int, total: int) -> NDArray[np.int64]:
    """The line that the sync points of a chunk deviate from."""
    j = np.arange(1, -(-n_symbols // SYNC_SYMBOLS), dtype=np.int64)
    line: NDArray[np.int64] = j * SYNC_SYMBOLS * total // n_symbols
    return line


def pack_bits(values: NDArray[np.int64], nbits: NDArray[np.int64]) -> U8:
    """Write the low ``nbits[i]`` bits of each value, one after another, lowest bit first."""
    ends = np.cumsum(nbits)
    value = np.repeat(values, nbits)
    bit = np.arange(value.size) - np.repeat(ends - nbits, nbits)
    return np.packbits((value >> bit & 1).astype(np.uint8), bitorder="little")


def _read_bits(octets: U8, bit: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """The numbers of ``width`` bits each, at most 25, that begin at certain bits."""
    padded = np.concatenate([octets, np.zeros(4, np.uint8)]).astype(np.int64)
    byte = bit >> 3
    word = padded[byte] | padded[byte + 1] << 8 | padded[byte + 2] << 16 | padded[byte + 3] << 24
    numbers: NDArray[np.int64] = (word >> (bit & 7)) & ((1 << width) - 1)
    return numbers


def _read_lengths(nibbles: U8, first: int, last: int) -> U8:
    """The code lengths of section 2, checked."""
    both = np.empty(2 * nibbles.size, np.uint8)
    both[0::2], both[1::2] = nibbles & 15, nibbles >> 4
    k = last - first + 1
    if both[k:].any():
        raise CorruptStreamError("codec 'huffman': the unused half of the last byte of lengths is not zero")
    lengths = np.zeros(256, np.uint8)
    lengths[first : last + 1] = both[:k]
    if not lengths[first] or not lengths[last]:
        raise CorruptStreamError(f"codec 'huffman': symbol first {first} or last {last} has no code")
    check_lengths(lengths)
    return lengths
