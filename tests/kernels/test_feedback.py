"""Rounding in order: the sums of the interface, whatever the tiles, blocks and threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.kernels import reference
from cmpk.kernels.interface import KernelBackend

Matrix = np.ndarray[Any, np.dtype[np.float32]]


def fed(values: Matrix, steps: Matrix, factor: Matrix) -> list[list[int]]:
    """Element by element, with NumPy's numbers of single precision."""
    codes = np.zeros(values.shape, np.int64)
    for column in range(values.shape[1]):
        errors: list[np.float32] = []
        for row in range(len(values)):
            wanted = values[row, column]
            for j, error in enumerate(errors):
                wanted = np.float32(wanted + np.float32(factor[j, row] * error))
            code = np.rint(np.float32(wanted / steps[row, column]))
            codes[row, column] = int(code)
            errors.append(np.float32(values[row, column] - np.float32(code * steps[row, column])))
    return codes.tolist()


def case(rows: int, columns: int, seed: int) -> tuple[Matrix, Matrix, Matrix]:
    rng = np.random.default_rng(seed)
    values, factor = rng.standard_normal((rows, columns)), rng.standard_normal((rows, rows)) / np.sqrt(rows)
    steps = np.exp(rng.standard_normal((rows, columns))) / 8
    return values.astype(np.float32), steps.astype(np.float32), factor.astype(np.float32)


@given(rows=st.integers(0, 7), columns=st.integers(0, 5), seed=st.integers(0, 1000))
def test_codes_are_those_of_the_sums(backend: KernelBackend, rows: int, columns: int, seed: int) -> None:
    given_case = case(rows, columns, seed)
    found = backend.feed_errors(*given_case)
    assert found.dtype == np.int32
    assert found.tolist() == fed(*given_case)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (33, 31), (65, 97), (1, 40), (100, 1)])
def test_large_ones_are_those_of_reference(
    backend: KernelBackend, rows: int, columns: int, threads: int
) -> None:
    given_case = case(rows, columns, rows)
    assert backend.feed_errors(*given_case, threads).tobytes() == reference.feed_errors(*given_case).tobytes()


def test_what_is_no_code_is_bounded(backend: KernelBackend) -> None:
    values = np.float32([[1e30, -1e30, 3e38, np.nan, np.inf], [0, 0, 3e38, 1, 1]])
    steps = np.full((2, 5), 1e-3, np.float32)
    factor = np.float32([[0, 1e10], [0, 0]])
    found = backend.feed_errors(values, steps, factor)
    assert found[0].tolist() == [1 << 30, -1 << 30, 1 << 30, 0, 1 << 30]
    assert found.tobytes() == reference.feed_errors(values, steps, factor).tobytes()
    assert np.abs(found).max() <= 1 << 30


def test_what_only_a_caller_can_get_wrong_is_a_value_error(backend: KernelBackend) -> None:
    values = np.zeros((2, 3), np.float32)
    for steps, factor in ((values.T.copy(), np.zeros((2, 2))), (values, np.zeros((3, 3)))):
        with pytest.raises(ValueError, match="shape"):
            backend.feed_errors(values, steps, factor.astype(np.float32))
