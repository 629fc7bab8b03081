from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import cmpk
from cmpk.format import ContainerWriter, Manifest, TensorEntry

Invoke = Callable[..., Result]


@pytest.fixture
def lying_path(tmp_path: Path) -> Path:
    """An archive whose every stream is whole, but whose tensor is not what was packed."""
    path = tmp_path / "lying.cmpk"
    with path.open("wb") as file:
        writer = ContainerWriter(file)
        node = writer.add_stream("raw", b"\x01\x02\x03")
        entry = TensorEntry(name="a", dtype="U8", shape=(3,), blake3="0" * 64, data=node)
        writer.finish(Manifest(producer="test", tensors=[entry]))
    return path


def test_a_whole_archive_is_said_to_be_whole_and_what_was_checked(invoke: Invoke, archive_path: Path) -> None:
    done = invoke("verify", archive_path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"{archive_path} is whole" in done.stdout
    assert "by XXH3" in done.stdout
    assert "by BLAKE3" not in done.stdout
    assert "B/s" in done.stdout


def test_deep_verification_also_checks_tensors_and_files(invoke: Invoke, archive_path: Path) -> None:
    done = invoke("verify", archive_path, "--deep", "-j", 1)
    assert done.exit_code == 0
    assert "7 tensors" in done.stdout
    assert "1 file, " in done.stdout


def test_json_counts_what_was_checked(invoke: Invoke, archive_path: Path, model_path: Path) -> None:
    document = json.loads(invoke("verify", archive_path, "--deep", "--json").stdout)
    assert document.pop("seconds") > 0
    with cmpk.open(archive_path) as archive:
        tensors_nbytes = archive.decoded_nbytes
    assert document.pop("n_streams") > 7
    assert 0 < document.pop("streams_nbytes") < archive_path.stat().st_size
    assert document == {
        "ok": True,
        "path": str(archive_path),
        "deep": True,
        "n_tensors": 7,
        "tensors_nbytes": tensors_nbytes,
        "n_files": 1,
        "files_nbytes": model_path.stat().st_size,
    }


@pytest.mark.parametrize("options", [(), ("--deep",), ("--json",)])
def test_damage_anywhere_is_one_line_and_exit_code_1(
    invoke: Invoke, archive_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    whole = archive_path.read_bytes()
    path = tmp_path / "damaged.cmpk"
    offsets = [0, 9, 17, len(whole) // 2, len(whole) - 200, len(whole) - 50, len(whole) - 1]
    for damaged in [
        *(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in offsets),
        whole[:-1],
        b"",
    ]:
        path.write_bytes(damaged)
        done = invoke("verify", path, *options)
        assert done.exit_code == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("cmpk: error: ")
        if "--json" in options:
            document = json.loads(done.stdout)
            assert document == {"ok": False, "path": str(path), "deep": False, "error": line[13:]}
        else:
            assert done.stdout == ""


def test_a_tensor_that_is_not_what_was_packed_is_found_by_decoding_only(
    invoke: Invoke, lying_path: Path
) -> None:
    assert invoke("verify", lying_path).exit_code == 0
    deep = invoke("verify", lying_path, "--deep")
    assert deep.exit_code == 1
    assert deep.stderr == "cmpk: error: tensor 'a' does not match its BLAKE3 digest\n"


def test_streams_are_checked_where_a_plugin_is_missing_and_decoding_names_the_package(
    invoke: Invoke, needy_path: Path, tmp_path: Path
) -> None:
    assert "3 streams" in invoke("verify", needy_path).stdout
    for failed in (
        invoke("verify", needy_path, "--deep"),
        invoke("unpack", needy_path, "-o", tmp_path / "x"),
    ):
        assert failed.exit_code == 1
        (line,) = failed.stderr.splitlines()
        assert "cmpk-lz99" in line
