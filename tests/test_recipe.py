"""Recipes: by name or from a TOML file, and one clear error for whatever is wrong in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import cmpk.numpy
from cmpk.archive import Archive
from cmpk.errors import RecipeError, UnknownIdError
from cmpk.recipe import PassUse, Recipe, Rule, builtin_names, load_recipe

WEIGHTS = {"a": np.random.default_rng(0).standard_normal(20_000).astype(np.float32)}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_built_in_recipes_are_what_they_say() -> None:
    lossless = {"lossless", "lossless-max"}
    assert lossless < set(builtin_names())
    for name in builtin_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert ("bit-exact" in recipe.summary) == (name in lossless)
        assert recipe.codecs[0] == "raw"
        assert recipe.rules


def test_a_recipe_is_taken_as_it_is() -> None:
    recipe = Recipe("mine")
    assert load_recipe(recipe) is recipe


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    codecs = 'summary = "ü"\ncodecs = ["huffman", "zstd:7", "huffman"]\n'
    path = written(tmp_path, codecs + "min_saving = 0.02\n[passes.split_floats]\nmax_groups = 2\n")
    for given in (path, str(path)):
        recipe = load_recipe(given)
        assert (recipe.name, recipe.summary, recipe.min_saving) == ("mine", "ü", 0.02)
        assert recipe.codecs == ("raw", "huffman", "zstd:7")
        assert recipe.rules == (Rule((PassUse("split_floats", {"max_groups": 2}),)),)
    archive = Archive(cmpk.numpy.save(WEIGHTS, recipe=path))
    assert archive.manifest.recipe == "mine"
    assert archive.read("a").tobytes() == WEIGHTS["a"].tobytes()


def test_the_recipe_that_the_readme_shows_packs(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(readme.partition("```toml\n")[2].partition("```")[0])
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32)

    expert = noise(64, 64)
    tensors = {
        "word_embeddings.weight": noise(5000, 16),
        "layer.experts.0.weight": expert,
        "layer.experts.1.weight": expert + 0.01 * noise(64, 64),
        "model.lm_head.weight": noise(256, 4) @ noise(4, 64),
        "layer.dense.weight": noise(64, 64),
        "layer.dense.bias": noise(64),
    }
    cmpk.numpy.save_file(tensors, tmp_path / "a.cmpk", recipe=tmp_path / "mine.toml")
    with cmpk.open(tmp_path / "a.cmpk") as archive:
        found = {name: archive.entry(name).data.encoding for name in tensors}
    assert found == {
        "word_embeddings.weight": "codebook",
        "layer.experts.0.weight": "affine",
        "layer.experts.1.weight": "alias",
        "model.lm_head.weight": "product",
        "layer.dense.weight": "codebook",
        "layer.dense.bias": "",
    }


def test_an_empty_file_is_a_recipe_that_stores_everything_as_it_is(tmp_path: Path) -> None:
    archive = Archive(cmpk.numpy.save(WEIGHTS, recipe=written(tmp_path, "")))
    assert archive.entry("a").data.codec == "raw"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("codecs = ", "recipe 'mine'"),
        ("codecs = " + "[" * 100_000, "recipe 'mine'"),
        ("codec = []", "unknown entry 'codec'; known are summary, codecs, min_saving, passes, rules"),
        ('codecs = "huffman"', "codecs must not be 'huffman'"),
        ("codecs = [1]", "list of ids"),
        ('min_saving = "a"', "min_saving must not be"),
        ("min_saving = true", "min_saving must not be"),
        ("min_saving = -0.1", "min_saving"),
        ("min_saving = 1.5", "min_saving"),
        ("min_saving = nan", "min_saving"),
        ("summary = 1", "summary must not be"),
        ("passes = []", "passes must not be"),
        ("[passes]\nsplit_floats = 1", "table of options"),
        ("[passes.split_floats]\nspeed = 1", "no option 'speed'"),
        ("[passes.split_floats]\nmax_groups = 0", "max_groups is 0"),
        ('codecs = ["zstd:99"]', "level 99"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        cmpk.numpy.save(WEIGHTS, recipe=written(tmp_path, text))


@pytest.mark.parametrize("text", ["min_saving = 0", "min_saving = 0.0", "min_saving = 1"])
def test_whole_numbers_are_numbers(tmp_path: Path, text: str) -> None:
    cmpk.numpy.save(WEIGHTS, recipe=written(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    ['codecs = ["zip"]', 'codecs = ["zstd:fast"]', 'codecs = ["huffman:3"]', "[passes.sharpen]\nx = 1"],
)
def test_what_is_not_installed_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(UnknownIdError):
        cmpk.numpy.save(WEIGHTS, recipe=written(tmp_path, text))


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        (
            "lossy",
            f"no recipe is named 'lossy'; there are {', '.join(builtin_names())}, or name a .toml file",
        ),
        ("", "no recipe is named ''"),
        ("missing.toml", "can't read the recipe"),
        ("lossless.toml.txt", "no recipe is named"),
        ("no\0name.toml", "can't read the recipe"),
    ],
)
def test_a_recipe_that_is_not_there_is_said(recipe: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe(recipe)


def test_a_file_that_is_no_text_or_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(tmp_path / "bytes.toml")
    with pytest.raises(RecipeError, match="can't read"):
        load_recipe(tmp_path / "folder.toml")
