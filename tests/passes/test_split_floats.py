"""split_floats: which structure is found, that it makes files smaller, and that every bit comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.archive import Archive
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.format import Node
from cmpk.format.manifest import leaves
from cmpk.kernels.interface import FLOAT_LAYOUTS
from cmpk.passes import SplitFloats
from cmpk.recipe import load_recipe
from tests.builders import Bytes

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)


def packed(data: Array, dtype: str, shape: tuple[int, ...], recipe: str = "lossless") -> Archive:
    """An archive of one tensor ``a``; checked bit for bit."""
    archive = Archive(Bytes(a=(dtype, shape, data)).packed(recipe))
    assert archive.read("a").tobytes() == data.tobytes()
    archive.verify(deep=True)
    return archive


def encodings(node: Node) -> set[str]:
    """All encodings in a tree."""
    found = {node.encoding} - {""}
    for part in node.parts.values():
        found |= encodings(part)
    return found


def root(archive: Archive) -> Node:
    return archive.entry("a").data


def f32(values: Array) -> Array:
    return values.astype("<f4").reshape(-1).view(np.uint8)


def normal(*shape: int, scale: float = 0.02) -> Array:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def half(values: Array) -> Array:
    """The numbers that half precision has room for, in single precision."""
    return values.astype(np.float16).astype(np.float32)


def brain(values: Array) -> Array:
    """The numbers that bfloat16 has room for, in single precision."""
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


@pytest.fixture(params=["lossless", "lossless-max"])
def recipe(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestFewValues:
    @pytest.mark.parametrize(
        "values", [[0.25, -0.25], [0.0], [-1.0, 0.0, 1.0], [0.0, -0.0, np.nan], list(np.linspace(-1, 1, 200))]
    )
    def test_few_values_take_about_their_entropy(self, values: list[float], recipe: str) -> None:
        numbers = RNG.choice(np.float32(values), (64, 64))
        archive = packed(f32(numbers), "F32", (64, 64), recipe)
        # Frequent zeros may be left out, where that takes less than a code for them.
        assert root(archive).encoding in (
            {"codebook", "bitmask", "gap_index", ""} if 0 in values else {"codebook"}
        )
        assert archive.nbytes < 64 * 64 * max(1.05 * np.log2(len(values)), 0.1) / 8 + 4 * len(values) + 800

    def test_signs_take_about_a_bit(self) -> None:
        archive = packed(f32(RNG.choice(np.float32([0.3, -0.3]), (512, 512))), "F32", (512, 512))
        assert archive.nbytes < 512 * 512 / 8 + 500

    @pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
    def test_a_constant_takes_next_to_nothing(self, dtype: str, recipe: str) -> None:
        nbytes = DTYPES[dtype].nbytes
        data = np.frombuffer(bytes(range(1, nbytes + 1)) * 100_000, np.uint8)
        archive = packed(data, dtype, (100_000,), recipe)
        assert root(archive).encoding == "codebook"
        assert archive.nbytes < 1000

    def test_what_the_sample_missed_is_no_codebook_but_comes_back(self) -> None:
        numbers = np.zeros(1 << 18, np.float32)
        numbers[1 : 1 << 18 : 2] = normal(1 << 17)
        archive = packed(f32(numbers), "F32", (1 << 18,))
        assert root(archive).encoding != "codebook"


class TestNarrowFloats:
    @pytest.mark.parametrize(
        ("wide", "narrow", "kind"), [("F32", half, "F16"), ("F32", brain, "BF16"), ("F64", np.float32, "F32")]
    )  # fmt: skip
    @pytest.mark.parametrize("shape", [(10_000,), (100, 100), (1, 10_000), (10, 10, 100)])
    def test_numbers_that_fit_a_narrower_type_are_stored_in_it(
        self, wide: str, narrow: Any, kind: str, shape: tuple[int, ...], recipe: str
    ) -> None:
        values = normal(10_000)
        if narrow is brain:
            values = np.exp(values * 400)  # most of them far beyond half precision
        numbers = narrow(values).astype(f"<f{DTYPES[wide].nbytes}")
        archive = packed(numbers.view(np.uint8), wide, shape, recipe)
        assert root(archive).encoding == "narrow"
        assert root(archive).params == {"dtype": kind}
        assert archive.nbytes < numbers.nbytes * DTYPES[kind].nbits / DTYPES[wide].nbits

    def test_a_single_number_too_precise_keeps_a_tensor_of_one_dimension_wide(self) -> None:
        numbers = half(normal(10_000))
        numbers[7777] = np.float32(1 / 3)
        assert "narrow" not in encodings(root(packed(f32(numbers), "F32", (10_000,))))

    @pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
    def test_unused_rows_in_half_precision_are_found(self, share: float, recipe: str) -> None:
        rows = normal(1000, 96)
        unused = RNG.random(1000) < share
        rows[unused] = half(rows[unused])
        archive = packed(f32(rows), "F32", rows.shape, recipe)
        assert root(archive).encoding == "row_groups"
        _, *groups = root(archive).parts.values()
        n_rows = root(archive).params["rows"]
        assert isinstance(n_rows, list)
        narrow = {g.params["dtype"]: n for g, n in zip(groups, n_rows, strict=True) if g.encoding == "narrow"}
        assert narrow == {"F16": unused.sum()}

    def test_rows_of_both_narrow_types_and_of_none_are_told_apart(self) -> None:
        rows = normal(900, 64)
        rows[:300], rows[300:600] = half(rows[:300]), brain(np.exp(rows[300:600] * 400))
        archive = packed(f32(rows), "F32", rows.shape)
        kinds = [part.params.get("dtype", "") for part in root(archive).parts.values() if part.encoding]
        assert sorted(map(str, kinds)) == ["", "BF16", "F16"]
        assert archive.nbytes < rows.nbytes * 0.75

    def test_a_few_rows_in_half_precision_are_narrow_and_no_more(self) -> None:
        rows = normal(1000, 64)
        rows[[10, 500, 900, 901, 902]] = half(rows[[10, 500, 900, 901, 902]])
        archive = packed(f32(rows), "F32", rows.shape)
        narrow = [part for part in root(archive).parts.values() if part.encoding == "narrow"]
        assert [part.parts["values"].encoding for part in narrow] == [""]

    def test_nan_payloads_that_fit_are_narrow_and_others_are_not(self) -> None:
        quiet = np.full(1000, 0x7FC00000, np.uint32) | RNG.integers(0, 64, 1000, np.uint32) << 16
        numbers = np.concatenate((quiet, RNG.integers(0, 1 << 16, 9000, np.uint32) << 16))
        assert "narrow" in encodings(root(packed(numbers.view(np.uint8), "F32", (10_000,))))
        numbers[500] |= 1
        assert "narrow" not in encodings(root(packed(numbers.view(np.uint8), "F32", (10_000,))))


class TestSplitting:
    @pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
    def test_weights_are_split_and_get_smaller(self, dtype: str, recipe: str) -> None:
        values = normal(1 << 16)
        data = {
            "F64": lambda: RNG.standard_normal(1 << 16).view(np.uint8),
            "F32": lambda: f32(values),
            "BF16": lambda: (values.view(np.uint32) >> 16).astype("<u2").view(np.uint8),
            "F16": lambda: values.astype("<f2").view(np.uint8),
        }[dtype]()
        archive = packed(data, dtype, (1 << 16,), recipe)
        assert root(archive).encoding == "float_split"
        assert archive.nbytes < len(data) * {"F64": 0.93, "F32": 0.86, "BF16": 0.72, "F16": 0.90}[dtype]

    @pytest.mark.parametrize("dtype", sorted(FLOAT_LAYOUTS))
    def test_noise_is_stored_as_it_is(self, dtype: str, recipe: str) -> None:
        data = RNG.integers(0, 256, 1 << 17, np.uint8)
        archive = packed(data, dtype, (len(data) // DTYPES[dtype].nbytes,), recipe)
        assert {leaf.codec for leaf in leaves(root(archive))} == {"raw"}
        assert archive.nbytes < len(data) + 1200

    def test_small_tensors_are_left_alone(self) -> None:
        archive = packed(f32(normal(511)), "F32", (511,))
        assert root(archive).codec != ""

    @pytest.mark.parametrize("dtype", sorted(set(DTYPES) - set(FLOAT_LAYOUTS)))
    def test_other_types_are_left_alone(self, dtype: str) -> None:
        data = RNG.integers(0, 2, 48_000).astype(np.uint8)
        archive = packed(data, dtype, (8 * len(data) // DTYPES[dtype].nbits,))
        assert root(archive).codec != ""
        assert archive.nbytes < 7_500

    def test_rows_of_two_scales_have_code_tables_of_their_own(self) -> None:
        rows = normal(2048, 512)
        rows[::2] *= np.float32(1e-4)
        archive = packed(f32(rows), "F32", rows.shape)
        assert root(archive).encoding == "row_groups"
        assert archive.nbytes < 0.99 * packed(f32(rows.T.copy()), "F32", rows.T.shape).nbytes

    def test_rows_of_one_scale_stay_together(self) -> None:
        rows = normal(2048, 512)
        assert root(packed(f32(rows), "F32", rows.shape)).encoding == "float_split"

    def test_lossless_max_is_no_larger(self) -> None:
        weights = normal(1 << 17)
        for values in (weights, weights * 1e-30, np.abs(weights), np.exp(weights * 400)):
            sizes = [
                packed(f32(values), "F32", (1 << 17,), name).nbytes for name in ("lossless-max", "lossless")
            ]
            assert sizes[0] <= sizes[1] + 64

    def test_uppers_that_are_rare_and_far_away_are_exceptions(self) -> None:
        values = normal(1 << 17)
        values[[5, 70_000]] = [1e38, 1e-38]
        archive = packed(f32(values), "F32", (1 << 17,), "lossless-max")
        plain = packed(f32(normal(1 << 17)), "F32", (1 << 17,), "lossless-max")
        assert archive.nbytes < plain.nbytes * 1.005


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, tuple[int, ...], Array]:
    """Float tensors whose rows are of several kinds: noise, weights, narrow, constant, special."""
    dtype = draw(st.sampled_from(["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"]))
    n_rows, row_elements = draw(st.integers(1, 60)), draw(st.sampled_from([1, 7, 64, 300]))
    kinds = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    nbits = DTYPES[dtype].nbits
    rows = rng.integers(0, 256, (n_rows, row_elements * nbits // 8), np.uint8).view(f"<u{nbits // 8}")
    exponent, mantissa = FLOAT_LAYOUTS[dtype]
    of_row = rng.choice(kinds, n_rows)
    middle = (1 << exponent - 1) - 3
    weights = rng.integers(middle, middle + 3, rows.shape).astype(rows.dtype) << np.array(
        mantissa, rows.dtype
    )
    small = rows & np.array((1 << mantissa) - 1 | 1 << nbits - 1, rows.dtype)
    rows[of_row == 1] = (weights | small)[of_row == 1]
    rows[of_row == 2] = weights[of_row == 2]
    rows[of_row == 3] = 1 << nbits - 1
    rows[of_row == 4] &= np.array(((1 << exponent) - 1) << mantissa | 1 << nbits - 1, rows.dtype)
    shape = draw(
        st.sampled_from([(n_rows, row_elements), (n_rows * row_elements,), (n_rows, 1, row_elements)])
    )
    return dtype, shape, rows.reshape(-1).view(np.uint8)


@given(tensors(), st.sampled_from(["lossless", "lossless-max"]))
def test_every_bit_of_any_tensor_comes_back(tensor: tuple[str, tuple[int, ...], Array], recipe: str) -> None:
    dtype, shape, data = tensor
    packed(data, dtype, shape, recipe)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"bits": 1}, "no option 'bits'; it has mantissa_bits, min_gain, max_groups"),
        ({"mantissa_bits": 1}, "list of non-negative integers"),
        ({"mantissa_bits": []}, "list of non-negative integers"),
        ({"mantissa_bits": [-1]}, "list of non-negative integers"),
        ({"mantissa_bits": [True]}, "list of non-negative integers"),
        ({"mantissa_bits": ["1"]}, "list of non-negative integers"),
        ({"mantissa_bits": {"F32": 1}}, "list of non-negative integers"),
        ({"mantissa_bits": {"U8": [1]}}, "no option 'U8'"),
        ({"max_groups": 0}, "max_groups is 0"),
        ({"max_groups": 100}, "max_groups is 100"),
        ({"max_groups": "2"}, "max_groups"),
        ({"max_groups": True}, "max_groups"),
        ({"min_gain": -0.1}, "min_gain"),
        ({"min_gain": 1.1}, "min_gain"),
        ({"min_gain": float("nan")}, "min_gain"),
        ({"min_gain": "0"}, "min_gain"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Mapping[str, object], problem: str) -> None:
    part = Part(TensorSpec("F32", (10,)), np.zeros(40, np.uint8))
    with pytest.raises(RecipeError, match=problem):
        SplitFloats().apply("a", part, options)


def test_more_mantissa_bits_than_there_are_mean_all_there_are() -> None:
    part = Part(TensorSpec("F16", (1 << 12,)), np.random.default_rng(0).integers(0, 60, 1 << 13, np.uint8))
    planned = SplitFloats().apply("a", part, {"mantissa_bits": [99]})
    assert planned is not None
    assert planned.params["mantissa_bits"] == 10  # type: ignore[union-attr]


def test_the_plan_depends_on_nothing_but_the_tensor() -> None:
    rows = normal(512, 1024)
    rows[::3] *= 100
    options = load_recipe("lossless-max").rules[0].passes[0].options
    part = Part(TensorSpec("F32", rows.shape), f32(rows))
    plans = [repr(SplitFloats().apply(name, part, options)) for name in ("a", "b")]
    assert plans[0] == plans[1]
