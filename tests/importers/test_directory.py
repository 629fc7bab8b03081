"""Model directories: everything in them comes back, byte for byte, or packing says why not."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

import cmpk
from cmpk.archive import Archive
from cmpk.errors import DestinationError, SourceError
from cmpk.packing import PackReport
from tests.builders import safetensors_file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder as model hubs lay it out."""
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    safetensors.torch.save_file(
        {"w": torch.randn(40, 30), "b": torch.zeros(40)}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text('{"hidden_size": 30}\n')
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return folder


def pack(folder: Path) -> tuple[Archive, PackReport]:
    sink = io.BytesIO()
    report = cmpk.pack(folder, sink)
    archive = Archive(sink.getvalue())
    archive.verify(deep=True)
    return archive, report


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def check_restored(folder: Path) -> tuple[Archive, PackReport]:
    archive, report = pack(folder)
    restored = folder.parent / "restored"
    paths = cmpk.unpack(archive, restored)
    assert contents(restored) == contents(folder)
    assert {path.relative_to(restored).as_posix() for path in paths} == set(contents(folder))
    return archive, report


def test_a_folder_comes_back_whole(model: Path) -> None:
    archive, report = check_restored(model)
    assert set(archive) == {"w", "b"}
    assert (report.n_tensors, report.n_files) == (2, 3)
    assert report.notes == []


def test_shards_and_their_index_come_back(model: Path) -> None:
    (model / "model.safetensors").unlink()
    names = [f"model-0000{index}-of-00003.safetensors" for index in (1, 2, 3)]
    for index, name in enumerate(names):
        tensors = {f"layer.{index}.weight": torch.randn(20, 20), f"layer.{index}.bias": torch.ones(20)}
        safetensors.torch.save_file(tensors, model / name, {"shard": str(index)})
    index_file = {"weight_map": {f"layer.{index}.weight": name for index, name in enumerate(names)}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index_file))
    archive, _ = check_restored(model)
    assert len(archive) == 6
    assert archive.target_of("layer.2.bias") == "layer.0.bias"
    assert archive.metadata == {}


def test_nested_hidden_empty_and_oddly_named_files_come_back(model: Path) -> None:
    for name in (
        ".gitattributes",
        ".cache/x/y/z",
        "empty",
        "a b/ü.txt",
        "-rf",
        "no_suffix",
        "x.tar.gz",
        "ab:c",
    ):
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else name.encode() * 100)
    check_restored(model)


def test_links_to_files_come_back_as_files(model: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for name in ("model.safetensors", "config.json"):
        os.rename(model / name, blobs / name)
        (model / name).symlink_to(Path("..") / "blobs" / name)
    archive, _ = check_restored(model)
    assert set(archive) == {"w", "b"}
    assert not (tmp_path / "restored" / "config.json").is_symlink()


def test_a_link_to_a_folder_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (model / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"'.*linked' is a link to a folder"):
        pack(model)


def test_a_link_in_a_circle_is_refused(model: Path) -> None:
    (model / "loop").symlink_to(model)
    with pytest.raises(SourceError, match="link to a folder"):
        pack(model)


def test_a_dangling_link_is_refused(model: Path) -> None:
    (model / "dangling").symlink_to("nowhere")
    with pytest.raises(SourceError, match=r"'.*dangling' is not a regular file"):
        pack(model)


def test_a_pipe_is_refused(model: Path) -> None:
    os.mkfifo(model / "pipe")
    with pytest.raises(SourceError, match="not a regular file"):
        pack(model)


@pytest.mark.parametrize("name", ["new\nline", "back\\slash", "C:drive"])
def test_a_name_that_no_other_system_takes_is_refused(model: Path, name: str) -> None:
    (model / name).touch()
    with pytest.raises(SourceError, match="rename the file"):
        pack(model)


def test_a_name_that_is_no_text_is_refused(model: Path) -> None:
    with open(os.fsencode(model) + b"/\xff", "wb"):
        pass
    with pytest.raises(SourceError, match="rename the file"):
        pack(model)


def test_two_files_with_the_same_names_come_back_and_the_second_as_an_attachment(model: Path) -> None:
    safetensors.torch.save_file(
        {"w": torch.ones(5), "other": torch.ones(3)}, model / "variant.fp16.safetensors"
    )
    archive, report = check_restored(model)
    assert set(archive) == {"w", "b"}
    assert archive.spec("w").shape == (40, 30)
    assert report.notes == [
        "variant.fp16.safetensors repeats tensor names of another file and travels as an attachment"
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}extra"],
)
def test_what_only_claims_to_be_safetensors_comes_back_as_an_attachment(model: Path, content: bytes) -> None:
    (model / "broken.safetensors").write_bytes(content)
    _, report = check_restored(model)
    assert report.notes == ["broken.safetensors travels as an attachment; its tensors are not split"]


def test_a_safetensors_file_beyond_the_limits_comes_back_as_an_attachment(model: Path) -> None:
    header = {"a": {"dtype": "U8", "shape": [1] * 65, "data_offsets": [0, 1]}}
    safetensors_file(model / "deep.safetensors", header, b"x")
    check_restored(model)


def test_checkpoints_beside_the_safetensors_file_come_back_as_attachments(model: Path) -> None:
    torch.save({"w": torch.ones(3)}, model / "pytorch_model.bin")
    _, report = check_restored(model)
    assert report.notes == ["pytorch_model.bin travels as an attachment; its tensors are not split"]


def test_a_safetensors_file_without_tensors_is_a_model_without_tensors(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors_file(folder / "x.safetensors", {})
    archive, _ = check_restored(folder)
    assert len(archive) == 0


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(SourceError, match=r"holds no \.safetensors file"):
        pack(tmp_path)


def test_metadata_of_a_single_file_is_the_archives_own(model: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(3)}, model / "model.safetensors", {"format": "pt"})
    assert pack(model)[0].metadata == {"format": "pt"}


def test_the_archive_does_not_depend_on_the_order_in_which_files_were_made(
    model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for name, content in sorted(contents(model).items(), reverse=True):
        path = other / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert pack(other)[1].sha256 == pack(model)[1].sha256


def test_all_files_are_closed_again_whether_packing_works_or_not(model: Path, tmp_path: Path) -> None:
    before = open_files()
    cmpk.pack(model, tmp_path / "model.cmpk")
    with pytest.raises(DestinationError):
        cmpk.pack(model, tmp_path / "model.cmpk")
    assert open_files() == before


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_an_archive_of_the_folder_that_lies_in_it_is_left_out_and_named(model: Path) -> None:
    cmpk.pack(model, model / "packed.cmpk")
    first = (model / "packed.cmpk").read_bytes()
    report = cmpk.pack(model, model / "packed.cmpk", force=True)
    assert (model / "packed.cmpk").read_bytes() == first
    assert any("packed.cmpk is left out" in note for note in report.notes)
