"""Codec huffman: canonical prefix codes over bytes (spec/codecs/huffman.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, Buffer
from cmpk.kernels.reference.buffers import bytes_of, check_range, writable_bytes_of
from cmpk.kernels.reference.huffman_stream import (
    MAX_CHUNK_LOG2,
    MAX_CODE_LENGTH,
    MIN_CHUNK_LOG2,
    SYNC_SYMBOLS,
    HuffmanStream,
    canonical_codes,
    pack_bits,
    parse_stream,
    sync_line,
)

__all__ = ["huffman_check", "huffman_decode", "huffman_encode"]

_LANES = 1 << 16
"""Lanes decoded in step: 64 Mi symbols at a time bound the memory."""


def huffman_encode(data: Buffer, lengths: U8, chunk_log2: int, threads: int = 1) -> U8:
    """The whole stream. ``threads`` changes nothing here.

    Raises
    ------
    ValueError
        If there are no data, ``lengths`` are not those of a complete code of at most
        `MAX_CODE_LENGTH` bits, or a byte of ``data`` has no code.
    """
    octets = bytes_of(data)
    code_length = bytes_of(lengths)
    if octets.size == 0:
        raise ValueError("codec 'huffman' takes at least one symbol")
    if not MIN_CHUNK_LOG2 <= chunk_log2 <= MAX_CHUNK_LOG2:
        raise ValueError(f"chunk_log2 is {chunk_log2}; it must be {MIN_CHUNK_LOG2} .. {MAX_CHUNK_LOG2}")
    if code_length.size != 256:
        raise ValueError(f"lengths has {code_length.size} entries; it must have 256")
    try:
        codes = canonical_codes(code_length)
    except CorruptStreamError as error:
        raise ValueError(f"lengths are not those of a code: {error}") from error
    if not code_length[octets].all():
        raise ValueError("a byte of the data has no code")
    chunks, totals, deviations = [], [], []
    for start in range(0, octets.size, 1 << chunk_log2):
        chunk = octets[start : start + (1 << chunk_log2)]
        bits, positions = _encode_chunk(chunk, codes, code_length)
        chunks.append(bits)
        totals.append(int(positions[-1]))
        deviations.append(positions[SYNC_SYMBOLS:-1:SYNC_SYMBOLS] - sync_line(chunk.size, totals[-1]))
    symbols = np.flatnonzero(code_length)
    first, last = int(symbols[0]), int(symbols[-1])
    nibbles = np.zeros((last - first + 2) // 2 * 2, np.uint8)
    nibbles[: last - first + 1] = code_length[first : last + 1]
    deviation = np.concatenate(deviations)
    width = _sync_width(deviation)
    return np.concatenate(
        [
            np.array([chunk_log2, width, first, last], np.uint8),
            nibbles[0::2] | nibbles[1::2] << np.uint8(4),
            np.array(totals, "<u4").view(np.uint8),
            pack_bits(deviation + ((1 << width) >> 1), np.full(deviation.size, width)),
            *chunks,
        ]
    )


def huffman_decode(stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
    """Decode symbols ``start .. start + len(out) - 1`` of ``n`` into ``out``.

    Every sync interval that is touched is decoded to its end, all of them in step, and must end
    where the next one begins. ``threads`` changes nothing here.

    Raises
    ------
    CorruptStreamError
        If a rule of the codec is broken in what was read.
    """
    target = writable_bytes_of(out)
    check_range(n, start, target.size)
    parsed = parse_stream(bytes_of(stream), n)
    if target.size == 0:
        return
    stop = start + target.size
    parsed.check_chunks(start >> parsed.chunk_log2, ((stop - 1) >> parsed.chunk_log2) + 1)
    first_lane, stop_lane = start // SYNC_SYMBOLS, -(-stop // SYNC_SYMBOLS)
    for lane in range(first_lane, stop_lane, _LANES):
        symbols = _decode_lanes(parsed, lane, min(lane + _LANES, stop_lane))
        at = lane * SYNC_SYMBOLS - start  # where these symbols begin in the output
        end = min(at + symbols.size, target.size)
        target[max(at, 0) : end] = symbols[max(-at, 0) : end - at]


def huffman_check(stream: Buffer, n: int) -> None:
    """Check every rule of the codec, every sync point included.

    Raises
    ------
    CorruptStreamError
        If one is broken.
    """
    parsed = parse_stream(bytes_of(stream), n)
    parsed.check_chunks(0, len(parsed.totals))
    n_lanes = -(-n // SYNC_SYMBOLS)
    for lane in range(0, n_lanes, _LANES):
        _decode_lanes(parsed, lane, min(lane + _LANES, n_lanes))


def _encode_chunk(chunk: U8, codes: NDArray[np.uint16], lengths: U8) -> tuple[U8, NDArray[np.int64]]:
    """The bytes of one chunk, and the bit at which each symbol begins; the last entry is T."""
    nbits = lengths[chunk].astype(np.int64)
    positions = np.concatenate([[0], np.cumsum(nbits)])
    return pack_bits(codes[chunk].astype(np.int64), nbits), positions


def _sync_width(deviation: NDArray[np.int64]) -> int:
    """The smallest w with -2**(w-1) <= deviation < 2**(w-1) for all; 0 where all are 0."""
    if not deviation.any():
        return 0
    low, high = int(deviation.min()), int(deviation.max())
    return 1 + max((-1 - low).bit_length() if low < 0 else 0, high.bit_length() if high > 0 else 0)


def _decode_lanes(parsed: HuffmanStream, first: int, stop: int) -> U8:
    """Decode the sync intervals ``first .. stop - 1`` of the stream, all in step.

    Returns
    -------
    uint8 array
        Their symbols; only the last interval of the stream has fewer than `SYNC_SYMBOLS`.
    """
    position, end = parsed.lane_bits(first, stop)
    n_symbols = min(stop * SYNC_SYMBOLS, parsed.n) - first * SYNC_SYMBOLS
    n_steps = min(n_symbols, SYNC_SYMBOLS)
    n_last = n_symbols - (stop - first - 1) * SYNC_SYMBOLS
    symbols = np.zeros((stop - first, n_steps), np.uint8)
    window_symbol, window_length = parsed.window_tables()
    # Damaged lanes may start anywhere in their chunk and run on from there: 12 bits a symbol at most.
    base = int(position.min()) >> 3
    stop_byte = (int(position.max()) + MAX_CODE_LENGTH * SYNC_SYMBOLS >> 3) + 1
    padded = np.concatenate([parsed.octets[base:stop_byte], np.zeros(3, np.uint8)]).astype(np.uint32)
    position -= base * 8
    end -= base * 8
    for step in range(n_steps):
        lanes = stop - first if step < n_last else stop - first - 1
        at = position[:lanes]
        # A lane that runs past the stream reads the padding and fails the check below.
        byte = np.minimum(at >> 3, padded.size - 3)
        word = padded[byte] | padded[byte + 1] << np.uint32(8) | padded[byte + 2] << np.uint32(16)
        window = (word >> (at & 7).astype(np.uint32)) & ((1 << MAX_CODE_LENGTH) - 1)
        symbols[:lanes, step] = window_symbol[window]
        at += window_length[window]
    if not np.array_equal(position, end):
        lane = int(np.flatnonzero(position != end)[0])
        raise CorruptStreamError(
            f"codec 'huffman': the run before symbol {min((first + lane + 1) * SYNC_SYMBOLS, parsed.n)} "
            f"ends {int(position[lane] - end[lane]):+d} bits from its sync point; the stream is damaged"
        )
    return symbols.reshape(-1)[:n_symbols]
