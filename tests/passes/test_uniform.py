from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmpk.passes.row_classes import row_classes
from cmpk.passes.uniform import SLOPE, code_nbits, error_feedback, quantize_rdo, quantize_uniform

Array = np.ndarray[Any, Any]


def seeded(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def root_of(moment: Array) -> Array:
    """R, upper triangular, with R Rᵀ = moment."""
    return np.linalg.cholesky(moment[::-1, ::-1])[::-1, ::-1]


def factor_of(root: Array) -> Array:
    return (root / np.diag(root)).astype(np.float32)


def gptq(values: Array, moment: Array, step: float) -> Array:
    """The update as its paper has it: after each column, the inverse of what is left of the moment."""
    rest = values.copy()
    codes = np.empty(values.shape, np.int32)
    for j in range(values.shape[1]):
        inverse = np.linalg.inv(moment[j:, j:])
        codes[:, j] = np.rint(rest[:, j] / step)
        error = rest[:, j] - codes[:, j] * step
        rest[:, j:] -= np.outer(error, inverse[0] / inverse[0, 0])
    return codes


@pytest.mark.parametrize("columns", [1, 5, 40, 150])
def test_feeding_errors_on_is_what_gptq_does(columns: int) -> None:
    inputs = seeded(3 * columns, columns, seed=1) @ seeded(columns, columns, seed=2)
    moment = inputs.T @ inputs / len(inputs) + np.eye(columns)
    values = seeded(9, columns).astype(np.float32)
    codes = error_feedback(values, factor_of(root_of(moment)), np.float32([[0.25]]))
    # Single precision may round a tie, or nearly one, the other way; all after it then differs a little.
    expected = gptq(values.astype(np.float64), moment, 0.25)
    assert (codes == expected).mean() > 0.97
    assert np.abs(codes - expected).max() <= 2


def test_inputs_that_know_nothing_of_each_other_get_the_nearest_codes() -> None:
    values = seeded(20, 30).astype(np.float32)
    root = np.diag(np.linspace(1, 3, 30))
    step = np.linspace(0.1, 0.5, 30, dtype=np.float32)[None]
    assert error_feedback(values, factor_of(root), step).tobytes() == quantize_uniform(values, step).tobytes()


def test_what_is_given_is_not_changed() -> None:
    values = seeded(6, 8).astype(np.float32)
    before = values.copy()
    for given in (values, np.asfortranarray(values)):
        given.flags.writeable = False
        error_feedback(given, factor_of(root_of(np.ones((8, 8)) + np.eye(8))), np.float32([[0.3]]))
        assert (given == before).all()


def test_lengths_of_codes_are_those_of_their_shares() -> None:
    low, nbits = code_nbits(np.int32([-1, -1, 0, 2]))
    assert low == -1
    assert nbits.tolist() == [1, 2, 24, 2]


def test_without_a_price_for_bits_the_nearest_code_is_best() -> None:
    values = seeded(50, 60).astype(np.float32)
    step = np.float32([[1.5]])
    assert quantize_rdo(values, step, 0.0).tobytes() == quantize_uniform(values, step).tobytes()
    assert np.count_nonzero(quantize_rdo(values, step, SLOPE)) < np.count_nonzero(
        quantize_uniform(values, step)
    )


def test_no_values_have_no_codes() -> None:
    assert quantize_rdo(np.empty((0, 4), np.float32), np.float32([[1]])).shape == (0, 4)


def test_rows_of_like_magnitude_form_classes_in_its_order() -> None:
    scale = np.repeat([2.0, 50.0, 10.0], 40)[:, None]
    codes = np.rint(seeded(120, 500) * scale).astype(np.int32)
    found = row_classes(codes, 8)
    assert found.reshape(3, 40).tolist() == [[0] * 40, [2] * 40, [1] * 40]
    assert row_classes(codes, 2).max() == 1


@pytest.mark.parametrize(
    ("codes", "max_classes"),
    [
        (np.rint(seeded(60, 500) * 9), 8),
        (np.rint(seeded(60, 3) * np.geomspace(1, 99, 60)[:, None]), 8),
        (np.zeros((10, 10)), 8),
        (np.zeros((0, 10)), 8),
        (np.zeros((10, 0)), 8),
        (np.rint(seeded(60, 500) * np.geomspace(1, 99, 60)[:, None]), 1),
    ],
    ids=["alike", "few", "zero", "none", "empty", "one"],
)
def test_where_classes_do_not_pay_there_is_one(codes: Array, max_classes: int) -> None:
    found = row_classes(codes.astype(np.int32), max_classes)
    assert found.shape == (len(codes),)
    assert not found.any()


def test_huge_codes_are_in_a_class_all_the_same() -> None:
    codes = np.full((200, 300), 1 << 30, np.int32)
    codes[::2] = 1
    assert row_classes(codes, 4).tolist() == [0, 1] * 100
