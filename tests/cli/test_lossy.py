"""Lossy files on the command line: what packing, inspecting, unpacking and comparing say of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import cmpk
from cmpk.cli.pack import SIZE
from cmpk.recipe import builtin_names

Invoke = Callable[..., Result]

RECIPE = """
codecs = ["raw", "huffman", "rans"]

[[rules]]
names = ["head.weight"]
passes = [{ id = "prune", ratio = 0.5 }]

[[rules]]
names = ["embedding.*", "output.*"]
passes = [{ id = "share", bits = 4 }]
"""


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path / "mine.toml"


@pytest.fixture
def lossy_path(invoke: Invoke, model_path: Path, recipe_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "lossy.cmpk"
    assert invoke("pack", model_path, "-o", path, "--recipe", recipe_path).exit_code == 0
    return path


def test_packing_says_what_was_kept(
    invoke: Invoke, model_path: Path, recipe_path: Path, tmp_path: Path
) -> None:
    done = invoke("pack", model_path, "-o", tmp_path / "a.cmpk", "--recipe", recipe_path)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["quality"].startswith("2 lossy tensors, relative error 0.")
    done = invoke("pack", model_path, "-o", tmp_path / "b.cmpk", "--recipe", recipe_path, "--json")
    quality = json.loads(done.stdout)["quality"]
    assert quality["n_tensors"] == 2
    assert 0 < quality["error"] <= quality["largest_error"] < 1
    lossless = json.loads(invoke("pack", model_path, "-o", tmp_path / "c.cmpk", "--json").stdout)
    assert lossless["quality"] is None


def test_inspecting_shows_the_figures_of_each_lossy_tensor(invoke: Invoke, lossy_path: Path) -> None:
    text = invoke("inspect", lossy_path).stdout
    assert "quality" in text
    rows = {line.split()[-1]: line.split() for line in text.splitlines() if line.split()}
    with cmpk.open(lossy_path) as archive:
        qualities = {name: archive.entry(name).quality for name in ("head.weight", "embedding.weight")}
    for name, quality in qualities.items():
        assert quality is not None
        assert rows[name][:2] == [f"{quality.error:.3g}", f"{quality.sqnr:.1f}"]
    assert "16.00" in rows["head.weight"]
    assert "norm.bias" not in text.partition("lossy tensors, and bits")[2]


def test_inspecting_as_json_has_the_figures_of_the_model_and_of_a_tensor(
    invoke: Invoke, lossy_path: Path, archive_path: Path
) -> None:
    document = json.loads(invoke("inspect", lossy_path, "--json").stdout)
    assert document["archive"]["quality"]["n_tensors"] == 2
    [head] = [entry for entry in document["manifest"]["tensors"] if entry["name"] == "head.weight"]
    assert head["quality"]["pruned_millibits"] == 16_000
    tensor = json.loads(invoke("inspect", lossy_path, "head.weight", "--json").stdout)["tensor"]
    assert tensor["quality"]["bits_per_element"]["pruned"] == 16
    assert json.loads(invoke("inspect", archive_path, "--json").stdout)["archive"]["quality"] is None


def test_inspecting_an_alias_shows_the_figures_of_its_target(invoke: Invoke, lossy_path: Path) -> None:
    of = {
        name: json.loads(invoke("inspect", lossy_path, name, "--json").stdout)["tensor"]["quality"]
        for name in ("embedding.weight", "output.weight")
    }
    assert of["embedding.weight"] == of["output.weight"]
    assert of["output.weight"]["bits_per_element"]["quantized"] > 4
    assert "stages" in invoke("inspect", lossy_path, "head.weight").stdout


def test_unpacking_says_which_files_are_not_the_originals(
    invoke: Invoke, lossy_path: Path, archive_path: Path, tmp_path: Path
) -> None:
    done = invoke("unpack", lossy_path, "-o", tmp_path / "a")
    assert done.stdout.splitlines()[0].endswith("model.safetensors  (decoded, not the original)")
    assert "decoded" not in invoke("unpack", archive_path, "-o", tmp_path / "b").stdout


def test_deep_verification_counts_only_files_with_a_digest(invoke: Invoke, lossy_path: Path) -> None:
    done = invoke("verify", lossy_path, "--deep")
    assert done.exit_code == 0
    assert "by BLAKE3" in done.stdout
    assert "by SHA-256" not in done.stdout


class TestDiff:
    def test_of_a_model_and_its_archive_says_bit_identical(
        self, invoke: Invoke, model_path: Path, archive_path: Path
    ) -> None:
        done = invoke("diff", model_path, archive_path)
        assert (done.exit_code, done.stdout) == (0, "bit-identical: 7 tensors\n")
        done = invoke("diff", model_path, archive_path, "--json")
        assert (done.exit_code, json.loads(done.stdout)["identical"]) == (0, True)

    def test_lists_what_differs_and_by_how_much(
        self, invoke: Invoke, model_path: Path, lossy_path: Path
    ) -> None:
        done = invoke("diff", model_path, lossy_path)
        assert done.exit_code == 1
        rows = {line.split()[-1]: line.split() for line in done.stdout.splitlines()[1:]}
        assert set(rows) == {"head.weight", "embedding.weight", "output.weight", "identical"}
        with cmpk.open(lossy_path) as archive:
            quality = archive.entry("head.weight").quality
        assert quality is not None
        assert rows["head.weight"][:3] == ["values", f"{quality.error:.3g}", f"{quality.sqnr:.1f}"]
        assert "4 of 7 identical" in done.stdout
        assert "norm.bias" in invoke("diff", model_path, lossy_path, "--all").stdout

    def test_as_json_has_every_tensor(self, invoke: Invoke, model_path: Path, lossy_path: Path) -> None:
        done = invoke("diff", lossy_path, model_path, "--json")
        assert done.exit_code == 1
        document = json.loads(done.stdout)
        assert document["identical"] is False
        by_name = {tensor["name"]: tensor for tensor in document["tensors"]}
        assert by_name["norm.bias"]["status"] == "identical"
        assert by_name["norm.bias"]["deviation"]["sqnr_db"] is None
        assert by_name["head.weight"]["deviation"]["error"] > 0

    def test_of_what_can_not_be_read_is_trouble(self, invoke: Invoke, archive_path: Path) -> None:
        done = invoke("diff", archive_path, "missing.safetensors")
        assert done.exit_code == 2
        assert done.stderr == "cmpk: error: 'missing.safetensors' does not exist\n"


class TestRecipes:
    def test_are_listed_with_what_they_are_for(self, invoke: Invoke) -> None:
        lines = invoke("recipes").stdout.splitlines()
        assert [line.split()[0] for line in lines] == builtin_names()
        listed = json.loads(invoke("recipes", "--json").stdout)
        assert [entry["name"] for entry in listed] == builtin_names()
        assert all(entry["summary"] for entry in listed)

    def test_one_is_shown_as_a_file_to_start_from(
        self, invoke: Invoke, model_path: Path, archive_path: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "lossless.toml").write_text(invoke("recipes", "lossless").stdout)
        path = tmp_path / "a.cmpk"
        assert invoke("pack", model_path, "-o", path, "--recipe", tmp_path / "lossless.toml").exit_code == 0
        assert path.read_bytes() == archive_path.read_bytes()
        shown = json.loads(invoke("recipes", "lossless", "--json").stdout)
        assert shown["toml"] == (tmp_path / "lossless.toml").read_text()

    def test_one_that_is_not_there_is_an_error(self, invoke: Invoke) -> None:
        done = invoke("recipes", "losless")
        assert done.exit_code == 1
        assert done.stderr.startswith("cmpk: error: no recipe is named 'losless'; there are ")


class TestTargets:
    @pytest.mark.parametrize(
        ("text", "nbytes"),
        [
            ("4096", 4096),
            ("12MB", 12_000_000),
            ("1.5 GiB", 3 << 29),
            ("64kB", 64_000),
            ("64K", 64_000),
            ("2Mi", 2 << 20),
        ],
    )
    def test_a_size_may_have_a_unit(self, text: str, nbytes: int) -> None:
        assert SIZE.convert(text, None, None) == nbytes

    @pytest.mark.parametrize("text", ["", "12 parsecs", "-5", "MB", "1e6", "12iB"])
    def test_what_is_no_size_is_wrong_usage(
        self, invoke: Invoke, model_path: Path, tmp_path: Path, text: str
    ) -> None:
        done = invoke("pack", model_path, "-o", tmp_path / "a.cmpk", f"--target-size={text}")
        assert done.exit_code == 2
        assert "is no size" in done.stderr

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (["--target-size", "1MB", "--target-bpw", "4"], "give one of a target size"),
            (["--max-error", "0"], "a target must be a positive number"),
            (["--min-score", "1"], "go together"),
            (["--evaluate", "a:b"], "go together"),
            (["--target-bpw", "4", "--recipe", "lossless"], "recipe 'lossless' has no pass 'quantize'"),
        ],
    )
    def test_targets_that_make_no_sense_are_one_line(
        self, invoke: Invoke, model_path: Path, tmp_path: Path, options: list[str], problem: str
    ) -> None:
        done = invoke("pack", model_path, "-o", tmp_path / "a.cmpk", *options)
        assert done.exit_code == 1
        assert len(done.stderr.splitlines()) == 1
        assert problem in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_target_is_met_and_the_recipe_named(
        self, invoke: Invoke, model_path: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.cmpk"
        done = invoke("pack", model_path, "-o", path, "--target-size", "30kB", "--json")
        assert done.exit_code == 0
        assert json.loads(done.stdout)["recipe"] == "balanced"
        assert 29_700 <= path.stat().st_size <= 30_000

    def test_the_smallest_file_is_found_by_a_function_that_is_named(
        self, invoke: Invoke, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code = "def deviation(tensors):\n    return float(tensors['embedding.weight'].float().std())\n"
        (tmp_path / "judge.py").write_text(code)
        monkeypatch.chdir(tmp_path)
        options = ["--evaluate", "judge:deviation", "--min-score", "0.0199", "--max-error", "0.1"]
        done = invoke("pack", model_path, "-o", "a.cmpk", *options)
        assert (done.exit_code, "not both" in done.stderr) == (1, True)
        done = invoke("pack", model_path, "-o", "a.cmpk", *options[:4])
        assert done.exit_code == 0
        assert "with a score of at least 0.0199 scores 0.0" in done.stderr
        assert Path("a.cmpk").stat().st_size < model_path.stat().st_size / 4
