from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import cmpk
import cmpk.numpy
from cmpk.calibration import Calibration, TensorStatistics
from cmpk.coding import decoded, uncoded
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.passes import Quantize, Split
from cmpk.passes.base import Planned
from cmpk.values import from_float32, to_float32


def part_of(values: NDArray[np.float32], dtype: str = "F32") -> Part:
    return Part(TensorSpec(dtype, values.shape), from_float32(values, dtype))


def seeded(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def quantized(
    values: NDArray[np.float32], statistics: TensorStatistics | None = None, **options: object
) -> NDArray[np.float32]:
    part = part_of(values)
    planned = Quantize().apply("weight", part, options, statistics)
    assert isinstance(planned, Split)
    return values_of(planned, part.spec)


def values_of(planned: Planned, spec: TensorSpec) -> NDArray[np.float32]:
    return to_float32(Part(spec, decoded(uncoded(planned), spec, 1)))


def streams_of(planned: Planned) -> Iterator[bytes]:
    if isinstance(planned, Split):
        for part in planned.parts.values():
            yield from streams_of(part)
    else:
        yield planned.data.tobytes()


def linear_statistics(values: NDArray[np.float32], seed: int = 1, kind: str = "linear") -> TensorStatistics:
    """Of inputs whose features are of unlike size, and follow from a quarter of them but for some noise."""
    n = values.shape[0] if kind == "conv1d" else int(np.prod(values.shape[1:]))
    rng = np.random.default_rng(seed)
    few = rng.standard_normal((4 * n, n // 4)) @ rng.standard_normal((n // 4, n))
    inputs = (few + 0.3 * rng.standard_normal((4 * n, n))) * np.geomspace(0.5, 2, n)
    moment = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    return TensorStatistics(kind, len(inputs), moment)


def output_error(
    found: NDArray[np.float32], values: NDArray[np.float32], statistics: TensorStatistics
) -> float:
    error = (found - values).astype(np.float64)
    matrix = error.T if statistics.kind == "conv1d" else error.reshape(len(error), -1)
    return float(np.einsum("oi,ij,oj->", matrix, statistics.second_moment, matrix))


SHAPES = [(1,), (7,), (1, 300), (300, 1), (64, 48), (16, 3, 5, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("step", [0.01, 0.1, 1.0, 4.0])
def test_the_nearest_code_is_at_most_half_a_step_away(shape: tuple[int, ...], step: float) -> None:
    values = seeded(*shape)
    rms = np.sqrt(np.square(values, dtype=np.float64).mean())
    found = quantized(values, step=step, method="nearest")
    assert np.abs(found - values).max() <= step * rms / 2 * (1 + 1e-5)


def test_an_absolute_step_is_taken_as_it_is() -> None:
    found = quantized(seeded(20, 30), step=0.25, absolute=True)
    np.testing.assert_array_equal(found, np.rint(seeded(20, 30) * 4) / 4)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0, 2.0])
def test_codes_chosen_by_rate_and_distortion_cost_less_and_are_near(step: float) -> None:
    values = seeded(100, 200)
    rms = float(np.sqrt(np.square(values, dtype=np.float64).mean()))

    def cost(found: NDArray[np.float32]) -> float:
        counts = np.unique(np.rint(found / (step * rms)), return_counts=True)[1]
        nbits = float(counts @ np.log2(counts.sum() / counts))
        return float(np.square(found - values, dtype=np.float64).sum()) / (step * rms) ** 2 + 0.1155 * nbits

    nearest = quantized(values, step=step, method="nearest")
    chosen = quantized(values, step=step, method="rdo")
    assert cost(chosen) <= cost(nearest)
    assert np.abs(chosen - values).max() <= 1.5 * step * rms * (1 + 1e-5)


@pytest.mark.parametrize("per", ["row", "group"])
def test_a_step_for_each_part_is_relative_to_its_own_size(per: str) -> None:
    values = seeded(8, 96) * np.geomspace(1e-3, 1e3, 8, dtype=np.float32)[:, None]
    found = quantized(values, step=0.2, per=per, group_size=32)
    width = 96 if per == "row" else 32
    parts, errors = values.reshape(-1, width), (found - values).reshape(-1, width)
    rms = np.sqrt(np.square(parts).mean(axis=1))
    assert (np.abs(errors).max(axis=1) <= 0.1 * rms * (1 + 1e-5)).all()
    assert (np.abs(errors).max(axis=1) >= 0.05 * rms).all()


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64", "F8_E4M3"])
def test_other_types_of_float_are_rounded_in_the_end(dtype: str) -> None:
    part = part_of(seeded(32, 32), dtype)
    planned = Quantize().apply("weight", part, {"step": 0.5})
    assert planned is not None
    error = values_of(planned, part.spec) - to_float32(part)
    assert np.abs(error).max() <= 0.25 * 1.05 + 0.07


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_errors_that_are_fed_on_move_the_output_less(kind: str) -> None:
    values = seeded(96, 80)
    statistics = linear_statistics(values, kind=kind)
    plain = quantized(values, step=0.3, method="nearest", per="tensor")
    fed_on = quantized(values, statistics, step=0.3, per="tensor")
    assert output_error(fed_on, values, statistics) < 0.5 * output_error(plain, values, statistics)


def test_errors_of_a_convolution_are_fed_on_through_its_kernel() -> None:
    values = seeded(70, 6, 3, 3)
    statistics = linear_statistics(values, kind="conv")
    plain = quantized(values, step=0.3, method="nearest", per="tensor")
    fed_on = quantized(values, statistics, step=0.3, per="tensor")
    assert output_error(fed_on, values, statistics) < 0.5 * output_error(plain, values, statistics)


def test_inputs_that_matter_have_smaller_steps() -> None:
    values = seeded(128, 40)
    diagonal = np.geomspace(1, 256, 40).astype(np.float32)
    found = quantized(values, TensorStatistics("linear", 100, diagonal), step=0.3)
    errors = np.abs(found - values).max(axis=0)
    assert errors[0] / errors[-1] == pytest.approx(16, rel=0.3)


def test_rows_that_are_looked_up_often_have_smaller_steps() -> None:
    values = seeded(400, 64)
    shares = np.zeros(400, np.float32)
    shares[:4] = [0.4, 0.3, 0.2, 0.1]
    found = quantized(values, TensorStatistics("embedding", 1000, shares), step=0.3)
    errors = np.abs(found - values).max(axis=1)
    assert errors[:4].max() < errors[4:].min() / 3
    # Rows that were never seen may be needed all the same.
    assert np.abs(found[4:]).max(axis=1).min() > 0


def test_statistics_that_do_not_fit_the_tensor_are_left_aside() -> None:
    values = seeded(64, 48)
    wrong = TensorStatistics("linear", 9, np.eye(47, dtype=np.float32))
    assert quantized(values, wrong, step=0.1).tobytes() == quantized(values, step=0.1).tobytes()


@pytest.mark.parametrize(
    "moment",
    [np.zeros((48, 48)), np.ones((48, 48)), -np.eye(48), np.zeros(48), np.full((48, 48), 1e-30)],
    ids=["zero", "flat", "negative", "none", "tiny"],
)
def test_any_second_moment_gives_finite_weights_near_those_given(moment: NDArray[np.float64]) -> None:
    values = seeded(80, 48)
    found = quantized(values, TensorStatistics("linear", 9, moment.astype(np.float32)), step=0.05)
    assert np.abs(found - values).max() < 1


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((0, 4), np.float32),
        np.full((4, 4), np.nan, np.float32),
        np.array([[1, np.inf]], np.float32),
    ],
    ids=["zero", "empty", "nan", "inf"],
)
@pytest.mark.parametrize("options", [{"step": 0.1}, {"bits": 4}], ids=["step", "bits"])
def test_what_has_no_weights_stays_as_it_is(values: NDArray[np.float32], options: dict[str, object]) -> None:
    assert Quantize().apply("weight", part_of(values), options) is None


def test_integers_stay_as_they_are() -> None:
    assert Quantize().apply("weight", Part(TensorSpec("I32", (4,)), np.ones(16, np.uint8)), {}) is None


@pytest.mark.parametrize("value", [1e-42, 1e-30, 1.0, 3e38])
def test_a_constant_comes_back_or_stays(value: float) -> None:
    part = part_of(np.full((40, 40), value, np.float32))
    planned = Quantize().apply("weight", part, {"step": 0.1})
    found = to_float32(part) if planned is None else values_of(planned, part.spec)
    assert np.abs(found / to_float32(part) - 1).max() <= 0.051


def test_one_huge_weight_does_not_cost_the_others_their_precision() -> None:
    values = seeded(100, 100)
    values[3, 4] = 1e4
    found = quantized(values, step=0.001)
    assert np.abs(found - values).max() <= 0.0005 * 101


def test_rows_of_unlike_size_get_code_tables_of_their_own() -> None:
    values = seeded(512, 256)
    values[::2] *= 30
    planned = Quantize().apply("weight", part_of(values), {"step": 0.05})
    assert isinstance(planned, Split)
    assert planned.encoding == "row_groups"
    assert list(planned.params.values()) == [[256, 256]]
    single = Quantize().apply("weight", part_of(values), {"step": 0.05, "max_groups": 1})
    assert isinstance(single, Split)
    assert single.encoding == "affine"
    assert values_of(single, single.spec).tobytes() == values_of(planned, planned.spec).tobytes()


def test_rows_that_are_kept_come_back_to_the_bit() -> None:
    values = seeded(90, 64)
    statistics = TensorStatistics("embedding", 9, np.full(90, 1 / 90, np.float32))
    found = quantized(values, statistics, step=0.5, keep_rows=[0, 7])
    assert found[[0, 7]].tobytes() == values[[0, 7]].tobytes()
    assert (found != values)[1:7].any()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per", ["tensor", "row", "group"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_absmax_integers_err_by_half_a_scale_and_no_more(bits: int, per: str, symmetric: bool) -> None:
    values = seeded(12, 40) + np.float32(0.5)
    found = quantized(values, bits=bits, per=per, group_size=16, symmetric=symmetric)
    reach = np.abs(values).max() if symmetric else values.max() - min(values.min(), 0)
    n_steps = (1 << bits - 1) - 1 if symmetric else (1 << bits) - 1
    # A zero point is rounded too, which may cost the ends another half.
    slack = (1 if symmetric else 2) * (1 + 1e-4)
    assert np.abs(found - values).max() <= reach / n_steps / 2 * slack
    assert len(np.unique(found)) <= (1 << bits) * (1 if per == "tensor" else 36)


@pytest.mark.parametrize("symmetric", [True, False])
def test_clipping_by_least_error_beats_the_others(symmetric: bool) -> None:
    values = seeded(40, 200) ** 3

    def error(clip: str) -> float:
        found = quantized(values, bits=4, clip=clip, symmetric=symmetric)
        return float(np.square(found - values, dtype=np.float64).sum())

    assert error("mse") < min(error("absmax"), error("percentile"))


def test_clipping_by_percentile_reaches_as_far_as_that_share() -> None:
    values = np.arange(1, 1001, dtype=np.float32).reshape(1, -1)
    found = quantized(values, bits=8, clip="percentile", percentile=0.9)
    assert found.max() == pytest.approx(900, rel=0.01)


def test_pruned_weights_stay_zero() -> None:
    values = seeded(30, 30) + np.float32(3)
    values[::2] = 0
    for options in ({"bits": 4, "symmetric": False}, {"bits": 4, "clip": "mse"}, {"step": 0.3}):
        assert not quantized(values, **options)[::2].any()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0.1, "bits": 4}, "step or bits"),
        ({"step": 0}, "step is 0"),
        ({"step": float("nan")}, "step is nan"),
        ({"bits": 9}, "bits is 9"),
        ({"bits": 4, "method": "rdo"}, "no option 'method'"),
        ({"clip": "mse"}, "no option 'clip'"),
        ({"method": "best"}, "method is 'best'"),
        ({"max_groups": 0}, "max_groups is 0"),
    ],
)
def test_options_that_make_no_sense_are_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Quantize().apply("weight", part_of(seeded(4, 4)), options)


def test_threads_do_not_change_what_comes_out() -> None:
    values = seeded(160, 130)
    statistics = linear_statistics(values)

    def run(_: int) -> list[bytes]:
        planned = Quantize().apply("weight", part_of(values), {"step": 0.2}, statistics)
        assert planned is not None
        return list(streams_of(planned))

    alone = run(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(streams == alone for streams in pool.map(run, range(8)))


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_packed_model_is_the_same_file_with_any_number_of_threads(tmp_path: Path, calibrated: bool) -> None:
    tensors = {f"{i}.weight": seeded(96, 64 + i, seed=i) for i in range(4)}
    calibration = None
    if calibrated:
        calibration = tmp_path / "calibration"
        Calibration({name: linear_statistics(value) for name, value in tensors.items()}).save(calibration)
    for jobs in (1, 3):
        cmpk.pack(tensors, tmp_path / str(jobs), recipe="balanced", calibration=calibration, jobs=jobs)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "3").read_bytes()
    found = cmpk.numpy.load_file(tmp_path / "1")
    for name, value in tensors.items():
        assert 0 < np.abs(found[name] - value).max() < 1
