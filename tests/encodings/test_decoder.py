"""Decoding a tree: only the streams and symbols that a range needs, and only with what is installed."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cmpk import kernels
from cmpk.archive import Archive
from cmpk.codecs import Huffman, Zstd
from cmpk.dtypes import TensorSpec
from cmpk.encodings import FloatSplit, Narrow, RowGroups
from cmpk.encodings.base import allocate, byte_range
from cmpk.errors import CmpkError
from cmpk.kernels.interface import FloatJob
from tests.builders import archive, branch_of, leaf, tensor

N = 200_000


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FloatJob]]:
    """The float jobs that reach the kernels."""
    seen: list[FloatJob] = []
    active = kernels.active()

    def decode_floats(given: list[FloatJob], threads: int = 1) -> None:
        seen.extend(given)
        active.decode_floats(given, threads)

    spy = SimpleNamespace(**{name: getattr(active, name) for name in dir(active) if not name.startswith("_")})
    spy.decode_floats = decode_floats
    monkeypatch.setattr(kernels, "active", lambda: spy)
    return seen


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the zstd frames that are decoded."""
    seen: list[int] = []
    decode = Zstd._decode_frame

    def spy(self: Zstd, frame: memoryview, nbytes: int) -> Any:
        seen.append(nbytes)
        return decode(self, frame, nbytes)

    monkeypatch.setattr(Zstd, "_decode_frame", spy)
    return seen


def bf16() -> np.ndarray[Any, Any]:
    numbers = np.random.default_rng(0).standard_normal(N).astype(np.float32)
    return (numbers.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)


def split(data: np.ndarray[Any, Any], dtype: str = "BF16", codec: Any = None) -> dict[str, Any]:
    spec = TensorSpec(dtype, (len(data) // (2 if dtype == "BF16" else 4),))
    return branch_of("float_split", FloatSplit().encode(data, spec, 0, 0), codec or Huffman())


def test_a_range_of_a_split_tensor_is_one_job_for_that_range(jobs: list[FloatJob]) -> None:
    data = bf16()
    found = Archive(archive([tensor("a", "BF16", [N], split(data))]))
    assert found.read_range("a", 1000, 1010).tobytes() == data[2000:2020].tobytes()
    assert [(job.start, job.count, job.n) for job in jobs] == [(1000, 10, N)]


def test_all_tensors_of_a_model_are_one_call_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    active = kernels.active()
    spy = SimpleNamespace(**{name: getattr(active, name) for name in dir(active) if not name.startswith("_")})
    spy.decode_floats = lambda given, threads=1: (
        calls.append(len(given)),
        active.decode_floats(given, threads),
    )
    monkeypatch.setattr(kernels, "active", lambda: spy)
    data = bf16()
    found = Archive(archive([tensor(name, "BF16", [N], split(data)) for name in "abc"]))
    outs = {name: np.empty(2 * N, np.uint8) for name in "abc"}
    found.read_into(outs, 2)
    assert calls == [3]
    assert all(out.tobytes() == data.tobytes() for out in outs.values())


def test_a_range_of_narrowed_rows_touches_only_its_groups(jobs: list[FloatJob]) -> None:
    rows = (bf16().view(np.uint16).astype(np.uint32) << 16).reshape(1000, 200)
    group = (np.arange(1000) % 3 == 0).astype(np.uint8)
    encoded = RowGroups().encode(rows.reshape(-1).view(np.uint8), TensorSpec("F32", rows.shape), group)
    node = branch_of("row_groups", encoded)
    narrowed = Narrow().encode(encoded.parts["1"].data, encoded.parts["1"].spec, "BF16")
    node["parts"]["1"] = branch_of("narrow", narrowed)
    values = narrowed.parts["values"]
    node["parts"]["1"]["parts"]["values"] = branch_of(
        "float_split", FloatSplit().encode(values.data, values.spec, 0, 0)
    )
    node["parts"]["0"] = branch_of(
        "float_split", FloatSplit().encode(encoded.parts["0"].data, encoded.parts["0"].spec, 0, 0)
    )
    found = Archive(archive([tensor("a", "F32", [1000, 200], node)]))
    assert found.read_range("a", 200 * 300, 200 * 302).tobytes() == rows[300:302].tobytes()
    assert sorted((job.count, job.dtype, job.out_dtype) for job in jobs) == [
        (200, "BF16", "F32"),
        (200, "F32", "F32"),
    ]
    jobs.clear()
    assert found.read_range("a", 200 * 301, 200 * 302).tobytes() == rows[301].tobytes()
    assert [job.dtype for job in jobs] == ["F32"]


def test_a_range_decodes_only_the_frames_that_it_touches(frames: list[int]) -> None:
    data = np.random.default_rng(0).integers(0, 4, 10 << 20, np.uint8)
    stream = bytes(memoryview(Zstd().encode(data)))
    found = Archive(archive([tensor("a", "U8", [len(data)], leaf(stream, "zstd"))]))
    assert found.read_range("a", 5 << 20, (5 << 20) + 9).tobytes() == data[5 << 20 :][:9].tobytes()
    assert frames == [4 << 20]


def test_planes_that_the_kernels_do_not_decode_are_decoded_only_where_needed(frames: list[int]) -> None:
    data = np.random.default_rng(0).integers(0, 8, 10 << 20, np.uint8)
    n = len(data) // 2
    node = split(data, codec=Zstd())
    # Parts of 5 MiB are two frames each; the range lies in the second.
    found = Archive(archive([tensor("a", "BF16", [n], node)]))
    assert found.read_range("a", n - 5, n).tobytes() == data[-10:].tobytes()
    assert frames == [1 << 20, 1 << 20]


def test_raw_bytes_are_not_copied_to_be_cut() -> None:
    found = Archive(archive([tensor("a", "U8", [8], leaf(b"abcdefgh"))]))
    view = found.view("a")
    assert view is not None
    assert not view.flags.writeable
    assert view.tobytes() == b"abcdefgh"
    packed = Archive(archive([tensor("a", "U8", [8], leaf(bytes(memoryview(Zstd().encode(view))), "zstd"))]))
    assert packed.view("a") is None


@pytest.mark.parametrize("where", ["codec", "kernels"])
def test_too_little_memory_is_an_error_of_cmpks(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object, **options: object) -> None:
        raise MemoryError

    if where == "codec":
        monkeypatch.setattr(Zstd, "_decode_frame", exhausted)
        data = np.zeros(100, np.uint8)
        node, dtype = leaf(bytes(memoryview(Zstd().encode(data))), "zstd"), "U8"
    else:
        data = bf16()[:2000]
        node, dtype = split(data), "BF16"
        active = kernels.active()
        monkeypatch.setattr(kernels, "active", lambda: SimpleNamespace(decode_floats=exhausted))
        assert active is not None
    n = len(data) if dtype == "U8" else len(data) // 2
    found = Archive(archive([tensor("a", dtype, [n], node)]))
    with pytest.raises(CmpkError, match="not enough memory"):
        found.read("a")
    with pytest.raises(CmpkError, match="not enough memory"):
        found.read_range("a", 0, n)


def test_more_memory_than_there_can_be_is_an_error_of_cmpks() -> None:
    for nbytes in (1 << 60, 1 << 70, -1):
        with pytest.raises(CmpkError, match="not enough memory"):
            allocate(nbytes)


def test_ranges_of_small_elements_start_and_end_at_whole_bytes() -> None:
    assert byte_range(TensorSpec("F4", (8,)), 2, 6) == slice(1, 3)
    assert byte_range(TensorSpec("F6_E2M3", (8,)), 4, 8) == slice(3, 6)
    for start, stop in ((1, 4), (0, 3)):
        with pytest.raises(CmpkError, match="whole bytes"):
            byte_range(TensorSpec("F4", (8,)), start, stop)
