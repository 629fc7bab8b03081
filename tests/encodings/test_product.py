"""product: the sums of the page in any range; matrices that do not fit are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.archive import Archive
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Product
from cmpk.errors import FormatError, PassError
from cmpk.kernels import reference
from tests.builders import Node, archive, branch, branch_of, leaf, tensor


def opened(dtype: str, shape: list[int], node: Node) -> Archive:
    return Archive(archive([tensor("a", dtype, shape, node)]))


@given(st.data())
def test_any_range_is_a_slice_of_the_product(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["F16", "BF16", "F32", "F64"]))
    factors = data.draw(st.sampled_from(["F32", "F16", "BF16"]))
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=2, max_size=4)))
    rank = data.draw(st.integers(1, 6))
    spec = TensorSpec(dtype, shape)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    left, right = (
        rng.integers(0, 256, n * DTYPES[factors].nbytes, np.uint8)
        for n in (shape[0] * rank, rank * math.prod(shape[1:]))
    )
    wide = [m if factors == "F32" else reference.widen(m, factors, "F32") for m in (left, right)]
    wanted = np.zeros(spec.nbytes, np.uint8)
    reference.matrix_product(wide[0], wide[1], rank, dtype, wanted)
    node = branch_of("product", Product().encode(left, right, spec, rank, factors))
    found = opened(dtype, list(shape), node)
    assert found.read("a").tobytes() == wanted.tobytes()
    start, stop = sorted(data.draw(st.tuples(*2 * [st.integers(0, spec.numel)])))
    nbytes = DTYPES[dtype].nbytes
    assert found.read_range("a", start, stop).tobytes() == wanted[start * nbytes : stop * nbytes].tobytes()


def test_a_matrix_of_low_rank_comes_back_to_the_last_bit() -> None:
    rng = np.random.default_rng(3)
    # Small whole numbers: no sum is rounded, so that any order of them gives these bits.
    left, right = rng.integers(-9, 10, (60, 5)), rng.integers(-9, 10, (5, 40))
    halves = [matrix.astype(np.float16).reshape(-1).view(np.uint8) for matrix in (left, right)]
    encoded = Product().encode(halves[0], halves[1], TensorSpec("F32", (60, 40)), 5, "F16")
    found = opened("F32", [60, 40], branch_of("product", encoded)).read("a")
    assert found.tobytes() == (left @ right).astype(np.float32).tobytes()


@pytest.mark.parametrize(
    ("dtype", "shape", "params", "problem"),
    [
        ("F32", (4, 4), {"dtype": "F16", "rank": 0}, "rank"),
        ("F32", (4, 4), {"dtype": "F16", "rank": 4097}, "rank"),
        ("F32", (4, 4), {"dtype": "F64", "rank": 1}, "dtype"),
        ("F32", (4, 4), {"dtype": 16, "rank": 1}, "dtype"),
        ("F32", (4, 4), {"rank": 1}, "the parameters are"),
        ("F32", (4,), {"dtype": "F16", "rank": 1}, "no matrix"),
        ("F32", (), {"dtype": "F16", "rank": 1}, "no matrix"),
        ("U8", (4, 4), {"dtype": "F16", "rank": 1}, "no products"),
        ("F8_E4M3", (4, 4), {"dtype": "F16", "rank": 1}, "no products"),
        ("F32", (1 << 47, 0), {"dtype": "F16", "rank": 2}, "exceeds"),
    ],
)
def test_what_no_product_is_is_refused(
    dtype: str, shape: tuple[int, ...], params: dict[str, Any], problem: str
) -> None:
    with pytest.raises(FormatError, match=problem):
        Product().part_specs(TensorSpec(dtype, shape), params)


def test_parts_are_checked_when_a_file_is_opened() -> None:
    params = {"dtype": "F32", "rank": 1}
    with pytest.raises(FormatError, match="can't hold"):
        opened("F32", [2, 2], branch("product", params, left=leaf(bytes(7)), right=leaf(bytes(8))))
    with pytest.raises(FormatError, match="has the parts"):
        opened("F32", [2, 2], branch("product", params, right=leaf(bytes(8)), left=leaf(bytes(8))))


def test_matrices_that_do_not_fit_the_tensor_are_the_pass_s_mistake() -> None:
    spec, octets = TensorSpec("F32", (2, 2)), np.zeros(8, np.uint8)
    for rank, dtype in ((2, "F32"), (0, "F32"), (1, "F64")):
        with pytest.raises(PassError, match="product"):
            Product().encode(octets, octets, spec, rank, dtype)
