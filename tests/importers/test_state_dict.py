"""Tensors in memory: their bytes whatever their strides, which of them are one tensor, what is refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from cmpk.dtypes import TensorSpec
from cmpk.errors import SourceError
from cmpk.importers.state_dict import StateDictSource

EVERY_TORCH_DTYPE = [
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32,
    torch.uint64, torch.int64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.float16, torch.bfloat16, torch.float32,
    torch.float64, torch.complex64,
]  # fmt: skip


def ties(tensors: dict[str, Any]) -> dict[str, str]:
    return {tensor.name: tensor.tied_to for tensor in StateDictSource(tensors).tensors()}


def bytes_of(value: Any) -> bytes:
    [tensor] = StateDictSource({"a": value}).tensors()
    return tensor.read().tobytes()


@pytest.mark.parametrize("dtype", EVERY_TORCH_DTYPE, ids=str)
def test_the_bytes_of_a_tensor_are_read_whatever_its_type(dtype: torch.dtype) -> None:
    given = bytes(range(64))
    value = torch.frombuffer(bytearray(given), dtype=torch.uint8).view(dtype)
    [tensor] = StateDictSource({"a": value}).tensors()
    assert tensor.read().tobytes() == given
    assert tensor.spec.shape == tuple(value.shape)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x.t(),
        lambda x: x[3:7],
        lambda x: x[:, 2],
        lambda x: x[::2, ::3],
        lambda x: x[4, 4],
        lambda x: x[4:4],
        lambda x: x[:0, 0],
        lambda x: x[0, 0:2:2],
        lambda x: x[2:3, 3:5:7].t(),
        lambda x: x.t()[:, 3:3],
        lambda x: x.unsqueeze(0).expand(3, -1, -1),
        lambda x: x.flatten()[17:],
    ],
)
def test_a_view_is_read_in_row_major_order_of_its_own(view: Any) -> None:
    value = view(torch.arange(100, dtype=torch.int32).reshape(10, 10))
    assert bytes_of(value) == value.contiguous().numpy().tobytes()


@pytest.mark.parametrize("order", ["<", ">", "="])
@pytest.mark.parametrize("dtype", ["u2", "i4", "f2", "f4", "f8", "c8"])
def test_numpy_arrays_of_either_byte_order_are_read_as_little_endian(dtype: str, order: str) -> None:
    values = np.array([1, 2, 300])
    value = values.astype(dtype).astype(np.dtype(order + dtype))
    assert bytes_of(value) == values.astype("<" + dtype).tobytes()


def test_numpy_arrays_of_any_strides_are_read_in_row_major_order() -> None:
    value = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    for view in (value.T, value[::-1], value[:, 1:3, ::2], np.asfortranarray(value), value[1, 1, 1:1]):
        assert bytes_of(view) == view.tobytes()


def test_gradients_and_parameters_do_not_stand_in_the_way() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    assert bytes_of(parameter) == bytes_of(parameter * 1) == np.ones(3, np.float32).tobytes()


def test_one_tensor_under_two_names_is_tied() -> None:
    weight = torch.randn(4, 4)
    assert ties({"a": weight, "b": torch.ones(1), "c": weight, "d": weight.view(4, 4)}) == {
        "a": "", "b": "", "c": "a", "d": "a",
    }  # fmt: skip


def test_the_first_of_tied_tensors_is_marked_as_shared() -> None:
    weight, copied = torch.ones(3), torch.ones(3)
    source = StateDictSource({"a": weight, "b": copied, "c": weight, "d": weight})
    assert [tensor.shared for tensor in source.tensors()] == [True, False, False, False]


def test_what_only_shares_memory_or_only_has_equal_values_is_not_tied() -> None:
    weight = torch.randn(4, 4)
    others = {
        "copy": weight.clone(),
        "transposed": weight.t(),
        "part": weight[:2],
        "flat": weight.flatten(),
        "bits": weight.view(torch.int32),
        "shifted": weight.flatten()[1:],
    }
    assert set(ties({"a": weight, **others}).values()) == {""}


def test_one_array_under_two_names_is_tied() -> None:
    array = np.ones(3, np.float32)
    assert ties({"a": array, "b": array, "c": array.copy()}) == {"a": "", "b": "a", "c": ""}


def test_empty_tensors_are_never_tied() -> None:
    empty = torch.empty(0, 3)
    assert ties({"a": empty, "b": empty}) == {"a": "", "b": ""}


def test_a_lazy_conjugate_or_negative_is_a_tensor_of_its_own() -> None:
    value = torch.randn(50, dtype=torch.complex64)
    tensors = {
        "value": value,
        "conjugate": value.conj(),
        "imaginary": value.imag,
        "negative": value.conj().imag,
    }
    assert set(ties(tensors).values()) == {""}
    read = {tensor.name: tensor.read().tobytes() for tensor in StateDictSource(tensors).tensors()}
    assert read["conjugate"] == value.numpy().conj().tobytes()
    assert read["negative"] == (-value.numpy().imag).tobytes()


def test_the_same_memory_in_two_byte_orders_is_two_tensors() -> None:
    little = np.arange(8, dtype="<f4")
    big = little.view(">f4")
    assert ties({"little": little, "big": big}) == {"little": "", "big": ""}
    assert bytes_of(big) == big.astype("<f4").tobytes()


def test_numpy_and_torch_can_be_mixed() -> None:
    source = StateDictSource({"a": np.float32([1, 2]), "b": torch.tensor(3, dtype=torch.int8)})
    assert [tensor.spec for tensor in source.tensors()] == [TensorSpec("F32", (2,)), TensorSpec("I8", ())]
    assert source.nbytes == 9


class LooksLikeATensor(torch.Tensor):
    """Has a shape and a type, but no memory, as wrappers around compressed weights have."""

    @staticmethod
    def __new__(cls) -> LooksLikeATensor:
        return torch.Tensor._make_wrapper_subclass(cls, (3,))  # type: ignore[attr-defined, no-any-return]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError


def without_memory() -> torch.Tensor:
    tensor = torch.ones(1000)
    tensor.untyped_storage().resize_(0)
    return tensor


def quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def nested() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: 3, "not a tensor but int"),
        (lambda: {"a": torch.ones(1)}, "not a tensor but dict"),
        (lambda: np.float32(1), "not a tensor but float32"),
        (lambda: None, "not a tensor but NoneType"),
        (lambda: np.array(["x"], object), "object can't be packed"),
        (lambda: np.ones(1, np.complex128), "complex128 can't be packed"),
        (lambda: torch.ones(1, dtype=torch.complex128), "complex128 tensors can't be packed"),
        (lambda: torch.eye(3).to_sparse(), "no dense data"),
        (lambda: torch.ones(3, device="meta"), "no dense data"),
        (without_memory, "no dense data"),
        (LooksLikeATensor, "no dense data"),
        (nested, "no dense data"),
        (quantized, "qint8 tensors can't be packed"),
    ],
)  # fmt: skip
def test_what_can_not_be_packed_is_refused_by_name(make: Any, problem: str) -> None:
    with pytest.raises(SourceError, match=problem) as raised:
        StateDictSource({"fine": torch.ones(1), "the.culprit": make()})
    assert "'the.culprit'" in str(raised.value)


def test_names_are_strings() -> None:
    with pytest.raises(SourceError, match="not by 1"):
        StateDictSource({1: torch.ones(1)})  # type: ignore[dict-item]


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, {"a": None}, {"a": b"x"}])
def test_metadata_maps_strings_to_strings(metadata: Any) -> None:
    with pytest.raises(SourceError, match="metadata maps strings to strings"):
        StateDictSource({}, metadata)
