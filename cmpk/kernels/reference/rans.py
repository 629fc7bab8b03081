"""Codec rans: asymmetric numeral systems over bytes (spec/codecs/rans.md)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, Buffer
from cmpk.kernels.reference.buffers import bytes_of, check_range, writable_bytes_of

__all__ = ["RansStream", "parse_stream", "rans_decode", "rans_encode"]

FREQUENCY_NBITS = 12
N_STATES = 32
LOWER_BOUND = 1 << 16
MIN_CHUNK_LOG2 = 12
MAX_CHUNK_LOG2 = 20

_SLOTS = 1 << FREQUENCY_NBITS
_HEAD_NBYTES = 4 * N_STATES


class RansStream(NamedTuple):
    """A stream whose head is known to be sound; the chunks are not looked at yet.

    Attributes
    ----------
    octets : uint8 array
        The whole stream; chunk ``i`` is ``octets[offsets[i] : offsets[i + 1]]``.
    n, chunk_log2 : int
    frequencies : uint32 array, shape (256,)
    offsets : int64 array, shape (c + 1,)
    """

    octets: U8
    n: int
    chunk_log2: int
    frequencies: NDArray[np.uint32]
    offsets: NDArray[np.int64]


def rans_encode(data: Buffer, frequencies: NDArray[np.uint16], chunk_log2: int, threads: int = 1) -> U8:
    """The whole stream. ``threads`` changes nothing here.

    Raises
    ------
    ValueError
        If there are no data, the frequencies do not add up to 4096 with at least two of them
        positive, or a byte of ``data`` has frequency 0.
    """
    octets = bytes_of(data)
    counts = np.asarray(frequencies, np.uint16)
    if octets.size == 0:
        raise ValueError("codec 'rans' takes at least one symbol")
    if not MIN_CHUNK_LOG2 <= chunk_log2 <= MAX_CHUNK_LOG2:
        raise ValueError(f"chunk_log2 is {chunk_log2}; it must be {MIN_CHUNK_LOG2} .. {MAX_CHUNK_LOG2}")
    if counts.shape != (256,) or int(counts.sum()) != _SLOTS or int(counts.max()) >= _SLOTS:
        raise ValueError(f"the frequencies do not add up to {_SLOTS} over two symbols or more")
    if not counts[octets].all():
        raise ValueError("a byte of the data has no frequency")
    chunks = [
        _encode_chunk(octets[start : start + (1 << chunk_log2)], counts.astype(np.uint64))
        for start in range(0, octets.size, 1 << chunk_log2)
    ]
    sizes = np.array([chunk.size for chunk in chunks], "<u4").view(np.uint8)
    return np.concatenate([_head(counts, chunk_log2), sizes, *chunks])


def rans_decode(stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
    """Decode symbols ``start .. start + len(out) - 1`` of ``n`` into ``out``.

    Whole chunks are decoded, so every rule is checked in each that the range touches.

    Raises
    ------
    CorruptStreamError
        If a rule of the codec is broken in what was read.
    """
    target = writable_bytes_of(out)
    check_range(n, start, target.size)
    parsed = parse_stream(bytes_of(stream), n)
    stop = start + target.size
    chunk_size = 1 << parsed.chunk_log2
    for chunk in range(start >> parsed.chunk_log2, -(-stop // chunk_size) if target.size else 0):
        first = chunk * chunk_size
        symbols = _decode_chunk(parsed, chunk)
        low, high = max(start, first), min(stop, first + symbols.size)
        target[low - start : high - start] = symbols[low - first : high - first]


def _head(frequencies: NDArray[np.uint16], chunk_log2: int) -> U8:
    present = np.flatnonzero(frequencies)
    first, last = int(present[0]), int(present[-1])
    wanted = frequencies[first : last + 1].tolist()
    sizes = np.zeros(len(wanted) + len(wanted) % 2, np.uint8)
    sizes[: len(wanted)] = [frequency.bit_length() for frequency in wanted]
    lower = [frequency >> bit & 1 for frequency in wanted for bit in range(frequency.bit_length() - 1)]
    return np.concatenate(
        [
            np.array([chunk_log2, first, last], np.uint8),
            sizes[0::2] | sizes[1::2] << np.uint8(4),
            np.packbits(np.array(lower, np.uint8), bitorder="little"),
        ]
    )


def parse_stream(octets: U8, n: int) -> RansStream:
    """Read and check all that stands before the chunks, and that they fill the rest.

    Raises
    ------
    CorruptStreamError
        If a rule of sections 1 and 2 is broken, or a chunk has an impossible size.
    """
    if n < 1 or octets.size < 4:
        raise _corrupt("the stream is empty")
    chunk_log2, first, last = octets[:3].tolist()
    if not MIN_CHUNK_LOG2 <= chunk_log2 <= MAX_CHUNK_LOG2 or first > last:
        raise _corrupt("the head is out of range")
    frequencies, at = _parse_frequencies(octets, first, last)
    n_chunks = -(-n >> chunk_log2)
    if octets.size - at < 4 * n_chunks:
        raise _corrupt("the stream ends within its table of chunks")
    sizes = octets[at : at + 4 * n_chunks].view("<u4") if n_chunks else np.empty(0, "<u4")
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]) + at + 4 * n_chunks
    if int(offsets[-1]) != octets.size:
        raise _corrupt("the chunks do not fill the stream")
    if (sizes < _HEAD_NBYTES).any() or (sizes % 2).any():
        raise _corrupt("a chunk has an impossible size")
    return RansStream(octets, n, chunk_log2, frequencies, offsets)


def _parse_frequencies(octets: U8, first: int, last: int) -> tuple[NDArray[np.uint32], int]:
    """The frequency of each symbol, shape (256,), and where the table ends."""
    k = last - first + 1
    packed = octets[3 : 3 + (k + 1) // 2]
    nibbles = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
    if nibbles.size < k or nibbles[k:].any():
        raise _corrupt("the table of frequencies is cut off or has bits after its end")
    sizes = nibbles[:k].tolist()
    if max(sizes) > FREQUENCY_NBITS or sizes[0] == 0 or sizes[-1] == 0:
        raise _corrupt("a frequency has an impossible size")
    at = 3 + (k + 1) // 2
    n_lower = sum(size - 1 for size in sizes if size)
    field = octets[at : at + (n_lower + 7) // 8]
    bits = np.unpackbits(field, bitorder="little")
    if bits.size < n_lower or bits[n_lower:].any():
        raise _corrupt("the table of frequencies is cut off or has bits after its end")
    frequencies = np.zeros(256, np.uint32)
    used = 0
    for symbol, size in enumerate(sizes, first):
        if size:
            lower = bits[used : used + size - 1]
            frequencies[symbol] = (1 << (size - 1)) + int(lower @ (1 << np.arange(size - 1)))
            used += size - 1
    if int(frequencies.sum()) != _SLOTS:
        raise _corrupt(f"the frequencies add up to {int(frequencies.sum())}, not to {_SLOTS}")
    return frequencies, at + field.size


def _encode_chunk(symbols: U8, frequencies: NDArray[np.uint64]) -> U8:
    starts = np.concatenate([[0], np.cumsum(frequencies)[:-1]]).astype(np.uint64)
    states = np.full(N_STATES, LOWER_BOUND, np.uint64)
    words = []
    for first in range((symbols.size - 1) // N_STATES * N_STATES, -1, -N_STATES):
        row = symbols[first : first + N_STATES]
        frequency, x = frequencies[row], states[: row.size]
        full = x >= frequency << np.uint64(20)
        # Put out from the last lane to the first, for the decoder takes them from the first on.
        words.append((x[full] & np.uint64(0xFFFF))[::-1])
        x = np.where(full, x >> np.uint64(16), x)
        quotient, remainder = np.divmod(x, frequency)
        states[: row.size] = (quotient << np.uint64(FREQUENCY_NBITS)) + remainder + starts[row]
    stored = np.concatenate(words)[::-1].astype("<u2")
    return np.concatenate([states.astype("<u4").view(np.uint8), stored.view(np.uint8)])


def _decode_chunk(parsed: RansStream, chunk: int) -> U8:
    n_symbols = min(parsed.n - (chunk << parsed.chunk_log2), 1 << parsed.chunk_log2)
    octets = parsed.octets[parsed.offsets[chunk] : parsed.offsets[chunk + 1]]
    states = octets[:_HEAD_NBYTES].view("<u4").astype(np.uint64)
    words = octets[_HEAD_NBYTES:].view("<u2").astype(np.uint64)
    if (states < LOWER_BOUND).any():
        raise _corrupt("a state starts below its bound")
    frequencies = parsed.frequencies.astype(np.uint64)
    starts = np.concatenate([[0], np.cumsum(frequencies)[:-1]]).astype(np.uint64)
    symbol_of = np.repeat(np.arange(256, dtype=np.uint8), parsed.frequencies)
    symbols = np.empty(n_symbols, np.uint8)
    used = 0
    for first in range(0, n_symbols, N_STATES):
        lanes = min(N_STATES, n_symbols - first)
        slot = states[:lanes] & np.uint64(_SLOTS - 1)
        symbol = symbol_of[slot]
        symbols[first : first + lanes] = symbol
        x = frequencies[symbol] * (states[:lanes] >> np.uint64(FREQUENCY_NBITS)) + slot - starts[symbol]
        low = np.flatnonzero(x < LOWER_BOUND)
        if used + low.size > words.size:
            raise _corrupt("a chunk has too few words")
        x[low] = x[low] << np.uint64(16) | words[used : used + low.size]
        used += low.size
        states[:lanes] = x
    if used != words.size or (states != LOWER_BOUND).any():
        raise _corrupt("a chunk does not end as it must; the stream is damaged")
    return symbols


def _corrupt(what: str) -> CorruptStreamError:
    return CorruptStreamError(f"codec 'rans': {what}")
