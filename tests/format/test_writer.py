"""Containers and files are written whole or not at all, to anything that takes bytes."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import signal
import stat
import threading
from pathlib import Path

import pytest

from cmpk.errors import DestinationError
from cmpk.format import ContainerReader, ContainerWriter, Manifest, TensorEntry, atomic_file
from cmpk.format.layout import FOOTER_NBYTES, MAGIC


def written(streams: list[tuple[str, bytes]]) -> tuple[bytes, list[int]]:
    """A container of tensors that each are one stream, and the offsets that a reader finds."""
    sink = io.BytesIO()
    write_to(sink, streams)
    data = sink.getvalue()
    return data, ContainerReader(data).offsets


def write_to(sink: object, streams: list[tuple[str, bytes]]) -> None:
    writer = ContainerWriter(sink)  # type: ignore[arg-type]
    nodes = [writer.add_stream(codec, stream) for codec, stream in streams]
    tensors = [
        TensorEntry(name=str(index), dtype="U8", shape=(node.nbytes,), blake3="0" * 64, data=node)
        for index, node in enumerate(nodes)
    ]
    writer.finish(Manifest(producer="test", tensors=tensors))


class TestContainers:
    def test_large_raw_streams_are_aligned_and_all_others_stand_close_together(self) -> None:
        streams = [
            ("raw", b"a" * 3),
            ("raw", b"b" * 4095),
            ("raw", b"c" * 4096),
            ("zstd", b"d" * 5000),
            ("raw", b"e" * 5000),
            ("raw", b""),
            ("raw", b"f"),
        ]
        data, offsets = written(streams)
        assert offsets == [16, 19, 4160, 8256, 13312, 18312, 18312]
        for (_, stream), offset in zip(streams, offsets, strict=True):
            assert data[offset : offset + len(stream)] == stream
        gap = data[19 + 4095 : 4160]
        assert gap == bytes(len(gap))

    def test_the_footer_ends_the_file_and_names_the_manifest(self) -> None:
        data, _ = written([("raw", b"abc")])
        reader = ContainerReader(data)
        assert data.endswith(MAGIC)
        assert hashlib.sha256(reader.manifest_json).digest() == reader.footer.manifest_sha256
        assert reader.footer.manifest_offset + reader.footer.manifest_stored_nbytes + FOOTER_NBYTES == len(
            data
        )

    def test_a_manifest_is_compressed_where_that_makes_it_smaller(self) -> None:
        small = ContainerReader(written([])[0])
        assert small.footer.manifest_stored_nbytes == small.footer.manifest_nbytes
        large = ContainerReader(written([("raw", b"x")] * 50)[0])
        assert large.footer.manifest_stored_nbytes < large.footer.manifest_nbytes / 2

    def test_a_manifest_that_would_expand_too_far_is_stored_as_it_is(self) -> None:
        sink = io.BytesIO()
        ContainerWriter(sink).finish(Manifest(producer="x" * (1 << 21)))
        footer = ContainerReader(sink.getvalue()).footer
        assert footer.manifest_stored_nbytes == footer.manifest_nbytes > 1 << 21

    def test_any_buffer_is_a_stream(self) -> None:
        data = b"0123456789"
        for stream in (bytearray(data), memoryview(data), memoryview(data).cast("H")):
            assert written([("raw", stream)])[0] == written([("raw", data)])[0]  # type: ignore[list-item]

    def test_a_sink_that_takes_a_few_bytes_at_a_time_gets_them_all(self) -> None:
        class Trickle(io.RawIOBase):
            def __init__(self) -> None:
                self.taken = bytearray()

            def writable(self) -> bool:
                return True

            def write(self, data: object, /) -> int:
                some = bytes(memoryview(data)[:7])  # type: ignore[arg-type]
                self.taken += some
                return len(some)

        sink = Trickle()
        streams = [("raw", bytes(range(256)) * 20), ("raw", b"tail")]
        write_to(sink, streams)
        assert bytes(sink.taken) == written(streams)[0]

    def test_a_sink_that_returns_nothing_has_taken_all(self) -> None:
        class Silent:
            def __init__(self) -> None:
                self.taken = bytearray()

            def write(self, data: memoryview) -> None:
                self.taken += data

        sink = Silent()
        write_to(sink, [("raw", b"abc")])
        assert bytes(sink.taken) == written([("raw", b"abc")])[0]

    def test_a_sink_that_would_block_is_an_error(self) -> None:
        class Full(io.RawIOBase):
            def writable(self) -> bool:
                return True

            def write(self, data: object, /) -> None:
                return None

        with pytest.raises(DestinationError, match="takes no more"):
            write_to(Full(), [])

    @pytest.mark.parametrize("unbuffered", [True, False])
    def test_a_pipe_will_do(self, unbuffered: bool) -> None:
        streams = [("raw", os.urandom(300_000)), ("raw", b"end")]
        reading, writing = os.pipe()
        received: list[bytes] = []

        def receive() -> None:
            with os.fdopen(reading, "rb") as file:
                received.append(file.read())

        thread = threading.Thread(target=receive)
        thread.start()
        with os.fdopen(writing, "wb", buffering=0 if unbuffered else -1) as file:
            write_to(file, streams)
        thread.join()
        assert received == [written(streams)[0]]

    def test_a_pipe_that_nobody_reads_any_more_is_an_error(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb", buffering=0) as file, pytest.raises(DestinationError, match="pipe"):
            write_to(file, [])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestAtomicFiles:
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_file_appears_when_it_is_complete(self, tmp_path: Path, overwrite: bool) -> None:
        path = tmp_path / "out"
        with atomic_file(path, overwrite=overwrite) as file:
            file.write(b"content")
            assert not path.exists()
        assert path.read_bytes() == b"content"
        assert names_in(tmp_path) == ["out"]

    def test_an_existing_file_is_replaced_only_where_asked(self, tmp_path: Path) -> None:
        path = tmp_path / "out"
        path.write_bytes(b"old")
        with pytest.raises(DestinationError, match=r"exists.*--force"), atomic_file(path, overwrite=False):
            pytest.fail("must not be asked for content")
        assert path.read_bytes() == b"old"
        with atomic_file(path, overwrite=True) as file:
            file.write(b"new")
            assert path.read_bytes() == b"old"
        assert path.read_bytes() == b"new"

    def test_a_file_that_somebody_makes_meanwhile_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "out"

        def write() -> None:
            with atomic_file(path, overwrite=False) as file:
                file.write(b"mine")
                path.write_bytes(b"theirs")

        with pytest.raises(DestinationError, match="exists"):
            write()
        assert path.read_bytes() == b"theirs"
        assert names_in(tmp_path) == ["out"]

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_link_is_not_written_through(self, tmp_path: Path, overwrite: bool) -> None:
        elsewhere, link = tmp_path / "elsewhere", tmp_path / "link"
        elsewhere.write_bytes(b"kept")
        link.symlink_to(elsewhere)
        if overwrite:
            with atomic_file(link, overwrite=True) as file:
                file.write(b"new")
            assert not link.is_symlink()
            assert link.read_bytes() == b"new"
        else:
            with pytest.raises(DestinationError, match="exists"), atomic_file(link, overwrite=False):
                pass
        assert elsewhere.read_bytes() == b"kept"

    def test_a_dangling_link_is_something_that_exists(self, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "nowhere")
        with pytest.raises(DestinationError, match="exists"), atomic_file(link, overwrite=False):
            pass

    @pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
    @pytest.mark.parametrize("existing", [False, True])
    def test_whatever_is_raised_leaves_nothing_behind(
        self, tmp_path: Path, problem: type[BaseException], existing: bool
    ) -> None:
        path = tmp_path / "out"
        if existing:
            path.write_bytes(b"old")

        def write() -> None:
            with atomic_file(path, overwrite=existing) as file:
                file.write(b"half of it")
                raise problem

        with pytest.raises(problem):
            write()
        assert names_in(tmp_path) == (["out"] if existing else [])
        if existing:
            assert path.read_bytes() == b"old"

    def test_a_full_disk_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with small_files(100_000):
            with (
                pytest.raises(DestinationError, match="File too large"),
                atomic_file(tmp_path / "out", overwrite=False) as file,
            ):
                file.write(bytes(200_000))
            assert names_in(tmp_path) == []

    def test_an_error_of_who_writes_is_not_taken_for_one_of_the_file(self, tmp_path: Path) -> None:
        def write_half() -> None:
            with atomic_file(tmp_path / "out", overwrite=False) as file:
                file.write(memoryview(b"half"))
                raise ConnectionResetError("theirs")

        with pytest.raises(ConnectionResetError, match="theirs"):
            write_half()
        assert not list(tmp_path.iterdir())

    def test_a_file_system_without_hard_links_will_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*paths: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        with atomic_file(tmp_path / "out", overwrite=False) as file:
            file.write(b"content")
        assert (tmp_path / "out").read_bytes() == b"content"
        assert names_in(tmp_path) == ["out"]

    @pytest.mark.parametrize("name", ["", "/", ".", "no\0name"])
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_what_can_be_no_file_is_one_clear_error(self, name: str, overwrite: bool) -> None:
        with pytest.raises(DestinationError), atomic_file(Path(name), overwrite=overwrite):
            pass

    @pytest.mark.parametrize("name", ["missing/out", "file/out", "folder"])
    def test_a_place_that_can_not_be_written_to_is_one_clear_error(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        with (
            pytest.raises(DestinationError, match="can't write"),
            atomic_file(tmp_path / name, overwrite=True),
        ):
            pass
        assert names_in(tmp_path) == ["file", "folder"]

    @pytest.mark.parametrize("name", ["n" * 255, "字" * 85, "🙂" * 63, ".hidden"])
    def test_a_name_may_be_as_long_as_the_file_system_allows(self, tmp_path: Path, name: str) -> None:
        with atomic_file(tmp_path / name, overwrite=False) as file:
            file.write(b"x")
        assert names_in(tmp_path) == [name]

    def test_others_may_read_it_as_any_new_file(self, tmp_path: Path) -> None:
        (tmp_path / "plain").touch()
        with atomic_file(tmp_path / "out", overwrite=False):
            pass
        modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "out")}
        assert len(modes) == 1


class small_files:  # noqa: N801  # used like a function
    """No file can grow beyond some bytes: as a full disk, for this process."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._nbytes, self._before[1]))

    def __exit__(self, *raised: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
        signal.signal(signal.SIGXFSZ, self._handler)
