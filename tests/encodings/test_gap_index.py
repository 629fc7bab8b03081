"""gap_index: every element where it was, bit for bit; gaps that lead astray are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.archive import Archive
from cmpk.codecs import Rans
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import GapIndex
from cmpk.errors import CorruptStreamError, FormatError
from tests.builders import Node, archive, branch, branch_of, leaf, tensor
from tests.encodings.test_bitmask import WHOLE_BYTES, sparse


def opened(dtype: str, shape: list[int], node: Node) -> Archive:
    return Archive(archive([tensor("a", dtype, shape, node)]))


def gapped(stored: bytes, values: bytes, count: object, **params: object) -> Node:
    params = {"count": count, "fill": 0, "gaps": len(stored), "max_gap": 5} | params
    return branch("gap_index", params, gaps=leaf(stored), values=leaf(values))


@given(st.data())
def test_elements_come_back_bit_for_bit_in_any_range(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(WHOLE_BYTES))
    n = data.draw(st.integers(0, 400))
    fill = data.draw(st.sampled_from([0, 1, 2 ** (DTYPES[dtype].nbits - 1) - 1]))
    max_gap = data.draw(st.sampled_from([1, 2, 7, 15, 254, 255]))
    share = data.draw(st.sampled_from([0.0, 0.01, 0.1, 1.0]))
    stored = sparse(dtype, n, share, fill, data.draw(st.integers(0, 2**32 - 1)))
    encoded = GapIndex().encode(np.frombuffer(stored, np.uint8), TensorSpec(dtype, (n,)), fill, max_gap)
    found = opened(dtype, [n], branch_of("gap_index", encoded, data.draw(st.sampled_from([None, Rans()]))))
    assert found.read("a").tobytes() == stored
    start, stop = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    nbytes = DTYPES[dtype].nbytes
    assert found.read_range("a", start, stop).tobytes() == stored[start * nbytes : stop * nbytes]


def test_gaps_too_long_for_one_are_told_by_fillers_without_values() -> None:
    weights = np.zeros(40, np.float32)
    weights[[0, 3, 19, 20]] = 1, 2, 3, 4
    encoded = GapIndex().encode(weights.view(np.uint8), TensorSpec("F32", (40,)), max_gap=7)
    assert encoded.params == {"count": 4, "fill": 0, "gaps": 6, "max_gap": 7}
    assert encoded.parts["gaps"].data.tolist() == [0, 2, 7, 7, 1, 0]
    assert encoded.parts["values"].data.view(np.float32).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("gaps", "count", "problem"),
    [
        (b"\1\6", 2, "exceeds"),
        (b"\5\5\3", 1, "beyond"),
        (b"\5\5\5", 0, "beyond"),
        (b"\5\5\1\5", 1, "beyond"),
        (b"\1\1", 1, "gaps"),
        (b"\1\5", 2, "gaps"),
    ],
)
def test_gaps_that_break_a_rule_are_refused_even_behind_the_range(
    gaps: bytes, count: int, problem: str
) -> None:
    found = opened("U16", [12], gapped(gaps, bytes(2 * count), count))
    for start, stop in ((0, 12), (0, 1), (11, 12)):
        with pytest.raises(CorruptStreamError, match=problem):
            found.read_range("a", start, stop)


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (gapped(b"\1", b"ab", -1), "count"),
        (gapped(bytes(13), bytes(26), 13), "count"),
        (gapped(b"\1", b"abcd", 2), "gaps"),
        (gapped(bytes(13), b"ab", 1), "gaps"),
        (gapped(b"\1", b"ab", 1, gaps=2**63 - 1), "gaps"),
        (gapped(b"\1", b"ab", 1, fill=-1), "fill"),
        (gapped(b"\1", b"ab", 1, fill=65536), "fill"),
        (gapped(b"\1", b"ab", 1, max_gap=0), "max_gap"),
        (gapped(b"\1", b"ab", 1, max_gap=256), "max_gap"),
        (gapped(b"\1", b"ab", 1, more=1), "the parameters are"),
        (branch("gap_index", {}, gaps=leaf(b"\1"), values=leaf(b"ab")), "the parameters are"),
        (gapped(b"\1", b"a", 1), "can't hold"),
    ],
)
def test_what_breaks_a_rule_is_refused(node: Any, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        opened("U16", [12], node)


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - set(WHOLE_BYTES)))
def test_elements_take_whole_bytes(dtype: str) -> None:
    with pytest.raises(FormatError, match="not whole bytes"):
        opened(dtype, [8], gapped(b"", b"", 0))
