"""prune: which weights go, that all others keep their bits, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.passes import surgeon
from cmpk.passes.importance import METHODS, ImportanceHistogram
from cmpk.passes.prune import Prune
from cmpk.passes.sensitivity import DAMPING
from tests.passes.samples import NOT_WEIGHTS, Array, Calibrated, normal, numbers_of, part_of

PRUNE = Prune()


def prune(values: Any, statistics: Calibrated | None = None, dtype: str = "F32", **options: object) -> Array:
    """The numbers that are left; all others are bit for bit those that were there."""
    part = part_of(values, dtype)
    found = PRUNE.apply("a", part, options, statistics)
    assert found is not None
    assert found.spec == part.spec
    before, after = numbers_of(part), numbers_of(found)
    assert after[after != 0].tobytes() == before[after != 0].tobytes()
    assert not np.signbit(after[(after == 0) & (before != 0)]).any()
    return after


class TestSingleWeights:
    @pytest.mark.parametrize("ratio", [0, 0.1, 0.5, 0.9, 1])
    @pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3"])
    def test_exactly_the_ratio_goes_and_what_is_left_is_larger(self, ratio: float, dtype: str) -> None:
        weights = normal(37, 41, scale=3)
        before = numbers_of(part_of(weights, dtype))
        after = prune(weights, dtype=dtype, ratio=ratio)
        gone = int(ratio * weights.size)
        kept = np.sort(np.abs(before).reshape(-1))[gone:]
        assert np.sort(np.abs(after).reshape(-1))[gone:].tobytes() == kept.tobytes()
        assert not np.abs(after).reshape(-1)[np.argsort(np.abs(after).reshape(-1))[:gone]].any()

    def test_of_equal_weights_the_first_go(self) -> None:
        assert prune([1, -1, 1, -1, 2], ratio=0.4).tolist() == [0, 0, 1, -1, 2]

    def test_all_below_a_threshold_go(self) -> None:
        assert prune([0.1, -0.5, 0.5, -0.2], threshold=0.5).tolist() == [0, -0.5, 0.5, 0]

    def test_the_mean_absolute_rule_keeps_what_is_at_least_the_mean(self) -> None:
        assert prune([1, -2, 3, -4], mean_abs=1).tolist() == [0, 0, 3, -4]
        assert prune([1, -2, 3, -4], mean_abs=0.5).tolist() == [0, -2, 3, -4]

    def test_two_of_four_neighbours_stay(self) -> None:
        after = prune(normal(8, 64), n_of_m=[2, 4])
        assert (np.count_nonzero(after.reshape(-1, 4), axis=1) == 2).all()
        assert prune([[1, -3, 2, 0.5]], n_of_m=[1, 4]).tolist() == [[0, -3, 0, 0]]

    def test_neighbours_run_along_input_features(self) -> None:
        after = prune(normal(6, 8, 3, 3), n_of_m=[1, 4])
        assert (np.count_nonzero(np.moveaxis(after, 1, -1).reshape(-1, 4), axis=1) == 1).all()
        after = prune(normal(8, 6), Calibrated("conv1d"), n_of_m=[1, 4])
        assert (np.count_nonzero(after.T.reshape(-1, 4), axis=1) == 1).all()

    def test_chance_is_the_same_every_time_but_not_for_every_tensor(self) -> None:
        part = part_of(normal(50, 50))
        options = {"method": "random", "ratio": 0.5}
        first, again = (numbers_of(PRUNE.apply("a", part, options)) for _ in range(2))
        other = numbers_of(PRUNE.apply("b", part, options))
        seeded = numbers_of(PRUNE.apply("a", part, {**options, "seed": 1}))
        assert first.tobytes() == again.tobytes()
        assert np.count_nonzero(first) == np.count_nonzero(other) == 1250
        assert first.tobytes() != other.tobytes() != seeded.tobytes()

    def test_large_weights_are_drawn_more_often_and_none_for_sure(self) -> None:
        weights = np.repeat(np.float32([1, 4]), 5000)
        after = prune(weights, method="entropy", ratio=0.9)
        small, large = (np.count_nonzero(half) for half in np.split(after, 2))
        assert small + large == 1000
        assert 2.5 < large / small < 5

    def test_double_precision_is_not_rounded(self) -> None:
        numbers = np.float64([1 / 3, 1e-9, -2 / 3])
        found = PRUNE.apply("a", Part(TensorSpec("F64", (3,)), numbers.view(np.uint8)), {"threshold": 0.1})
        assert found is not None
        assert found.data.view("<f8").tolist() == [1 / 3, 0, -2 / 3]

    @pytest.mark.parametrize("shape", [(), (1,), (1, 5), (5, 1)])
    def test_small_tensors_of_any_shape_are_pruned(self, shape: tuple[int, ...]) -> None:
        assert not prune(np.ones(shape), ratio=1).any()
        assert prune(np.ones(shape), mean_abs=1).all()  # a constant is its own mean

    def test_rows_to_keep_keep_their_bits(self) -> None:
        weights = normal(10, 10)
        after = prune(weights, ratio=1, keep_rows=[0, 7])
        assert after[[0, 7]].tobytes() == weights[[0, 7]].tobytes()
        assert not np.delete(after, [0, 7], axis=0).any()
        assert PRUNE.apply("a", part_of(weights), {"ratio": 1, "keep_rows": [10]}) is None


class TestSurgeon:
    """Optimal brain surgeon: what goes is what the others of the row make up for."""

    @staticmethod
    def moment(n_inputs: int, seed: int = 0) -> Array:
        """Of inputs that have much in common."""
        drawn = np.random.default_rng(seed)
        inputs = drawn.standard_normal((4 * n_inputs, n_inputs)) @ drawn.standard_normal((n_inputs, n_inputs))
        return np.float32(inputs.T @ inputs / len(inputs))

    @staticmethod
    def apply(weights: Array, statistics: Calibrated, dtype: str = "F32", **options: object) -> Array:
        found = PRUNE.apply("a", part_of(weights, dtype), {"method": "surgeon", **options}, statistics)
        assert found is not None
        return numbers_of(found)

    @staticmethod
    def error(weights: Array, after: Array, moment: Array) -> float:
        difference = np.float64(after) - weights
        return float(np.einsum("ij,jk,ik->", difference, np.float64(moment), difference))

    def test_of_two_inputs_that_are_the_same_one_goes_and_the_other_takes_its_weight(self) -> None:
        moment = np.float32([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
        after = self.apply(np.float32([[0.5, 0.6, 0.4]]), Calibrated(second_moment=moment), ratio=0.34)
        # Weights that are alike are not both unimportant: after one of them, the other is all there is.
        assert after[0].tolist() == [0, pytest.approx(1.1, rel=0.02), pytest.approx(0.4, rel=1e-6)]
        after = self.apply(np.float32([[0.5, 0.6, 0.4]]), Calibrated(second_moment=moment), ratio=0.67)
        assert after[0].tolist() == [0, pytest.approx(1.1, rel=0.02), 0]

    def test_it_removes_one_by_one_what_costs_the_least(self) -> None:
        moment, weights = self.moment(7), np.float64(normal(1, 7))
        damped = np.float64(moment) + DAMPING * np.diag(moment).mean() * np.eye(7)

        def best(kept: list[int]) -> Array:
            found = np.zeros(7)
            found[kept] = np.linalg.solve(damped[np.ix_(kept, kept)], (damped @ weights[0])[kept])
            return found

        kept = list(range(7))
        for gone in range(1, 7):
            trials = [best([other for other in kept if other != each]) for each in kept]
            kept.remove(kept[int(np.argmin([self.error(weights, trial[None], damped) for trial in trials]))])
            after = self.apply(np.float32(weights), Calibrated(second_moment=moment), ratio=gone / 7 + 1e-6)
            assert np.allclose(after[0], best(kept), rtol=1e-3, atol=1e-5)

    def test_the_output_errs_less_than_by_any_other_method(self) -> None:
        moment, weights = self.moment(48), normal(16, 48)
        statistics = Calibrated(second_moment=moment)
        others = [prune(weights, statistics, method=each, ratio=0.5) for each in ("magnitude", "activation")]
        after = self.apply(weights, statistics, ratio=0.5)
        assert np.count_nonzero(after) == weights.size // 2
        error = self.error(weights, after, moment)
        assert error < 0.5 * min(self.error(weights, other, moment) for other in others)

    def test_of_many_inputs_each_block_is_chosen_from_on_its_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moment, weights = self.moment(48), normal(16, 48)
        statistics = Calibrated(second_moment=moment)
        whole = self.error(weights, self.apply(weights, statistics, ratio=0.5), moment)
        monkeypatch.setattr(surgeon, "MAX_INPUTS", 20)
        blocks = self.error(weights, self.apply(weights, statistics, ratio=0.5), moment)
        plain = self.error(weights, prune(weights, statistics, method="activation", ratio=0.5), moment)
        assert whole < blocks < 0.7 * plain

    def test_modules_whose_weights_lie_the_other_way_get_the_same(self) -> None:
        moment, weights = self.moment(12), normal(5, 12)
        straight = self.apply(weights, Calibrated(second_moment=moment), ratio=0.5)
        turned = self.apply(weights.T.copy(), Calibrated("conv1d", second_moment=moment), ratio=0.5)
        assert straight.tobytes() == turned.T.tobytes()

    def test_kernels_of_convolutions_are_rows_of_inputs(self) -> None:
        moment, weights = self.moment(12), normal(5, 12)
        straight = self.apply(weights, Calibrated(second_moment=moment), ratio=0.5)
        kernels = self.apply(weights.reshape(5, 3, 2, 2), Calibrated("conv", second_moment=moment), ratio=0.5)
        assert straight.tobytes() == kernels.tobytes()

    @pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
    def test_rows_that_lose_nothing_keep_their_bits(self, dtype: str) -> None:
        weights = numbers_of(part_of(normal(6, 12), dtype))
        statistics = Calibrated(second_moment=self.moment(12))
        after = self.apply(weights, statistics, dtype, ratio=0.5, keep_rows=[1, 4])
        assert after[[1, 4]].tobytes() == weights[[1, 4]].tobytes()
        assert not np.array_equal(after[0], weights[0])

    def test_numbers_too_large_for_the_type_leave_the_tensor_as_it_is(self) -> None:
        moment = np.float32([[1, 1], [1, 1]])
        part = part_of(np.float32([[60000, 50000]]), "F16")
        options = {"method": "surgeon", "ratio": 0.5}
        assert PRUNE.apply("a", part, options, Calibrated(second_moment=moment)) is None

    def test_moments_that_are_none_and_inputs_that_never_vary_do_no_harm(self) -> None:
        for moment in (np.zeros((3, 3)), -np.eye(3), [[1, 5, 0], [5, 1, 0], [0, 0, 1]], np.diag([1, 0, 1])):
            after = self.apply(normal(4, 3), Calibrated(second_moment=np.float32(moment)), ratio=0.5)
            assert np.isfinite(after).all()
            assert np.count_nonzero(after) <= 6

    def test_without_the_whole_moment_tensors_are_left_alone(self) -> None:
        diagonal = Calibrated(second_moment=np.ones(3, np.float32))
        other = Calibrated(second_moment=np.eye(4, dtype=np.float32))
        for statistics in (None, diagonal, other):
            options = {"method": "surgeon", "ratio": 0.5}
            assert PRUNE.apply("a", part_of([[1, 2, 3]]), options, statistics) is None


class TestSlices:
    def test_whole_rows_go(self) -> None:
        after = prune([[1, 9], [3, 3], [-8, 0]], structure="row", ratio=0.67)
        assert after.tolist() == [[1, 9], [0, 0], [0, 0]]

    def test_whole_columns_go(self) -> None:
        assert prune([[1, 2], [-3, 1]], structure="column", threshold=2).tolist() == [[1, 0], [-3, 0]]

    def test_whole_channels_of_convolutions_go(self) -> None:
        after = prune(normal(6, 8, 3, 3), structure="channel", ratio=0.5)
        assert sorted(after.any(axis=(0, 2, 3))) == [False] * 4 + [True] * 4

    @pytest.mark.parametrize(
        ("structure", "shape"), [("row", (9,)), ("column", ()), ("channel", (4, 4)), ("row", ())]
    )
    def test_tensors_without_such_slices_are_left_alone(self, structure: str, shape: tuple[int, ...]) -> None:
        assert PRUNE.apply("a", part_of(np.ones(shape)), {"structure": structure, "ratio": 0.5}) is None


class TestCalibration:
    WEIGHTS = ((4.0, 1.0), (2.0, 3.0))

    def test_weights_that_meet_no_input_matter_least(self) -> None:
        for moment in (np.float32([0.01, 100]), np.diag(np.float32([0.01, 100]))):
            statistics = Calibrated(second_moment=moment)
            after = prune(self.WEIGHTS, statistics, method="activation", ratio=0.5)
            assert after.tolist() == [[0, 1], [0, 3]]
        transposed = Calibrated("conv1d", second_moment=np.float32([0.01, 100]))
        assert prune(self.WEIGHTS, transposed, method="activation", ratio=0.5).tolist() == [[0, 0], [2, 3]]

    def test_convolutions_have_an_input_for_each_place_of_the_kernel(self) -> None:
        moment = np.arange(2 * 3 * 3, dtype=np.float32)
        after = prune(
            np.ones((5, 2, 3, 3)), Calibrated("conv", second_moment=moment), method="activation", threshold=3
        )
        assert (after.reshape(5, -1) == (np.sqrt(moment) >= 3)).all()

    def test_gradients_taylor_and_fisher_weigh_the_loss(self) -> None:
        statistics = Calibrated(gradient_squares=np.float32([[0.01, 9], [1, 0.25]]))
        for method, expected in (
            ("gradient", [[0.1, 3], [1, 0.5]]),
            ("taylor", [[0.4, 3], [2, 1.5]]),
            ("fisher", [[0.08, 4.5], [2, 1.125]]),
        ):
            for threshold in np.float32(expected).reshape(-1) * 1.001:
                after = prune(self.WEIGHTS, statistics, method=method, threshold=float(threshold))
                assert ((after != 0) == (np.float32(expected) >= threshold)).all(), method

    @pytest.mark.parametrize("method", ["activation", "gradient", "taylor", "fisher"])
    @pytest.mark.parametrize(
        "statistics",
        [
            None,
            Calibrated(),
            Calibrated(second_moment=np.ones(3, np.float32), gradient_squares=np.ones(4, np.float32)),
            Calibrated(
                second_moment=np.float32([1, np.nan]), gradient_squares=np.full((2, 2), np.inf, np.float32)
            ),
        ],
    )
    def test_without_what_the_method_needs_a_tensor_is_left_alone(
        self, method: str, statistics: Calibrated | None
    ) -> None:
        assert PRUNE.apply("a", part_of(self.WEIGHTS), {"method": method, "ratio": 0.5}, statistics) is None


class TestWholeModel:
    TENSORS = tuple(
        (f"t{i}", part_of(normal(300, 200 + i, seed=i, scale=0.01 * 2**i)), None) for i in range(4)
    )

    @pytest.mark.parametrize("ratio", [0, 0.3, 0.9, 1])
    def test_a_global_ratio_is_met_to_a_bin_and_never_exceeded(self, ratio: float) -> None:
        options = PRUNE.settle(self.TENSORS, {"ratio": ratio, "scope": "global"})
        assert set(options) == {"threshold"}
        pruned = [numbers_of(PRUNE.apply(name, part, options)) for name, part, _ in self.TENSORS]
        zeros = sum(np.count_nonzero(values == 0) for values in pruned)
        numel = sum(values.size for values in pruned)
        assert ratio * numel - 0.001 * numel <= zeros <= ratio * numel
        if 0 < ratio < 1:
            shares = [np.count_nonzero(values == 0) / values.size for values in pruned]
            assert shares == sorted(shares, reverse=True)
            assert shares[0] > shares[-1]

    def test_whole_rows_are_compared_across_tensors(self) -> None:
        options = PRUNE.settle(self.TENSORS, {"ratio": 0.5, "scope": "global", "structure": "row"})
        rows = [numbers_of(PRUNE.apply(n, part, options)).any(axis=1).sum() for n, part, _ in self.TENSORS]
        assert rows[:2] == [0, 0]
        assert rows[3] == 300
        assert 298 <= rows[2] <= 300  # t0 and t1 have a little less than half of all weights

    def test_tensors_that_cannot_be_pruned_do_not_count(self) -> None:
        options = {"ratio": 0.5, "scope": "global"}
        others = [(name, part, None) for name, part in NOT_WEIGHTS.items()]
        assert PRUNE.settle([*others, *self.TENSORS], options) == PRUNE.settle(self.TENSORS, options)
        assert PRUNE.apply("a", part_of([1.0]), PRUNE.settle(others, options)) is not None

    def test_nothing_is_read_for_a_ratio_by_tensor(self) -> None:
        options = {"ratio": 0.5}
        assert PRUNE.settle(iter(lambda: pytest.fail("read"), 0), options) == options

    def test_without_a_look_at_the_model_a_global_ratio_is_an_error(self) -> None:
        with pytest.raises(RecipeError, match="whole model"):
            PRUNE.apply("a", part_of([1.0]), {"ratio": 0.5, "scope": "global"})

    def test_a_threshold_is_close_to_the_exact_quantile(self) -> None:
        histogram = ImportanceHistogram()
        values = np.abs(normal(100_000))
        for piece in np.split(values, 10):
            histogram.add(piece)
        for ratio in (0.01, 0.5, 0.99):
            exact = float(np.quantile(values, ratio, method="higher"))
            assert exact * (1 - 2**-10) <= histogram.threshold(ratio) <= exact


@pytest.mark.parametrize("part", NOT_WEIGHTS.values(), ids=NOT_WEIGHTS)
@pytest.mark.parametrize("method", METHODS)
def test_what_has_no_finite_weights_is_left_alone(part: Part, method: str) -> None:
    statistics = Calibrated(second_moment=np.ones(4, np.float32))
    assert PRUNE.apply("a", part, {"method": method, "ratio": 0.5}, statistics) is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ratio": 0.5, "threshold": 1},
        {"ratio": 1.5},
        {"ratio": -0.1},
        {"ratio": "half"},
        {"ratio": True},
        {"ratio": float("nan")},
        {"threshold": -1},
        {"threshold": float("inf")},
        {"threshold": 10**400},
        {"mean_abs": None},
        {"n_of_m": [4, 2]},
        {"n_of_m": [2]},
        {"n_of_m": [True, 4]},
        {"n_of_m": [2, 4], "structure": "row"},
        {"threshold": 1, "scope": "global"},
        {"ratio": 0.5, "scope": "model"},
        {"ratio": 0.5, "structure": "block"},
        {"ratio": 0.5, "method": "magic"},
        {"ratio": 0.5, "keep_rows": [-1]},
        {"ratio": 0.5, "keep_rows": 3},
        {"ratio": 0.5, "seed": -1},
        {"ratio": 0.5, "rato": 1},
    ],
)
def test_options_that_make_no_sense_are_errors(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        PRUNE.apply("a", part_of([1.0]), options)
    with pytest.raises(RecipeError):
        PRUNE.settle([], options)
