"""The golden files: spec/decode.py and the package read each valid one alike and refuse each invalid one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cmpk.archive import Archive
from cmpk.errors import FormatError, UnknownIdError

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "spec" / "vectors"
VALID = sorted(path.stem for path in (VECTORS / "valid").glob("*.json"))
INVALID: dict[str, dict[str, str]] = json.loads((VECTORS / "invalid" / "expected.json").read_text())

STEPS = ["open", "load", "validate"]

Content = dict[str, dict[str, Any]]


def contents(tensors: dict[str, tuple[str, list[int], bytes]], files: dict[str, bytes]) -> Content:
    """What was read, in the form in which the vectors tell it."""
    described = {}
    for name, (dtype, shape, data) in tensors.items():
        described[name] = {"dtype": dtype, "shape": shape, "sha256": hashlib.sha256(data).hexdigest()}
        if len(data) <= 64:
            described[name]["bytes"] = data.hex()
    return {
        "tensors": described,
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in files.items()},
    }


def read_with_decoder(decode: ModuleType, data: bytes) -> Content:
    archive = decode.Archive(data)
    archive.validate()
    tensors = {t.name: (t.spec.dtype, list(t.spec.shape), archive.tensor(t.name)) for t in archive.tensors}
    return contents(tensors, {file.path: b"".join(archive.file(file.path)) for file in archive.files})


def read_with_package(data: bytes) -> Content:
    with Archive(data) as archive:
        archive.verify(deep=True)
        tensors = {}
        for name in archive:
            spec = archive.spec(name)
            tensors[name] = (spec.dtype, list(spec.shape), archive.read(name).tobytes())
        files = {
            file.path: b"".join(chunk.tobytes() for chunk in archive.file_chunks(file))
            for file in archive.manifest.files
        }
    return contents(tensors, files)


def steps_of_decoder(decode: ModuleType, data: bytes) -> Iterator[str]:
    """Read step by step; gives the name of each step that was passed."""
    archive = decode.Archive(data)
    yield "open"
    for tensor in archive.tensors:
        if tensor.data.encoding != "alias":
            decode.decode_checked(tensor.data, tensor.spec)
    for file in archive.files:
        if file.literal is not None:
            decode.decode_checked(file.literal, decode.Spec("U8", (file.literal_nbytes,)))
    yield "load"
    archive.validate()
    yield "validate"


def steps_of_package(data: bytes) -> Iterator[str]:
    archive = Archive(data)
    yield "open"
    for name in archive:
        archive.read(name)
    for file in archive.manifest.files:
        archive.literal(file)
    yield "load"
    archive.verify(deep=True)
    yield "validate"


def assert_refused(steps: Iterator[str], error: type[Exception], found_by: str) -> None:
    """The step that must notice the error is not passed, and no other error is raised on the way."""
    passed = set()
    with contextlib.suppress(error):
        for step in steps:
            passed.add(step)
    assert found_by not in passed


def test_there_are_vectors_of_every_kind() -> None:
    assert len(VALID) >= 25
    assert len(INVALID) >= 90
    assert {vector["error"] for vector in INVALID.values()} == {"format", "stream", "version", "unknown_id"}
    assert {vector["found_by"] for vector in INVALID.values()} == set(STEPS)


def test_every_vector_has_its_expectation() -> None:
    assert sorted(path.stem for path in (VECTORS / "valid").glob("*.cmpk")) == VALID
    assert sorted(path.stem for path in (VECTORS / "invalid").glob("*.cmpk")) == sorted(INVALID)


@pytest.mark.parametrize("name", VALID)
def test_decoder_reads_what_a_valid_vector_holds(decode: ModuleType, name: str) -> None:
    expected = json.loads((VECTORS / "valid" / f"{name}.json").read_text())
    found = read_with_decoder(decode, (VECTORS / "valid" / f"{name}.cmpk").read_bytes())
    assert found == expected
    assert list(found["tensors"]) == list(expected["tensors"])


@pytest.mark.parametrize("name", VALID)
@pytest.mark.usefixtures("backend")
def test_package_reads_what_a_valid_vector_holds(name: str) -> None:
    expected = json.loads((VECTORS / "valid" / f"{name}.json").read_text())
    found = read_with_package((VECTORS / "valid" / f"{name}.cmpk").read_bytes())
    assert found == expected
    assert list(found["tensors"]) == list(expected["tensors"])


@pytest.mark.parametrize("name", INVALID)
def test_decoder_refuses_an_invalid_vector(decode: ModuleType, name: str) -> None:
    expected = INVALID[name]
    error = decode.Unsupported if expected["error"] in ("version", "unknown_id") else decode.Corrupt
    data = (VECTORS / "invalid" / f"{name}.cmpk").read_bytes()
    assert_refused(steps_of_decoder(decode, data), error, expected["found_by"])


@pytest.mark.parametrize("name", INVALID)
@pytest.mark.usefixtures("backend")
def test_package_refuses_an_invalid_vector(name: str) -> None:
    expected = INVALID[name]
    error = UnknownIdError if expected["error"] == "unknown_id" else FormatError
    data = (VECTORS / "invalid" / f"{name}.cmpk").read_bytes()
    assert_refused(steps_of_package(data), error, expected["found_by"])


@pytest.mark.parametrize(
    "name", [name for name, vector in INVALID.items() if vector["error"] == "unknown_id"]
)
def test_an_archive_with_an_unknown_id_can_still_be_opened_and_its_streams_verified(name: str) -> None:
    with Archive((VECTORS / "invalid" / f"{name}.cmpk").read_bytes()) as archive:
        archive.verify()


def test_decoder_names_the_tensors_and_says_whether_a_file_is_valid(tmp_path: Path) -> None:
    def run(path: Path, *options: str) -> tuple[int, str]:
        command = [sys.executable, str(ROOT / "spec" / "decode.py"), str(path), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout

    code, said = run(VECTORS / "valid" / "files-safetensors.cmpk", "--extract", str(tmp_path))
    assert code == 0
    assert "'c' BF16 [3] plain" in said
    assert said.endswith("valid\n")
    expected = json.loads((VECTORS / "valid" / "files-safetensors.json").read_text())["files"]
    assert (
        hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
        == expected["model.safetensors"]
    )
    assert run(VECTORS / "invalid" / "huffman-sync-point-1-a-bit-too-far.cmpk") == (
        1,
        "'a' U8 [4096] plain\ncorrupt: huffman: a sync point lies\n",
    )
    assert run(VECTORS / "invalid" / "version-major.cmpk") == (2, "unsupported: format version 1.0\n")


def test_the_vectors_are_those_that_the_script_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-B", "-m", "tools.make_vectors", str(tmp_path)], cwd=ROOT, check=True)
    for kind in ("valid", "invalid"):
        made = {path.name: path.read_bytes() for path in (tmp_path / kind).iterdir()}
        kept = {path.name: path.read_bytes() for path in (VECTORS / kind).iterdir()}
        assert sorted(made) == sorted(kept)
        assert [name for name in made if made[name] != kept[name]] == []
