from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray

import cmpk
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.errors import PassError
from cmpk.rate import STEPS, RateCurve, allot, tensor_rate
from cmpk.recipe import PassUse, Recipe, Rule


def part_of(values: NDArray[np.float32]) -> Part:
    spec = TensorSpec("F32", values.shape)
    return Part(spec, np.ascontiguousarray(values).reshape(-1).view(np.uint8))


def gaussian(rows: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32)


def curve_of(values: NDArray[np.float32]) -> RateCurve:
    curve = tensor_rate(part_of(values))
    assert curve is not None
    return curve


def entropy_nbytes(codes: NDArray[np.float32]) -> float:
    counts = np.unique(codes, return_counts=True)[1]
    return float(counts @ np.log2(counts.sum() / counts)) / 8


@pytest.mark.parametrize("step", [0.05, 0.2, 0.7, 1.5])
def test_size_and_error_are_those_of_the_codes(step: float) -> None:
    values = gaussian(512, 384) * np.float32(0.02)
    rms = np.sqrt(np.square(values, dtype=np.float64).mean())
    codes = np.rint(values / (step * rms))
    curve = curve_of(values)
    error = float(np.square(codes * step - values / rms).mean())
    assert curve.nbytes(step) == pytest.approx(entropy_nbytes(codes), rel=0.02)
    assert curve.distortion(step) == pytest.approx(error, rel=0.05)


def test_rows_of_unlike_scale_are_counted_with_codes_of_their_own() -> None:
    values = gaussian(1024, 512)
    values[::2] *= 16
    rms = float(np.sqrt(np.square(values, dtype=np.float64).mean()))
    codes = np.rint(values / (0.2 * rms))
    apart = entropy_nbytes(codes[::2]) + entropy_nbytes(codes[1::2])
    assert curve_of(values).nbytes(0.2) == pytest.approx(apart, rel=0.03)


@pytest.mark.parametrize("step", [0.02, 0.03, 0.05])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_codes_beyond_a_byte_count_with_what_they_take(step: float, power: int) -> None:
    values = np.copysign(np.abs(gaussian(256, 512)) ** power, gaussian(256, 512))
    rule = Rule(passes=(PassUse("quantize", {"step": step}),))
    recipe = Recipe("steps", codecs=("raw", "bitpack", "huffman", "rans", "zstd:3"), rules=(rule,))
    report = cmpk.pack({"a": values}, io.BytesIO(), recipe=recipe)
    assert curve_of(values).nbytes(step) == pytest.approx(report.nbytes, rel=0.04)


def test_a_curve_never_rises_in_size_nor_falls_in_distortion() -> None:
    curve = curve_of(gaussian(300, 100) ** 3)
    assert (np.diff(curve.sizes) <= 0).all()
    assert (np.diff(curve.distortions) >= 0).all()


def test_the_curve_of_a_type_is_that_of_its_numbers() -> None:
    values = gaussian(64, 64).astype(np.float16)
    wide = part_of(values.astype(np.float32))
    narrow = Part(TensorSpec("F16", (64, 64)), values.reshape(-1).view(np.uint8))
    one, other = tensor_rate(wide), tensor_rate(narrow)
    assert one is not None
    assert other is not None
    assert one.sizes.tobytes() == other.sizes.tobytes()


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
def test_what_cannot_be_quantized_has_no_curve(values: NDArray[np.float32]) -> None:
    assert tensor_rate(part_of(values)) is None


def test_the_least_numbers_there_are_have_a_curve() -> None:
    values = np.zeros((64, 4096), np.float32)
    values[0, 0] = np.finfo(np.float32).smallest_subnormal
    curve = curve_of(values)
    assert np.isfinite(curve.sizes).all()
    assert np.isfinite(curve.distortions).all()


def test_integers_have_no_curve() -> None:
    assert tensor_rate(Part(TensorSpec("I32", (4,)), np.ones(16, np.uint8))) is None


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 500), (500, 1), (8, 3, 5, 5)], ids=str)
def test_any_shape_has_a_curve(shape: tuple[int, ...]) -> None:
    curve = curve_of(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    assert np.isfinite(curve.sizes).all()
    assert np.isfinite(curve.distortions).all()


@pytest.mark.parametrize("share", [0.06, 0.12, 0.25])
def test_an_allotment_fills_the_bytes_and_never_exceeds_them(share: float) -> None:
    tensors = {str(i): gaussian(64 << i, 256, i) * np.float32(10**i) for i in range(4)}
    curves = {name: curve_of(values) for name, values in tensors.items()}
    nbytes = round(share * sum(values.nbytes for values in tensors.values()))
    steps = allot(curves, nbytes)
    total = sum(curves[name].nbytes(step) for name, step in steps.items())
    assert 0.999 * nbytes <= total <= nbytes


def test_all_tensors_stand_at_the_same_slope() -> None:
    curves = {"small": curve_of(gaussian(512, 256)), "large": curve_of(gaussian(2048, 256, 1))}
    steps = allot(curves, 380_000)
    # A relative error is spread over n bytes: equal slopes are distortions in proportion to sizes.
    ratio = curves["large"].distortion(steps["large"]) / curves["small"].distortion(steps["small"])
    assert ratio == pytest.approx(4, rel=0.1)


def test_an_allotment_is_the_same_each_time() -> None:
    curves = {str(seed): curve_of(gaussian(100, 100, seed)) for seed in range(3)}
    assert allot(curves, 15_000) == allot(curves, 15_000)


def test_too_few_bytes_are_an_error_that_says_how_many_it_takes() -> None:
    with pytest.raises(PassError, match=r"10 bytes are too few: the coarsest steps take [0-9]+"):
        allot({"a": curve_of(gaussian(100, 100))}, 10)


def test_more_bytes_than_the_finest_steps_need_are_left_over() -> None:
    curve = curve_of(gaussian(100, 100))
    assert allot({"a": curve}, 1 << 30) == {"a": pytest.approx(STEPS[0])}


def test_no_tensors_have_no_steps() -> None:
    assert allot({}, 100) == {}
