"""share: few values for many weights, as near as any that few can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.passes.base import Split
from cmpk.passes.kmeans import INITS
from cmpk.passes.share import Share
from tests.passes.samples import NOT_WEIGHTS, Array, Calibrated, decoded, normal, numbers_of, part_of

SHARE = Share()


def share(values: Any, statistics: Calibrated | None = None, dtype: str = "F32", **options: object) -> Array:
    found = SHARE.apply("a", part_of(values, dtype), options, statistics)
    assert isinstance(found, Split)
    assert found.encoding == "codebook"
    return decoded(found)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_weights_become_the_nearest_of_the_values(bits: int, init: str, dtype: str) -> None:
    weights = numbers_of(part_of(normal(100, 200), dtype))
    after = share(weights, dtype=dtype, bits=bits, init=init)
    values = np.unique(after)
    assert len(values) <= 1 << bits
    exact, came = weights.astype(np.float64), after.astype(np.float64)
    nearest = np.searchsorted((values[1:].astype(np.float64) + values[:-1]) / 2, exact.reshape(-1))
    assert came.reshape(-1).tolist() == values[nearest].tolist()


@pytest.mark.parametrize(("bits", "error"), [(1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009497)])
def test_the_error_is_that_of_the_best_quantizer(bits: int, error: float) -> None:
    weights = normal(1000, 500, scale=1)
    assert float(((share(weights, bits=bits) - weights) ** 2).mean()) == pytest.approx(error, rel=0.01)


def test_few_values_come_back_exactly() -> None:
    weights = np.random.default_rng(0).choice(np.float32([0.1, -0.7, 0.3, 1e-20]), (64, 64))
    assert share(weights, bits=2).tobytes() == weights.tobytes()


def test_zeros_of_a_pruned_tensor_stay_exactly_zero() -> None:
    weights = normal(100, 100)
    weights[np.abs(weights) < 0.03] = 0
    weights[0, :50] = -0.0
    after = share(weights, bits=3)
    assert not after[weights == 0].any()
    assert len(np.unique(after)) == 8


def test_zeros_that_need_not_stay_are_numbers_like_others() -> None:
    weights = normal(100, 100)
    weights[0, :50] = 0
    assert not share(weights, bits=1)[0, :50].any()
    assert share(weights, bits=1, keep_zeros=False)[0, :50].all()


def test_a_single_zero_stays_zero_but_costs_a_value() -> None:
    weights = normal(100, 100)
    weights[5, 5] = 0
    after = share(weights, bits=1)
    assert len(np.unique(after)) == 2
    assert after[5, 5] == 0


@pytest.mark.parametrize("weighting", ["activation", "fisher"])
def test_weights_that_matter_more_have_the_smaller_errors(weighting: str) -> None:
    weights = normal(200, 100) + np.where(np.arange(100) < 50, 0.02, -0.02).astype(np.float32)
    matters = np.where(np.arange(100) < 50, 100, 0.01).astype(np.float32)
    statistics = Calibrated(second_moment=matters, gradient_squares=np.tile(matters, (200, 1)))
    errors = (share(weights, statistics, bits=3, weighting=weighting) - weights) ** 2
    plain = (share(weights, bits=3) - weights) ** 2
    assert errors[:, :50].mean() < 0.8 * plain[:, :50].mean()
    assert (errors * matters).sum() < (plain * matters).sum()


@pytest.mark.parametrize("statistics", [None, Calibrated(), Calibrated(second_moment=np.ones(7, np.float32))])
def test_without_the_calibration_that_is_asked_for_a_tensor_is_left_alone(
    statistics: Calibrated | None,
) -> None:
    for weighting in ("activation", "fisher"):
        part = part_of(normal(64, 64))
        assert SHARE.apply("a", part, {"weighting": weighting}, statistics) is None


def test_rows_to_keep_come_back_bit_for_bit() -> None:
    weights = normal(50, 40)
    found = SHARE.apply("a", part_of(weights), {"bits": 2, "keep_rows": [0, 49]})
    after = decoded(found)
    assert after[[0, 49]].tobytes() == weights[[0, 49]].tobytes()
    assert len(np.unique(after[1:49])) == 4
    assert SHARE.apply("a", part_of(weights), {"keep_rows": [50]}) is None
    assert SHARE.apply("a", part_of(weights), {"keep_rows": list(range(50))}) is None


@pytest.mark.parametrize("shape", [(5000,), (1, 5000), (5000, 1), (10, 10, 5, 10)])
def test_any_shape_is_shared(shape: tuple[int, ...]) -> None:
    assert share(normal(*shape), bits=4).shape == shape


@pytest.mark.parametrize("value", [0.0, 1.5, -3e38, 1e-40])
def test_a_constant_is_one_value(value: float) -> None:
    weights = np.full((100, 100), value, np.float32)
    assert share(weights, bits=4).tobytes() == weights.tobytes()


@pytest.mark.parametrize("shape", [(), (1,), (7,)])
def test_tensors_so_small_that_the_values_outweigh_them_are_left_alone(shape: tuple[int, ...]) -> None:
    assert SHARE.apply("a", part_of(np.ones(shape)), {"bits": 4}) is None


@pytest.mark.parametrize("part", NOT_WEIGHTS.values(), ids=NOT_WEIGHTS)
def test_what_has_no_finite_weights_is_left_alone(part: Part) -> None:
    assert SHARE.apply("a", part, {"bits": 1}) is None


def test_the_result_is_the_same_every_time() -> None:
    part = part_of(normal(100, 300))
    for init in INITS:
        first, again = (SHARE.apply("a", part, {"init": init}) for _ in range(2))
        assert isinstance(first, Split)
        assert isinstance(again, Split)
        for name in first.parts:
            assert first.parts[name].data.tobytes() == again.parts[name].data.tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 0},
        {"bits": 9},
        {"bits": 4.0},
        {"init": "kmeans"},
        {"weighting": "hessian"},
        {"keep_zeros": 1},
        {"keep_rows": "0"},
        {"seed": 1 << 32},
        {"clusters": 16},
    ],
)
def test_options_that_make_no_sense_are_errors(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        SHARE.apply("a", part_of([1.0]), options)


class TestGroups:
    def test_rows_of_each_group_have_values_of_their_own(self) -> None:
        weights = normal(10, 400) * np.float32(10) ** np.arange(10, dtype=np.float32)[:, None]
        after = share(weights, bits=3, group_rows=2)
        for start in range(0, 10, 2):
            group = slice(start, start + 2)
            assert len(np.unique(after[group])) <= 8
            alone = share(weights[group], bits=3)
            assert after[group].tobytes() == alone.tobytes()

    @pytest.mark.parametrize("group_rows", [1, 3, 7, 10, 1000])
    def test_the_last_group_may_be_short(self, group_rows: int) -> None:
        weights = normal(10, 400)
        after = share(weights, bits=2, group_rows=group_rows)
        for start in range(0, 10, group_rows):
            assert len(np.unique(after[start : start + group_rows])) <= 4

    def test_groups_of_fewer_values_than_others_come_back_exactly(self) -> None:
        weights = np.zeros((4, 500), np.float32)
        weights[1] = np.resize(np.float32([1, 2, 3, 4]), 500)
        weights[3] = -7
        assert share(weights, bits=3, group_rows=1).tobytes() == weights.tobytes()

    def test_more_groups_have_the_smaller_error(self) -> None:
        weights = normal(64, 512) * np.float32(1 + np.arange(64) % 8)[:, None]
        errors = [np.linalg.norm(share(weights, bits=3, group_rows=size) - weights) for size in (0, 16, 1)]
        assert errors == sorted(errors, reverse=True)

    def test_calibration_weighs_each_group(self) -> None:
        weights, matters = normal(4, 1000), np.random.default_rng(0).random((4, 1000)).astype(np.float32) ** 8
        statistics = Calibrated(gradient_squares=matters)
        error = (share(weights, statistics, bits=2, weighting="fisher", group_rows=1) - weights) ** 2
        plain = (share(weights, bits=2, group_rows=1) - weights) ** 2
        assert ((error * matters).sum(axis=1) < (plain * matters).sum(axis=1)).all()

    def test_weights_that_all_matter_nothing_are_shared_all_the_same(self) -> None:
        weights = normal(4, 1000)
        statistics = Calibrated(gradient_squares=np.zeros((4, 1000), np.float32))
        after = share(weights, statistics, bits=2, weighting="fisher")
        assert after.tobytes() == share(weights, bits=2).tobytes()


class TestVectors:
    @pytest.mark.parametrize("vector", [2, 4, 8])
    @pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
    def test_neighbours_are_replaced_together(self, vector: int, dtype: str) -> None:
        weights = normal(100, 80)
        after = share(weights, dtype=dtype, bits=6, vector=vector)
        assert len(np.unique(after.reshape(-1, vector), axis=0)) <= 64
        assert np.linalg.norm(after - weights) < np.linalg.norm(weights) * 2 ** (-6 / vector) * 1.6

    def test_vectors_err_less_than_single_weights_at_the_same_rate(self) -> None:
        weights = normal(300, 512)
        single, pairs = share(weights, bits=2), share(weights, bits=4, vector=2)
        assert np.linalg.norm(pairs - weights) < np.linalg.norm(single - weights)

    def test_more_than_256_vectors_are_told_apart(self) -> None:
        weights = normal(400, 256)
        after = share(weights, bits=10, vector=4)
        assert 256 < len(np.unique(after.reshape(-1, 4), axis=0)) <= 1024

    def test_groups_of_rows_have_vectors_of_their_own(self) -> None:
        weights = normal(6, 2000) * np.float32(10) ** np.arange(6, dtype=np.float32)[:, None]
        after = share(weights, bits=4, vector=2, group_rows=1)
        for before, row in zip(weights, after, strict=True):
            assert np.linalg.norm(row - before) < 0.5 * np.linalg.norm(before)

    def test_neighbours_that_are_all_zero_stay_zero(self) -> None:
        weights = normal(50, 80)
        weights[:, :4] = 0
        assert not share(weights, bits=4, vector=4)[:, :4].any()

    @pytest.mark.parametrize("shape", [(), (50, 81), (3001,)])
    def test_a_last_axis_that_vectors_do_not_divide_leaves_a_tensor_alone(
        self, shape: tuple[int, ...]
    ) -> None:
        assert SHARE.apply("a", part_of(np.ones(shape)), {"vector": 4}) is None

    @pytest.mark.parametrize(
        "options",
        [
            {"vector": 3},
            {"vector": 0},
            {"vector": 16},
            {"vector": 2, "init": "random"},
            {"vector": 2, "weighting": "none"},
            {"vector": 2, "bits": 13},
            {"group_rows": -1},
        ],
    )
    def test_options_that_make_no_sense_are_errors(self, options: dict[str, object]) -> None:
        with pytest.raises(RecipeError):
            SHARE.apply("a", part_of([1.0]), options)
