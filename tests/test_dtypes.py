"""Element types: those of the installed safetensors, with torch's and NumPy's names for them."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch

from cmpk.dtypes import DTYPES, TensorSpec, dtype_of, from_torch, to_torch
from cmpk.errors import FormatError, SourceError


def test_every_type_of_safetensors_is_there() -> None:
    assert set(safetensors.torch._TYPES) <= set(DTYPES)
    assert len(DTYPES) == 22


@pytest.mark.parametrize("name", DTYPES)
def test_sizes_and_fields_agree_with_torch_and_numpy(name: str) -> None:
    dtype = dtype_of(name)
    assert dtype.name == name
    if dtype.is_float:
        assert dtype.signed_float + dtype.exponent_nbits + dtype.mantissa_nbits == dtype.nbits
    if dtype.numpy_name:
        assert np.dtype(dtype.numpy_name).itemsize * 8 == dtype.nbits
    if not dtype.torch_name:
        with pytest.raises(SourceError, match=f"no type for {name}"):
            to_torch(name)
        return
    torch_type = to_torch(name)
    assert torch_type.itemsize * 8 == dtype.nbits
    assert from_torch(torch_type) is dtype
    if name in safetensors.torch._TYPES:
        assert safetensors.torch._TYPES[name] is torch_type
    if dtype.is_float and dtype.signed_float and dtype.nbits < 64:
        fits, finer = (1 + 2.0**-nbits for nbits in (dtype.mantissa_nbits, dtype.mantissa_nbits + 1))
        numbers = torch.tensor([fits, finer], dtype=torch.float64)
        assert (numbers.to(torch_type).double() == numbers).tolist() == [True, False]


@pytest.mark.parametrize("name", ["", "f32", "F128", "U8 ", "é"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="unknown dtype"):
        dtype_of(name)
    with pytest.raises(FormatError, match="unknown dtype"):
        to_torch(name)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex32, torch.qint8])
def test_types_that_a_file_has_not_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(SourceError, match="can't be packed; cast them to one of BOOL, U8"):
        from_torch(dtype)


def test_a_spec_knows_its_size() -> None:
    assert TensorSpec("F32", ()).nbytes == 4
    assert TensorSpec("F32", (3, 0)).nbytes == 0
    assert TensorSpec("F4", (3, 2)).nbytes == 3
    assert TensorSpec("F6_E2M3", (4,)).nbytes == 3
    assert TensorSpec("C64", (2, 3)).numel == 6
