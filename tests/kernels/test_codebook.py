"""Codes are looked up in the codebook of their run, and those that are in none are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import KernelBackend


@given(
    n=st.sampled_from([0, 1, 2, 1000, 20000]),
    code_nbytes=st.sampled_from([1, 2, 4]),
    unit=st.sampled_from([1, 2, 3, 4, 8, 12, 16, 32, 64, 768]),
    size=st.sampled_from([1, 2, 200, 256]),
    first=st.integers(0, 99),
    run=st.sampled_from([0, 1, 7, 100, 10**6]),
    threads=st.sampled_from([1, 3]),
)
def test_each_code_gives_its_centroid(
    backend: KernelBackend,
    n: int,
    code_nbytes: int,
    unit: int,
    size: int,
    first: int,
    run: int,
    threads: int,
) -> None:
    n = min(n, 300) if unit > 64 or (run and run < 100) else n
    rng = np.random.default_rng(n)
    codes = rng.integers(0, size, n)
    books = np.arange(first, first + n) // run if run else np.zeros(n, np.int64)
    centroids = rng.integers(0, 256, (int(books.max(initial=0)) + 1, size, unit), np.uint8)
    around = np.full(n * unit + 2, 0xEE, np.uint8)
    backend.codebook_expand(
        codes.astype(f"<u{code_nbytes}"), code_nbytes, first, centroids.reshape(-1), size, run,
        around[1:-1], threads,
    )  # fmt: skip
    assert around.tobytes() == b"\xee" + centroids[books, codes].tobytes() + b"\xee"


@pytest.mark.parametrize(
    ("code_nbytes", "code"), [(1, 2), (1, 255), (2, 2), (2, 256), (4, 2), (4, 2**32 - 1)]
)
@pytest.mark.parametrize("run", [0, 2])
def test_a_code_that_is_in_no_codebook_is_corrupt(
    backend: KernelBackend, code_nbytes: int, code: int, run: int
) -> None:
    codes = np.array([0, 1, code, 0], f"<u{code_nbytes}")
    with pytest.raises(CorruptStreamError, match="is not in a codebook of 2"):
        backend.codebook_expand(codes, code_nbytes, 0, bytes(16), 2, run, np.zeros(16, np.uint8))


def test_what_only_a_caller_can_get_wrong_is_a_value_error(backend: KernelBackend) -> None:
    out = np.zeros(8, np.uint8)
    for code_nbytes in (0, 3, 8):
        with pytest.raises(ValueError, match="1, 2 or 4 bytes"):
            backend.codebook_expand(bytes(4), code_nbytes, 0, bytes(2), 1, 0, out)
    with pytest.raises(ValueError, match="whole number"):
        backend.codebook_expand(bytes(3), 2, 0, bytes(2), 1, 0, out)
    with pytest.raises(ValueError, match="whole number"):
        backend.codebook_expand(bytes(3), 1, 0, bytes(2), 1, 0, out)
    for first, size, run in ((-1, 1, 0), (0, 0, 0), (0, 1, -1)):
        with pytest.raises(ValueError, match="range"):
            backend.codebook_expand(bytes(4), 1, first, bytes(2), size, run, out)
    for first, size, run in ((0, 2, 0), (0, 1, 2), (2**62, 1, 1), (0, 2**62, 0)):
        with pytest.raises(ValueError, match="centroids"):
            backend.codebook_expand(bytes(4), 1, first, bytes(2), size, run, out)
