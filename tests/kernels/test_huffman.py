"""Codec huffman, as spec/codecs/huffman.md says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, KernelBackend
from tests.kernels.samples import CHUNK_LOG2, byte_arrays, ranges_of

# Section 5 of the page.
EXAMPLE_SYMBOLS = bytes.fromhex("61 61 61 61 62 62 63")
EXAMPLE_STREAM = bytes.fromhex("12 00 61 63 21 02 0a 00 00 00 50 03")


def encode(backend: KernelBackend, data: U8, chunk_log2: int = CHUNK_LOG2, max_length: int = 12) -> U8:
    lengths = backend.code_lengths(backend.byte_histogram(data), max_length)
    return backend.huffman_encode(data, lengths, chunk_log2)


def decode(backend: KernelBackend, stream: object, n: int, start: int = 0, stop: int | None = None) -> U8:
    out = np.full((n if stop is None else stop) - start, 0xEE, np.uint8)
    backend.huffman_decode(stream, n, start, out)  # type: ignore[arg-type]
    return out


def two_chunks() -> U8:
    rng = np.random.default_rng(3)
    return np.minimum(rng.geometric(0.3, 6000), 30).astype(np.uint8)


def test_the_example_of_the_page_is_what_is_written_and_read(backend: KernelBackend) -> None:
    data = np.frombuffer(EXAMPLE_SYMBOLS, np.uint8)
    assert encode(backend, data, chunk_log2=18).tobytes() == EXAMPLE_STREAM
    assert decode(backend, EXAMPLE_STREAM, 7).tobytes() == EXAMPLE_SYMBOLS
    backend.huffman_check(EXAMPLE_STREAM, 7)


@given(data=byte_arrays(), max_length=st.sampled_from([8, 12]), sample=st.data())
def test_any_range_decodes_to_the_bytes_that_were_given(
    backend: KernelBackend, data: U8, max_length: int, sample: st.DataObject
) -> None:
    stream = encode(backend, data, max_length=max_length)
    backend.huffman_check(stream, data.size)
    assert decode(backend, stream, data.size).tobytes() == data.tobytes()
    start, stop = sample.draw(ranges_of(data.size))
    assert decode(backend, stream, data.size, start, stop).tobytes() == data[start:stop].tobytes()


@pytest.mark.parametrize("n", [2**17, 2**17 + 1, 2**18 - 1, 2**18, 300_001])
def test_chunks_of_the_usual_size_decode_to_the_bytes_that_were_given(backend: KernelBackend, n: int) -> None:
    data = np.random.default_rng(n).binomial(40, 0.5, n).astype(np.uint8)
    stream = encode(backend, data, chunk_log2=18)
    backend.huffman_check(stream, n)
    assert decode(backend, stream, n).tobytes() == data.tobytes()
    assert decode(backend, stream, n, 1500, n - 3).tobytes() == data[1500:-3].tobytes()


@pytest.mark.parametrize("spread", [0.7, 5, 25, 35, 60])
def test_codes_of_any_length_decode_to_the_bytes_that_were_given(
    backend: KernelBackend, spread: float
) -> None:
    # The longer codes are, the fewer a look-up finds; two of 12 bits each never.
    data = np.random.default_rng(5).normal(128, spread, 20_000).clip(0, 255).astype(np.uint8)
    stream = encode(backend, data)
    backend.huffman_check(stream, data.size)
    assert decode(backend, stream, data.size).tobytes() == data.tobytes()
    for start, stop in [(0, 1), (0, 1024), (5, 1029), (1023, 19_999), (17_000, 20_000)]:
        assert decode(backend, stream, data.size, start, stop).tobytes() == data[start:stop].tobytes()


@given(data=byte_arrays())
def test_the_number_of_threads_changes_no_byte(backend: KernelBackend, data: U8) -> None:
    lengths = backend.code_lengths(backend.byte_histogram(data), 12)
    stream = backend.huffman_encode(data, lengths, CHUNK_LOG2, threads=1)
    assert backend.huffman_encode(data, lengths, CHUNK_LOG2, threads=3).tobytes() == stream.tobytes()
    out = np.zeros(data.size, np.uint8)
    backend.huffman_decode(stream, data.size, 0, out, threads=3)
    assert out.tobytes() == data.tobytes()


def test_nothing_is_written_beside_the_output(backend: KernelBackend) -> None:
    data = two_chunks()
    stream = encode(backend, data)
    for start, stop in [(0, 6000), (1, 5999), (1000, 1030), (4095, 4097), (17, 17)]:
        surroundings = np.full(stop - start + 64, 0xEE, np.uint8)
        backend.huffman_decode(stream, data.size, start, surroundings[32 : 32 + stop - start])
        assert surroundings[:32].tobytes() == surroundings[32 + stop - start :].tobytes() == b"\xee" * 32


def test_a_range_decodes_though_a_chunk_elsewhere_is_damaged(backend: KernelBackend) -> None:
    data = two_chunks()
    stream = encode(backend, data)
    stream[-40:-20] ^= 0xFF
    assert decode(backend, stream, data.size, 0, 4096).tobytes() == data[:4096].tobytes()
    with pytest.raises(CorruptStreamError):
        backend.huffman_check(stream, data.size)


@given(data=byte_arrays())
def test_the_sync_points_are_as_narrow_as_they_can_be(backend: KernelBackend, data: U8) -> None:
    lengths = backend.code_lengths(backend.byte_histogram(data), 12).astype(np.int64)
    deviations = [0]
    for start in range(0, data.size, 1 << CHUNK_LOG2):
        chunk = data[start : start + (1 << CHUNK_LOG2)]
        ends = np.cumsum(lengths[chunk])
        points = range(1024, chunk.size, 1024)
        deviations += [int(ends[j - 1]) - j * int(ends[-1]) // chunk.size for j in points]
    width = 0
    while not -(2**width) <= 2 * min(deviations) <= 2 * max(deviations) < 2**width:
        width += 1
    assert encode(backend, data)[1] == width


def test_a_sync_point_that_lies_is_found_by_checking(backend: KernelBackend) -> None:
    data = two_chunks()
    stream = encode(backend, data)
    lengths_nbytes = (int(stream[3]) - int(stream[2]) + 2) // 2
    points_at = 4 + lengths_nbytes + 4 * 2
    stream[points_at] ^= 1
    with pytest.raises(CorruptStreamError):
        backend.huffman_check(stream, data.size)


@pytest.mark.parametrize(
    ("rule", "at", "value"),
    [
        ("chunk_log2 below its range", 0, 11),
        ("chunk_log2 above its range", 0, 21),
        ("sync_width above its range", 1, 26),
        ("first above last", 2, 0x64),
        ("lengths that are not complete", 4, 0x11),
        ("lengths that overflow", 5, 0x01),
        ("a length above 12", 4, 0x2D),
        ("the last symbol without a code", 3, 0x64),
        ("the unused half of a byte of lengths", 5, 0x12),
        ("a chunk with more bits", 6, 11),
        ("a chunk with fewer bits", 6, 9),
        ("a chunk with more bits than its symbols can take", 7, 1),
        ("bits after the last code", 11, 0x83),
        ("another symbol in the stream", 10, 0x51),
    ],
)
def test_a_stream_that_breaks_a_rule_is_corrupt(
    backend: KernelBackend, rule: str, at: int, value: int
) -> None:
    stream = bytearray(EXAMPLE_STREAM)
    stream[at] = value
    if rule == "another symbol in the stream":
        stream[10] = 0x5F  # codes of other lengths: they end elsewhere
    with pytest.raises(CorruptStreamError, match="huffman"):
        backend.huffman_check(bytes(stream), 7)
    with pytest.raises(CorruptStreamError, match="huffman"):
        decode(backend, bytes(stream), 7)


def test_a_stream_whose_first_symbol_has_no_code_is_corrupt(backend: KernelBackend) -> None:
    stream = bytes.fromhex("12 00 60 63 10 22") + EXAMPLE_STREAM[6:]
    with pytest.raises(CorruptStreamError, match="has no code"):
        decode(backend, stream, 7)


@pytest.mark.parametrize("nbytes", range(len(EXAMPLE_STREAM)))
def test_a_stream_that_is_cut_off_is_corrupt(backend: KernelBackend, nbytes: int) -> None:
    with pytest.raises(CorruptStreamError):
        decode(backend, EXAMPLE_STREAM[:nbytes], 7)


@pytest.mark.parametrize("n", [0, 1, 6, 8, 10**6, 2**40, 2**62])
def test_a_stream_of_another_number_of_symbols_is_corrupt(backend: KernelBackend, n: int) -> None:
    with pytest.raises(CorruptStreamError):
        backend.huffman_decode(EXAMPLE_STREAM, n, 0, np.zeros(min(n, 5), np.uint8))
    with pytest.raises(CorruptStreamError):
        backend.huffman_check(EXAMPLE_STREAM, n)


def test_a_stream_of_one_symbol_has_only_zero_bits(backend: KernelBackend) -> None:
    data = np.full(3000, 9, np.uint8)
    stream = encode(backend, data)
    assert decode(backend, stream, 3000, 5, 2000).tobytes() == data[5:2000].tobytes()
    # As many bytes, and all of them 0.
    other_total = stream.copy()
    other_total[5:9] = np.array([2999], "<u4").view(np.uint8)
    with pytest.raises(CorruptStreamError):
        decode(backend, other_total, 3000)
    stream[20] |= 4
    with pytest.raises(CorruptStreamError):
        decode(backend, stream, 3000, 2999, 3000)


def test_what_only_a_caller_can_get_wrong_is_a_value_error(backend: KernelBackend) -> None:
    data = np.frombuffer(EXAMPLE_SYMBOLS, np.uint8)
    lengths = backend.code_lengths(backend.byte_histogram(data), 12)
    with pytest.raises(ValueError, match="at least one"):
        backend.huffman_encode(b"", lengths, 18)
    with pytest.raises(ValueError, match="no code"):
        backend.huffman_encode(b"aabbz", lengths, 18)
    with pytest.raises(ValueError, match="chunk_log2"):
        backend.huffman_encode(data, lengths, 21)
    with pytest.raises(ValueError, match="lengths"):
        backend.huffman_encode(data, lengths[:-1], 18)
    with pytest.raises(ValueError, match="not those of a code"):
        backend.huffman_encode(data, np.full(256, 9, np.uint8), 18)
    for start, count in [(0, 8), (7, 1), (-1, 2), (8, 0)]:
        with pytest.raises(ValueError, match="range"):
            backend.huffman_decode(EXAMPLE_STREAM, 7, start, np.zeros(count, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        backend.huffman_decode(EXAMPLE_STREAM, 7, 0, np.frombuffer(bytes(7), np.uint8))
