"""Products of matrices: every product and every sum rounded, in the order of the page."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.kernels import reference
from cmpk.kernels.interface import PRODUCT_DTYPES, KernelBackend


def summed(left: np.ndarray, right: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Element by element, with NumPy's numbers of single precision."""
    out = np.zeros((len(left), right.shape[1]), np.float32)
    with np.errstate(all="ignore"):
        for i, row in enumerate(left):
            for j, column in enumerate(right.T):
                s = np.float32(0)
                for a, b in zip(row, column, strict=True):
                    s = np.float32(s + np.float32(a * b))
                out[i, j] = s
    return out


@given(
    rows=st.integers(0, 6),
    rank=st.integers(1, 9),
    columns=st.integers(0, 6),
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([1, 20, 100]),
)
def test_elements_are_the_sums_of_the_page(
    backend: KernelBackend, rows: int, rank: int, columns: int, seed: int, spread: int
) -> None:
    rng = np.random.default_rng(seed)
    left, right = (
        np.ldexp(rng.standard_normal(shape), rng.integers(-spread, spread, shape)).astype(np.float32)
        for shape in ((rows, rank), (rank, columns))
    )
    out = np.zeros(4 * rows * columns, np.uint8)
    backend.matrix_product(left.reshape(-1), right.reshape(-1), rank, "F32", out)
    wanted = summed(left, right)
    wanted.view(np.uint32)[np.isnan(wanted)] = 0x7FC00000
    assert out.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", PRODUCT_DTYPES)
@pytest.mark.parametrize(
    ("rows", "rank", "columns"), [(70, 33, 511), (65, 5, 513), (1, 300, 1030), (200, 1, 1)]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_large_products_are_those_of_reference(
    backend: KernelBackend, dtype: str, rows: int, rank: int, columns: int, threads: int
) -> None:
    rng = np.random.default_rng(rank)
    left, right = (
        np.ldexp(rng.standard_normal(n), rng.integers(-30, 30, n)).astype(np.float32)
        for n in (rows * rank, rank * columns)
    )
    left[::97], right[::89] = np.inf, np.nan
    nbytes = rows * columns * {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}[dtype]
    found, wanted = np.full(nbytes + 2, 0xEE, np.uint8), np.zeros(nbytes, np.uint8)
    # From an address that suits no element.
    backend.matrix_product(left, right, rank, dtype, found[1:-1], threads)
    reference.matrix_product(left, right, rank, dtype, wanted)
    assert found.tobytes() == b"\xee" + wanted.tobytes() + b"\xee"


def test_what_only_a_caller_can_get_wrong_is_a_value_error(backend: KernelBackend) -> None:
    out = np.zeros(16, np.uint8)
    for rank in (0, -1, 3, 2**61):
        with pytest.raises(ValueError, match="rank"):
            backend.matrix_product(bytes(16), bytes(16), rank, "F32", out)
    with pytest.raises(ValueError, match="rows"):
        backend.matrix_product(bytes(16), bytes(16), 2, "F32", out[:12])
    with pytest.raises(ValueError, match="not one of"):
        backend.matrix_product(bytes(16), bytes(16), 2, "U8", out)
