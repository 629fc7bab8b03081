"""bitpack, huffman, rans: how small they are, how well they know it before, and what they decline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk import kernels
from cmpk.codecs import Bitpack, Codec, Huffman, Rans, Raw
from cmpk.codecs.huffman import SYNC_SYMBOLS
from cmpk.codecs.rans import FREQUENCY_NBITS, normalized
from cmpk.errors import CorruptStreamError

ORDER_0: list[Codec] = [Bitpack(), Huffman(), Rans()]


def entropy_nbits(data: np.ndarray[Any, Any]) -> float:
    counts = np.bincount(data, minlength=256)
    shares = counts[counts > 0] / len(data)
    return float(-(shares * np.log2(shares)).sum() * len(data))


def geometric(n: int, p: float, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.minimum(np.random.default_rng(seed).geometric(p, n) - 1, 255).astype(np.uint8)


@pytest.mark.parametrize("codec", ORDER_0, ids=lambda codec: codec.id)
@given(
    n=st.sampled_from([1, 100, 1023, 1024, 1025, 70_000, 300_000]),
    n_symbols=st.integers(1, 256),
    p=st.floats(0.02, 0.95),
)
def test_the_estimate_is_the_size_to_a_few_bytes(codec: Codec, n: int, n_symbols: int, p: float) -> None:
    data = np.minimum(geometric(n, p), n_symbols - 1).astype(np.uint8)
    estimate, stream = codec.estimate(data), codec.encode(data)
    if stream is None:
        assert estimate is None or estimate >= n
        return
    assert estimate is not None
    # The states at the head of a chunk of rans hold symbols, too.
    assert abs(estimate - len(stream)) <= 64 + len(stream) // 50
    assert codec.estimate_counted(kernels.active().byte_histogram(data)) == estimate


@pytest.mark.parametrize("p", [0.05, 0.3, 0.6, 0.9])
def test_huffman_stays_within_its_code_lengths_and_sync_points(p: float) -> None:
    data = geometric(500_000, p)
    stream = Huffman().encode(data)
    assert stream is not None
    counts = kernels.active().byte_histogram(data)
    lengths = kernels.active().code_lengths(counts, 12).astype(np.uint64)
    nbits = int((counts * lengths).sum())
    assert nbits < entropy_nbits(data) + len(data)
    assert len(stream) * 8 < nbits + 26 * len(data) / SYNC_SYMBOLS + 8 * 200


@pytest.mark.parametrize("p", [0.3, 0.6, 0.9])
def test_rans_is_within_thousandths_of_a_bit_of_the_entropy(p: float) -> None:
    data = geometric(500_000, p)
    stream = Rans().encode(data)
    assert stream is not None
    assert len(stream) * 8 < entropy_nbits(data) + 0.003 * len(data) + 8 * 600


def test_huffman_takes_one_bit_where_there_is_one_symbol() -> None:
    stream = Huffman().encode(np.full(80_000, 7, np.uint8))
    assert stream is not None
    assert len(stream) <= 10_000 + 20


@pytest.mark.parametrize(
    ("largest", "width"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (15, 4), (31, 5), (63, 6), (127, 7)]
)
def test_bitpack_takes_as_many_bits_as_the_largest_byte(largest: int, width: int) -> None:
    data = np.zeros(8000, np.uint8)
    data[1234] = largest
    stream = Bitpack().encode(data)
    assert stream is not None
    assert len(stream) == 1 + 1000 * width
    assert bytes(memoryview(stream))[0] == width


def test_codecs_decline_what_they_can_not_hold() -> None:
    assert Bitpack().encode(np.array([1, 128], np.uint8)) is None
    assert Huffman().encode(np.empty(0, np.uint8)) is None
    assert Rans().encode(np.empty(0, np.uint8)) is None
    assert Rans().encode(np.full(1000, 9, np.uint8)) is None


@given(
    counts=st.lists(st.integers(0, 1 << 40), min_size=256, max_size=256).filter(
        lambda counts: sum(count > 0 for count in counts) >= 2
    )
)
def test_frequencies_add_up_and_leave_no_symbol_out(counts: list[int]) -> None:
    given_counts = np.array(counts, np.uint64)
    frequencies = normalized(given_counts)
    assert int(frequencies.sum()) == 1 << FREQUENCY_NBITS
    assert ((frequencies > 0) == (given_counts > 0)).all()


@given(st.integers(1, 1 << 50), st.integers(1, 1 << 50))
def test_frequencies_of_two_symbols_are_the_best_there_are(a: int, b: int) -> None:
    counts = np.zeros(256, np.uint64)
    counts[[3, 200]] = a, b
    frequency = int(normalized(counts)[3])

    def cost(f: int) -> float:
        return float(-a * np.log2(f / 4096) - b * np.log2((4096 - f) / 4096))

    best = min(cost(f) for f in range(max(1, frequency - 2), min(4095, frequency + 2) + 1))
    assert cost(frequency) <= best * (1 + 1e-6)


def test_raw_is_the_bytes_and_no_others() -> None:
    data = np.frombuffer(b"abc", np.uint8)
    assert Raw().encode(data) is data
    out = np.empty(1, np.uint8)
    Raw().decode_range(b"abc", 3, 1, out)
    assert out.tobytes() == b"b"
    for stream in (b"", b"ab", b"abcd"):
        with pytest.raises(CorruptStreamError, match="are stored where 3 are expected"):
            Raw().check(stream, 3)


@pytest.mark.parametrize("codec", ORDER_0, ids=lambda codec: codec.id)
def test_an_empty_stream_is_refused(codec: Codec) -> None:
    with pytest.raises(CorruptStreamError, match=f"'{codec.id}'"):
        codec.decode_range(b"", 10, 0, np.empty(10, np.uint8))
    with pytest.raises(CorruptStreamError, match=f"'{codec.id}'"):
        codec.check(b"", 10)


@pytest.mark.parametrize("codec", [Huffman(), Rans()], ids=lambda codec: codec.id)
def test_every_bit_of_a_stream_counts(codec: Codec) -> None:
    """Flip each bit in turn: the stream is refused, or the bytes are others.

    All but those that only say how long a chunk may be, where there is one chunk.
    """
    data = geometric(3000, 0.4)
    stream = bytes(memoryview(codec.encode(data)))  # type: ignore[arg-type]
    unnoticed = []
    for at in range(8, 8 * len(stream)):
        damaged = bytearray(stream)
        damaged[at // 8] ^= 1 << at % 8
        out = np.empty(len(data), np.uint8)
        try:
            codec.check(bytes(damaged), len(data))
            codec.decode_range(bytes(damaged), len(data), 0, out)
        except CorruptStreamError:
            continue
        if out.tobytes() == data.tobytes():
            unnoticed.append(at)
    assert unnoticed == []
