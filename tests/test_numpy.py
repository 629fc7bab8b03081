"""The front door for NumPy, held against the real safetensors; it never imports torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, basic_indices

import cmpk
import cmpk.numpy
import cmpk.torch
from cmpk.archive import Archive
from cmpk.dtypes import DTYPES
from cmpk.errors import CmpkError, CorruptStreamError, SourceError
from tests.builders import archive, leaf, tensor

ROOT = Path(__file__).resolve().parent.parent
NUMPY_TYPES = [dtype.numpy_name for dtype in DTYPES.values() if dtype.numpy_name]


def bits(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    return array.dtype, array.shape, array.tobytes()


def samples() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return {
        "weight": rng.standard_normal((60, 40)).astype(np.float32),
        "half": rng.standard_normal(3000).astype(np.float16),
        "double": rng.standard_normal((5, 7, 9)),
        "ids": np.arange(1000).reshape(10, 100),
        "mask": rng.random(77) > 0.5,
        "scalar": np.array(2.5),
        "empty": np.empty((0, 3), np.int16),
    }


def test_what_is_saved_is_loaded_and_is_what_safetensors_loads(tmp_path: Path) -> None:
    cmpk.numpy.save_file(samples(), tmp_path / "m.cmpk", {"a": "b"})
    safetensors.numpy.save_file(samples(), tmp_path / "m.safetensors")
    ours = cmpk.numpy.load_file(tmp_path / "m.cmpk")
    theirs = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert list(ours) == list(samples())
    for name, value in theirs.items():
        assert bits(ours[name]) == bits(value)
        assert ours[name].flags.writeable
    with cmpk.open(tmp_path / "m.cmpk") as opened:
        assert opened.metadata == {"a": "b"}


@given(
    st.sampled_from(NUMPY_TYPES).flatmap(
        lambda name: arrays(np.dtype(name), array_shapes(min_dims=0, min_side=0, max_side=7))
    ),
    st.sampled_from(["lossless", "lossless-max"]),
)
def test_any_array_comes_back_bit_for_bit(array: np.ndarray[Any, Any], recipe: str) -> None:
    assert bits(cmpk.numpy.load(cmpk.numpy.save({"a": array}, recipe=recipe))["a"]) == bits(array)


def test_numpy_and_torch_write_the_same_file() -> None:
    arrays_only = {name: value for name, value in samples().items() if name != "empty"}
    tensors = {name: torch.from_numpy(value) for name, value in arrays_only.items()}
    assert cmpk.numpy.save(arrays_only) == cmpk.torch.save(tensors)


def test_tied_arrays_are_one_array_again() -> None:
    weight = np.arange(50.0)
    found = cmpk.numpy.load(cmpk.numpy.save({"a": weight, "b": weight, "c": weight.copy()}))
    assert found["a"] is found["b"]
    assert not np.shares_memory(found["a"], found["c"])
    assert all(bits(value) == bits(weight) for value in found.values())


@given(st.data())
def test_any_slice_is_what_indexing_the_array_gives(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(samples())))
    value = samples()[name]
    index = data.draw(basic_indices(value.shape, allow_newaxis=False))
    items = index if isinstance(index, tuple) else (index,)
    if any(isinstance(item, slice) and (item.step or 1) < 0 for item in items):
        return
    found = cmpk.numpy.read_array(OPENED, name, items, 1)
    assert bits(found) == bits(np.asarray(value[index]))


OPENED = Archive(cmpk.numpy.save(samples()))


def test_a_part_does_not_keep_the_whole_array_alive() -> None:
    part = cmpk.numpy.read_array(OPENED, "weight", (slice(None), 0), 1)
    assert part.base is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e8m0fnu])
def test_types_that_numpy_has_not_are_refused_with_a_way_out(dtype: torch.dtype) -> None:
    data = cmpk.torch.save({"fine": torch.ones(2), "other": torch.ones(2).to(dtype)})
    with pytest.raises(SourceError, match=r"'other': NumPy has no type for .*cmpk\.torch"):
        cmpk.numpy.load(data)


def test_shapes_that_numpy_can_not_hold_are_an_error_of_cmpks() -> None:
    data = archive([tensor("a", "U8", [1 << 48, 1 << 48, 0], leaf(b""))])
    with pytest.raises(CmpkError, match="NumPy can't hold"):
        cmpk.numpy.load(data)
    with pytest.raises(CmpkError, match="NumPy can't hold"):
        cmpk.numpy.read_array(Archive(data), "a", (), 1)
    with pytest.raises(CmpkError, match="torch can't hold"):
        cmpk.torch.load(data)


def test_damage_names_the_tensor() -> None:
    data = bytearray(cmpk.numpy.save({"a": np.arange(3000), "b": np.arange(5)}))
    data[100] ^= 1
    with pytest.raises(CorruptStreamError, match="tensor 'a'"):
        cmpk.numpy.load(bytes(data))


def test_saving_loading_and_slicing_import_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, cmpk.numpy\n"
        "x = {'a': np.random.default_rng(0).standard_normal((300, 40)).astype(np.float32)}\n"
        f"cmpk.numpy.save_file(x, {str(tmp_path / 'm.cmpk')!r})\n"
        f"assert (cmpk.numpy.load_file({str(tmp_path / 'm.cmpk')!r})['a'] == x['a']).all()\n"
        f"archive = cmpk.open({str(tmp_path / 'm.cmpk')!r})\n"
        "assert (cmpk.numpy.read_array(archive, 'a', (slice(2, 5),), 1) == x['a'][2:5]).all()\n"
        "assert not {'torch', 'triton'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
