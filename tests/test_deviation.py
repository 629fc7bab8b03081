"""How far one tensor is from another: sums, what is not finite, and types."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cmpk.deviation import Deviation, deviation
from cmpk.dtypes import TensorSpec
from cmpk.format.quality import decibels
from cmpk.kernels.interface import U8

NUMBERS = st.floats(-(2.0**60), 2.0**60, width=32)
VECTORS = arrays.arrays(np.float32, st.integers(0, 50), elements=NUMBERS)


def raw(values: object, dtype: str = "float32") -> U8:
    return np.asarray(values, dtype).reshape(-1).view(np.uint8)


def between(x: object, y: object, dtype: str = "float32", name: str = "F32") -> Deviation:
    found = deviation(TensorSpec(name, (np.size(x),)), raw(x, dtype), raw(y, dtype))
    assert found is not None
    return found


def test_the_figures_are_those_of_their_formulas() -> None:
    found = between([3, 4, 0, -1], [3, 2, 0, 0])
    assert (found.numel, found.zeros, found.source_zeros, found.largest) == (4, 2, 1, 2.0)
    assert found.error == pytest.approx(math.sqrt(5 / 26))
    assert found.sqnr == pytest.approx(10 * math.log10(26 / 5))
    assert found.cosine == pytest.approx(17 / math.sqrt(26 * 13))


@given(VECTORS)
def test_a_tensor_is_no_distance_from_itself(values: np.ndarray) -> None:  # type: ignore[type-arg]
    found = between(values, values)
    assert (found.error, found.largest, found.sqnr) == (0, 0, math.inf)
    assert found.cosine == pytest.approx(1)


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_long_tensors_give_what_one_sum_over_all_gives(blocks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(blocks * 20_000).astype(np.float32)
    y = (x + rng.standard_normal(len(x)) / 8).astype(np.float32)
    found = between(x, y)
    wide = x.astype(np.float64), y.astype(np.float64)
    assert found.error == pytest.approx(np.linalg.norm(wide[1] - wide[0]) / np.linalg.norm(wide[0]))
    assert found.largest == np.abs(wide[1] - wide[0]).max()


@pytest.mark.parametrize(
    ("x", "y", "error", "cosine"),
    [
        ([], [], 0, 1),
        ([0, 0], [0, -0.0], 0, 1),
        ([0, 0], [0, 1], math.inf, 0),
        ([1, 1], [0, 0], 1, 0),
        ([1, math.nan], [1, math.nan], 0, 1),
        ([1, math.inf], [1, math.inf], 0, 1),
        ([1, math.inf], [1, -math.inf], math.inf, 1),
        ([1, 2], [1, math.nan], math.inf, 1),
        ([1, math.nan], [1, 2], math.inf, 1),
    ],
)
def test_what_is_zero_or_not_finite_has_a_distance_too(
    x: list[float], y: list[float], error: float, cosine: float
) -> None:
    found = between(x, y)
    assert found.error == error
    assert found.cosine == pytest.approx(cosine)


def test_the_largest_doubles_do_not_overflow_into_a_wrong_answer() -> None:
    assert between([1e308, 1], [1e308, 1], "float64", "F64").error == 0


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("BF16", np.array([0x3F80, 0x4000], np.uint16), np.array([0x3F80, 0x4040], np.uint16)),
        ("F8_E4M3", np.array([0x38, 0x40], np.uint8), np.array([0x38, 0x44], np.uint8)),
        ("F16", np.array([1, 2], np.float16), np.array([1, 3], np.float16)),
        ("F64", np.array([1, 2], np.float64), np.array([1, 3], np.float64)),
        ("I8", np.array([1, 2], np.int8), np.array([1, 3], np.int8)),
        ("U64", np.array([1, 2], np.uint64), np.array([1, 3], np.uint64)),
    ],
)
def test_every_type_of_numbers_is_known(name: str, x: np.ndarray, y: np.ndarray) -> None:  # type: ignore[type-arg]
    found = deviation(TensorSpec(name, (2,)), x.view(np.uint8), y.view(np.uint8))
    assert found is not None
    assert (found.source_squares, found.error_squares) == (5, 1)


@pytest.mark.parametrize("name", ["F4", "F6_E2M3", "F8_E8M0", "C64"])
def test_of_other_types_nothing_is_said(name: str) -> None:
    spec = TensorSpec(name, (8,))
    assert deviation(spec, np.zeros(spec.nbytes, np.uint8), np.ones(spec.nbytes, np.uint8)) is None


def test_decibels_of_no_and_of_any_error() -> None:
    assert [decibels(error) for error in (0, 1, 0.1, math.inf)] == [math.inf, 0, pytest.approx(20), -math.inf]
