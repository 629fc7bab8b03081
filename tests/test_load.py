"""File to tensors on a device: each stream is decoded once, into place."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cmpk
import cmpk.torch
from cmpk.archive import Archive
from cmpk.device import on_device
from cmpk.encodings.base import Leaf
from cmpk.errors import DeviceError, SourceError
from cmpk.load import checked_device, load_tensor, load_tensors, to_device

ROOT = Path(__file__).resolve().parent.parent

WEIGHT = torch.arange(6000, dtype=torch.float32).reshape(60, 100).cos()


@pytest.fixture
def opened() -> Archive:
    return Archive(cmpk.torch.save({"a": WEIGHT, "b": WEIGHT + 1, "c": WEIGHT, "d": WEIGHT.clone()}))


def test_only_what_is_named_is_loaded_in_the_order_of_the_names(opened: Archive) -> None:
    found = load_tensors(opened, ["d", "b"], "cpu", 1)
    assert list(found) == ["d", "b"]
    assert torch.equal(found["d"], WEIGHT)
    assert torch.equal(found["b"], WEIGHT + 1)


def test_a_tied_name_alone_is_loaded_without_its_target(opened: Archive) -> None:
    assert list(load_tensors(opened, ["c"], "cpu", 1)) == ["c"]
    both = load_tensors(opened, ["c", "a"], "cpu", 1)
    assert both["a"] is both["c"]


def test_nothing_is_loaded_where_nothing_is_named(opened: Archive) -> None:
    assert load_tensors(opened, [], "cpu", 1) == {}
    assert load_tensors(Archive(cmpk.torch.save({})), [], "cpu", 2) == {}


def test_an_unknown_name_is_a_source_error(opened: Archive) -> None:
    with pytest.raises(SourceError, match="no tensor 'z'"):
        load_tensors(opened, ["a", "z"], "cpu", 1)


def test_every_stream_is_read_once_for_each_tensor_that_is_made(
    opened: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets: list[int] = []
    read = Archive._read_stream

    def spy(self: Archive, leaf: Leaf) -> memoryview:
        offsets.append(leaf.offset)
        return read(self, leaf)

    monkeypatch.setattr(Archive, "_read_stream", spy)
    load_tensors(opened, ["a", "b", "c"], "cpu", 1)
    assert len(offsets) == len(set(offsets))


def test_part_of_a_tensor_is_a_tensor_of_its_own(opened: Archive) -> None:
    part = load_tensor(opened, "a", (slice(10, 20), slice(None, None, 3)), "cpu", 1)
    assert torch.equal(part, WEIGHT[10:20, ::3])
    part.zero_()
    assert torch.equal(load_tensor(opened, "a", (10,), "cpu", 1), WEIGHT[10])


def test_a_device_is_checked_before_anything_is_decoded(
    opened: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Archive, "_read_stream", lambda *_: pytest.fail("a stream was read"))
    for load in (
        lambda: load_tensors(opened, ["a"], "gpu", 1),
        lambda: load_tensor(opened, "a", (), "gpu", 1),
    ):
        with pytest.raises(DeviceError, match="'gpu' is not a device"):
            load()


def test_the_cpu_is_there_under_all_its_names() -> None:
    assert checked_device("cpu") == checked_device(torch.device("cpu")) == torch.device("cpu")
    assert to_device(WEIGHT, torch.device("cpu")) is WEIGHT


def test_a_device_that_fails_says_how_much_was_to_go_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(DeviceError, match="can't put a tensor of 24000 bytes on meta: CUDA out of memory"):
        to_device(WEIGHT, torch.device("meta"))


def test_loading_in_a_fresh_process_needs_no_pack_time_code(tmp_path: Path) -> None:
    cmpk.torch.save_file({"a": WEIGHT, "b": torch.arange(5)}, tmp_path / "m.cmpk")
    code = (
        "import sys, cmpk\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        f"path = {str(tmp_path / 'm.cmpk')!r}\n"
        "cmpk.torch.load_file(path)\n"
        "with cmpk.torch.safe_open(path) as file: file.get_slice('a')[3:5]; file.get_tensor('b')\n"
        "pack_time = {'cmpk.passes', 'cmpk.importers', 'cmpk.packing', 'cmpk.recipe', 'triton'}\n"
        "assert not pack_time & set(sys.modules), pack_time & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_a_cuda_device_is_the_one_that_is_current_when_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert checked_device("cuda") == torch.device("cuda:1")
    assert checked_device("cuda:0") == torch.device("cuda:0")


def test_kernels_are_launched_on_the_device_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[torch.device] = []

    @contextlib.contextmanager
    def enter(device: torch.device) -> Iterator[None]:
        entered.append(device)
        yield

    monkeypatch.setattr(torch.cuda, "device", enter)
    for name in ("cuda:1", "cpu"):
        with on_device(torch.device(name)):
            pass
    assert entered == [torch.device("cuda:1")]
