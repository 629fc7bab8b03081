"""Codes of a fixed width: every pass keeps the bound that it states, for any shape and scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.passes.base import Pass, Split
from cmpk.passes.fixed_width import (
    Binarize,
    FixedPoint,
    NormalFloat,
    RoundInt,
    Ternarize,
    normal_levels,
)
from tests.passes.samples import NOT_WEIGHTS, Array, Calibrated, decoded, normal, numbers_of, part_of

ALL: list[Pass] = [RoundInt(), FixedPoint(), Binarize(), Ternarize(), NormalFloat()]
LAYOUTS: list[dict[str, object]] = [
    {"per": "tensor"},
    {"per": "row"},
    {"per": "group", "group_size": 7},
    {"per": "group", "group_size": 1 << 31},
]
SHAPES = [(), (1,), (100,), (1, 30), (30, 1), (12, 35), (3, 4, 2, 5)]


def ids(chosen: Pass) -> str:
    return chosen.id


def coded(chosen: Pass, values: Any, options: Mapping[str, object], dtype: str = "F32", **more: Any) -> Array:
    found = chosen.apply("a", part_of(values, dtype), options, **more)
    assert isinstance(found, Split)
    assert found.encoding == "affine"
    return decoded(found)


def slices(values: Array, options: Mapping[str, object]) -> list[Array]:
    """The parts of a tensor that have a scale each."""
    if options["per"] == "group" and values.ndim:
        size = min(int(str(options["group_size"])), values.shape[-1])
        lines = values.reshape(-1, values.shape[-1])
        return [line[start : start + size] for line in lines for start in range(0, len(line), size)]
    if options["per"] == "row" and values.ndim > 1:
        return list(values.reshape(len(values), -1))
    return [values.reshape(-1)]


def errors(before: Array, after: Array, options: Mapping[str, object]) -> list[tuple[Array, Array]]:
    """Weights and errors of each part, in double precision."""
    parts = zip(slices(before, options), slices(after, options), strict=True)
    return [(old.astype(np.float64), new.astype(np.float64) - old) for old, new in parts]


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
class TestBounds:
    @pytest.mark.parametrize("bits", [2, 4, 8])
    @pytest.mark.parametrize("scale_dtype", ["F32", "F16", "BF16"])
    def test_rounding_to_integers_is_off_by_half_a_step_at_most(
        self, options: dict[str, object], shape: tuple[int, ...], bits: int, scale_dtype: str
    ) -> None:
        before = normal(*shape)
        after = coded(RoundInt(), before, {**options, "bits": bits, "scale_dtype": scale_dtype})
        for old, error in errors(before, after, options):
            step = np.abs(old).max() / (2 ** (bits - 1) - 1)
            assert np.abs(error).max() <= step / 2 * (1.0001 if scale_dtype == "F32" else 1 + 1 / 64)

    @pytest.mark.parametrize("bits", [2, 5, 8])
    def test_fixed_point_is_off_by_half_a_power_of_two_at_most(
        self, options: dict[str, object], shape: tuple[int, ...], bits: int
    ) -> None:
        before = normal(*shape)
        after = coded(FixedPoint(), before, {**options, "bits": bits})
        for old, error in errors(before, after, options):
            limit = 2 ** (bits - 1) - 1
            step = 2.0 ** math.floor(math.log2(np.abs(old).max() / (limit + 0.5)) + 1)
            assert np.abs(error).max() <= step / 2
            assert not ((old + error) % step).any()

    def test_binary_weights_have_the_least_error_that_one_magnitude_can_have(
        self, options: dict[str, object], shape: tuple[int, ...]
    ) -> None:
        before = normal(*shape)
        after = coded(Binarize(), before, options)
        for old, error in errors(before, after, options):
            magnitude = np.abs(old).mean()
            assert np.abs(old + error) == pytest.approx(np.full(len(old), magnitude), rel=1e-6)
            assert (np.sign(old + error) == np.sign(old)).all()
            least = (old**2).sum() - len(old) * magnitude**2
            assert (error**2).sum() == pytest.approx(least, rel=1e-4, abs=1e-12)

    def test_ternary_weights_zero_the_small_and_average_the_others(
        self, options: dict[str, object], shape: tuple[int, ...]
    ) -> None:
        before = normal(*shape)
        after = coded(Ternarize(), before, options)
        for old, error in errors(before, after, options):
            kept = np.abs(old) > 0.7 * np.abs(old).mean()
            assert not (old + error)[~kept].any()
            expected = np.abs(old[kept]).mean() * np.sign(old[kept])
            assert (old + error)[kept] == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("bits", [2, 3, 4, 6])
    def test_every_weight_gets_the_nearest_normal_level(
        self, options: dict[str, object], shape: tuple[int, ...], bits: int
    ) -> None:
        before = normal(*shape)
        after = coded(NormalFloat(), before, {**options, "bits": bits})
        levels = np.rint(normal_levels(bits) * 127) / 127
        for old, error in errors(before, after, options):
            largest = np.abs(old).max()
            least = np.abs(old[:, None] / largest - levels).min(axis=1) * largest
            assert (np.abs(error) <= least + 1e-5 * largest).all()


def test_normal_levels_are_those_of_the_paper() -> None:
    nf4 = [-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0]
    nf4 += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.723, 1]
    assert normal_levels(4) == pytest.approx(nf4, abs=1e-4)
    for bits in range(2, 7):
        assert len(np.unique(np.rint(normal_levels(bits) * 127))) == 2**bits


def test_fraction_bits_say_what_is_rounded_to() -> None:
    values = np.zeros((1, 1000), np.float32)
    values[0, :3] = 0.3, -0.126, 1000
    after = coded(FixedPoint(), values, {"fraction_bits": 3})
    assert after[0, :4].tolist() == [0.25, -0.125, 1000, 0]
    # Codes of which hardly any fits a byte are no codes: the numbers themselves are rounded.
    found = FixedPoint().apply("a", part_of(normal(100, 100, scale=1)), {"fraction_bits": 12})
    assert isinstance(found, Part)
    assert np.abs(numbers_of(found) - normal(100, 100, scale=1)).max() <= 2**-13
    assert not (numbers_of(found) % 2**-12).any()
    assert FixedPoint().apply("a", part_of([1.0]), {"fraction_bits": 40}) is None


def test_a_fixed_point_code_never_rounds_beyond_its_bits() -> None:
    for bits in range(2, 9):
        limit = 2 ** (bits - 1) - 1
        for value in (limit, limit + 0.49, limit + 0.5, limit + 0.51, 2 * limit + 1):
            after = coded(FixedPoint(), [value, -1], {"bits": bits})
            step = 1 if value < limit + 0.5 else 2 if value < 2 * limit + 1 else 4
            assert abs(after[0] - value) <= step / 2
            assert abs(after[0]) <= limit * step


def test_half_precision_scales_that_would_be_far_off_are_stored_in_single() -> None:
    found = RoundInt().apply("a", part_of(normal(4, 4) * 1e-7), {"scale_dtype": "F16"})
    assert isinstance(found, Split)
    assert found.params["scale_dtype"] == "F32"


def test_rows_of_transposed_layers_are_columns() -> None:
    weights = normal(20, 6) * np.float32(10) ** np.arange(6, dtype=np.float32)
    after = coded(RoundInt(), weights, {}, statistics=Calibrated("conv1d"))
    assert (np.abs(after - weights).max(axis=0) <= np.abs(weights).max(axis=0) / 254 * 1.0001).all()


@pytest.mark.parametrize("chosen", ALL, ids=ids)
class TestAnyTensor:
    @pytest.mark.parametrize("part", NOT_WEIGHTS.values(), ids=NOT_WEIGHTS)
    def test_what_has_no_finite_weights_is_left_alone(self, chosen: Pass, part: Part) -> None:
        assert chosen.apply("a", part, {}) is None

    @pytest.mark.parametrize("options", LAYOUTS)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_zeros_stay_zeros(self, chosen: Pass, options: dict[str, object], shape: tuple[int, ...]) -> None:
        assert not coded(chosen, np.zeros(shape), options).any()

    @pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
    def test_the_type_is_the_tensors(self, chosen: Pass, dtype: str) -> None:
        before = numbers_of(part_of(normal(30, 40, scale=2), dtype))
        after = coded(chosen, before, {}, dtype)
        assert np.linalg.norm(after - before) < np.linalg.norm(before)

    def test_rows_to_keep_come_back_bit_for_bit(self, chosen: Pass) -> None:
        before = normal(20, 30)
        found = chosen.apply("a", part_of(before), {"keep_rows": [3, 19]})
        after = decoded(found)
        assert after[[3, 19]].tobytes() == before[[3, 19]].tobytes()
        assert not (after == before).all(axis=1)[[0, 1, 2, 4]].any()
        assert chosen.apply("a", part_of(before), {"keep_rows": [20]}) is None

    def test_rows_to_keep_may_be_anything(self, chosen: Pass) -> None:
        before = normal(5, 8)
        before[0] = np.nan
        after = decoded(chosen.apply("a", part_of(before), {"keep_rows": [0]}))
        assert np.isnan(after[0]).all()
        assert np.isfinite(after[1:]).all()

    @given(
        exponent=st.integers(-45, 38),
        values=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20),
        per=st.sampled_from(["row", "tensor", "group"]),
    )
    def test_numbers_of_any_size_are_off_by_no_more_than_the_largest(
        self, chosen: Pass, exponent: int, values: list[float], per: str
    ) -> None:
        before = (np.float64(values) * 10.0**exponent).astype(np.float32).reshape(1, -1)
        options = {"per": per, "group_size": 3}
        found = chosen.apply("a", part_of(before), options)
        if found is None:  # a power of two beyond what an exponent of 8 bits holds
            assert isinstance(chosen, FixedPoint)
            return
        after = decoded(found)
        for old, error in errors(before, after, options):
            assert np.abs(error).max() <= np.abs(old).max() * 1.01 + 2**-127

    def test_the_result_is_the_same_every_time(self, chosen: Pass) -> None:
        part = part_of(normal(64, 64))
        first, again = chosen.apply("a", part, {}), chosen.apply("a", part, {})
        assert isinstance(first, Split)
        assert isinstance(again, Split)
        assert {k: v.data.tobytes() for k, v in first.parts.items()} == {
            k: v.data.tobytes() for k, v in again.parts.items()
        }

    @pytest.mark.parametrize(
        "options",
        [
            {"per": "column"},
            {"group_size": 0},
            {"group_size": 1.5},
            {"keep_rows": [0, -1]},
            {"bits": 1},
            {"bits": 9},
            {"scale_dtype": "F8_E4M3"},
            {"threshold": -1},
            {"fraction_bits": -1},
            {"bits": 4, "fraction_bits": 4},
            {"width": 3},
        ],
    )
    def test_options_that_make_no_sense_are_errors(self, chosen: Pass, options: dict[str, object]) -> None:
        with pytest.raises(RecipeError):
            chosen.apply("a", part_of([1.0]), options)
