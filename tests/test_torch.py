"""The front door for torch, held against the real safetensors on the same tensors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

import cmpk
import cmpk.torch
from cmpk.errors import CorruptStreamError, DeviceError, FormatError, SourceError
from tests.builders import archive, leaf, tensor

METADATA = {"format": "pt", "note": "ünïcödé"}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "embed": torch.randn(60, 40, generator=generator),
        "half": torch.randn(50, 30, generator=generator).half(),
        "bf16": torch.randn(2000, generator=generator).bfloat16(),
        "f8": torch.randn(700, generator=generator).to(torch.float8_e4m3fn),
        "ids": torch.arange(6 * 7 * 8).reshape(6, 7, 8),
        "mask": torch.rand(40, generator=generator) > 0.5,
        "complex": torch.randn(20, dtype=torch.complex64, generator=generator),
        "double": torch.randn(600, dtype=torch.float64, generator=generator),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 5),
    }


class Files:
    """The same tensors as a .cmpk and as a .safetensors file."""

    def __init__(self, folder: Path) -> None:
        self.packed, self.plain = folder / "m.cmpk", folder / "m.safetensors"
        cmpk.torch.save_file(tensors(), self.packed, METADATA)
        safetensors.torch.save_file(tensors(), self.plain, METADATA)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("torch"))


@pytest.fixture(scope="module")
def both(files: Files) -> Iterator[tuple[Any, Any]]:
    with cmpk.torch.safe_open(files.packed) as ours, safetensors.safe_open(files.plain, "pt") as theirs:
        yield ours, theirs


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal in type, shape and every bit."""

    def octets(value: torch.Tensor) -> bytes:
        flat = value.contiguous().as_strided((value.numel(),), (1,))
        return flat.view(torch.uint8).numpy().tobytes()

    return (one.dtype, one.shape, octets(one)) == (other.dtype, other.shape, octets(other))


def test_load_file_gives_what_safetensors_gives(files: Files) -> None:
    ours, theirs = cmpk.torch.load_file(files.packed), safetensors.torch.load_file(files.plain)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert same(ours[name], value), name
        assert ours[name].is_contiguous()


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_any_number_of_threads_loads_the_same(files: Files, jobs: int) -> None:
    found = cmpk.torch.load_file(files.packed, jobs=jobs)
    assert all(same(found[name], value) for name, value in tensors().items())


def test_bytes_load_like_the_file_and_save_like_save_file(files: Files) -> None:
    data = files.packed.read_bytes()
    assert cmpk.torch.save(tensors(), METADATA) == data
    found = cmpk.torch.load(data)
    assert all(same(found[name], value) for name, value in tensors().items())


def test_loaded_tensors_can_be_written_to_and_do_not_share_memory(files: Files) -> None:
    found = cmpk.torch.load_file(files.packed)
    again = cmpk.torch.load_file(files.packed)
    for value in found.values():
        value.zero_()
    assert all(same(again[name], value) for name, value in tensors().items())


def test_loaded_tensors_outlive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.cmpk"
    noise = torch.randint(0, 256, (10_000,), dtype=torch.uint8)
    cmpk.torch.save_file({"raw": noise}, path)
    with cmpk.torch.safe_open(path) as file:
        whole, part = file.get_tensor("raw"), file.get_slice("raw")[5000:]
    path.unlink()
    assert same(whole, noise)
    assert same(part, noise[5000:])


def test_names_and_metadata_are_told_as_safetensors_tells_them(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    assert sorted(ours.keys()) == sorted(theirs.keys())
    assert ours.metadata() == theirs.metadata() == METADATA
    assert ours.offset_keys() == list(tensors())


def test_a_file_without_metadata_has_none(tmp_path: Path) -> None:
    cmpk.torch.save_file({"a": torch.ones(1)}, tmp_path / "a.cmpk")
    with cmpk.torch.safe_open(tmp_path / "a.cmpk") as file:
        assert file.metadata() is None


@pytest.mark.parametrize("name", tensors())
def test_get_tensor_and_get_slice_give_what_safetensors_gives(both: tuple[Any, Any], name: str) -> None:
    ours, theirs = both
    assert same(ours.get_tensor(name), theirs.get_tensor(name))
    mine, reference = ours.get_slice(name), theirs.get_slice(name)
    assert mine.get_shape() == reference.get_shape()
    assert mine.get_dtype() == reference.get_dtype()
    if reference.get_shape():
        assert same(mine[:], reference[:])
        assert same(mine[:3], reference[:3])
        assert same(mine[2:30], reference[2:30])


@given(st.data())
def test_any_slice_is_what_indexing_the_tensor_gives(both: tuple[Any, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(tensors())))
    value = both[1].get_tensor(name)
    index = data.draw(basic_indices(tuple(value.shape), allow_newaxis=False).filter(_torch_takes))
    assert same(both[0].get_slice(name)[index], value[index])


def _torch_takes(index: Any) -> bool:
    items = index if isinstance(index, tuple) else (index,)
    return not any(isinstance(item, slice) and (item.step or 1) < 0 for item in items)


def test_a_part_does_not_keep_the_whole_tensor_alive(both: tuple[Any, Any]) -> None:
    part = both[0].get_slice("embed")[:, 0]
    assert part.untyped_storage().nbytes() == 60 * 4


def test_several_threads_may_read_one_file(both: tuple[Any, Any]) -> None:
    wrong: list[str] = []

    def read() -> None:
        wrong.extend(name for name, value in tensors().items() if not same(both[0].get_tensor(name), value))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("framework", ["np", "numpy"])
def test_safe_open_gives_numpy_arrays_where_asked(files: Files, framework: str) -> None:
    with (
        cmpk.torch.safe_open(files.packed, framework=framework) as ours,
        safetensors.safe_open(files.plain, "np") as theirs,
    ):
        for name in ("embed", "ids", "mask", "scalar", "empty", "double"):
            array = ours.get_tensor(name)
            assert isinstance(array, np.ndarray)
            np.testing.assert_array_equal(array, theirs.get_tensor(name), strict=True)
        np.testing.assert_array_equal(
            ours.get_slice("ids")[1:4, ..., 2], tensors()["ids"].numpy()[1:4, ..., 2], strict=True
        )
        with pytest.raises(SourceError, match="NumPy has no type for BF16"):
            ours.get_tensor("bf16")


def test_an_unknown_framework_is_refused(files: Files) -> None:
    with pytest.raises(SourceError, match="'flax'"):
        cmpk.torch.safe_open(files.packed, framework="flax")


def test_an_unknown_name_is_refused_with_a_way_to_find_the_right_one(both: tuple[Any, Any]) -> None:
    for get in (both[0].get_tensor, both[0].get_slice):
        with pytest.raises(SourceError, match=r"no tensor 'weight'.*cmpk inspect"):
            get("weight")


def test_a_slice_that_does_not_fit_is_a_source_error(both: tuple[Any, Any]) -> None:
    for index in (60, (0, 40), (0, 0, 0), None, [1], slice(None, None, -1)):
        with pytest.raises(SourceError):
            both[0].get_slice("embed")[index]


@pytest.mark.parametrize("missing", ["nowhere.cmpk", "no\0file.cmpk", ""])
def test_a_missing_file_is_a_source_error(tmp_path: Path, missing: str) -> None:
    with pytest.raises(SourceError, match="can't open"):
        cmpk.torch.load_file(f"{tmp_path}/{missing}")


def test_another_kind_of_file_is_a_format_error(files: Files, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"not a \.cmpk file"):
        cmpk.torch.load_file(files.plain)
    (tmp_path / "empty.cmpk").touch()
    with pytest.raises(FormatError, match="too few"):
        cmpk.torch.load_file(tmp_path / "empty.cmpk")


def test_damage_names_the_tensor(files: Files, tmp_path: Path) -> None:
    data = bytearray(files.packed.read_bytes())
    with cmpk.open(files.packed) as found:
        data[next(iter(found._reader.offsets)) + 700] ^= 1
    (tmp_path / "bad.cmpk").write_bytes(data)
    with pytest.raises(CorruptStreamError, match="tensor 'embed'"):
        cmpk.torch.load_file(tmp_path / "bad.cmpk")
    with cmpk.torch.safe_open(tmp_path / "bad.cmpk") as file:
        assert same(file.get_tensor("ids"), tensors()["ids"])


def test_what_torch_can_not_hold_is_refused_by_name_with_a_way_out() -> None:
    data = archive([tensor("tiny", "F4", [4], leaf(b"\x12\x34"))])
    with pytest.raises(SourceError, match=r"no type for F4.*cmpk unpack"):
        cmpk.torch.load(data)


class TestTies:
    def test_tied_tensors_are_one_tensor_again(self) -> None:
        weight = torch.randn(30, 30)
        found = cmpk.torch.load(cmpk.torch.save({"in": weight, "mid": torch.ones(3), "out": weight}))
        assert found["in"] is found["out"]
        assert list(found) == ["in", "mid", "out"]

    def test_equal_copies_are_two_tensors(self) -> None:
        weight = torch.randn(30, 30)
        data = cmpk.torch.save({"a": weight, "b": weight.clone()})
        assert len(data) < 1.5 * weight.nbytes
        found = cmpk.torch.load(data)
        assert same(found["a"], found["b"])
        assert found["a"].data_ptr() != found["b"].data_ptr()

    def test_equal_bytes_of_another_type_or_shape_are_no_copies(self) -> None:
        weight = torch.zeros(10, 6)
        given = {"a": weight, "b": weight.reshape(6, 10).clone(), "c": torch.zeros(10, 6, dtype=torch.int32)}
        found = cmpk.torch.load(cmpk.torch.save(given))
        assert all(same(found[name], value) for name, value in given.items())

    def test_tied_and_copied_at_once(self) -> None:
        weight = torch.randn(40)
        copy = weight.clone()
        found = cmpk.torch.load(cmpk.torch.save({"a": weight, "b": copy, "c": weight, "d": copy}))
        assert found["a"] is found["c"]
        assert found["b"].data_ptr() != found["a"].data_ptr()
        assert all(same(value, weight) for value in found.values())

    def test_any_of_the_names_can_be_read_alone(self, tmp_path: Path) -> None:
        weight = torch.randn(40)
        cmpk.torch.save_file({"a": weight, "b": weight, "c": weight.clone()}, tmp_path / "m.cmpk")
        with cmpk.torch.safe_open(tmp_path / "m.cmpk") as file:
            for name in "cba":
                assert same(file.get_tensor(name), weight)
                assert same(file.get_slice(name)[3:9], weight[3:9])

    def test_empty_tensors_stay_apart(self) -> None:
        empty = torch.empty(0, 3)
        found = cmpk.torch.load(cmpk.torch.save({"a": empty, "b": empty}))
        assert found["a"] is not found["b"]


class TestDevices:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
    @pytest.mark.parametrize("device", ["cuda", "cuda:0", 0, torch.device("cuda", 1)])
    def test_cuda_without_cuda_says_what_to_do(self, files: Files, device: Any) -> None:
        with pytest.raises(DeviceError, match="load onto 'cpu'"):
            cmpk.torch.load_file(files.packed, device=device)
        with pytest.raises(DeviceError, match="load onto 'cpu'"):
            cmpk.torch.safe_open(files.packed, device=device).get_slice("embed")[0]

    @pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "cuda:-1", "cpu cpu", None, 1.5, -1])
    def test_a_malformed_device_is_a_device_error(self, files: Files, device: Any) -> None:
        with pytest.raises(DeviceError, match="not a device"):
            cmpk.torch.load_file(files.packed, device=device)

    @pytest.mark.parametrize("device", ["hpu", "privateuseone", "vulkan"])
    def test_a_device_that_this_torch_can_not_reach_is_a_device_error(self, device: str) -> None:
        with pytest.raises(DeviceError, match=f"on {device}"):
            cmpk.load.to_device(torch.ones(3), torch.device(device))

    def test_tensors_go_to_the_device_that_is_named(self, files: Files) -> None:
        found = cmpk.torch.load_file(files.packed, device="meta")
        assert {value.device.type for value in found.values()} == {"meta"}
        with cmpk.torch.safe_open(files.packed, device="meta") as file:
            assert file.get_slice("ids")[2, 1:].shape == (6, 8)
            assert file.get_slice("ids")[2].device.type == "meta"

    def test_ties_survive_the_way_to_a_device(self, tmp_path: Path) -> None:
        weight = torch.ones(4)
        cmpk.torch.save_file({"a": weight, "b": weight}, tmp_path / "m.cmpk")
        found = cmpk.torch.load_file(tmp_path / "m.cmpk", device="meta")
        assert found["a"] is found["b"]


class Tied(torch.nn.Module):
    """A model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.head = torch.nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight


class TestModels:
    def test_a_model_comes_back_with_its_buffers_and_ties(self, tmp_path: Path) -> None:
        model, other = Tied(), Tied()
        model.norm.running_mean.normal_()
        cmpk.torch.save_model(model, tmp_path / "m.cmpk", {"a": "b"})
        assert cmpk.torch.load_model(other, tmp_path / "m.cmpk") == ([], [])
        for name, value in model.state_dict().items():
            assert same(other.state_dict()[name], value), name
        assert other.head.weight is other.embed.weight
        with cmpk.open(tmp_path / "m.cmpk") as found:
            assert found.is_tied("head.weight")
            assert found.metadata == {"a": "b"}

    def test_missing_and_unexpected_names_are_an_error_that_lists_them(self, tmp_path: Path) -> None:
        cmpk.torch.save_file({"weight": torch.ones(2, 2), "extra": torch.ones(1)}, tmp_path / "m.cmpk")
        model = torch.nn.Linear(2, 2)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(SourceError, match=r"missing \['bias'\], unexpected \['extra'\]"):
            cmpk.torch.load_model(model, tmp_path / "m.cmpk")
        assert all(same(model.state_dict()[name], value) for name, value in before.items())

    def test_without_strict_they_are_told_and_the_rest_is_loaded(self, tmp_path: Path) -> None:
        cmpk.torch.save_file({"weight": torch.ones(2, 2), "extra": torch.ones(1)}, tmp_path / "m.cmpk")
        model = torch.nn.Linear(2, 2)
        assert cmpk.torch.load_model(model, tmp_path / "m.cmpk", strict=False) == (["bias"], ["extra"])
        assert same(model.weight.detach(), torch.ones(2, 2))

    @pytest.mark.parametrize("strict", [True, False])
    def test_another_shape_is_an_error_and_changes_nothing(self, tmp_path: Path, strict: bool) -> None:
        cmpk.torch.save_file({"weight": torch.ones(2, 2), "bias": torch.ones(3)}, tmp_path / "m.cmpk")
        model = torch.nn.Linear(2, 2)
        before = model.weight.detach().clone()
        with pytest.raises(SourceError, match=r"'bias' is \[3\], the model's is \[2\]"):
            cmpk.torch.load_model(model, tmp_path / "m.cmpk", strict=strict)
        assert same(model.weight.detach(), before)


def test_save_file_replaces_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "m.cmpk"
    cmpk.torch.save_file({"a": torch.ones(1)}, path)
    cmpk.torch.save_file({"b": torch.ones(2)}, path)
    assert list(cmpk.torch.load_file(path)) == ["b"]
    assert list(tmp_path.iterdir()) == [path]
