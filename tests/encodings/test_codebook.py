"""codebook: few values, bit for bit; codes that name no value are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.archive import Archive
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Codebook
from cmpk.errors import CorruptStreamError, FormatError
from tests.builders import Node, archive, branch, branch_of, leaf, tensor

WHOLE_BYTES = [dtype for dtype in DTYPES if DTYPES[dtype].nbytes]


def opened(dtype: str, shape: list[int], node: Node) -> Archive:
    return Archive(archive([tensor("a", dtype, shape, node)]))


def book(codes: bytes, centroids: bytes, size: object = 2, **more: object) -> Node:
    return branch("codebook", {"size": size, **more}, codes=leaf(codes), centroids=leaf(centroids))


@given(st.data())
def test_values_come_back_bit_for_bit_in_any_range(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(WHOLE_BYTES))
    nbytes = DTYPES[dtype].nbytes
    values = data.draw(st.lists(st.binary(min_size=nbytes, max_size=nbytes), min_size=1, max_size=20))
    elements = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=60))
    stored = b"".join(elements)
    spec = TensorSpec(dtype, (len(elements),))
    encoded = Codebook().encode(np.frombuffer(stored, np.uint8), spec)
    assert encoded is not None
    assert encoded.params == {"size": len(set(elements))}
    found = opened(dtype, [len(elements)], branch_of("codebook", encoded))
    assert found.read("a").tobytes() == stored
    start = data.draw(st.integers(0, len(elements)))
    stop = data.draw(st.integers(start, len(elements)))
    assert found.read_range("a", start, stop).tobytes() == b"".join(elements[start:stop])


def test_numbers_that_are_equal_but_not_the_same_bits_are_two_values() -> None:
    numbers = np.array([0.0, -0.0, np.nan, -np.nan, 0.0], np.float32)
    numbers.view(np.uint32)[2] = 0x7FC00001
    encoded = Codebook().encode(numbers.view(np.uint8), TensorSpec("F32", (5,)))
    assert encoded is not None
    assert encoded.params == {"size": 4}
    found = opened("F32", [5], branch_of("codebook", encoded))
    assert found.read("a").tobytes() == numbers.tobytes()


@pytest.mark.parametrize(("n_values", "fits"), [(1, True), (255, True), (256, True), (257, False)])
def test_there_are_at_most_256_values(n_values: int, fits: bool) -> None:
    data = np.arange(n_values, dtype=np.uint16).view(np.uint8)
    assert (Codebook().encode(data, TensorSpec("U16", (n_values,))) is not None) == fits


def test_a_tensor_without_elements_has_no_values() -> None:
    assert Codebook().encode(np.empty(0, np.uint8), TensorSpec("F32", (0,))) is None


@pytest.mark.parametrize(("codes", "size"), [(b"\0\2", 2), (b"\0\xff", 2), (b"\1\0", 1), (b"\0\xff", 255)])
def test_a_code_that_names_no_value_is_refused(codes: bytes, size: int) -> None:
    found = opened("U16", [2], book(codes, bytes(2 * size), size))
    with pytest.raises(CorruptStreamError, match="is not in a codebook of"):
        found.read("a")


def test_values_that_nobody_uses_are_allowed() -> None:
    assert opened("U16", [2], book(b"\0\0", b"abcd")).read("a").tobytes() == b"abab"


def test_a_code_out_of_the_range_that_is_read_is_not_looked_at() -> None:
    assert opened("U8", [3], book(b"\0\1\7", b"ab")).read_range("a", 0, 2).tobytes() == b"ab"


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (book(b"\0\0", b"", 0), "size"),
        (book(b"\0\0", bytes(2 * 257), 257), "size"),
        (book(b"\0\0", b"abcd", -1), "size"),
        (book(b"\0\0", b"abcd", "2"), "size"),
        (book(b"\0\0", b"abcd", [2]), "size"),
        (book(b"\0\0", b"abcd", 2, extra=1), "the parameters are"),
        (branch("codebook", {}, codes=leaf(b"\0\0"), centroids=leaf(b"ab")), "the parameters are"),
        (branch("codebook", {"size": 1}, centroids=leaf(b"ab"), codes=leaf(b"\0\0")), "has the parts"),
        (branch("codebook", {"size": 1}, codes=leaf(b"\0\0")), "has the parts"),
        (book(b"\0", b"abcd"), "can't hold"),
        (book(b"\0\0", b"abc"), "can't hold"),
    ],
)
def test_what_breaks_a_rule_is_refused(node: Any, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        opened("U16", [2], node)


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - set(WHOLE_BYTES)))
def test_elements_take_whole_bytes(dtype: str) -> None:
    with pytest.raises(FormatError, match="not whole bytes"):
        opened(dtype, [8], book(bytes(8), bytes(2)))
