"""Counts and the code lengths that follow from them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cmpk.kernels.interface import U8, KernelBackend
from tests.kernels.samples import byte_arrays

counts_lists = st.lists(st.integers(0, 2**40) | st.integers(0, 3), min_size=1, max_size=256)


def as_counts(values: list[int]) -> NDArray[np.uint64]:
    counts = np.zeros(256, np.uint64)
    counts[: len(values)] = values
    return counts


def cost(counts: NDArray[np.uint64], lengths: U8) -> int:
    return sum(int(count) * int(length) for count, length in zip(counts, lengths, strict=True))


def unlimited_cost(counts: list[int]) -> int:
    """Bits of Huffman's own code (1952), which no limit binds."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


def all_codes(n: int, max_length: int, space: int) -> Iterator[tuple[int, ...]]:
    """Every list of n lengths that fills ``space`` of 2**max_length codes."""
    if n == 0:
        if space == 0:
            yield ()
        return
    for length in range(1, max_length + 1):
        taken = 1 << (max_length - length)
        if taken <= space:
            for rest in all_codes(n - 1, max_length, space - taken):
                yield (length, *rest)


@given(data=byte_arrays())
def test_the_histogram_counts_every_byte_once(backend: KernelBackend, data: U8) -> None:
    counts = backend.byte_histogram(data)
    assert counts.dtype == np.uint64
    assert np.array_equal(counts, np.bincount(data, minlength=256))


def test_the_histogram_of_a_large_array_counts_every_byte_once(backend: KernelBackend) -> None:
    data = np.random.default_rng(0).binomial(255, 0.3, 1_500_007).astype(np.uint8)
    assert np.array_equal(backend.byte_histogram(data), np.bincount(data, minlength=256))
    assert backend.byte_histogram(b"").sum() == 0


@given(values=counts_lists, max_length=st.integers(8, 16))
def test_lengths_fill_the_code_space_exactly(
    backend: KernelBackend, values: list[int], max_length: int
) -> None:
    counts = as_counts(values)
    lengths = backend.code_lengths(counts, max_length)
    used = lengths[lengths > 0].astype(int)
    assert np.array_equal(lengths > 0, counts > 0)
    assert lengths.max() <= max_length
    if used.size > 1:
        assert sum(1 << (16 - length) for length in used) == 1 << 16


@given(values=st.lists(st.integers(0, 100), min_size=2, max_size=256))
def test_lengths_are_as_good_as_unlimited_ones_where_the_limit_does_not_bind(
    backend: KernelBackend, values: list[int]
) -> None:
    # With counts up to 100 Huffman's own codes reach at most 16 bits: a code of length l needs a sum
    # of counts of at least the (l + 2)nd Fibonacci number.
    counts = as_counts(values)
    if np.count_nonzero(counts) > 1 and counts.sum() < 1597:
        assert cost(counts, backend.code_lengths(counts, 16)) == unlimited_cost(values)


@given(values=st.lists(st.integers(1, 1000), min_size=2, max_size=6), max_length=st.integers(3, 5))
def test_no_code_within_the_limit_is_shorter(
    backend: KernelBackend, values: list[int], max_length: int
) -> None:
    best = min(
        sum(count * length for count, length in zip(values, code, strict=True))
        for code in all_codes(len(values), max_length, 1 << max_length)
    )
    assert cost(as_counts(values), backend.code_lengths(as_counts(values), max_length)) == best


@given(values=st.lists(st.integers(0, 4), min_size=2, max_size=256))
def test_of_equal_counts_the_lower_symbol_gets_no_longer_code(
    backend: KernelBackend, values: list[int]
) -> None:
    lengths = backend.code_lengths(as_counts(values), 12)
    for count in set(values) - {0}:
        same = lengths[np.flatnonzero(np.array(values) == count)].astype(int)
        assert (np.diff(same) >= 0).all()


def test_a_single_symbol_gets_one_bit_and_none_get_nothing(backend: KernelBackend) -> None:
    assert backend.code_lengths(as_counts([0, 0, 9]), 12).tolist()[:4] == [0, 0, 1, 0]
    assert not backend.code_lengths(as_counts([0]), 12).any()


@pytest.mark.parametrize(
    ("values", "max_length"),
    [([1] * 256, 7), ([1, 2], 0), ([1, 2], 17), ([1, 2], -1), ([2**56, 1], 12), ([2**64 - 1, 2**64 - 1], 12)],
)
def test_counts_or_limits_that_allow_no_code_are_refused(
    backend: KernelBackend, values: list[int], max_length: int
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        backend.code_lengths(as_counts(values), max_length)


@pytest.mark.parametrize(
    "counts", [np.zeros(255, np.uint64), np.zeros(256, np.float64), np.zeros(256, np.uint32)]
)
def test_counts_of_another_type_or_shape_are_refused(
    backend: KernelBackend, counts: NDArray[np.uint64]
) -> None:
    with pytest.raises(ValueError, match="uint64"):
        backend.code_lengths(counts, 12)
