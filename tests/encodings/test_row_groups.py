"""row_groups: rows apart and together again, in any range, whatever their parts are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.archive import Archive
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import FloatSplit, Narrow, RowGroups
from cmpk.encodings.base import Decoder, Leaf
from cmpk.encodings.row_groups import MAX_GROUPS
from cmpk.errors import CmpkError, CorruptStreamError, FormatError
from tests.builders import Node, archive, branch, branch_of, leaf, tensor


def opened(dtype: str, shape: list[int], node: Node) -> Archive:
    return Archive(archive([tensor("a", dtype, shape, node)]))


def grouped(rows: object, group: bytes, *parts: bytes, **more: object) -> Node:
    named = {str(index): leaf(part) for index, part in enumerate(parts)}
    return branch("row_groups", {"rows": rows, **more}, group=leaf(group), **named)


def nested(
    data: np.ndarray[Any, Any], dtype: str, shape: tuple[int, ...], group: np.ndarray[Any, Any]
) -> Node:
    """Row groups of which each is stored in another way: plain, split, narrowed, narrowed and split."""
    encoded = RowGroups().encode(data, TensorSpec(dtype, shape), group)
    parts: dict[str, Node] = {"group": leaf(encoded.parts["group"].data.tobytes())}
    for name, (spec, rows, *_) in list(encoded.parts.items())[1:]:
        kind = int(name) % 4
        if kind == 0:
            parts[name] = leaf(rows.tobytes())
            continue
        if kind == 1:
            parts[name] = branch_of("float_split", FloatSplit().encode(rows, spec, 0, 0))
            continue
        narrowed = Narrow().encode(rows, spec, "BF16")
        node = branch_of("narrow", narrowed)
        if kind == 3:
            values = narrowed.parts["values"]
            node["parts"]["values"] = branch_of(
                "float_split", FloatSplit().encode(values.data, values.spec, 0, 0)
            )
        parts[name] = node
    return branch("row_groups", encoded.params, **parts)


@given(st.data())
def test_rows_of_any_kind_come_back_in_any_range(data: st.DataObject) -> None:
    n_rows, row_elements = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9))
    groups = data.draw(st.lists(st.integers(0, 5), min_size=n_rows, max_size=n_rows))
    group = np.unique(groups, return_inverse=True)[1].astype(np.uint8)
    seed = data.draw(st.integers(0, 1 << 30))
    # Numbers of BF16, so that every row can be narrowed; NaNs with payloads among them.
    elements = np.random.default_rng(seed).integers(0, 1 << 16, (n_rows, row_elements), np.uint32) << 16
    stored = elements.reshape(-1).view(np.uint8)
    found = opened("F32", [n_rows, row_elements], nested(stored, "F32", (n_rows, row_elements), group))
    assert found.read("a").tobytes() == stored.tobytes()
    start = data.draw(st.integers(0, elements.size))
    stop = data.draw(st.integers(start, elements.size))
    assert found.read_range("a", start, stop).tobytes() == stored[4 * start : 4 * stop].tobytes()


def test_groups_within_groups_come_back() -> None:
    stored = np.arange(32, dtype=np.uint8)
    inner = grouped([1, 3], b"\1\0\1\1", b"\4\5\6\7", b"\0\1\2\3" + bytes(range(8, 16)))
    outer = branch("row_groups", {"rows": [4, 4]}, group=leaf(b"\0\0\0\0\1\1\1\1"),
                   **{"0": inner, "1": leaf(stored[16:].tobytes())})  # fmt: skip
    found = opened("U8", [8, 4], outer)
    assert found.read("a").tobytes() == stored.tobytes()
    for start in range(0, 33, 3):
        for stop in range(start, 33, 5):
            assert found.read_range("a", start, stop).tobytes() == stored[start:stop].tobytes()


def test_the_example_of_the_page() -> None:
    encoded = RowGroups().encode(
        np.frombuffer(b"\1\2\t\t\3\4", np.uint8), TensorSpec("U8", (3, 2)), np.array([0, 1, 0], np.uint8)
    )
    assert encoded.params == {"rows": [2, 1]}
    assert {name: part.data.tobytes() for name, part in encoded.parts.items()} == {
        "group": b"\0\1\0", "0": b"\1\2\3\4", "1": b"\t\t",
    }  # fmt: skip


def test_a_row_may_be_a_single_element_and_may_have_many_dimensions() -> None:
    assert opened("U8", [3], grouped([1, 2], b"\1\0\1", b"b", b"ac")).read("a").tobytes() == b"abc"
    node = grouped([1, 1], b"\1\0", b"efgh", b"abcd")
    assert opened("U8", [2, 1, 2, 2], node).read("a").tobytes() == b"abcdefgh"


def test_rows_of_half_bytes_come_back_where_a_row_takes_whole_ones() -> None:
    found = opened("F4", [4, 4], grouped([2, 2], b"\0\1\0\1", b"\x01\x23\x45\x67", b"\x89\xab\xcd\xef"))
    whole = bytes.fromhex("0123 89ab 4567 cdef")
    assert found.read("a").tobytes() == whole
    for start in range(0, 17, 2):
        for stop in range(start, 17, 2):
            assert found.read_range("a", start, stop).tobytes() == whole[start // 2 : stop // 2]
    with pytest.raises(CmpkError, match="whole bytes"):
        found.read_range("a", 1, 6)


def test_rows_of_halves_of_bytes_are_refused() -> None:
    with pytest.raises(FormatError, match="not whole bytes"):
        opened("F4", [2, 3], grouped([1, 1], b"\0\1", b"\x12", b"\x13"))


def test_rows_without_elements_have_groups_all_the_same() -> None:
    assert opened("F32", [3, 0], grouped([1, 2], b"\1\0\1", b"", b"")).read("a").tobytes() == b""
    with pytest.raises(CorruptStreamError, match="groups of the rows"):
        opened("F32", [3, 0], grouped([1, 2], b"\1\1\1", b"", b"")).read("a")


@pytest.mark.parametrize("group", [b"\0\0\0", b"\1\1\1", b"\0\0\1", b"\0\1\2", b"\1\2\1", b"\xff\0\1"])
def test_groups_that_are_not_as_promised_are_refused(group: bytes) -> None:
    found = opened("U8", [3, 2], grouped([1, 2], group, b"ab", b"cdef"))
    with pytest.raises(CorruptStreamError, match=r"'a'.*groups of the rows are not"):
        found.read("a")


@pytest.mark.parametrize(
    ("shape", "node", "problem"),
    [
        ([], grouped([1], b"\0", b"a"), "no rows"),
        ([3], grouped([], b"\0\0\0"), "list of 1 to 32"),
        ([3], grouped([3, 0], b"\0\0\0", b"abc", b""), "list of 1 to 32"),
        ([3], grouped([4, -1], b"\0\0\0", b"abcd", b""), "list of 1 to 32"),
        ([3], grouped(3, b"\0\0\0", b"abc"), "list of 1 to 32"),
        ([3], grouped("3", b"\0\0\0", b"abc"), "list of 1 to 32"),
        ([33], grouped([1] * 33, bytes(range(33)), *[b"x"] * 33), "list of 1 to 32"),
        ([3], grouped([1, 1], b"\0\1\0", b"a", b"b"), "the groups have 2 rows, the tensor has 3"),
        ([3], grouped([(1 << 63) - 1] * 2, b"\0\1\0", b"a", b"b"), "the tensor has 3"),
        ([0], grouped([1], b"", b"a"), "the tensor has 0"),
        ([1 << 32], grouped([1 << 32], b"", b""), "rows exceed"),
        ([3], grouped([3], b"\0\0\0", b"abc", extra=1), "the parameters are"),
        ([3], branch("row_groups", {"rows": [3]}, **{"0": leaf(b"x"), "group": leaf(b"\0")}), "the parts"),
        ([3], branch("row_groups", {"rows": [3]}, group=leaf(b"\0\0\0")), "has the parts"),
        ([3], grouped([3], b"\0\0\0", b"abc", b"d"), "has the parts"),
        ([3], grouped([3], b"\0\0", b"abc"), "can't hold"),
        ([3], grouped([1, 2], b"\0\1\1", b"a", b"b"), "can't hold"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused(shape: list[int], node: Node, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        opened("U8", shape, node)


def test_as_many_groups_as_the_page_allows_come_back() -> None:
    rows = bytes(range(MAX_GROUPS))
    node = grouped([1] * MAX_GROUPS, rows, *[bytes([row]) for row in rows])
    assert opened("U8", [MAX_GROUPS], node).read("a").tobytes() == rows


def test_elements_of_every_size_are_scattered() -> None:
    for dtype, info in DTYPES.items():
        if not info.nbytes:
            continue
        stored = np.random.default_rng(0).integers(0, 256, 12 * info.nbytes, np.uint8)
        encoded = RowGroups().encode(stored, TensorSpec(dtype, (4, 3)), np.array([2, 0, 1, 0], np.uint8))
        assert opened(dtype, [4, 3], branch_of("row_groups", encoded)).read("a").tobytes() == stored.tobytes()


def test_where_rows_stand_is_found_once_for_all_ranges() -> None:
    group = bytes([0, 1, 1, 0])
    node = grouped([2, 2], group, b"\1\2\3\4", b"\5\6\7\10")
    with opened("U8", [4, 2], node) as archive:
        root = archive._installed_root("a")
        streams: list[memoryview] = []

        def read(found: Leaf) -> memoryview:
            streams.append(archive._read_stream(found))
            return streams[-1]

        decoder = Decoder(read)
        outs = [np.empty(2, np.uint8) for _ in range(4)]
        for row, out in enumerate(outs):
            decoder.decode_into(root, 2 * row, 2 * row + 2, out)
        decoder.flush()
    assert np.concatenate(outs).tolist() == [1, 2, 5, 6, 7, 8, 3, 4]
    assert streams.count(memoryview(group)) == 1
