"""The front door for NumPy, close to ``safetensors.numpy``. Does not import torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cmpk.archive import Archive
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.errors import CmpkError, SourceError
from cmpk.indexing import default_threads, row_range
from cmpk.kernels.interface import U8

if TYPE_CHECKING:
    from cmpk.recipe import Recipe

__all__ = ["load", "load_file", "read_array", "save", "save_file"]

PathLike = str | os.PathLike[str]
Array = np.ndarray[Any, Any]


def save_file(
    tensors: Mapping[str, Array],
    path: PathLike,
    metadata: Mapping[str, str] | None = None,
    recipe: str | os.PathLike[str] | Recipe = "lossless",
    *,
    jobs: int | None = None,
) -> None:
    """Save arrays to a ``.cmpk`` file; as `cmpk.torch.save_file`."""
    from cmpk.packing import pack

    pack(tensors, path, recipe=recipe, jobs=jobs, metadata=metadata, force=True)


def save(
    tensors: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
    recipe: str | os.PathLike[str] | Recipe = "lossless",
    *,
    jobs: int | None = None,
) -> bytes:
    """The bytes of the file that `save_file` would write."""
    from cmpk.format import MemorySink
    from cmpk.packing import pack

    sink = MemorySink()
    pack(tensors, sink, recipe=recipe, jobs=jobs, metadata=metadata)
    return sink.getvalue()


def load_file(path: PathLike, *, jobs: int | None = None) -> dict[str, Array]:
    """Load every tensor of a ``.cmpk`` file.

    Parameters
    ----------
    path : path
    jobs : int, optional
        Threads; all cores by default.

    Returns
    -------
    dict of str to numpy.ndarray
        In file order. Tensors that were tied when saved are one array.

    Raises
    ------
    SourceError
        If the file can't be opened, or NumPy has no type for a tensor (BF16 and the 8-bit floats:
        take `cmpk.torch.load_file`).
    FormatError
        If it is damaged.
    UnknownIdError
        If it needs a plugin that is not installed.
    """
    with Archive(path) as archive:
        return _load_all(archive, jobs or default_threads())


def load(data: bytes) -> dict[str, Array]:
    """Load every tensor from the bytes of a ``.cmpk`` file; see `load_file`."""
    with Archive(data) as archive:
        return _load_all(archive, default_threads())


def read_array(archive: Archive, name: str, index: tuple[Any, ...], threads: int) -> Array:
    """Part of a tensor; decodes only the rows that the index touches.

    Parameters
    ----------
    archive : Archive
    name : str
    index : tuple of int, slice and ``...``
    threads : int
    """
    spec = archive.spec(name)
    dtype = _numpy_dtype(name, spec.dtype)
    first, last, index = row_range(spec.shape, index)
    row_elements = spec.numel // spec.shape[0] if spec.shape and spec.shape[0] else spec.numel
    data = archive.read_range(name, first * row_elements, last * row_elements, threads)
    with _held(name, spec):
        rows = data.view(dtype).reshape((last - first, *spec.shape[1:]) if spec.shape else ())
    part = rows[index]
    return np.array(part) if part.size < rows.size else np.asarray(part)


def _load_all(archive: Archive, threads: int) -> dict[str, Array]:
    outs: dict[str, U8] = {}
    arrays: dict[str, Array] = {}
    for name in archive.keys():  # noqa: SIM118  # an Archive is no dict
        spec = archive.spec(name)
        if archive.is_tied(name):
            arrays[name] = arrays[archive.target_of(name)]
            continue
        dtype = _numpy_dtype(name, spec.dtype)
        with _held(name, spec):
            arrays[name] = np.empty(spec.shape, dtype)
        outs[name] = arrays[name].reshape(-1).view(np.uint8)
    archive.read_into(outs, threads)
    return arrays


@contextlib.contextmanager
def _held(name: str, spec: TensorSpec) -> Iterator[None]:
    """Make an error of cmpk's of an array that NumPy can't hold."""
    try:
        yield
    except (MemoryError, ValueError) as error:
        raise CmpkError(
            f"tensor {name!r}: NumPy can't hold {list(spec.shape)} {spec.dtype}: {error}"
        ) from error


def _numpy_dtype(name: str, dtype: str) -> np.dtype[Any]:
    if not DTYPES[dtype].numpy_name:
        raise SourceError(f"tensor {name!r}: NumPy has no type for {dtype}; load it with cmpk.torch")
    return np.dtype(DTYPES[dtype].numpy_name).newbyteorder("<")
