from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import cmpk

Invoke = Callable[..., Result]
RunProcess = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_what_was_packed_is_unpacked_byte_for_byte(invoke: Invoke, model_path: Path, tmp_path: Path) -> None:
    packed = tmp_path / "m.cmpk"
    assert invoke("pack", model_path, "-o", packed).exit_code == 0
    done = invoke("unpack", packed, "-o", tmp_path / "back")
    assert done.exit_code == 0
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == model_path.read_bytes()
    listed, total = done.stdout.splitlines()
    assert listed.endswith(str(tmp_path / "back" / "model.safetensors"))
    assert "1 file in" in total
    assert packed.stat().st_size < model_path.stat().st_size


def test_a_single_file_can_be_unpacked_under_another_name(
    invoke: Invoke, model_path: Path, archive_path: Path, tmp_path: Path
) -> None:
    assert invoke("unpack", archive_path, "-o", tmp_path / "copy.safetensors", "-j", 2).exit_code == 0
    assert (tmp_path / "copy.safetensors").read_bytes() == model_path.read_bytes()


def test_the_archive_goes_to_a_pipe_as_it_goes_to_a_file_and_the_summary_to_stderr(
    run_process: RunProcess, model_path: Path, archive_path: Path
) -> None:
    piped = run_process("pack", model_path, "-o", "-")
    assert piped.returncode == 0
    assert piped.stdout == archive_path.read_bytes()
    assert b"ratio 0." in piped.stderr


def test_the_archive_does_not_depend_on_the_number_of_threads(
    invoke: Invoke, model_path: Path, archive_path: Path, tmp_path: Path
) -> None:
    assert invoke("pack", model_path, "-o", tmp_path / "m.cmpk", "-j", 3).exit_code == 0
    assert (tmp_path / "m.cmpk").read_bytes() == archive_path.read_bytes()


def test_the_summary_tells_sizes_ratio_and_speed(invoke: Invoke, model_path: Path, tmp_path: Path) -> None:
    done = invoke("pack", model_path, "-o", tmp_path / "m.cmpk")
    nbytes, source_nbytes = (tmp_path / "m.cmpk").stat().st_size, model_path.stat().st_size
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["packed"] == str(tmp_path / "m.cmpk")
    assert lines["source"].endswith("7 tensors, 1 file")
    assert lines["archive"].endswith(f"ratio {nbytes / source_nbytes:.4f}")
    assert lines["time"].endswith("B/s")
    assert done.stderr == ""


def test_the_summary_as_json_describes_the_archive(invoke: Invoke, model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.cmpk"
    summary = json.loads(invoke("pack", model_path, "-o", path, "--json").stdout)
    assert summary.pop("seconds") > 0
    with cmpk.open(path) as archive:
        assert summary == {
            "path": str(path),
            "recipe": "lossless",
            "ratio": path.stat().st_size / model_path.stat().st_size,
            "source_nbytes": model_path.stat().st_size,
            "nbytes": path.stat().st_size,
            "n_tensors": 7,
            "n_files": 1,
            "sha256": archive.sha256,
            "notes": [],
            "quality": None,
        }


def test_the_recipe_that_is_named_is_used(invoke: Invoke, model_path: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "store.toml"
    recipe.write_text('codecs = ["raw"]\n')
    assert invoke("pack", model_path, "-o", tmp_path / "m.cmpk", "--recipe", recipe).exit_code == 0
    with cmpk.open(tmp_path / "m.cmpk") as archive:
        assert archive.manifest.recipe == "store"
        assert archive.entry("head.weight").data.codec == "raw"


def test_nothing_is_overwritten_without_force(
    invoke: Invoke, model_path: Path, archive_path: Path, tmp_path: Path
) -> None:
    packed, unpacked = tmp_path / "m.cmpk", tmp_path / "model.safetensors"
    packed.write_bytes(b"precious")
    unpacked.write_bytes(b"precious too")
    for args in (("pack", model_path, "-o", packed), ("unpack", archive_path, "-o", tmp_path)):
        refused = invoke(*args)
        assert refused.exit_code == 1
        assert refused.stderr.startswith("cmpk: error: ")
        assert "--force" in refused.stderr
    assert (packed.read_bytes(), unpacked.read_bytes()) == (b"precious", b"precious too")
    assert invoke("pack", model_path, "-o", packed, "--force").exit_code == 0
    assert invoke("unpack", archive_path, "-o", tmp_path, "--force").exit_code == 0
    assert packed.read_bytes() == archive_path.read_bytes()
    assert unpacked.read_bytes() == model_path.read_bytes()


def test_notes_of_the_source_go_to_stderr_on_one_line_each(
    invoke: Invoke, model_path: Path, tmp_path: Path
) -> None:
    source = tmp_path / "model"
    source.mkdir()
    shutil.copy(model_path, source / "model.safetensors")
    shutil.copy(model_path, source / "second.safetensors")
    done = invoke("pack", source, "-o", tmp_path / "m.cmpk")
    assert done.exit_code == 0
    (note,) = done.stderr.splitlines()
    assert note.startswith("cmpk: note: second.safetensors")
    assert "cmpk: note" not in done.stdout


@pytest.mark.parametrize("damage", ["missing", "cut off", "no model"])
def test_a_source_that_cannot_be_packed_is_one_line_and_leaves_nothing(
    invoke: Invoke, model_path: Path, tmp_path: Path, damage: str
) -> None:
    source = tmp_path / ("notes.txt" if damage == "no model" else "model.safetensors")
    if damage != "missing":
        source.write_bytes(model_path.read_bytes()[:-1])
    before = set(tmp_path.iterdir())
    failed = invoke("pack", source, "-o", tmp_path / "m.cmpk")
    assert failed.exit_code == 1
    assert failed.stdout == ""
    (line,) = failed.stderr.splitlines()
    assert line.startswith("cmpk: error: ")
    assert str(source) in line
    assert set(tmp_path.iterdir()) == before
