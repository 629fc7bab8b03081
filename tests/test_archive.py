"""An open archive: what is in it without decoding, what is read from it, whether it is whole."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cmpk
import cmpk.torch
from cmpk.archive import Archive, leaves_of
from cmpk.codecs import Huffman, Zstd
from cmpk.dtypes import TensorSpec
from cmpk.encodings import FloatSplit
from cmpk.encodings.base import Branch
from cmpk.errors import CmpkError, CorruptStreamError, FormatError, SourceError, UnknownIdError
from cmpk.format.manifest import leaves
from tests.builders import PREAMBLE, archive, branch, branch_of, file, footer, leaf, sealed, tensor, to_json

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def small() -> Archive:
    tied = torch.arange(600, dtype=torch.float32).reshape(20, 30)
    tensors = {"a": tied, "b": torch.arange(7), "c": tied, "d": tied.clone(), "e": torch.empty(0, 2)}
    return Archive(cmpk.torch.save(tensors, {"k": "v"}))


class TestWhatIsInIt:
    def test_is_told_without_decoding(self, small: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Archive, "_read_stream", lambda *_: pytest.fail("a stream was read"))
        assert small.keys() == list(small) == ["a", "b", "c", "d", "e"]
        assert len(small) == 5
        assert "a" in small
        assert "z" not in small
        assert small.spec("a") == TensorSpec("F32", (20, 30))
        assert small.spec("c").nbytes == 2400
        assert small.metadata == {"k": "v"}
        assert small.decoded_nbytes == 3 * 2400 + 7 * 8
        assert [small.target_of(name) for name in small] == ["a", "b", "a", "a", "e"]
        assert [small.is_tied(name) for name in small] == [False, False, True, False, False]
        assert small.sha256 == small._reader.footer.manifest_sha256.hex()

    def test_is_a_located_tree_for_every_tensor(self, small: Archive) -> None:
        stored = small.stored("a")
        assert isinstance(stored, Branch)
        found = list(leaves_of(stored))
        assert [leaf.node for leaf in found] == list(leaves(stored.node))
        assert found[0].offset == 16
        for one, other in itertools.pairwise(found):
            assert one.offset + one.node.nbytes == other.offset

    def test_does_not_include_what_was_never_there(self, small: Archive) -> None:
        for ask in (
            small.entry,
            small.spec,
            small.stored,
            small.read,
            small.target_of,
            small.is_tied,
            small.view,
        ):
            with pytest.raises(SourceError, match="no tensor 'nope'"):
                ask("nope")
        with pytest.raises(SourceError, match="no tensor 'nope'"):
            small.read_range("nope", 0, 0)

    @pytest.mark.parametrize(("start", "stop"), [(-1, 1), (0, 601), (5, 4), (601, 601)])
    def test_ranges_lie_within_the_tensor(self, small: Archive, start: int, stop: int) -> None:
        with pytest.raises(SourceError, match="not within tensor 'a' of 600"):
            small.read_range("a", start, stop)

    def test_can_be_read_from_a_file_or_from_bytes(self, tmp_path: Path) -> None:
        data = cmpk.torch.save({"a": torch.arange(5)})
        (tmp_path / "m.cmpk").write_bytes(data)
        for source in (data, tmp_path / "m.cmpk", str(tmp_path / "m.cmpk")):
            with Archive(source) as opened:
                assert opened.read("a").tobytes() == torch.arange(5).numpy().tobytes()
        with cmpk.open(tmp_path / "m.cmpk") as opened:
            assert opened.nbytes == len(data)


class TestClosing:
    def test_makes_reading_an_error_that_says_so(self, small: Archive) -> None:
        small.close()
        small.close()
        with pytest.raises(CmpkError, match="has been closed"):
            small.read("a")
        assert small.keys() == ["a", "b", "c", "d", "e"]

    def test_leaves_what_was_read_as_it_is(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, 10_000, np.uint8)
        cmpk.numpy.save_file({"a": noise}, tmp_path / "m.cmpk")
        with cmpk.open(tmp_path / "m.cmpk") as opened:
            view, copy = opened.view("a"), opened.read("a")
        gc.collect()
        assert view is not None
        assert view.tobytes() == copy.tobytes() == noise.tobytes()

    def test_lets_go_of_the_file(self, tmp_path: Path) -> None:
        cmpk.torch.save_file({"a": torch.ones(3)}, tmp_path / "m.cmpk")
        before = open_files()
        for _ in range(50):
            cmpk.torch.load_file(tmp_path / "m.cmpk")
        assert open_files() <= before + 1

    def test_happens_when_opening_fails(self, tmp_path: Path) -> None:
        (tmp_path / "bad.cmpk").write_bytes(archive([tensor("a", "U8", [9], leaf(b"abc"))]))
        before = open_files()
        for _ in range(50):
            with pytest.raises(FormatError):
                cmpk.open(tmp_path / "bad.cmpk")
        gc.collect()
        assert open_files() <= before + 1


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


class TestVerifying:
    def test_passes_what_is_whole_and_tells_its_progress(self, small: Archive) -> None:
        for deep in (False, True):
            seen: list[tuple[int, int]] = []
            small.verify(deep=deep, progress=lambda *at, seen=seen: seen.append(at))
            assert seen == sorted(seen)
            assert seen[-1][0] == seen[-1][1]

    def test_finds_damage_in_any_stream_and_names_the_tensor(self) -> None:
        data = archive([tensor(name, "U8", [3], leaf(b"abc")) for name in ("x", "y")])
        for offset, name in ((16, "x"), (18, "x"), (19, "y"), (21, "y")):
            damaged = bytearray(data)
            damaged[offset] ^= 0x40
            with pytest.raises(CorruptStreamError, match=f"tensor '{name}': .*digest"):
                Archive(bytes(damaged)).verify()

    def test_finds_padding_that_is_not_zero(self) -> None:
        data = bytearray(archive([tensor("a", "U8", [4096], leaf(bytes(4096)), bytes(4096))]))
        Archive(bytes(data)).verify(deep=True)
        data[30] = 1
        assert Archive(bytes(data)).read("a").tobytes() == bytes(4096)
        with pytest.raises(FormatError, match="padding"):
            Archive(bytes(data)).verify()

    def test_in_depth_finds_a_tensor_that_is_not_what_its_digest_says(self) -> None:
        found = Archive(archive([tensor("a", "U8", [3], leaf(b"abc"), b"abd")]))
        found.verify()
        with pytest.raises(CorruptStreamError, match="tensor 'a' does not match its BLAKE3"):
            found.verify(deep=True)

    def test_in_depth_finds_a_file_that_is_not_what_its_digest_says(self) -> None:
        entry = file("f", b"xyz", [{"literal": 3}], leaf(b"xyw"))
        found = Archive(archive(files=[entry]))
        found.verify()
        with pytest.raises(CorruptStreamError, match="file 'f' does not match its SHA-256"):
            found.verify(deep=True)

    def test_in_depth_finds_what_decoding_may_skip(self) -> None:
        found = Archive(archive([tensor("a", "U8", [3, 0], branch("row_groups", {"rows": [1, 2]},
            group=leaf(b"\1\1\1"), **{"0": leaf(b""), "1": leaf(b"")}), b"")]))  # fmt: skip
        found.verify()
        with pytest.raises(CorruptStreamError, match="row_groups"):
            found.verify(deep=True)

    def test_without_depth_needs_no_codec(self) -> None:
        node = branch("fancy", {"x": 1}, part=leaf(b"???", "fancy"), other=leaf(b"!", "raw"))
        providers = {"fancy": "cmpk-fancy 1.0"}
        found = Archive(
            archive([tensor("a", "U8", [30], node), tensor("b", "U8", [1], leaf(b"b"))], providers=providers)
        )
        found.verify()
        assert found.read("b").tobytes() == b"b"
        for fail in (
            lambda: found.verify(deep=True),
            lambda: found.read("a"),
            lambda: found.read_range("a", 0, 1),
        ):
            with pytest.raises(
                UnknownIdError, match=r"tensor 'a' needs encoding 'fancy'.*pip install cmpk-fancy"
            ):
                fail()


class TestFiles:
    def test_are_put_together_piece_by_piece(self) -> None:
        tensors = [tensor(name, "U8", [2], leaf(data)) for name, data in (("a", b"aa"), ("b", b"bb"))]
        entry = file("f", b"<aabb>", [{"literal": 1}, {"count": 2}, {"literal": 1}], leaf(b"<>"))
        found = Archive(archive(tensors, [entry]))
        [listed] = found.manifest.files
        assert [chunk.tobytes() for chunk in found.file_chunks(listed)] == [b"<", b"aa", b"bb", b">"]
        assert found.literal(listed).tobytes() == b"<>"

    def test_that_are_empty_have_no_literal(self) -> None:
        found = Archive(archive(files=[file("f", b"", [])]))
        [listed] = found.manifest.files
        assert found.literal(listed).tobytes() == b""
        assert list(found.file_chunks(listed)) == []
        assert found.stored_literal(listed) is None


class TestBombs:
    """Sizes that can't be are refused by arithmetic: quickly, and without memory."""

    @pytest.mark.parametrize(
        ("dtype", "shape", "node"),
        [
            ("U8", [1 << 40], leaf(b"x")),
            ("U8", [1 << 40], leaf(b"x", "zstd")),
            ("U8", [1 << 40], leaf(b"x", "huffman")),
            ("U8", [1 << 40], leaf(b"x", "rans")),
            ("U8", [1 << 40], leaf(b"x", "bitpack")),
            ("U8", [1 << 40], leaf(b"", "zstd")),
            ("U8", [(1 << 48) - 1], leaf(b"x" * 5000, "zstd")),
            ("F64", [1 << 40, 32], leaf(b"x")),
            ("U8", [65536 * 100 + 65536 + 1], leaf(b"x" * 100, "unknown")),
            ("F32", [1 << 30], branch("float_split", {"base": 0, "exceptions": 0, "mantissa_bits": 0},
                                      high=leaf(b"x"), rest0=leaf(b"x"), rest1=leaf(b"x"), rest2=leaf(b"x"))),
            ("F32", [1 << 30], branch("narrow", {"dtype": "F16"}, values=leaf(b"x" * 10, "zstd"))),
            ("F32", [1 << 30], branch("codebook", {"size": 1}, codes=leaf(b"x", "zstd"),
                                      centroids=leaf(b"abcd"))),
            ("U8", [1 << 30], branch("row_groups", {"rows": [1 << 30]}, group=leaf(b"x", "zstd"),
                                     **{"0": leaf(b"x", "zstd")})),
        ],
    )  # fmt: skip
    def test_streams_that_can_not_hold_so_much(self, dtype: str, shape: list[int], node: Any) -> None:
        data = archive([tensor("a", dtype, shape, node)])
        assert peak_memory(lambda: expect_format_error(data)) < 500_000

    def test_as_much_as_a_codec_may_expand_is_believed_and_found_out(self) -> None:
        frame = bytes(memoryview(Zstd().encode(np.zeros(1000, np.uint8))))
        n = 65536 * len(frame)
        found = Archive(archive([tensor("a", "U8", [n], leaf(frame, "zstd"))]))
        with pytest.raises(CorruptStreamError):
            found.read("a")

    def test_a_literal_that_can_not_be(self) -> None:
        entry = {**file("f", b"", [{"literal": 1 << 40}], leaf(b"x", "zstd")), "nbytes": 1 << 40}
        assert peak_memory(lambda: expect_format_error(archive(files=[entry]))) < 500_000

    def test_a_file_of_all_tensors_many_times_over(self) -> None:
        tensors = [tensor(str(index), "U8", [100], leaf(b"x" * 100)) for index in range(50)]
        segments = [{"count": 50}] * 100
        entry = {**file("f", b"", segments), "nbytes": 100 * 50 * 100}
        with pytest.raises(FormatError, match="the files take 5000 tensors; there are 50"):
            Archive(archive(tensors, [entry]))

    def test_nesting_as_deep_as_the_stack(self) -> None:
        node = b'{"encoding":"e","parts":{"p":' * 50_000 + b'{"codec":"raw"}' + b"}}" * 50_000
        head = b'{"producer":"x","tensors":[{"name":"a","dtype":"U8","shape":[1],"blake3":"' + b"0" * 64
        with pytest.raises(FormatError, match="can't be read"):
            Archive(sealed(PREAMBLE, head + b'","data":' + node + b"}]}"))

    def test_a_manifest_of_many_tensors_is_read_in_time(self) -> None:
        entries = [tensor(f"t{index}", "U8", [0], leaf(b"")) for index in range(20_000)]
        data = sealed(PREAMBLE, to_json({"producer": "x", "tensors": entries}))
        started = time.perf_counter()
        assert len(Archive(data)) == 20_000
        assert time.perf_counter() - started < 5

    def test_a_footer_that_claims_a_large_manifest(self) -> None:
        data = PREAMBLE + b"x" * 10 + footer(16, 10, b"", (1 << 28) - 1)
        assert peak_memory(lambda: expect_format_error(data)) < 500_000

    def test_memory_that_runs_out_is_an_error_of_cmpks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def exhausted(*args: object) -> None:
            raise MemoryError

        monkeypatch.setattr("cmpk.format.reader.from_json", exhausted)
        with pytest.raises(CmpkError, match="not enough memory"):
            Archive(archive())

    @pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
    @pytest.mark.parametrize("framework", ["torch", "numpy"])
    def test_a_process_that_may_have_little_memory_ends_with_an_error_of_cmpks(
        self, tmp_path: Path, framework: str
    ) -> None:
        """Four gigabytes of zeros in a small, valid archive."""
        chunk = bytes(memoryview(Zstd().encode(np.zeros(1 << 22, np.uint8))))[5:]
        n = 1 << 10
        stream = b"\x16" + len(chunk).to_bytes(4, "little") * n + chunk * n
        (tmp_path / "bomb.cmpk").write_bytes(archive([tensor("a", "U8", [n << 22], leaf(stream, "zstd"))]))
        code = (
            "import resource, sys, cmpk\n"
            f"load = cmpk.{framework}.load_file\n"
            "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
            "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)\n"
            f"try: load({str(tmp_path / 'bomb.cmpk')!r}, jobs=1)\n"
            "except cmpk.CmpkError as error: print('CmpkError', error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.startswith("CmpkError tensor 'a'"), done.stderr


def expect_format_error(data: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(FormatError):
        Archive(data)
    assert time.perf_counter() - started < 1


def peak_memory(function: Any) -> int:
    function()  # whatever is imported and cached on the way
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_several_threads_may_read_one_archive(small: Archive) -> None:
    expected = {name: small.read(name).tobytes() for name in small}
    wrong: list[str] = []

    def read() -> None:
        for _ in range(20):
            wrong.extend(name for name in small if small.read(name, 2).tobytes() != expected[name])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_damage_of_one_among_many_names_the_one() -> None:
    good = torch.randn(50, 50)
    data = bytearray(cmpk.torch.save({"a": good, "b": good + 1, "c": good + 2}))
    opened = Archive(bytes(data))
    stored = next(leaves_of(opened.stored("b")))
    data[stored.offset + stored.node.nbytes // 2] ^= 255
    outs = {name: np.empty(10_000, np.uint8) for name in "abc"}
    with pytest.raises(CorruptStreamError, match="tensor 'b'"):
        Archive(bytes(data)).read_into(outs)
    assert Archive(bytes(data)).read("a").tobytes() == good.numpy().tobytes()


def lying_sources() -> bytes:
    """Three split tensors; the streams of the second match their digests and break their codec's rules."""
    numbers = np.random.default_rng(0).integers(0x3F00, 0x3F80, 2000, np.uint16).view(np.uint8)
    encoded = FloatSplit().encode(numbers, TensorSpec("BF16", (2000,)), 0, 0)
    good = branch_of("float_split", encoded, Huffman())
    bad = branch("float_split", good["params"], **good["parts"])
    bad["parts"] = {**good["parts"], "high": leaf(good["parts"]["high"]["stream"][:-1] + b"\xff", "huffman")}
    return archive(
        [tensor(name, "BF16", [2000], node) for name, node in (("a", good), ("b", bad), ("c", good))]
    )


def test_a_broken_rule_of_one_among_many_names_the_one() -> None:
    opened = Archive(lying_sources())
    opened.verify()
    outs = {name: np.empty(4000, np.uint8) for name in opened}
    with pytest.raises(CorruptStreamError, match="tensor 'b': codec 'huffman'"):
        opened.read_into(outs)
    with pytest.raises(CorruptStreamError, match="tensor 'b': codec 'huffman'"):
        opened.read_range("b", 0, 2000)
    assert opened.read("c").tobytes() == opened.read("a").tobytes()
