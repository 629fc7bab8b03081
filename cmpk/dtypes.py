"""Element types of tensors, as safetensors names them (spec/container.md, section 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from cmpk.errors import FormatError, SourceError

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "DType", "TensorSpec", "dtype_of", "from_torch", "to_torch"]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type.

    Attributes
    ----------
    name : str
        As in a safetensors header.
    nbits : int
        Bits an element takes.
    exponent_nbits, mantissa_nbits : int
        Both 0 for types that are not floating point.
    signed_float : bool
        Whether a floating-point type has a sign bit.
    torch_name : str
        Attribute of the torch module; empty where torch has no such type.
    numpy_name : str
        NumPy type with the same values; empty where NumPy has none.
    """

    name: str
    nbits: int
    exponent_nbits: int = 0
    mantissa_nbits: int = 0
    signed_float: bool = False
    torch_name: str = ""
    numpy_name: str = ""

    @property
    def is_float(self) -> bool:
        """Whether elements have an exponent."""
        return self.exponent_nbits > 0

    @property
    def nbytes(self) -> int:
        """Bytes an element takes; 0 where that is not a whole number."""
        return self.nbits // 8 if self.nbits % 8 == 0 else 0


DTYPES: Final[dict[str, DType]] = {
    dtype.name: dtype
    for dtype in (
        DType("BOOL", 8, torch_name="bool", numpy_name="bool"),
        DType("U8", 8, torch_name="uint8", numpy_name="uint8"),
        DType("I8", 8, torch_name="int8", numpy_name="int8"),
        DType("U16", 16, torch_name="uint16", numpy_name="uint16"),
        DType("I16", 16, torch_name="int16", numpy_name="int16"),
        DType("U32", 32, torch_name="uint32", numpy_name="uint32"),
        DType("I32", 32, torch_name="int32", numpy_name="int32"),
        DType("U64", 64, torch_name="uint64", numpy_name="uint64"),
        DType("I64", 64, torch_name="int64", numpy_name="int64"),
        DType("F4", 4, 2, 1, True),
        DType("F6_E2M3", 6, 2, 3, True),
        DType("F6_E3M2", 6, 3, 2, True),
        DType("F8_E4M3", 8, 4, 3, True, torch_name="float8_e4m3fn"),
        DType("F8_E5M2", 8, 5, 2, True, torch_name="float8_e5m2"),
        DType("F8_E4M3FNUZ", 8, 4, 3, True, torch_name="float8_e4m3fnuz"),
        DType("F8_E5M2FNUZ", 8, 5, 2, True, torch_name="float8_e5m2fnuz"),
        DType("F8_E8M0", 8, 8, 0, False, torch_name="float8_e8m0fnu"),
        DType("F16", 16, 5, 10, True, torch_name="float16", numpy_name="float16"),
        DType("BF16", 16, 8, 7, True, torch_name="bfloat16"),
        DType("F32", 32, 8, 23, True, torch_name="float32", numpy_name="float32"),
        DType("F64", 64, 11, 52, True, torch_name="float64", numpy_name="float64"),
        DType("C64", 64, torch_name="complex64", numpy_name="complex64"),
    )
}

_BY_TORCH_NAME: Final = {d.torch_name: d for d in DTYPES.values() if d.torch_name}


def dtype_of(name: str) -> DType:
    """Look an element type up by its name in a file.

    Raises
    ------
    FormatError
        If the format has no such type.
    """
    try:
        return DTYPES[name]
    except KeyError:
        raise FormatError(f"unknown dtype {name!r}; the format has {', '.join(DTYPES)}") from None


class TensorSpec(NamedTuple):
    """What a tensor is, without its values.

    Attributes
    ----------
    dtype : str
        A key of `DTYPES`.
    shape : tuple of int
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes of the elements."""
        return math.prod(self.shape) * DTYPES[self.dtype].nbits // 8


def to_torch(name: str) -> torch.dtype:
    """The torch type of a dtype name.

    Raises
    ------
    SourceError
        If torch has no such type; the tensor can still be unpacked byte for byte.
    """
    import torch

    found = getattr(torch, dtype_of(name).torch_name or "-", None)
    if not isinstance(found, torch.dtype):
        raise SourceError(
            f"torch {torch.__version__} has no type for {name}; "
            "`cmpk unpack` restores such tensors byte for byte"
        )
    return found


def from_torch(dtype: torch.dtype) -> DType:
    """The element type of a torch tensor.

    Raises
    ------
    SourceError
        If a ``.cmpk`` file can't hold it.
    """
    try:
        return _BY_TORCH_NAME[str(dtype).removeprefix("torch.")]
    except KeyError:
        raise SourceError(
            f"{dtype} tensors can't be packed; cast them to one of {', '.join(DTYPES)}"
        ) from None
