"""Frequent values: as a symbol, behind a mask, or by gaps, whatever takes the least."""

from __future__ import annotations

import numpy as np
import pytest

import cmpk.numpy
from cmpk.archive import Archive
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.format.manifest import Node
from cmpk.recipe import PassUse, Recipe, Rule
from cmpk.sparsity import frequent_value, sparse_forms

RNG = np.random.default_rng(8)
BOTH = ("raw", "bitpack", "huffman", "rans", "zstd:3")


def entropy(share: float) -> float:
    return float(-(share * np.log2(share) + (1 - share) * np.log2(1 - share)))


def pruned(share: float, shape: tuple[int, ...] = (512, 512)) -> np.ndarray:  # type: ignore[type-arg]
    values = RNG.standard_normal(shape).astype(np.float32)
    values[RNG.random(shape) < share] = 0
    return values


def stored(array: np.ndarray, codecs: tuple[str, ...] = BOTH, *passes: PassUse) -> tuple[int, Node]:  # type: ignore[type-arg]
    recipe = Recipe("r", codecs=codecs, min_saving=0.002, rules=(Rule(passes),))
    data = cmpk.numpy.save({"a": array}, recipe=recipe)
    with Archive(data) as archive:
        archive.verify(deep=True)
        assert archive.read("a").tobytes() == array.tobytes()
        return len(data), archive.entry("a").data


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9, 0.99])
def test_pruned_floats_take_their_mask_and_what_the_values_take_alone(share: float) -> None:
    array = pruned(share)
    values = array[array != 0]
    alone, _ = stored(values, BOTH, PassUse("split_floats"))
    nbytes, node = stored(array, BOTH, PassUse("split_floats"))
    assert node.encoding in ("bitmask", "gap_index")
    mask_nbytes = entropy(len(values) / array.size) * array.size / 8
    assert nbytes <= 1.04 * (alone + mask_nbytes) + 600


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_and_columns_that_are_pruned_cost_no_mask_worth_mentioning(axis: int) -> None:
    array = RNG.standard_normal((512, 768)).astype(np.float32)
    index = RNG.random(array.shape[axis]) < 0.5
    array[(index, slice(None)) if axis == 0 else (slice(None), index)] = 0
    alone, _ = stored(array[array != 0], BOTH, PassUse("split_floats"))
    nbytes, _ = stored(array, BOTH, PassUse("split_floats"))
    assert nbytes - alone < 0.1 * array.size / 8


def test_a_symbol_does_where_the_entropy_coder_has_fractions_of_bits() -> None:
    codes = np.where(RNG.random(100_000) < 0.9, 7, RNG.integers(0, 16, 100_000)).astype(np.uint8)
    _, node = stored(codes)
    assert node.codec == "rans"


def test_a_mask_helps_a_coder_of_whole_bits() -> None:
    codes = np.where(RNG.random(100_000) < 0.95, 7, RNG.integers(0, 16, 100_000)).astype(np.uint8)
    nbytes, node = stored(codes, ("raw", "huffman"))
    assert node.encoding in ("bitmask", "gap_index")
    assert node.params["fill"] == 7
    assert nbytes < len(codes) / 8 * 0.75


def test_dense_tensors_are_left_as_they_are() -> None:
    for array in (RNG.standard_normal((300, 300)).astype(np.float32), RNG.integers(0, 99, 9000)):
        _, node = stored(array, BOTH, PassUse("split_floats"))
        assert node.encoding in ("", "float_split")


def part_of(array: np.ndarray, dtype: str) -> Part:  # type: ignore[type-arg]
    return Part(TensorSpec(dtype, array.shape), array.reshape(-1).view(np.uint8))


def test_the_frequent_value_is_told_from_a_sample() -> None:
    codes = np.full(100_000, 9, np.uint8)
    codes[::10] = 1
    found = frequent_value(part_of(codes, "U8"))
    assert found is not None
    assert (found.bits, found.share > 0.8) == (9, True)
    zeros = frequent_value(part_of(pruned(0.75), "F32"))
    assert zeros is not None
    assert zeros.share == pytest.approx(0.75, abs=0.02)
    assert frequent_value(part_of(np.ones(1000, np.float32), "F32")) is None
    assert frequent_value(part_of(np.zeros(255, np.uint8), "U8")) is None
    assert frequent_value(Part(TensorSpec("F4", (4000,)), np.zeros(2000, np.uint8))) is None


def test_negative_zeros_are_values() -> None:
    array = pruned(0.8)
    array[:, ::7] *= np.float32(-1)
    _, node = stored(array, BOTH, PassUse("split_floats"))
    assert node.encoding in ("bitmask", "gap_index")


def test_each_form_holds_all_other_values() -> None:
    part = part_of(pruned(0.9, (64, 96)), "F32")
    found = frequent_value(part)
    assert found is not None
    forms = dict(sparse_forms(part, found))
    assert set(forms) == {"bitmask", "gap_index"}
    for _, parts in forms.values():
        values = parts["values"].data.view(np.float32)
        assert values.tobytes() == part.data.view(np.float32)[part.data.view(np.float32) != 0].tobytes()


def test_a_recipe_without_codecs_stores_tensors_as_they_are() -> None:
    _, node = stored(pruned(0.9), ("raw",))
    assert node.codec == "raw"


def test_zeros_alone_take_next_to_nothing() -> None:
    nbytes, _ = stored(np.zeros((512, 512), np.float32), BOTH, PassUse("split_floats"))
    assert nbytes < 500
