"""Safetensors files, well-formed and not: every byte comes back, and damage is one clear error."""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

import cmpk
from cmpk.archive import Archive
from cmpk.dtypes import DTYPES
from cmpk.errors import SourceError
from cmpk.importers import SafetensorsImporter
from tests.builders import safetensors_file

ONE = {"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}


def packed(path: Path, recipe: str = "lossless") -> bytes:
    sink = io.BytesIO()
    cmpk.pack(path, sink, recipe=recipe)
    return sink.getvalue()


def check_restored(path: Path, recipe: str = "lossless") -> Archive:
    """Pack a file, restore it, compare; return the archive."""
    archive = Archive(packed(path, recipe))
    archive.verify(deep=True)
    [copy] = cmpk.unpack(archive, path.parent / "restored", force=True)
    assert copy.name == path.name
    assert copy.read_bytes() == path.read_bytes()
    return archive


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_a_file_that_safetensors_wrote_comes_back_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {
        "weight": torch.randn(30, 40),
        "half": torch.randn(1000).half(),
        "steps": torch.arange(100),
        "empty": torch.empty(3, 0),
        "scalar": torch.tensor(True),
    }
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt", "Ä": "ö"})
    archive = check_restored(path)
    assert archive.metadata == {"format": "pt", "Ä": "ö"}
    assert set(archive) == set(tensors)


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_comes_back_byte_for_byte(tmp_path: Path, name: str) -> None:
    data = np.random.default_rng(0).integers(0, 256, 960, np.uint8).tobytes()
    n_elements = 8 * len(data) // DTYPES[name].nbits
    header = {"x": entry(name, [2, n_elements // 2], 0, len(data))}
    archive = check_restored(safetensors_file(tmp_path / "x.safetensors", header, data))
    assert archive.read("x").tobytes() == data


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
        b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}      ',
        b' \n{ "a" : {"shape":[2],\t"data_offsets":[0,2], "dtype":"U8"} }\n\n',
        b'{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}',
        b'{"__metadata__":{},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
        b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"__metadata__":{"z":"1","a":"\\u00e9\\n"}}',
        b'{"\\u0061":{"dtype":"I16","shape":[1,1,1],"data_offsets":[0,2]}}',
        '{"ключ/\\\\ \'":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'.encode(),
        b'{"":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
        b'{"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}',
    ],
)
def test_a_header_comes_back_as_it_was_written(tmp_path: Path, header: bytes) -> None:
    check_restored(safetensors_file(tmp_path / "x.safetensors", header, b"\xff\x7f"))


def test_tensors_without_bytes_may_stand_anywhere(tmp_path: Path) -> None:
    header = {
        "last": entry("F32", [0, 7], 6, 6),
        "b": entry("U8", [2], 4, 6),
        "middle": entry("I64", [0], 4, 4),
        "first": entry("F16", [3, 0], 0, 0),
        "a": entry("F32", [], 0, 4),
    }
    archive = check_restored(safetensors_file(tmp_path / "x.safetensors", header, b"abcdef"))
    assert archive.spec("last").shape == (0, 7)
    assert archive.read("b").tobytes() == b"ef"


def test_a_file_without_tensors_comes_back(tmp_path: Path) -> None:
    for header in (b"{}", b'{"__metadata__":{"a":"b"}}   '):
        archive = check_restored(safetensors_file(tmp_path / "x.safetensors", header))
        assert len(archive) == 0


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
    spaces=st.integers(0, 20),
)
def test_any_order_in_the_header_comes_back(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], order: Random, spaces: int
) -> None:
    entries, end = [], 0
    for index, size in enumerate(sizes):
        entries.append((f"t{index}", entry("U8", [size], end, end + size)))
        end += size
    order.shuffle(entries)
    folder = tmp_path_factory.mktemp("any_order")
    header = json.dumps(dict(entries)).encode() + b" " * spaces
    data = bytes(index % 251 for index in range(end))
    check_restored(safetensors_file(folder / "x.safetensors", header, data))


def test_a_file_in_which_lossy_passes_found_nothing_to_change_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"steps": torch.arange(1000), "norm.weight": torch.randn(64)}, path)
    archive = check_restored(path, "int8")
    assert archive.manifest.files[0].sha256


def test_equal_tensors_are_stored_once_and_come_back_twice(tmp_path: Path) -> None:
    half = np.random.default_rng(1).integers(0, 256, 5000, np.uint8).tobytes()
    header = {"a": entry("U8", [5000], 0, 5000), "b": entry("U8", [5000], 5000, 10000)}
    path = safetensors_file(tmp_path / "x.safetensors", header, half + half)
    archive = check_restored(path)
    assert archive.nbytes < 6000
    assert archive.target_of("b") == "a"
    assert not archive.is_tied("b")


def text(header: object) -> bytes:
    return json.dumps(header).encode()


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"3", "not a JSON object"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1' + b"0" * 5000 + b"]}}", "not JSON"),
        (b'{"a":' + text(ONE["a"]) + b',"a":' + text(ONE["a"]) + b"}", "repeated"),
        (b'{"a":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}}', "repeated"),
        (b'{"\\ud800":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', "surrogates"),
        (b'{"__metadata__":{"a":"\\udfff"}}', "surrogates"),
        (text({"__metadata__": {"a": 1}}), "__metadata__"),
        (text({"__metadata__": []}), "__metadata__"),
        (text({"a": 1}), "malformed"),
        (text({"a": {}}), "malformed"),
        (text({"a": {**ONE["a"], "extra": 1}}), "malformed"),
        (text({"a": {**ONE["a"], "dtype": 8}}), "malformed"),
        (text({"a": {**ONE["a"], "dtype": []}}), "malformed"),
        (text({"a": {**ONE["a"], "dtype": "U9"}}), "unknown dtype 'U9'"),
        (text({"a": {**ONE["a"], "shape": 2}}), "malformed"),
        (text({"a": {**ONE["a"], "shape": [-2]}}), "malformed"),
        (text({"a": {**ONE["a"], "shape": [2.0]}}), "malformed"),
        (text({"a": {**ONE["a"], "shape": [True]}}), "malformed"),
        (text({"a": {**ONE["a"], "data_offsets": [0]}}), "malformed"),
        (text({"a": {**ONE["a"], "data_offsets": [0, 1, 2]}}), "malformed"),
        (text({"a": {**ONE["a"], "data_offsets": [0, "2"]}}), "malformed"),
        (text({"a": entry("U8", [3], 0, 2)}), "has 2 bytes, its shape needs 3"),
        (text({"a": entry("U8", [2], 2, 0)}), "has -2 bytes"),
        (text({"a": entry("F4", [3], 0, 2)}), "not whole bytes"),
        (text({"a": entry("U8", [10**400], 0, 2)}), "beyond the limits"),
        (text({"a": entry("U8", [2**50, 0], 0, 0)}), "beyond the limits"),
        (text({"a": entry("U8", [2**48, 2**48], 0, 2)}), "within the limit"),
        (text({"a": entry("U8", [1] * 65, 0, 1)}), "beyond the limits"),
        (text({"a": entry("U8", [10**18] * 100_000, 0, 1)}), "beyond the limits"),
        (text({"n" * 4097: ONE["a"]}), "exceeds 4096 bytes"),
        (text({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 0, 1)}), "hole or overlap"),
        (text({"a": entry("U8", [1], 1, 2)}), "hole or overlap"),
        (text({"a": entry("U8", [1], 0, 1)}), "end at byte"),
        (text({"a": entry("U8", [3], 0, 3)}), "end at byte"),
        (b"{}", "end at byte"),
    ],
)  # fmt: skip
def test_a_malformed_header_is_one_clear_error(tmp_path: Path, header: bytes, problem: str) -> None:
    path = safetensors_file(tmp_path / "x.safetensors", header, b"ab")
    with pytest.raises(SourceError, match=problem) as raised:
        packed(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"abc", bytes(7), b"\xff" * 8, b"\xff" * 100, (1 << 33).to_bytes(8, "little") + b"{}"]
)
def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="can't be packed"):
        packed(path)


def test_a_file_that_shrinks_while_it_is_packed_is_refused(tmp_path: Path) -> None:
    path = safetensors_file(tmp_path / "x.safetensors", ONE, b"ab")
    source = SafetensorsImporter().open(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SourceError, match="was changed while it was read"):
        [tensor.read() for tensor in source.tensors()]
    source.close()


def test_only_files_by_that_name_are_accepted(tmp_path: Path) -> None:
    importer = SafetensorsImporter()
    assert importer.accepts(safetensors_file(tmp_path / "x.safetensors", ONE, b"ab"))
    assert not importer.accepts(safetensors_file(tmp_path / "x.bin", ONE, b"ab"))
    (tmp_path / "folder.safetensors").mkdir()
    assert not importer.accepts(tmp_path / "folder.safetensors")
