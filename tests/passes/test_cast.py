"""cast: the nearest number of a narrower type, in a tensor of the type that it was."""

from __future__ import annotations

import numpy as np
import pytest

from cmpk.archive import Archive
from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.passes.base import Split
from cmpk.passes.cast import Cast
from cmpk.recipe import PassUse, Recipe, Rule
from tests.builders import Bytes
from tests.passes.samples import NOT_WEIGHTS, decoded, normal, numbers_of, part_of

CAST = Cast()


@pytest.mark.parametrize(("dtype", "unit"), [("BF16", 2**-8), ("F16", 2**-11)])
@pytest.mark.parametrize("wide", ["F32", "F64"])
@pytest.mark.parametrize("shape", [(), (7,), (30, 40)])
def test_numbers_are_off_by_half_a_unit_of_the_last_place(
    dtype: str, unit: float, wide: str, shape: tuple[int, ...]
) -> None:
    before = normal(*shape, scale=1)
    found = CAST.apply("a", part_of(before, wide), {"dtype": dtype})
    after = decoded(found)
    assert (np.abs(after - before) <= np.abs(before) * unit + 2**-25).all()
    assert after.tobytes() == numbers_of(part_of(after, dtype)).tobytes()


@pytest.mark.parametrize(
    ("dtype", "unit", "lowest"), [("F8_E4M3", 2**-4, 2**-10), ("F8_E5M2", 2**-3, 2**-17)]
)
@pytest.mark.parametrize("wide", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("shape", [(), (7,), (1, 9), (30, 40), (6, 4, 3, 3)])
@pytest.mark.parametrize("per", ["row", "tensor", "group"])
@pytest.mark.parametrize("scale_dtype", ["F32", "BF16"])
def test_eight_bits_are_off_by_half_a_unit_of_the_last_place(
    dtype: str, unit: float, lowest: float, wide: str, shape: tuple[int, ...], per: str, scale_dtype: str
) -> None:
    before = numbers_of(part_of(normal(*shape, scale=3), wide))
    options = {"dtype": dtype, "per": per, "group_size": 16, "scale_dtype": scale_dtype}
    found = CAST.apply("a", part_of(before, wide), options)
    assert isinstance(found, Split)
    assert found.encoding == "cast"
    after = decoded(found)
    largest = np.abs(before).max()
    scale = largest / {"F8_E4M3": 448, "F8_E5M2": 57344}[dtype] * (1 + 1 / 64)
    rounding = 2**-8 if wide == "BF16" else 2**-11
    assert (
        np.abs(after - before) <= np.maximum(np.abs(before) * unit, scale * lowest) + rounding * largest
    ).all()
    assert np.abs(after).max() <= largest * (1 + 2**-7)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_zeros_and_numbers_of_any_size_have_eight_bits(dtype: str) -> None:
    for number in (0.0, 1e-45, 1e-40, 1e-20, 3.4e38):
        values = np.float32([[number, -number / 2, 0]])
        after = decoded(CAST.apply("a", part_of(values), {"dtype": dtype}))
        assert np.isfinite(after).all()
        assert (np.abs(after - values) <= number / 8 + 2e-45).all()


def test_the_narrower_type_is_what_is_stored() -> None:
    data = part_of(normal(200, 200)).data
    recipe = Recipe("cast", codecs=("raw", "huffman"), rules=(Rule((PassUse("cast"),)),))
    archive = Archive(Bytes(a=("F32", (200, 200), data)).packed(recipe))
    assert archive.entry("a").data.encoding == "narrow"
    assert archive.nbytes < len(data) / 2 * 0.75
    assert np.abs(archive.read("a").view("<f4") - data.view("<f4")).max() <= 0.1 / 256


@pytest.mark.parametrize(
    ("dtype", "narrow"), [("BF16", "BF16"), ("BF16", "F16"), ("F16", "BF16"), ("F8_E4M3", "F16")]
)
def test_a_tensor_that_is_no_wider_is_left_alone(dtype: str, narrow: str) -> None:
    assert CAST.apply("a", part_of(normal(4, 4), dtype), {"dtype": narrow}) is None


@pytest.mark.parametrize(("dtype", "value"), [("F16", 65520), ("BF16", 3.4e38)])
def test_numbers_beyond_the_range_leave_a_tensor_alone(dtype: str, value: float) -> None:
    assert CAST.apply("a", part_of([value, 1]), {"dtype": dtype}) is None


@pytest.mark.parametrize("part", NOT_WEIGHTS.values(), ids=NOT_WEIGHTS)
def test_what_has_no_finite_weights_is_left_alone(part: Part) -> None:
    assert CAST.apply("a", part, {}) is None


def test_rows_to_keep_come_back_bit_for_bit() -> None:
    before = normal(5, 40)
    after = decoded(CAST.apply("a", part_of(before), {"keep_rows": [1]}))
    assert after[1].tobytes() == before[1].tobytes()
    assert not (after[0] == before[0]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "F32"},
        {"dtype": 16},
        {"bits": 16},
        {"keep_rows": [1.0]},
        {"per": "row"},
        {"dtype": "F8_E4M3", "per": "column"},
        {"dtype": "F8_E5M2", "scale_dtype": "F64"},
    ],
)
def test_options_that_make_no_sense_are_errors(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        CAST.apply("a", part_of([1.0]), options)
