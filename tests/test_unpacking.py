"""Unpacking: the files that were packed, byte for byte, inside the folder that is named, or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import signal
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import cmpk
import cmpk.torch
from cmpk.archive import Archive
from cmpk.codecs import Zstd
from cmpk.errors import (
    CmpkError,
    CorruptStreamError,
    DestinationError,
    FormatError,
    SourceError,
    UnknownIdError,
)
from tests.builders import Bytes, Node, archive, file, leaf, tensor


def of_files(**contents: bytes) -> bytes:
    """An archive of files without tensors; ``__`` in a name stands for a divider."""
    files = []
    for name, content in contents.items():
        path = name.replace("__", "/")
        literal = leaf(content) if content else None
        files.append(file(path, content, [{"literal": len(content)}] if content else [], literal))
    return archive(files=files)


def unpacked(data: bytes, dest: Path, **options: Any) -> list[Path]:
    with Archive(data) as opened:
        return cmpk.unpack(opened, dest, **options)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestFilesComeBack:
    def test_into_a_new_folder_and_its_folders(self, tmp_path: Path) -> None:
        dest = tmp_path / "a" / "b"
        paths = unpacked(of_files(x=b"1", sub__deep__y=b"22", empty=b""), dest)
        assert tree(dest) == {"x": b"1", "sub/deep/y": b"22", "empty": b""}
        assert paths == [dest / "x", dest / "sub" / "deep" / "y", dest / "empty"]

    @pytest.mark.parametrize("piece", [1, 3, 4, 7, 100])
    def test_of_attachments_piece_by_piece(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
    ) -> None:
        monkeypatch.setattr("cmpk.archive._PIECE_NBYTES", piece)
        header = b"<header>"
        tensors = [
            tensor("a", "U8", [3], leaf(b"aaa"), b"aaa"),
            tensor("b", "U8", [4], leaf(b"bbbb"), b"bbbb"),
        ]
        segments = [{"literal": 3}, {"count": 1}, {"literal": 4}, {"first": 1, "count": 1}, {"literal": 1}]
        content = b"<he" + b"aaa" + b"ader" + b"bbbb" + b">"
        coded = leaf(bytes(memoryview(Zstd().encode(np.frombuffer(header, np.uint8)) or b"")), "zstd")
        files = [file("mixed", content, segments, leaf(header)), file("x", header, [{"literal": 8}], coded)]
        unpacked(archive(tensors, files), tmp_path)
        assert tree(tmp_path) == {"mixed": content, "x": header}

    def test_of_a_large_attachment_in_little_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nbytes = 1 << 26
        monkeypatch.setattr("cmpk.archive._PIECE_NBYTES", nbytes // 16)
        (tmp_path / "model").mkdir()
        safetensors.torch.save_file({"a": torch.ones(3)}, tmp_path / "model" / "m.safetensors")
        with (tmp_path / "model" / "zeros.bin").open("wb") as out:
            out.truncate(nbytes)
        cmpk.pack(tmp_path / "model", tmp_path / "m.cmpk", recipe="lossless")
        tracemalloc.start()
        try:
            cmpk.unpack(tmp_path / "m.cmpk", tmp_path / "out")
            assert tracemalloc.get_traced_memory()[1] < nbytes // 4
        finally:
            tracemalloc.stop()
        assert (tmp_path / "out" / "zeros.bin").stat().st_size == nbytes

    def test_into_a_folder_that_is_there_and_leaves_the_rest_alone(self, tmp_path: Path) -> None:
        (tmp_path / "kept").write_bytes(b"kept")
        unpacked(of_files(x=b"1"), tmp_path)
        assert tree(tmp_path) == {"x": b"1", "kept": b"kept"}

    def test_from_segments_of_tensors_and_literals_in_any_order(self, tmp_path: Path) -> None:
        tensors = [
            tensor(name, "U8", [2], leaf(data)) for name, data in (("a", b"aa"), ("b", b"bb"), ("c", b"cc"))
        ]
        segments = [{"literal": 2}, {"first": 2, "count": 1}, {"literal": 1}, {"count": 2}]
        content = b"<<cc|aabb"
        unpacked(archive(tensors, [file("f", content, segments, leaf(b"<<|"))]), tmp_path)
        assert tree(tmp_path) == {"f": content}

    @pytest.mark.parametrize("jobs", [1, 2, 5])
    def test_with_any_number_of_threads(self, tmp_path: Path, jobs: int) -> None:
        tensors = {f"w{index}": torch.randn(200, 300) for index in range(6)}
        source = tmp_path / "m.safetensors"
        safetensors.torch.save_file(tensors, source)
        cmpk.pack(source, tmp_path / "m.cmpk")
        [copy] = cmpk.unpack(tmp_path / "m.cmpk", tmp_path / "out", jobs=jobs)
        assert copy.read_bytes() == source.read_bytes()

    def test_with_progress_that_ends_at_the_whole(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        unpacked(of_files(x=b"1" * 10, y=b"2" * 20), tmp_path, progress=lambda *at: seen.append(at))
        assert seen == sorted(seen)
        assert seen[-1] == (30, 30)


class TestSingleFiles:
    def test_a_destination_with_the_same_suffix_is_the_file_itself(self, tmp_path: Path) -> None:
        data = of_files(**{"model.safetensors": b"x"})
        assert unpacked(data, tmp_path / "copy.safetensors") == [tmp_path / "copy.safetensors"]
        assert unpacked(data, tmp_path / "new" / "copy.safetensors") == [
            tmp_path / "new" / "copy.safetensors"
        ]
        assert tree(tmp_path) == {"copy.safetensors": b"x", "new/copy.safetensors": b"x"}

    @pytest.mark.parametrize("dest", ["copy", "copy.bin", "copy.safetensors.d"])
    def test_any_other_destination_is_a_folder(self, tmp_path: Path, dest: str) -> None:
        unpacked(of_files(**{"model.safetensors": b"x"}), tmp_path / dest)
        assert tree(tmp_path) == {f"{dest}/model.safetensors": b"x"}

    def test_a_folder_that_looks_like_the_file_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "copy.safetensors").mkdir()
        unpacked(of_files(**{"model.safetensors": b"x"}), tmp_path / "copy.safetensors")
        assert tree(tmp_path) == {"copy.safetensors/model.safetensors": b"x"}

    def test_several_files_need_a_folder(self, tmp_path: Path) -> None:
        unpacked(of_files(**{"a.bin": b"x", "b.bin": b"y"}), tmp_path / "out.bin")
        assert tree(tmp_path) == {"out.bin/a.bin": b"x", "out.bin/b.bin": b"y"}

    def test_a_destination_that_is_a_file_is_refused_unless_it_is_meant(self, tmp_path: Path) -> None:
        path = tmp_path / "there.txt"
        path.write_bytes(b"precious")
        with pytest.raises(DestinationError, match="is a file; name a folder"):
            unpacked(of_files(**{"a.bin": b"x"}), path, force=True)
        with pytest.raises(DestinationError, match="is a file; name a folder"):
            unpacked(of_files(**{"a.txt": b"x", "b.txt": b"y"}), path, force=True)
        assert path.read_bytes() == b"precious"


class TestArchivesFromMemory:
    def test_become_a_safetensors_file_that_safetensors_reads(self, tmp_path: Path) -> None:
        tensors = {
            "odd": torch.arange(3, dtype=torch.uint8),
            "double": torch.randn(5, dtype=torch.float64),
            "ü/字": torch.randn(40, 30).bfloat16(),
            "scalar": torch.tensor(True),
            "empty": torch.empty(0, 4),
            "complex": torch.randn(3, dtype=torch.complex64),
            "f8": torch.randn(9).to(torch.float8_e5m2),
        }
        cmpk.torch.save_file({**tensors, "copy": tensors["double"].clone()}, tmp_path / "m.cmpk", {"a": "ö"})
        [path] = cmpk.unpack(tmp_path / "m.cmpk", tmp_path / "out")
        assert path.name == "model.safetensors"
        found = safetensors.torch.load_file(path)
        for name, value in tensors.items():
            assert found[name].dtype == value.dtype
            assert found[name].shape == value.shape
            assert (
                found[name].view(-1).view(torch.uint8).tolist() == value.view(-1).view(torch.uint8).tolist()
            )
        assert found["copy"].tolist() == tensors["double"].tolist()
        with safetensors.safe_open(path, "pt") as opened:
            assert opened.metadata() == {"a": "ö"}
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0

    def test_pack_again_to_the_same_tensors(self, tmp_path: Path) -> None:
        cmpk.torch.save_file({"a": torch.randn(30, 30), "b": torch.arange(5)}, tmp_path / "m.cmpk")
        [path] = cmpk.unpack(tmp_path / "m.cmpk", tmp_path / "m.safetensors")
        cmpk.pack(path, tmp_path / "again.cmpk")
        with cmpk.open(tmp_path / "m.cmpk") as one, cmpk.open(tmp_path / "again.cmpk") as other:
            assert one.manifest.tensors == other.manifest.tensors

    def test_of_types_that_only_safetensors_knows_come_back(self, tmp_path: Path) -> None:
        import numpy as np

        [path] = unpacked(Bytes(a=("F4", (6,), np.uint8([1, 2, 3]))).packed(), tmp_path)
        assert path.read_bytes().endswith(b"\1\2\3")

    def test_without_tensors_are_an_empty_file(self, tmp_path: Path) -> None:
        [path] = unpacked(cmpk.torch.save({}), tmp_path)
        assert safetensors.torch.load_file(path) == {}

    def test_with_a_name_that_safetensors_keeps_for_itself_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CmpkError, match="named '__metadata__'"):
            unpacked(cmpk.torch.save({"__metadata__": torch.ones(1)}), tmp_path / "out")
        assert tree(tmp_path) == {}


class TestNothingIsOverwritten:
    def test_unless_it_is_forced(self, tmp_path: Path) -> None:
        (tmp_path / "y").write_bytes(b"precious")
        data = of_files(x=b"1", y=b"2")
        with pytest.raises(DestinationError, match=r"y' exists.*--force"):
            unpacked(data, tmp_path)
        assert tree(tmp_path) == {"y": b"precious"}
        unpacked(data, tmp_path, force=True)
        assert tree(tmp_path) == {"x": b"1", "y": b"2"}

    @pytest.mark.parametrize("force", [False, True])
    def test_behind_a_link(self, tmp_path: Path, force: bool) -> None:
        outside, dest = tmp_path / "outside", tmp_path / "dest"
        outside.write_bytes(b"precious")
        dest.mkdir()
        (dest / "x").symlink_to(outside)
        if force:
            unpacked(of_files(x=b"1"), dest, force=True)
            assert not (dest / "x").is_symlink()
        else:
            with pytest.raises(DestinationError, match="exists"):
                unpacked(of_files(x=b"1"), dest)
        assert outside.read_bytes() == b"precious"

    @pytest.mark.parametrize("force", [False, True])
    def test_that_is_a_folder(self, tmp_path: Path, force: bool) -> None:
        (tmp_path / "x" / "inside").mkdir(parents=True)
        with pytest.raises(DestinationError):
            unpacked(of_files(x=b"1"), tmp_path, force=force)
        assert (tmp_path / "x" / "inside").is_dir()

    @pytest.mark.parametrize("force", [False, True])
    def test_that_is_a_file_where_a_folder_is_needed(self, tmp_path: Path, force: bool) -> None:
        (tmp_path / "sub").write_bytes(b"precious")
        with pytest.raises(DestinationError):
            unpacked(of_files(sub__x=b"1"), tmp_path, force=force)
        assert tree(tmp_path) == {"sub": b"precious"}


class TestNothingIsWrittenOutside:
    @pytest.fixture
    def dest(self, tmp_path: Path) -> Path:
        (tmp_path / "outside").mkdir()
        (tmp_path / "dest").mkdir()
        return tmp_path / "dest"

    @pytest.mark.parametrize("target", ["../outside", "..", "/tmp", "../../../.."])
    def test_through_a_link_to_a_folder(self, dest: Path, target: str) -> None:
        (dest / "sub").symlink_to(target)
        with pytest.raises(DestinationError, match=r"outside.*through a link"):
            unpacked(of_files(sub__x=b"1"), dest, force=True)
        assert tree(dest.parent / "outside") == {}

    def test_through_a_link_further_up(self, dest: Path) -> None:
        (dest / "a").mkdir()
        (dest / "a" / "b").symlink_to("../../outside")
        with pytest.raises(DestinationError, match="through a link"):
            unpacked(of_files(ok=b"1", a__b__c__d=b"2"), dest, force=True)
        assert tree(dest.parent) == {}

    def test_through_a_dangling_link(self, dest: Path) -> None:
        (dest / "sub").symlink_to("../outside/new")
        with pytest.raises(DestinationError):
            unpacked(of_files(sub__x=b"1"), dest, force=True)
        assert not (dest.parent / "outside" / "new").exists()

    def test_through_links_in_a_circle(self, dest: Path) -> None:
        (dest / "a").symlink_to("b")
        (dest / "b").symlink_to("a")
        with pytest.raises(DestinationError):
            unpacked(of_files(a__x=b"1"), dest, force=True)

    def test_but_a_link_within_the_folder_is_followed(self, dest: Path) -> None:
        (dest / "real").mkdir()
        (dest / "link").symlink_to("real")
        unpacked(of_files(link__x=b"1"), dest)
        assert (dest / "real" / "x").read_bytes() == b"1"

    def test_and_the_folder_itself_may_be_a_link(self, dest: Path) -> None:
        (dest.parent / "link").symlink_to("dest")
        unpacked(of_files(sub__x=b"1"), dest.parent / "link")
        assert tree(dest) == {"sub/x": b"1"}

    @pytest.mark.parametrize(
        "path", ["/etc/x", "../x", "a/../../x", "a//x", "C:/x", "a\\..\\x", "\0", ".", ""]
    )
    def test_by_a_path_in_the_archive(self, path: str) -> None:
        with pytest.raises(FormatError, match="plain relative path"):
            Archive(archive(files=[{"path": path, "nbytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}]))


class TestDamage:
    def test_a_file_that_does_not_match_its_digest_is_not_written(self, tmp_path: Path) -> None:
        entry = {**file("bad", b"12345", [{"literal": 5}], leaf(b"12346"))}
        data = archive(files=[file("good", b"x", [{"literal": 1}], leaf(b"x")), entry])
        Archive(data).verify()
        with pytest.raises(CorruptStreamError, match="'bad' does not match its SHA-256"):
            unpacked(data, tmp_path / "out")
        assert tree(tmp_path) == {"out/good": b"x"}
        with pytest.raises(CorruptStreamError, match="'bad' does not match its SHA-256"):
            Archive(data).verify(deep=True)

    def test_an_existing_file_survives_damage_of_its_successor(self, tmp_path: Path) -> None:
        (tmp_path / "bad").write_bytes(b"old")
        data = archive(files=[file("bad", b"12345", [{"literal": 5}], leaf(b"12346"))])
        with pytest.raises(CorruptStreamError):
            unpacked(data, tmp_path, force=True)
        assert tree(tmp_path) == {"bad": b"old"}

    @pytest.mark.parametrize("node", [leaf(b"12"), leaf(b"\x16", "zstd"), leaf(b"garbage", "zstd")])
    def test_a_broken_stream_leaves_nothing(self, tmp_path: Path, node: Node) -> None:
        content = b"12345"
        try:
            data = archive(files=[file("f", content, [{"literal": 5}], node)])
            unpacked(data, tmp_path)
        except FormatError:
            assert tree(tmp_path) == {}
        else:
            pytest.fail("a broken stream was taken")

    def test_a_codec_that_is_not_installed_leaves_nothing_and_is_named(self, tmp_path: Path) -> None:
        node = leaf(b"?????", "fancy")
        data = archive(
            files=[file("f", b"12345", [{"literal": 5}], node)], providers={"fancy": "cmpk-fancy 2.1"}
        )
        with pytest.raises(UnknownIdError, match=r"'fancy'.*pip install cmpk-fancy"):
            unpacked(data, tmp_path / "out")
        assert tree(tmp_path) == {}

    def test_an_interrupt_leaves_whole_files_only(self, tmp_path: Path) -> None:
        def interrupt(done: int, total: int) -> None:
            if done > 10:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            unpacked(of_files(x=b"1" * 10, y=b"2" * 20, z=b"3" * 5), tmp_path, progress=interrupt)
        assert tree(tmp_path) == {"x": b"1" * 10}

    def test_a_full_disk_leaves_whole_files_only(self, tmp_path: Path) -> None:
        data = of_files(x=b"1" * 10, y=os.urandom(100_000))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        try:
            with pytest.raises(DestinationError, match="File too large"):
                unpacked(data, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert tree(tmp_path) == {"x": b"1" * 10}


@pytest.mark.parametrize("dest", ["", "no\0name"])
def test_a_destination_that_can_be_none_is_refused(
    dest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if dest:
        with pytest.raises(DestinationError):
            unpacked(of_files(x=b"1"), Path(dest))
    else:
        unpacked(of_files(x=b"1"), Path(dest))  # the current folder
        assert tree(tmp_path) == {"x": b"1"}


def test_a_missing_archive_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="can't open"):
        cmpk.unpack(tmp_path / "missing.cmpk", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sink_and_a_file_hold_the_same_archive(tmp_path: Path) -> None:
    sink = io.BytesIO()
    cmpk.pack({"a": torch.ones(3)}, sink)
    (tmp_path / "m.cmpk").write_bytes(sink.getvalue())
    [path] = cmpk.unpack(tmp_path / "m.cmpk", tmp_path)
    assert path == tmp_path / "model.safetensors"
