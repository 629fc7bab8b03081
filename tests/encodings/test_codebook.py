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
from cmpk.errors import CorruptStreamError, FormatError, PassError
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


def looked_up(
    spec: TensorSpec, codes: np.ndarray[Any, Any], centroids: bytes, size: int, vector: int, group_rows: int
) -> bytes:
    """What a codebook decodes to, code by code."""
    n_rows, per_row = spec.shape[0], codes.size // max(1, spec.shape[0])
    n_books = -(-n_rows // group_rows) if group_rows else 1
    unit = len(centroids) // max(1, n_books * size)
    found = b""
    for i, code in enumerate(codes.tolist()):
        at = ((i // per_row // group_rows if group_rows else 0) * size + code) * unit
        found += centroids[at : at + unit]
    return found


@given(st.data())
def test_vectors_rows_and_groups_come_back_in_any_range(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(WHOLE_BYTES))
    vector = data.draw(st.sampled_from([0, 1, 2, 4, 8]))
    shape = (data.draw(st.integers(0, 7)), data.draw(st.integers(1, 3)) * max(1, vector))
    group_rows = data.draw(st.sampled_from([0, 1, 2, 5, 100])) if vector else 0
    size = data.draw(st.sampled_from([1, 3, 256] if vector == 1 else [1, 3, 256, 257, 70000]))
    spec = TensorSpec(dtype, shape)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_codes = shape[0] * (shape[1] // vector if vector else 1)
    n_books = -(-shape[0] // group_rows) if group_rows else 1
    codes = rng.integers(0, size, n_codes)
    nbytes = DTYPES[dtype].nbytes
    centroids = rng.integers(0, 256, n_books * size * (vector or shape[1]) * nbytes, np.uint8)
    encoded = Codebook().encode_codes(codes, centroids, spec, size, vector=vector, group_rows=group_rows)
    stored = looked_up(spec, codes, centroids.tobytes(), size, vector, group_rows)
    found = opened(dtype, list(shape), branch_of("codebook", encoded))
    assert found.read("a").tobytes() == stored
    start, stop = sorted(data.draw(st.tuples(*2 * [st.integers(0, spec.numel)])))
    assert found.read_range("a", start, stop).tobytes() == stored[start * nbytes : stop * nbytes]


@pytest.mark.parametrize(("size", "dtype"), [(256, "U8"), (257, "U16"), (65536, "U16"), (65537, "U32")])
def test_codes_are_as_wide_as_the_number_of_centroids_asks(size: int, dtype: str) -> None:
    specs = Codebook().part_specs(TensorSpec("F16", (4, 6)), {"size": size, "vector": 2})
    assert specs == {"codes": TensorSpec(dtype, (4, 3)), "centroids": TensorSpec("F16", (size, 2))}


def test_parameters_that_have_their_defaults_are_left_out() -> None:
    spec = TensorSpec("U8", (2, 2))
    encoded = Codebook().encode_codes(np.zeros(4, np.int64), np.zeros(1, np.uint8), spec, 1)
    assert encoded.params == {"size": 1}
    defaults: list[dict[str, Any]] = [{"size": 1, "vector": 1}, {"group_rows": 0, "size": 1}]
    for params in defaults:
        with pytest.raises(FormatError, match=r"vector|group_rows"):
            Codebook().part_specs(spec, params)


@pytest.mark.parametrize(
    ("shape", "params", "problem"),
    [
        ((), {"size": 1, "vector": 2}, "without dimensions"),
        ((), {"size": 1, "vector": 0}, "without dimensions"),
        ((), {"group_rows": 1, "size": 1}, "without dimensions"),
        ((4, 6), {"size": 1, "vector": 3}, "vector"),
        ((4, 6), {"size": 1, "vector": 4}, "no whole number of vectors"),
        ((4, 6), {"group_rows": 2, "size": 1, "vector": 0}, "no groups"),
        ((4, 6), {"size": 2**32 + 1, "vector": 2}, "size"),
        ((4, 6), {"group_rows": 2, "size": 257}, "size"),
        ((4, 6), {"vector": 2}, "the parameters are"),
        ((1 << 20, 4), {"group_rows": 1, "size": 1 << 32, "vector": 4}, "exceed"),
    ],
)
def test_layouts_that_no_tensor_has_are_refused(
    shape: tuple[int, ...], params: dict[str, Any], problem: str
) -> None:
    with pytest.raises(FormatError, match=problem):
        Codebook().part_specs(TensorSpec("F32", shape), params)


@pytest.mark.parametrize("codes", [b"\0\2", b"\xff\0"])
def test_a_code_that_names_no_row_is_refused_even_where_rows_are_empty(codes: bytes) -> None:
    for shape, centroids in (([2, 3], bytes(12)), ([2, 0], b"")):
        node = branch("codebook", {"size": 2, "vector": 0}, codes=leaf(codes), centroids=leaf(centroids))
        with pytest.raises(CorruptStreamError, match="is not in a codebook of 2"):
            opened("U16", shape, node).verify(deep=True)


def test_codes_and_centroids_that_do_not_fit_are_the_pass_s_mistake() -> None:
    spec, one = TensorSpec("U8", (2, 2)), np.zeros(2, np.uint8)
    for codes, size in ((np.array([0, 1, 2, 0]), 2), (np.array([0, -1, 0, 0]), 2), (np.zeros(3, int), 2)):
        with pytest.raises(PassError, match="codebook"):
            Codebook().encode_codes(codes, one, spec, size)
    with pytest.raises(PassError, match="no whole number of vectors"):
        Codebook().encode_codes(np.zeros(1, int), one, spec, 1, vector=8)
