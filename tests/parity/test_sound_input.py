"""On sound input both backends write the same bytes and read the same elements."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.dtypes import DTYPES
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, KernelBackend
from tests.kernels.samples import SIZES, byte_arrays, element_arrays, splits
from tests.parity.outcomes import outcome, result

NARROWS = [("F32", "F16"), ("F32", "BF16"), ("F64", "F16"), ("F64", "BF16"), ("F64", "F32")]


@given(data=byte_arrays(), max_length=st.integers(5, 13), chunk_log2=st.integers(11, 14))
def test_huffman_streams_are_the_same(
    reference: KernelBackend, native: KernelBackend, data: U8, max_length: int, chunk_log2: int
) -> None:
    counts = reference.byte_histogram(data)
    assert result(native.byte_histogram(data)) == result(counts)
    assert outcome(lambda: native.code_lengths(counts, max_length)) == outcome(
        lambda: reference.code_lengths(counts, max_length)
    )
    lengths = reference.code_lengths(counts, max(max_length, 8))
    assert outcome(lambda: native.huffman_encode(data, lengths, chunk_log2)) == outcome(
        lambda: reference.huffman_encode(data, lengths, chunk_log2)
    )


@pytest.mark.parametrize(
    "n", [2**16 - 1, 2**16, 2**16 + 1, 2**17 + 1, 2**18 - 1, 2**18, 2**18 + 1, 2**19 + 777]
)
@pytest.mark.parametrize("p", [0.02, 0.5, 0.97])
def test_huffman_streams_are_the_same_at_the_sizes_of_real_chunks(
    reference: KernelBackend, native: KernelBackend, n: int, p: float
) -> None:
    data = np.random.default_rng(n).geometric(p, n).clip(0, 255).astype(np.uint8)
    lengths = reference.code_lengths(reference.byte_histogram(data), 12)
    assert result(native.huffman_encode(data, lengths, 18, 2)) == result(
        reference.huffman_encode(data, lengths, 18)
    )


@given(
    values=st.lists(st.integers(0, 2**48) | st.integers(0, 5), min_size=1, max_size=256),
    limit=st.integers(1, 16),
)
def test_code_lengths_are_the_same(
    reference: KernelBackend, native: KernelBackend, values: list[int], limit: int
) -> None:
    counts = np.zeros(256, np.uint64)
    counts[: len(values)] = values
    assert outcome(lambda: native.code_lengths(counts, limit)) == outcome(
        lambda: reference.code_lengths(counts, limit)
    )


@given(data=byte_arrays(5000), width=st.integers(0, 8))
def test_bitpack_streams_are_the_same(
    reference: KernelBackend, native: KernelBackend, data: U8, width: int
) -> None:
    assert outcome(lambda: native.bitpack_encode(data, width)) == outcome(
        lambda: reference.bitpack_encode(data, width)
    )
    low = data & np.uint8((1 << min(max(width, 1), 7)) - 1)
    assert outcome(lambda: native.bitpack_encode(low, width)) == outcome(
        lambda: reference.bitpack_encode(low, width)
    )


@given(split=splits(), sample=st.data())
def test_floats_are_split_the_same(
    reference: KernelBackend, native: KernelBackend, split: tuple[str, int, int], sample: st.DataObject
) -> None:
    data = sample.draw(element_arrays(split[0], 5000))
    assert result(native.float_split(data, *split)) == result(reference.float_split(data, *split))
    assert result(native.upper_bits_histogram(data, split[0], split[1])) == result(
        reference.upper_bits_histogram(data, split[0], split[1])
    )


@pytest.mark.parametrize("dtype", sorted(FLOAT_LAYOUTS))
@pytest.mark.parametrize("n", [n for n in SIZES if n > 1000])
def test_every_way_to_split_is_the_same(
    reference: KernelBackend, native: KernelBackend, dtype: str, n: int
) -> None:
    exponent, mantissa = FLOAT_LAYOUTS[dtype]
    data = np.random.default_rng(n).integers(0, 256, n * DTYPES[dtype].nbytes, dtype=np.uint8)
    for mantissa_bits in range(min(mantissa, 16 - exponent) + 1):
        most = max(0, (1 << (exponent + mantissa_bits)) - 256)
        for base in {0, most // 3, most}:
            assert result(native.float_split(data, dtype, mantissa_bits, base)) == result(
                reference.float_split(data, dtype, mantissa_bits, base)
            )


@given(
    pair=st.sampled_from(NARROWS),
    seed=st.integers(0, 2**32 - 1),
    row_elements=st.sampled_from([1, 5, 70, 129]),
)
def test_any_bits_narrow_and_widen_the_same(
    reference: KernelBackend, native: KernelBackend, pair: tuple[str, str], seed: int, row_elements: int
) -> None:
    wide, narrower = pair
    rng = np.random.default_rng(seed)
    n = row_elements * 20
    narrow_bits = rng.integers(0, 256, n * DTYPES[narrower].nbytes, dtype=np.uint8)
    exact = reference.widen(narrow_bits, narrower, wide)
    assert result(native.widen(narrow_bits, narrower, wide)) == result(exact)
    assert result(native.narrow(exact, wide, narrower)) == result(reference.narrow(exact, wide, narrower))
    # Neighbours of exact numbers, and any bits: exponents of all kinds with mantissas of all kinds.
    words = exact.view(f"<u{DTYPES[wide].nbytes}")
    flips = words.dtype.type(1) << rng.integers(0, 8 * words.itemsize, n).astype(words.dtype)
    near = np.where(rng.random(n) < 0.1, words ^ flips, words)
    for data in (near.view(np.uint8), rng.integers(0, 256, exact.size, dtype=np.uint8)):
        assert result(native.narrows_to(data, wide, narrower, row_elements)) == result(
            reference.narrows_to(data, wide, narrower, row_elements)
        )
        assert outcome(partial(native.narrow, data, wide, narrower)) == outcome(
            partial(reference.narrow, data, wide, narrower)
        )
