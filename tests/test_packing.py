"""Packing: every dtype, any source, any sink; whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

import cmpk
import cmpk.torch
from cmpk.archive import Archive
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.errors import DestinationError, RecipeError, SourceError, UnknownIdError
from cmpk.importers import ModelSource, SourceTensor
from cmpk.recipe import PassUse, Recipe, Rule
from tests.builders import Bytes

RECIPES = ["lossless", "lossless-max"]

INTERESTING = {
    "F16": [0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0xFE2A, 0xFFFF],
    "BF16": [0x0000, 0x8000, 0x0001, 0x007F, 0x0080, 0x7F7F, 0x7F80, 0x7F81, 0x7FC0, 0xFFC5, 0xFFFF],
    "F32": [
        0,
        1 << 31,
        1,
        0x007FFFFF,
        0x00800000,
        0x7F7FFFFF,
        0x7F800000,
        0x7F800001,
        0x7FC00000,
        0xFFFFFFFF,
    ],
    "F64": [
        0,
        1 << 63,
        1,
        (1 << 52) - 1,
        1 << 52,
        0x7FF << 52,
        (0x7FF << 52) + 1,
        0xFFF8 << 48,
        (1 << 64) - 1,
    ],
}


def saved(tensors: dict[str, torch.Tensor], **options: Any) -> Archive:
    archive = Archive(cmpk.torch.save(tensors, **options))
    archive.verify(deep=True)
    return archive


class TestEveryTensorComesBack:
    @pytest.mark.parametrize("recipe", RECIPES)
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("kind", ["noise", "zeros", "skewed", "few", "runs"])
    def test_of_every_dtype(self, dtype: str, kind: str, recipe: str) -> None:
        rng = np.random.default_rng(0)
        data = {
            "noise": lambda: rng.integers(0, 256, 9600, np.uint8),
            "zeros": lambda: np.zeros(9600, np.uint8),
            "skewed": lambda: np.minimum(rng.geometric(0.3, 9600), 255).astype(np.uint8),
            "few": lambda: np.resize(rng.integers(0, 256, 24, np.uint8), 9600),
            "runs": lambda: np.repeat(rng.integers(0, 256, 96, np.uint8), 100),
        }[kind]()
        n = 8 * len(data) // DTYPES[dtype].nbits
        backwards = data[::-1].copy()
        tensors = Bytes(flat=(dtype, (n,), data), deep=(dtype, (n // 8, 2, 1, 4), backwards))
        archive = Archive(tensors.packed(recipe))
        assert archive.read("flat").tobytes() == data.tobytes()
        assert archive.read("deep").tobytes() == backwards.tobytes()
        archive.verify(deep=True)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_without_elements_or_with_a_single_byte(self, dtype: str) -> None:
        n_elements = {4: 2, 6: 4}.get(DTYPES[dtype].nbits, 1)
        nbytes = n_elements * DTYPES[dtype].nbits // 8
        one = np.arange(1, nbytes + 1, dtype=np.uint8)
        tensors: dict[str, Any] = {
            "none": (dtype, (0,), one[:0]),
            "also_none": (dtype, (3, 0, 1 << 40), one[:0]),
            "one": (dtype, (n_elements,), one),
            "deep": (dtype, (1,) * 63 + (n_elements,), one),
        }
        if n_elements == 1:
            tensors["scalar"] = (dtype, (), one)
        archive = Archive(Bytes(**tensors).packed())
        for name, (_, shape, data) in tensors.items():
            assert archive.read(name).tobytes() == data.tobytes()
            assert archive.spec(name) == TensorSpec(dtype, shape)
        archive.verify(deep=True)

    @pytest.mark.parametrize("recipe", RECIPES)
    @pytest.mark.parametrize("dtype", INTERESTING)
    def test_with_payloads_negative_zeros_and_subnormals(self, dtype: str, recipe: str) -> None:
        rng = np.random.default_rng(0)
        bits = np.array(INTERESTING[dtype], f"<u{DTYPES[dtype].nbytes}")
        weights = np.resize(bits, 4000)
        weights[::2] = rng.integers(0, np.iinfo(bits.dtype).max, 2000, bits.dtype, endpoint=True)
        for data in (bits, np.resize(bits, 5000), weights, rng.permutation(np.resize(bits, 70_000))):
            stored = data.view(np.uint8)
            archive = Archive(Bytes(a=(dtype, (len(data),), stored)).packed(recipe))
            assert archive.read("a").tobytes() == stored.tobytes()

    @given(
        data=st.binary(max_size=4000), columns=st.integers(1, 9), dtype=st.sampled_from(["U8", "F16", "F32"])
    )
    def test_of_any_bytes_and_shape(self, data: bytes, columns: int, dtype: str) -> None:
        row = columns * DTYPES[dtype].nbytes
        rows = len(data) // row
        stored = np.frombuffer(data[: rows * row], np.uint8)
        archive = Archive(Bytes(a=(dtype, (rows, columns), stored)).packed())
        assert archive.read("a").tobytes() == stored.tobytes()

    def test_a_thousand_of_them(self) -> None:
        rng = np.random.default_rng(0)
        tensors = {f"layer.{i}": ("F32", (i,), rng.integers(0, 256, 4 * i, np.uint8)) for i in range(1000)}
        archive = Archive(Bytes(**tensors).packed(jobs=2))
        assert archive.keys() == list(tensors)
        assert all(archive.read(name).tobytes() == data.tobytes() for name, (_, _, data) in tensors.items())
        overhead = archive.nbytes - sum(len(data) for _, _, data in tensors.values())
        assert overhead <= 120 * 1000

    def test_six_of_them_take_little_beside_their_bytes(self) -> None:
        """The format's promise: at most 1,200 bytes beside the streams of six tensors."""
        rng = np.random.default_rng(0)
        tensors = {
            f"conv{i}.weight": ("F32", (5000,), rng.integers(0, 256, 20_000, np.uint8)) for i in range(6)
        }
        archive = Archive(Bytes(**tensors).packed())
        assert archive.nbytes - 6 * 20_000 <= 1200

    def test_names_are_kept_as_they_are_in_their_order(self) -> None:
        names = [
            "z",
            "a",
            "",
            "ünïcode/字.🙂",
            "with space",
            '"quoted"',
            "back\\slash",
            "new\nline",
            "\0",
            "a.b",
        ]
        assert saved({name: torch.ones(1) for name in names}).keys() == names


class TestMetadata:
    def test_is_kept_in_its_order(self) -> None:
        metadata = {"z": "1", "a": "", "": "empty", "ü\n": "\0🙂"}
        assert list(saved({"a": torch.ones(1)}, metadata=metadata).metadata.items()) == list(metadata.items())

    def test_given_replaces_the_sources_own(self, tmp_path: Path) -> None:
        path = tmp_path / "m.safetensors"
        safetensors.torch.save_file({"a": torch.ones(1)}, path, {"own": "1"})
        for given_metadata, expected in ((None, {"own": "1"}), ({}, {}), ({"x": "y"}, {"x": "y"})):
            sink = io.BytesIO()
            cmpk.pack(path, sink, metadata=given_metadata)
            assert Archive(sink.getvalue()).metadata == expected

    def test_malformed_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        sink = io.BytesIO()
        with pytest.raises(SourceError, match="metadata maps strings to strings"):
            cmpk.pack({"a": torch.ones(1)}, sink, metadata={"a": 1})  # type: ignore[dict-item]
        assert sink.getvalue() == b""


class TestReports:
    def test_say_what_was_made(self, tmp_path: Path) -> None:
        source, packed = tmp_path / "m.safetensors", tmp_path / "m.cmpk"
        safetensors.torch.save_file({"a": torch.randn(1000), "b": torch.ones(3)}, source)
        report = cmpk.pack(source, packed)
        assert report.source_nbytes == source.stat().st_size
        assert report.nbytes == packed.stat().st_size
        assert (report.n_tensors, report.n_files, report.notes) == (2, 1, [])
        assert report.seconds > 0
        with cmpk.open(packed) as archive:
            assert report.sha256 == archive.sha256 == hashlib.sha256(archive.manifest_json).hexdigest()
            assert archive.manifest.recipe == "lossless"
            assert archive.manifest.producer == f"cmpk {cmpk.__version__}"
            assert archive.manifest.providers == {}

    @pytest.mark.parametrize("jobs", [1, 3])
    def test_progress_grows_to_the_whole_and_never_beyond(self, tmp_path: Path, jobs: int) -> None:
        weight = torch.randn(1000)
        path = tmp_path / "m.pt"
        torch.save({"a": weight, "b": weight, "c": weight[10:900], "d": torch.ones(5)}, path)
        for source in (path, {"a": weight, "b": weight, "c": torch.ones(9)}, {}):
            seen: list[tuple[int, int]] = []
            report = cmpk.pack(
                source, io.BytesIO(), jobs=jobs, progress=lambda *at, seen=seen: seen.append(at)
            )
            assert seen == sorted(seen)
            assert seen[-1] == (report.source_nbytes, report.source_nbytes)
            assert len({total for _, total in seen}) == 1


class Watched(ModelSource):
    """Tensors that remember which of them were read, and whether the source was closed."""

    def __init__(self, n: int, nbytes: int, fail_at: int = -1) -> None:
        self.metadata, self.notes, self.nbytes = {}, [], n * nbytes
        self.n_read = 0
        self.is_closed = False
        self._n, self._tensor_nbytes, self._fail_at = n, nbytes, fail_at

    def tensors(self) -> Iterator[SourceTensor]:
        for index in range(self._n):
            yield SourceTensor(
                str(index), TensorSpec("U8", (self._tensor_nbytes,)), lambda i=index: self._read(i)
            )

    def _read(self, index: int) -> np.ndarray[Any, Any]:
        if index == self._fail_at:
            raise SourceError("the source broke")
        self.n_read += 1
        return np.full(self._tensor_nbytes, index, np.uint8)

    def close(self) -> None:
        self.is_closed = True


class TestWritingIsWholeOrNotAtAll:
    @pytest.fixture(params=[False, True], ids=["new", "existing"])
    def target(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
        """Where to write; afterwards it is as it was, and nothing else is there."""
        path = tmp_path / "out" / "m.cmpk"
        path.parent.mkdir()
        if request.param:
            path.write_bytes(b"precious")
        yield path
        assert list(path.parent.iterdir()) == ([path] if request.param else [])
        if request.param:
            assert path.read_bytes() == b"precious"

    @pytest.mark.parametrize("jobs", [1, 2])
    @pytest.mark.parametrize("problem", [KeyboardInterrupt, SystemExit, RuntimeError, MemoryError])
    def test_when_the_progress_callback_raises(
        self, target: Path, jobs: int, problem: type[BaseException]
    ) -> None:
        def interrupt(done: int, total: int) -> None:
            if done > 2000:
                raise problem

        source = Watched(10, 1000)
        with pytest.raises(problem):
            cmpk.pack(source, target, jobs=jobs, progress=interrupt, force=True)
        assert source.is_closed

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_when_the_source_fails(self, target: Path, jobs: int) -> None:
        source = Watched(10, 1000, fail_at=7)
        with pytest.raises(SourceError, match="the source broke"):
            cmpk.pack(source, target, jobs=jobs, force=True)
        assert source.is_closed

    def test_when_the_disk_is_full(self, target: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        noise = torch.randint(0, 256, (200_000,), dtype=torch.uint8)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(DestinationError, match="File too large"):
                cmpk.pack({"a": noise}, target, force=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    def test_when_a_tensor_can_not_be_packed(self, target: Path) -> None:
        with pytest.raises(SourceError):
            cmpk.pack({"a": torch.ones(3), "b": 3}, target, force=True)

    def test_when_the_recipe_is_unknown(self, target: Path) -> None:
        with pytest.raises(RecipeError):
            cmpk.pack({"a": torch.ones(3)}, target, recipe="lossy", force=True)

    def test_when_a_real_interrupt_comes(self, target: Path) -> None:
        def interrupt(done: int, total: int) -> None:
            if done == 3000:
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            cmpk.pack(Watched(10, 1000), target, progress=interrupt, force=True)


def test_an_existing_file_is_only_replaced_with_force(tmp_path: Path) -> None:
    path = tmp_path / "m.cmpk"
    path.write_bytes(b"precious")
    source = Watched(1, 10)
    with pytest.raises(DestinationError, match="exists"):
        cmpk.pack(source, path)
    assert path.read_bytes() == b"precious"
    assert source.n_read == 0
    cmpk.pack(source, path, force=True)
    assert cmpk.open(path).keys() == ["0"]


def test_packing_to_a_pipe_gives_the_same_bytes_as_to_a_file(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(300, 300), "b": torch.randint(0, 256, (100_000,), dtype=torch.uint8)}
    cmpk.pack(tensors, tmp_path / "m.cmpk")
    reading, writing = os.pipe()
    received: list[bytes] = []

    def receive() -> None:
        with os.fdopen(reading, "rb") as file:
            received.append(file.read())

    thread = threading.Thread(target=receive)
    thread.start()
    with os.fdopen(writing, "wb") as file:
        cmpk.pack(tensors, file)
    thread.join()
    assert received == [(tmp_path / "m.cmpk").read_bytes()]


def test_a_sink_is_only_ever_appended_to() -> None:
    class AppendOnly:
        def __init__(self) -> None:
            self.taken = bytearray()

        def write(self, data: memoryview) -> int:
            self.taken += data
            return len(data)

    sink = AppendOnly()
    cmpk.pack({"a": torch.arange(1000)}, sink)  # type: ignore[arg-type]
    assert Archive(bytes(sink.taken)).read("a").tobytes() == torch.arange(1000).numpy().tobytes()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sink_that_fails_is_a_destination_error(jobs: int) -> None:
    class Full:
        def __init__(self) -> None:
            self.room = 5000

        def write(self, data: memoryview) -> int:
            self.room -= len(data)
            if self.room < 0:
                raise OSError(28, "No space left on device")
            return len(data)

    with pytest.raises(DestinationError, match="No space left on device"):
        cmpk.pack(Watched(10, 100_000), Full(), jobs=jobs, recipe=Recipe("raw"))  # type: ignore[arg-type]


def test_tensors_are_read_as_they_are_needed_not_all_at_once() -> None:
    """Peak memory is bound by what is in flight, so a source is not read far ahead of what is written."""
    nbytes, n = 48 << 20, 8
    source = Watched(n, nbytes)
    ahead: list[int] = []
    written = 0

    def note(done: int, total: int) -> None:
        nonlocal written
        written = done // nbytes
        ahead.append(source.n_read - written)

    cmpk.pack(source, io.BytesIO(), jobs=2, progress=note, recipe=Recipe("zstd", codecs=("raw", "zstd:1")))
    assert max(ahead) <= 3


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("missing.safetensors", "does not exist"),
        ("", r"holds no \.safetensors file"),
        ("notes.txt", r"no form that can be packed: a \.safetensors file"),
        ("no\0name", "does not exist"),
    ],
)
def test_a_source_that_is_none_is_refused(tmp_path: Path, source: str, problem: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match=problem):
        cmpk.pack(f"{tmp_path}/{source}", io.BytesIO())


def test_a_pass_that_a_recipe_names_must_be_installed() -> None:
    with pytest.raises(UnknownIdError, match="no pass is called 'none-such'"):
        cmpk.torch.save({"a": torch.ones(3)}, recipe=Recipe("r", rules=(Rule((PassUse("none-such"),)),)))


@pytest.mark.parametrize("min_saving", [0.0, 0.5, 0.9])
def test_a_codec_must_save_what_the_recipe_asks(min_saving: float) -> None:
    data = torch.randint(0, 64, (100_000,), dtype=torch.uint8)  # six bits of eight
    recipe = Recipe("r", codecs=("raw", "bitpack"), min_saving=min_saving)
    archive = saved({"a": data}, recipe=recipe)
    assert archive.entry("a").data.codec == ("bitpack" if min_saving < 0.25 else "raw")


def test_the_fastest_codec_wins_unless_a_slower_one_saves_enough_more() -> None:
    data = torch.randint(0, 64, (100_000,), dtype=torch.uint8)
    recipe = Recipe("r", codecs=("raw", "bitpack", "huffman", "rans"), min_saving=0.01)
    assert saved({"a": data}, recipe=recipe).entry("a").data.codec == "bitpack"
    skewed = (torch.rand(100_000) ** 4 * 60).to(torch.uint8)
    assert saved({"a": skewed}, recipe=recipe).entry("a").data.codec in ("huffman", "rans")


def test_no_stream_promises_more_than_a_reader_believes() -> None:
    """A gigabyte of zeros would fit fewer bytes than any honest bomb check lets through."""
    zeros = np.zeros(64 << 20, np.uint8)
    for dtype in ("U8", "F32"):
        n = len(zeros) // DTYPES[dtype].nbytes
        data = Bytes(a=(dtype, (n,), zeros)).packed("lossless-max")
        archive = Archive(data)
        assert archive.nbytes < 20_000
        assert not archive.read_range("a", n - 1000, n).any()


def test_copies_are_stored_again_where_aliases_would_promise_too_much() -> None:
    """A reader believes copies only as far as all streams together may expand."""
    zeros = np.zeros(4 << 20, np.uint8)
    names = [f"{index:02}" for index in range(40)]
    data = Bytes(**{name: ("U8", (len(zeros),), zeros) for name in names}).packed("lossless-max")
    archive = Archive(data)
    assert archive.nbytes < 20_000
    aliases = [name for name in names if archive.entry(name).data.encoding == "alias"]
    assert 0 < len(aliases) < len(names) - 1
    for name in names:
        assert not archive.read(name).any()


def test_what_a_caller_passed_is_not_changed() -> None:
    weight = torch.randn(100, 100)
    before = weight.clone()
    array = np.arange(5000, dtype=np.float32)
    cmpk.torch.save({"t": weight, "n": array})  # type: ignore[dict-item]
    assert torch.equal(weight, before)
    assert array.flags.writeable
    assert array.tolist() == list(range(5000))


def test_packing_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    cmpk.torch.save({str(index): torch.randn(1000) for index in range(20)}, jobs=4)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
