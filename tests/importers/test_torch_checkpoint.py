"""Torch checkpoints: every tensor by its name, the file byte for byte where it can be, nothing executed."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cmpk
import cmpk.torch
from cmpk.archive import Archive
from cmpk.errors import SourceError
from cmpk.importers import torch_checkpoint
from cmpk.packing import PackReport


def pack(path: Path) -> tuple[Archive, PackReport]:
    sink = io.BytesIO()
    report = cmpk.pack(path, sink)
    archive = Archive(sink.getvalue())
    archive.verify(deep=True)
    return archive, report


def loaded(archive: Archive) -> dict[str, torch.Tensor]:
    return cmpk.load.load_tensors(archive, archive.keys(), "cpu", 1)


def is_restored(archive: Archive, path: Path) -> bool:
    [copy] = cmpk.unpack(archive, path.parent / "restored", force=True)
    return copy.name == path.name and copy.read_bytes() == path.read_bytes()


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    def octets(value: torch.Tensor) -> bytes:
        flat = value.detach().resolve_conj().resolve_neg().contiguous().as_strided((value.numel(),), (1,))
        return flat.view(torch.uint8).numpy().tobytes()

    return (one.dtype, one.shape, octets(one)) == (other.dtype, other.shape, octets(other))


WEIGHT = torch.arange(10_000, dtype=torch.float32).reshape(100, 100).sin()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_a_state_dict_comes_back_with_its_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    model = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.BatchNorm1d(20))
    torch.save(model.state_dict(), path)
    archive, report = pack(path)
    found = loaded(archive)
    assert list(found) == list(model.state_dict())
    assert all(same(found[name], value) for name, value in model.state_dict().items())
    assert is_restored(archive, path)
    assert report.notes == []


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: WEIGHT, {"tensor"}),
        (lambda: [WEIGHT, WEIGHT + 1], {"0", "1"}),
        (lambda: {"a": {"b": WEIGHT, "c": [WEIGHT + 1, (WEIGHT, 5)]}, "n": 3}, {"a.b", "a.c.0", "a.c.1.0"}),
        (lambda: {"state_dict": {"w": WEIGHT}}, {"w"}),
        (lambda: {1: WEIGHT, ("x", 2): WEIGHT + 1}, {"1", "('x', 2)"}),
        (lambda: OrderedDict(z=WEIGHT, a=WEIGHT + 1), {"z", "a"}),
        (lambda: {"w": WEIGHT.bfloat16(), "f8": WEIGHT.to(torch.float8_e5m2)}, {"w", "f8"}),
        (lambda: {"empty": torch.empty(0, 3), "scalar": torch.tensor(3.0)}, {"empty", "scalar"}),
        (lambda: {"empty": torch.empty(0)}, {"empty"}),
        (lambda: {"p": torch.nn.Parameter(WEIGHT)}, {"p"}),
    ],
)  # fmt: skip
def test_tensors_are_found_wherever_they_are_and_the_file_comes_back(
    tmp_path: Path, make: Callable[[], Any], names: set[str]
) -> None:
    path = tmp_path / "model.pt"
    torch.save(make(), path)
    archive, report = pack(path)
    assert set(archive) == names
    assert report.notes == []
    assert is_restored(archive, path)


def test_views_of_one_storage_come_back_and_their_bytes_are_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    noise = torch.randint(0, 256, (300, 300), dtype=torch.uint8)
    views = {
        "whole": noise,
        "transposed": noise.t(),
        "rows": noise[10:20],
        "overlapping": noise[15:25],
        "column": noise[:, 3],
        "same": noise,
        "last": noise[299],
    }
    torch.save(views, path)
    archive, _ = pack(path)
    found = loaded(archive)
    assert all(same(found[name], value) for name, value in views.items())
    assert found["whole"] is found["same"]
    assert is_restored(archive, path)


def test_lazy_conjugates_come_back_as_what_they_stand_for(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    value, other = torch.randn(500, dtype=torch.complex64), torch.randn(500, dtype=torch.complex64)
    torch.save({"a": value.conj(), "b": value, "c": other.conj().imag}, path)
    archive, _ = pack(path)
    found = loaded(archive)
    assert same(found["a"], value.conj())
    assert same(found["b"], value)
    assert same(found["c"], other.conj().imag)
    assert is_restored(archive, path)


def rezipped(
    path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED
) -> None:
    with zipfile.ZipFile(path) as old:
        members = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, content in members:
            new.writestr(name, change(name, content))


def test_a_file_of_a_machine_of_the_other_byte_order_gives_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": WEIGHT}, path)
    other = b"big" if sys.byteorder == "little" else b"little"
    rezipped(path, lambda name, content: other if name.endswith("byteorder") else content)
    expected = torch.load(path, weights_only=True)["w"]
    assert not same(expected, WEIGHT)
    archive, report = pack(path)
    assert same(loaded(archive)["w"], expected)
    assert "can't be restored" in report.notes[0]


def test_a_zip_file_by_other_tools_comes_back_where_it_can_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": WEIGHT, "v": WEIGHT[3]}, path)
    rezipped(path, lambda name, content: content)
    archive, _ = pack(path)
    assert same(loaded(archive)["w"], WEIGHT)
    assert is_restored(archive, path)


def test_the_format_before_torch_1_6_gives_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": WEIGHT, "same": WEIGHT}, path, _use_new_zipfile_serialization=False)
    archive, report = pack(path)
    found = loaded(archive)
    assert same(found["w"], WEIGHT)
    assert found["same"] is found["w"]
    assert "can't be restored" in report.notes[0]
    [copy] = cmpk.unpack(archive, tmp_path / "restored")
    assert copy.name == "model.safetensors"


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "module"])
def test_the_weights_are_taken_from_a_training_checkpoint_with_a_note(tmp_path: Path, wrapper: str) -> None:
    path = tmp_path / "model.pt"
    torch.save({wrapper: {"w": WEIGHT}, "optimizer": {"m": WEIGHT + 1}, "epoch": 3}, path)
    archive, report = pack(path)
    assert list(archive) == ["w"]
    assert f"took {wrapper!r} of the checkpoint, left out epoch, optimizer" in report.notes


def test_names_that_become_the_same_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for content in ({"a": {"b": WEIGHT}, "a.b": WEIGHT}, {1: WEIGHT, "1": WEIGHT}):
        torch.save(content, path)
        with pytest.raises(SourceError, match="names become the same"):
            pack(path)


@pytest.mark.parametrize("content", [{}, [], {"epoch": 3}, 5, None, {"a": {"b": []}}])
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(SourceError, match="holds no tensors"):
        pack(path)


def test_a_tensor_that_can_not_be_packed_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for value in (torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex128)):
        torch.save({"fine": WEIGHT, "bad.one": value}, path)
        with pytest.raises(SourceError, match=r"'bad\.one'"):
            pack(path)


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._target,))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, target = tmp_path / "model.bin", tmp_path / "pwned"
    content = {"w": WEIGHT, "evil": Malicious(target)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"evil": Malicious(target)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(SourceError, match=r"would run code on loading.*safetensors"):
        pack(path)
    assert not target.exists()
    # The file does harm where it is allowed to.
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert target.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(SourceError, match="save a state dict"):
        pack(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", bytes(100), b"PK\x03\x04" + bytes(60), b"PK\x05\x06" + bytes(18), b"\x80\x02]q\x00."],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"model\.pt"):
        pack(path)


def test_a_damaged_checkpoint_is_a_source_error_or_comes_back_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": torch.arange(40), "b": torch.ones(3)}, path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 29):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        try:
            archive, report = pack(path)
        except SourceError:
            continue
        assert report.notes or is_restored(archive, path), at


def test_a_container_in_itself_is_refused(tmp_path: Path) -> None:
    loop: list[Any] = [WEIGHT]
    loop.append(loop)
    torch.save(loop, tmp_path / "model.pt")
    with pytest.raises(SourceError, match="in themselves"):
        pack(tmp_path / "model.pt")


def test_containers_that_double_with_every_level_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubled: list[Any] = [torch.ones(1)]
    for _ in range(60):
        doubled = [doubled, doubled]
    torch.save(doubled, tmp_path / "model.pt")
    monkeypatch.setattr(torch_checkpoint, "_MAX_VALUES", 10_000)
    with pytest.raises(SourceError, match="nests its tensors too deeply"):
        pack(tmp_path / "model.pt")


def test_packing_reads_tensors_from_the_file_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": WEIGHT, "b": WEIGHT + 1}, path)
    source = torch_checkpoint.TorchCheckpointImporter().open(path)
    found = [tensor.read().tobytes() for tensor in source.tensors()]
    assert found == [WEIGHT.numpy().tobytes(), (WEIGHT + 1).numpy().tobytes()]
    source.close()
