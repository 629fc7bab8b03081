"""Source for tensors in memory: torch or NumPy, by name."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cmpk.dtypes import DTYPES, TensorSpec, from_torch
from cmpk.errors import SourceError
from cmpk.importers.base import ModelSource, SourceTensor
from cmpk.kernels.interface import U8

if TYPE_CHECKING:
    import torch

__all__ = ["StateDictSource", "checked_metadata", "tensor_bytes"]

_BY_NUMPY_NAME = {dtype.numpy_name: dtype for dtype in DTYPES.values() if dtype.numpy_name}


class StateDictSource(ModelSource):
    """Tensors in memory. Those that are one tensor under several names stay tied.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor or numpy.ndarray
        In the order in which they are to be stored.
    metadata : mapping of str to str
        The user's own.

    Raises
    ------
    SourceError
        If something in it can't be packed.
    """

    def __init__(self, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
        self.notes = []
        self.metadata = checked_metadata(metadata or {})
        self._items = [(name, value, _spec(name, value)) for name, value in tensors.items()]
        self.nbytes = sum(spec.nbytes for _, _, spec in self._items)

    def tensors(self) -> Iterator[SourceTensor]:
        """See `ModelSource.tensors`."""
        first_of: dict[object, str] = {}
        # Tensors without bytes have no place in memory that could be one and the same.
        identities = [_identity(value, spec) if spec.nbytes else name for name, value, spec in self._items]
        uses = Counter(identities)
        for identity, (name, value, spec) in zip(identities, self._items, strict=True):
            tied_to = first_of.setdefault(identity, name)
            read = functools.partial(tensor_bytes, value)
            if tied_to == name:
                yield SourceTensor(name, spec, read, shared=uses[identity] > 1)
            else:
                yield SourceTensor(name, spec, read, tied_to)


def checked_metadata(metadata: Mapping[Any, Any]) -> dict[str, str]:
    """The metadata, if it maps strings to strings.

    Raises
    ------
    SourceError
        If it does not.
    """
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise SourceError(f"metadata maps strings to strings; {key!r} maps to {type(value).__name__}")
        try:
            (key + value).encode()
        except UnicodeEncodeError as error:
            raise SourceError(f"the metadata {key!r} is not text that can be stored: {error}") from None
    return dict(metadata)


def tensor_bytes(value: torch.Tensor | np.ndarray[Any, Any]) -> U8:
    """The bytes of a tensor, uint8, shape (nbytes,); a view where it is contiguous and on the CPU."""
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        return np.ascontiguousarray(little).reshape(-1).view(np.uint8)
    import torch

    row_major = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    # With at most one element any stride counts as contiguous, but only stride 1 can be viewed as bytes.
    flat = row_major.as_strided((value.numel(),), (1,))
    return np.asarray(flat.view(torch.uint8).numpy())


def _spec(name: object, value: Any) -> TensorSpec:
    if not isinstance(name, str):
        raise SourceError(f"tensors are named by strings, not by {name!r}")
    if isinstance(value, np.ndarray):
        dtype = _BY_NUMPY_NAME.get(value.dtype.name)
        if dtype is None:
            raise SourceError(f"tensor {name!r}: NumPy type {value.dtype} can't be packed")
        return TensorSpec(dtype.name, value.shape)
    import torch

    if not isinstance(value, torch.Tensor):
        raise SourceError(f"{name!r} is not a tensor but {type(value).__name__}; leave it out")
    if not _has_dense_data(value):
        raise SourceError(f"tensor {name!r} has no dense data; make it dense before packing")
    try:
        return TensorSpec(from_torch(value.dtype).name, tuple(value.shape))
    except SourceError as error:
        raise SourceError(f"tensor {name!r}: {error}") from None


def _has_dense_data(value: torch.Tensor) -> bool:
    import torch

    if value.layout != torch.strided or value.is_nested or value.device.type == "meta":
        return False
    try:
        return value.numel() == 0 or value.data_ptr() != 0
    except RuntimeError:  # a subclass that only looks like a tensor
        return False


def _identity(value: Any, spec: TensorSpec) -> object:
    """Equal for two values if and only if they are one tensor in memory."""
    if isinstance(value, np.ndarray):
        return (value.ctypes.data, value.dtype.str, value.strides, spec)
    # A conjugate that has not been computed yet has the memory of the tensor that it was taken of.
    return (str(value.device), value.data_ptr(), value.stride(), value.is_conj(), value.is_neg(), spec)
