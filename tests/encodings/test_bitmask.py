"""bitmask: every element where it was, bit for bit; masks that do not fit their values are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.archive import Archive
from cmpk.codecs import Rans
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Bitmask
from cmpk.errors import CorruptStreamError, FormatError
from tests.builders import Node, archive, branch, branch_of, leaf, tensor

WHOLE_BYTES = [dtype for dtype in DTYPES if DTYPES[dtype].nbytes]


def opened(dtype: str, shape: list[int], node: Node) -> Archive:
    return Archive(archive([tensor("a", dtype, shape, node)]))


def masked(mask: bytes, values: bytes, count: object, fill: object = 0, stride: object = 1) -> Node:
    params = {"count": count, "fill": fill, "stride": stride}
    return branch("bitmask", params, mask=leaf(mask), values=leaf(values))


def sparse(dtype: str, n: int, share: float, fill: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    nbytes = DTYPES[dtype].nbytes
    words = rng.integers(0, 256, n * nbytes, np.uint8).view(f"<u{nbytes}")
    return bytes(np.where(rng.random(n) < share, words, words.dtype.type(fill)).tobytes())


@given(st.data())
def test_elements_come_back_bit_for_bit_in_any_range(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(WHOLE_BYTES))
    n = data.draw(st.integers(0, 400))
    fill = data.draw(st.sampled_from([0, 1, 2 ** (DTYPES[dtype].nbits - 1) - 1]))
    stride = data.draw(st.sampled_from([1, 2, 3, 8, 9, 25, 50, 51, 2**48]))
    share = data.draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))
    stored = sparse(dtype, n, share, fill, data.draw(st.integers(0, 2**32 - 1)))
    encoded = Bitmask().encode(np.frombuffer(stored, np.uint8), TensorSpec(dtype, (n,)), fill, stride)
    found = opened(dtype, [n], branch_of("bitmask", encoded, data.draw(st.sampled_from([None, Rans()]))))
    assert found.read("a").tobytes() == stored
    start, stop = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    nbytes = DTYPES[dtype].nbytes
    assert found.read_range("a", start, stop).tobytes() == stored[start * nbytes : stop * nbytes]


def test_only_what_is_zero_in_every_bit_is_left_out() -> None:
    numbers = np.array([0.0, -0.0, 1.0, 0.0, -0.0], np.float16)
    encoded = Bitmask().encode(numbers.view(np.uint8), TensorSpec("F16", (5,)))
    assert encoded.params == {"count": 3, "fill": 0, "stride": 1}
    assert encoded.parts["mask"].data.tobytes() == bytes([0b10110])
    assert encoded.parts["values"].data.tobytes() == numbers[[1, 2, 4]].tobytes()


def test_a_stride_puts_the_bits_of_a_column_into_one_byte() -> None:
    columns = np.zeros((16, 3), np.uint8)
    columns[:, 1] = 5
    encoded = Bitmask().encode(columns.reshape(-1), TensorSpec("U8", (16, 3)), stride=3)
    assert encoded.parts["mask"].data.tobytes() == b"\0\xff\0\0\xff\0"


def test_a_pattern_along_a_stride_costs_what_one_along_neighbours_costs() -> None:
    rng = np.random.default_rng(0)
    # Two of every four channels of a convolution with kernels of 3 x 3.
    is_kept = rng.permuted(np.tile([1, 1, 0, 0], (512 * 24 * 9, 1)), axis=1)
    weights = is_kept.reshape(512, 24, 9, 4).transpose(0, 1, 3, 2).astype(np.uint8)
    spec = TensorSpec("U8", (512, 96, 3, 3))
    sizes = {}
    for stride in (1, 9):
        mask = Bitmask().encode(np.ascontiguousarray(weights).reshape(-1), spec, stride=stride).parts["mask"]
        stream = Rans().encode(mask.data)
        assert stream is not None
        sizes[stride] = 8 * len(stream) / spec.numel
    assert sizes[1] > 0.99
    assert sizes[9] < 1.01 * np.log2(6) / 4


def test_a_value_that_is_the_fill_is_allowed() -> None:
    assert opened("U8", [3], masked(b"\2", b"\7", 1, 7)).read("a").tobytes() == b"\7\7\7"


@pytest.mark.parametrize(
    ("mask", "count"), [(b"\7\0", 2), (b"\7\0", 4), (b"\0\0", 1), (b"\xff\x01", 0), (b"\1\1", 9)]
)
def test_other_than_as_many_bits_as_values_are_refused(mask: bytes, count: int) -> None:
    found = opened("F32", [9], masked(mask, bytes(4 * count), count))
    with pytest.raises(CorruptStreamError, match=f"bits are set for {count} values"):
        found.read("a")


def test_a_range_needs_no_more_values_than_there_are() -> None:
    found = opened("U8", [24], masked(b"\xff\xff\1", bytes(3), 3))
    with pytest.raises(CorruptStreamError, match="bits are set for 3 values"):
        found.read_range("a", 8, 16)
    # What is wrong behind the range may go unnoticed.
    later = opened("U8", [24], masked(b"\1\0\xff", b"abc", 3))
    assert later.read_range("a", 0, 16).tobytes() == b"a" + bytes(15)


@pytest.mark.parametrize("mask", [b"\1\4", b"\0\x80", b"\1\2"])
def test_bits_that_stand_for_no_element_are_refused(mask: bytes) -> None:
    found = opened("U8", [9], masked(mask, bytes(2), 2))
    with pytest.raises(CorruptStreamError, match="bits are set"):
        found.read("a")


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (masked(b"\1\0", b"ab", -1), "count"),
        (masked(b"\1\0", bytes(26), 13), "count"),
        (masked(b"\1\0", b"ab", "1"), "count"),
        (masked(b"\1\0", b"ab", 1, -1), "fill"),
        (masked(b"\1\0", b"ab", 1, 65536), "fill"),
        (masked(b"\1\0", b"ab", 1, 0, 0), "stride"),
        (masked(b"\1\0", b"ab", 1, 0, 2**48 + 1), "stride"),
        (masked(b"\1\0", b"ab", 1, 0, [1]), "stride"),
        (branch("bitmask", {}, mask=leaf(b"\1\0"), values=leaf(b"ab")), "the parameters are"),
        (branch("bitmask", {"count": 1, "fill": 0, "stride": 1}, mask=leaf(b"\1\0")), "has the parts"),
        (masked(b"\1", b"ab", 1), "can't hold"),
        (masked(b"\1\0", b"a", 1), "can't hold"),
    ],
)
def test_what_breaks_a_rule_is_refused(node: Any, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        opened("U16", [12], node)


def test_a_fill_of_64_bits_is_below_the_largest_parameter() -> None:
    with pytest.raises(FormatError, match="fill"):
        Bitmask().encode(np.zeros(8, np.uint8), TensorSpec("F64", (1,)), 2**63)


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - set(WHOLE_BYTES)))
def test_elements_take_whole_bytes(dtype: str) -> None:
    with pytest.raises(FormatError, match="not whole bytes"):
        opened(dtype, [8], masked(b"\0", b"", 0))
