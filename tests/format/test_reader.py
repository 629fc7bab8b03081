"""Containers are checked as a whole before anything is read from them."""

from __future__ import annotations

import hashlib
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from cmpk.errors import CorruptStreamError, FormatError, SourceError
from cmpk.format import ContainerReader
from cmpk.format.layout import FOOTER_NBYTES, MAX_MANIFEST_NBYTES, PREAMBLE_NBYTES
from tests.builders import MAGIC, PREAMBLE, archive, footer, leaf, sealed, tensor, to_json

SMALL = archive([tensor("a", "U8", [3], leaf(b"abc")), tensor("b", "U8", [2], leaf(b"de"))])
FOOTER = struct.Struct("<QQQ32sQ8s")


def with_footer(data: bytes, **changed: object) -> bytes:
    names = ("offset", "stored", "nbytes", "sha256", "reserved", "magic")
    fields = dict(zip(names, FOOTER.unpack(data[-FOOTER_NBYTES:]), strict=True)) | changed
    return data[:-FOOTER_NBYTES] + FOOTER.pack(*fields.values())


def frame(content_size: int, blocks: list[int], *, window_log: int = 27) -> bytes:
    """A zstd frame of repeated bytes: what it states, and the sizes of its blocks."""
    parts = [b"\x28\xb5\x2f\xfd", bytes([0x80, (window_log - 10) << 3]), content_size.to_bytes(4, "little")]
    for index, size in enumerate(blocks):
        is_last = index == len(blocks) - 1
        parts.append((size << 3 | 1 << 1 | is_last).to_bytes(3, "little") + b" ")
    return b"".join(parts)


def around(stored: bytes, nbytes: int, manifest: bytes = b"") -> bytes:
    """A file of nothing but a manifest, stored like this."""
    return PREAMBLE + stored + footer(PREAMBLE_NBYTES, len(stored), manifest, nbytes)


@pytest.mark.parametrize("mapped", [True, False])
def test_streams_are_found_and_checked(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "small.cmpk"
    path.write_bytes(SMALL)
    with ContainerReader(path if mapped else SMALL) as reader:
        found = [
            bytes(reader.stream(offset, entry.data))
            for offset, entry in zip(reader.offsets, reader.manifest.tensors, strict=True)
        ]
        assert found == [b"abc", b"de"]
        assert reader.nbytes == len(SMALL)


def test_views_outlive_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "small.cmpk"
    path.write_bytes(SMALL)
    reader = ContainerReader(path)
    view = reader.stream(reader.offsets[0], reader.manifest.tensors[0].data)
    reader.close()
    path.unlink()
    assert bytes(view) == b"abc"


def test_a_compressed_manifest_is_the_same_manifest() -> None:
    plain = ContainerReader(SMALL)
    squeezed = ContainerReader(sealed(PREAMBLE + b"abcde", plain.manifest_json, compressed=True))
    assert squeezed.manifest == plain.manifest
    assert squeezed.footer.manifest_sha256 == plain.footer.manifest_sha256


def test_a_file_that_is_cut_off_is_refused_wherever_it_is_cut() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(FormatError):
            ContainerReader(SMALL[:length])


@pytest.mark.parametrize("extra", [b"\0", bytes(64), FOOTER.pack(0, 0, 0, bytes(32), 0, MAGIC), SMALL])
def test_nothing_may_follow_the_footer_or_come_before_the_preamble(extra: bytes) -> None:
    for data in (SMALL + extra, extra + SMALL):
        with pytest.raises(FormatError):
            ContainerReader(data)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: b"", "too few"),
        (lambda data: data[: PREAMBLE_NBYTES + FOOTER_NBYTES - 1], "too few"),
        (lambda data: b"PK\x03\x04" + data[4:], "not a .cmpk file"),
        (lambda data: data.replace(b"\r\n\x1a", b"\n\x1a"), "not a .cmpk file"),
        (lambda data: data[:8] + b"\x01\x00" + data[10:], "format version 1.3"),
        (lambda data: data[:10] + b"\x01\x00" + data[12:], "format version 0.1"),
        (lambda data: data[:12] + b"\x01" + data[13:], "reserved"),
        (lambda data: data[:-1] + b"\x1b", "footer is missing"),
        (lambda data: data[:-10], "footer is missing"),
        (lambda data: with_footer(data, reserved=1), "reserved"),
        (lambda data: with_footer(data, offset=0), "describes a file"),
        (lambda data: with_footer(data, offset=15), "describes a file"),
        (lambda data: with_footer(data, offset=(1 << 64) - 1), "describes a file"),
        (lambda data: with_footer(data, stored=(1 << 64) - 1), "describes a file"),
        (lambda data: with_footer(data, nbytes=MAX_MANIFEST_NBYTES + 1), "exceeds"),
        (lambda data: with_footer(data, nbytes=(1 << 64) - 1), "exceeds"),
        (lambda data: with_footer(data, nbytes=1), "decompressed|frame"),
        (lambda data: with_footer(data, sha256=bytes(32)), "does not match its digest"),
        (lambda data: data.replace(b'"producer"', b'"producet"'), "does not match its digest"),
    ],
)  # fmt: skip
def test_a_broken_frame_is_one_clear_error(change: Callable[[bytes], bytes], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        ContainerReader(change(SMALL))


def test_the_manifest_starts_where_the_streams_end() -> None:
    entries = [tensor("a", "U8", [3], leaf(b"abc"))]
    manifest = to_json({"producer": "test", "tensors": entries})
    ContainerReader(sealed(PREAMBLE + b"abc", manifest))
    for body in (b"", b"ab", b"abcd"):
        with pytest.raises(FormatError, match="the streams end at 19, but the manifest starts"):
            ContainerReader(sealed(PREAMBLE + body, manifest))


def test_sizes_of_streams_add_up_without_overflow() -> None:
    node = {**leaf(b""), "codec": "raw", "nbytes": 1 << 48}
    node = {key: node[key] for key in ("codec", "nbytes", "xxh3")}
    entries = [tensor(str(index), "U8", [1 << 48], node) for index in range(5000)]
    start = PREAMBLE_NBYTES + -PREAMBLE_NBYTES % 64
    with pytest.raises(FormatError, match=f"the streams end at {start + (5000 << 48)},"):
        ContainerReader(sealed(PREAMBLE, to_json({"producer": "test", "tensors": entries})))


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4])
def test_every_byte_of_a_stream_is_under_its_digest(offset: int) -> None:
    damaged = bytearray(SMALL)
    damaged[PREAMBLE_NBYTES + offset] ^= 1
    reader = ContainerReader(bytes(damaged))
    which = 0 if offset < 3 else 1
    with pytest.raises(CorruptStreamError, match="does not match its digest"):
        reader.stream(reader.offsets[which], reader.manifest.tensors[which].data)
    other = 1 - which
    reader.stream(reader.offsets[other], reader.manifest.tensors[other].data)


def test_padding_is_checked_where_all_is_checked() -> None:
    data = archive([tensor("a", "U8", [3], leaf(b"abc")), tensor("b", "U8", [4096], leaf(bytes(4096)))])
    reader = ContainerReader(data)
    assert reader.offsets == [16, 64]
    reader.check_padding()
    for offset in (19, 40, 63):
        damaged = bytearray(data)
        damaged[offset] = 1
        with pytest.raises(FormatError, match="padding before offset 64"):
            ContainerReader(bytes(damaged)).check_padding()


class TestCompressedManifests:
    manifest = to_json({"producer": "test " * 100})

    def packed(self, **options: object) -> bytes:
        return zstandard.ZstdCompressor(**options).compress(self.manifest)  # type: ignore[arg-type]

    def test_one_frame_that_states_its_size_is_taken(self) -> None:
        stored = self.packed()
        assert ContainerReader(around(stored, len(self.manifest), self.manifest)).manifest.producer

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda stored: stored + b"\0",
            lambda stored: stored + stored,
            lambda stored: stored[:-1],
            lambda stored: b"",
            lambda stored: b"\x50\x2a\x4d\x18\x04\0\0\0" + bytes(4) + stored,
            lambda stored: stored + b"\x50\x2a\x4d\x18\x00\0\0\0",
            lambda stored: bytes(len(stored)),
        ],
    )
    def test_anything_but_one_frame_is_refused(self, spoil: Callable[[bytes], bytes]) -> None:
        with pytest.raises(FormatError):
            ContainerReader(around(spoil(self.packed()), len(self.manifest), self.manifest))

    def test_a_frame_that_does_not_state_its_size_is_refused(self) -> None:
        stored = self.packed(write_content_size=False)
        with pytest.raises(FormatError, match="does not state"):
            ContainerReader(around(stored, len(self.manifest), self.manifest))

    def test_a_frame_that_needs_a_dictionary_is_refused(self) -> None:
        samples = [b"producer %d test" % (index * index) for index in range(2000)]
        stored = self.packed(dict_data=zstandard.train_dictionary(1024, samples))
        with pytest.raises(FormatError, match="does not state"):
            ContainerReader(around(stored, len(self.manifest), self.manifest))

    @pytest.mark.parametrize("nbytes", [0, 1, 504, 506])
    def test_a_footer_that_states_another_size_is_refused(self, nbytes: int) -> None:
        with pytest.raises(FormatError):
            ContainerReader(around(self.packed(), nbytes, self.manifest))

    @pytest.mark.parametrize("blocks", [[131072] * 4000, [1000] * 4000, [1001], [999], [1] * 999])
    def test_a_frame_that_goes_on_beyond_its_size_gets_no_memory(self, blocks: list[int]) -> None:
        data = around(frame(1000, blocks), 1000)
        tracemalloc.start()
        try:
            with pytest.raises(FormatError):
                ContainerReader(data)
            assert tracemalloc.get_traced_memory()[1] < 10 * len(data) + 100_000
        finally:
            tracemalloc.stop()

    def test_a_frame_beyond_the_limit_is_refused_by_arithmetic(self) -> None:
        data = around(frame(MAX_MANIFEST_NBYTES + 1, [131072] * 2049), MAX_MANIFEST_NBYTES + 1)
        tracemalloc.start()
        try:
            with pytest.raises(FormatError, match="exceeds"):
                ContainerReader(data)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


def test_the_digest_is_that_of_the_json_whether_compressed_or_not() -> None:
    reader = ContainerReader(SMALL)
    assert reader.footer.manifest_sha256 == hashlib.sha256(reader.manifest_json).digest()


@pytest.mark.parametrize("name", ["missing", "folder", "no\0name", "n" * 5000])
def test_what_can_not_be_opened_is_a_source_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="can't open"):
        ContainerReader(tmp_path / name)


@pytest.mark.parametrize("size", [0, 1, PREAMBLE_NBYTES + FOOTER_NBYTES - 1])
def test_a_file_that_is_too_short_is_a_format_error(tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.cmpk"
    path.write_bytes(SMALL[:size])
    with pytest.raises(FormatError, match=f"{size} bytes are too few"):
        ContainerReader(path)


def test_the_smallest_file_is_an_empty_archive() -> None:
    data = archive()
    assert ContainerReader(data).manifest.tensors == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="not a regular file"):
        ContainerReader(tmp_path / "pipe")
