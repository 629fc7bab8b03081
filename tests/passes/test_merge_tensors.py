"""merge_tensors: tensors that are much alike become one, and none is farther off than it was allowed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import cmpk
from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.numpy import load_file
from cmpk.passes.merge_tensors import MergeTensors
from tests.passes.samples import Array, normal, part_of

MERGE = MergeTensors()

RECIPE = """
summary = "merge"
codecs = ["raw", "huffman"]

[[rules]]
passes = [{{ id = "merge_tensors", {options} }}, {then} {{ id = "split_floats" }}]
"""


def settled(tensors: Mapping[str, Array], **options: object) -> dict[str, Array]:
    """What every tensor becomes."""
    parts = {name: part_of(values) for name, values in tensors.items()}
    found = MERGE.settle([(name, part, None) for name, part in parts.items()], options)
    made = {}
    for name, part in parts.items():
        after = MERGE.apply(name, part, found)
        assert isinstance(after, Part)
        made[name] = after.data.view(np.float32).reshape(part.spec.shape)
    return made


def near(values: Array, error: float, seed: int) -> Array:
    """Values whose relative distance is exactly so."""
    noise = normal(*values.shape, seed=seed)
    return values + noise * np.float32(error * np.linalg.norm(values) / np.linalg.norm(noise))


@pytest.mark.parametrize("shape", [(40, 50), (300, 333), (7,)])
def test_a_tensor_that_is_near_enough_becomes_the_one_before_it(shape: tuple[int, ...]) -> None:
    first = normal(*shape)
    tensors = {"a": first, "b": near(first, 0.009, 1), "c": near(first, 0.02, 2), "d": normal(*shape, seed=9)}
    made = settled(tensors, euclidean=0.01)
    assert made["b"].tobytes() == first.tobytes()
    assert all(made[name].tobytes() == tensors[name].tobytes() for name in "acd")


def test_the_nearest_of_several_stands_for_a_tensor() -> None:
    first = normal(60, 70)
    second = near(first, 0.2, 1)
    made = settled({"a": first, "b": second, "c": near(second, 0.02, 2)}, euclidean=0.1)
    assert made["c"].tobytes() == second.tobytes()


def test_a_tensor_that_joined_another_stands_for_none() -> None:
    first = normal(60, 70)
    second = near(first, 0.09, 1)
    third = near(second, 0.09, 2)
    made = settled({"a": first, "b": second, "c": third}, euclidean=0.1)
    assert made["b"].tobytes() == first.tobytes()
    assert made["c"].tobytes() == third.tobytes()


def test_lengths_do_not_matter_to_the_cosine() -> None:
    first = normal(60, 70)
    tensors = {"a": first, "b": 3 * near(first, 0.05, 1), "c": -first}
    made = settled(tensors, cosine=0.99)
    assert made["b"].tobytes() == first.tobytes()
    assert made["c"].tobytes() == tensors["c"].tobytes()
    assert settled(tensors, euclidean=0.5)["b"].tobytes() == tensors["b"].tobytes()


def test_only_tensors_of_one_shape_and_finite_ones_are_merged() -> None:
    first = normal(60, 70)
    strange = first.copy()
    strange[3, 4] = np.nan
    tensors = {"a": first, "b": first.reshape(70, 60), "c": strange, "d": strange + 0}
    made = settled(tensors, euclidean=0.5)
    assert all(made[name].tobytes() == tensors[name].tobytes() for name in tensors)


def test_no_pair_among_many_is_missed_or_merged_too_far() -> None:
    kinds = normal(20, 3000)
    rng = np.random.default_rng(0)
    tensors = {f"{i}": near(kinds[i % 20], rng.uniform(0, 0.12), i) for i in range(120)}
    made = settled(tensors, euclidean=0.1)
    stored: dict[bytes, str] = {}
    for name, values in tensors.items():
        assert np.linalg.norm(made[name] - values) <= 0.1 * np.linalg.norm(values) * (1 + 1e-6)
        distances = [
            np.linalg.norm(tensors[other] - values) / np.linalg.norm(values) for other in stored.values()
        ]
        if made[name].tobytes() == values.tobytes():
            assert not any(distance < 0.1 * (1 - 1e-6) for distance in distances)
            stored[values.tobytes()] = name
        else:
            nearest = list(stored.values())[int(np.argmin(distances))]
            assert made[name].tobytes() == tensors[nearest].tobytes()
    assert 20 <= len(stored) < 80


@pytest.mark.parametrize("options", [{}, {"euclidean": 0.1, "cosine": 0.9}, {"cosine": 2}, {"euclidean": -1}])
def test_options_that_make_no_sense_are_refused(options: Mapping[str, object]) -> None:
    with pytest.raises(RecipeError, match="merge_tensors"):
        MERGE.settle([], options)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    first = normal(128, 64)
    path = tmp_path / "model.safetensors"
    tensors = {"a": first, "b": near(first, 0.01, 1), "c": normal(128, 64, seed=5), "z": first + 0}
    safetensors.numpy.save_file(tensors, path)
    return path


def packed(model: Path, options: str = "euclidean = 0.02", then: str = "", **further: object) -> Path:
    recipe = model.with_suffix(".toml")
    recipe.write_text(RECIPE.format(options=options, then=then))
    out = model.with_suffix(".cmpk")
    cmpk.pack(model, out, recipe=recipe, force=True, **further)  # type: ignore[arg-type]
    return out


def test_a_merged_tensor_is_stored_once_and_tells_how_far_it_is_off(model: Path) -> None:
    path = packed(model)
    before = safetensors.numpy.load_file(model)
    with cmpk.open(path) as archive:
        merged, equal = archive.entry("b"), archive.entry("z")
        assert merged.data.params == {"target": "a", "tied": 0} == equal.data.params
        assert merged.quality is not None
        assert merged.quality.error == pytest.approx(0.01, rel=1e-3)
        assert merged.quality.coded_millibits == 0
        assert equal.quality is None
        assert archive.entry("a").quality is None
        archive.verify(deep=True)
        assert [file.sha256 for file in archive.manifest.files] == [""]
    after = load_file(path)
    assert after["b"].tobytes() == before["a"].tobytes()
    assert not np.shares_memory(after["a"], after["b"])
    assert all(after[name].tobytes() == before[name].tobytes() for name in "acz")


def test_what_merged_tensors_become_is_stored_once(model: Path) -> None:
    path = packed(model, then='{ id = "quantize", step = 0.01 },')
    with cmpk.open(path) as archive:
        kinds = {name: archive.entry(name) for name in archive}
        assert [kinds[name].data.encoding for name in "bz"] == ["alias", "alias"]
        assert kinds["a"].quality is not None
        assert kinds["b"].quality is not None
        assert kinds["b"].quality.error > kinds["a"].quality.error
        assert kinds["z"].quality is None
        archive.verify(deep=True)


def test_a_plan_gives_merged_tensors_one_step(model: Path) -> None:
    path = packed(model, then='{ id = "quantize" },', target_size=9000)
    with cmpk.open(path) as archive:
        assert archive.nbytes <= 9000
        assert archive.entry("b").data.encoding == "alias"
