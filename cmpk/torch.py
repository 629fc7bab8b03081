"""The front door for torch, close to ``safetensors.torch``: change one import.

    from cmpk.torch import load_file, save_file

Decoding is bit-exact for lossless recipes, and every stream is checked against its digest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import torch

from cmpk.archive import Archive
from cmpk.dtypes import to_torch
from cmpk.errors import SourceError
from cmpk.indexing import default_threads
from cmpk.load import load_tensor, load_tensors
from cmpk.shards import load_sharded

if TYPE_CHECKING:
    from cmpk.recipe import Recipe

__all__ = [
    "TensorSlice",
    "load",
    "load_file",
    "load_model",
    "load_sharded",
    "safe_open",
    "save",
    "save_file",
    "save_model",
]

PathLike = str | os.PathLike[str]


def save_file(
    tensors: Mapping[str, torch.Tensor],
    path: PathLike,
    metadata: Mapping[str, str] | None = None,
    recipe: str | os.PathLike[str] | Recipe = "lossless",
    *,
    jobs: int | None = None,
) -> None:
    """Save tensors to a ``.cmpk`` file; an existing one is replaced, all at once.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor
        On any device, of any strides. Those that share their memory stay tied.
    path : path
    metadata : mapping of str to str, optional
    recipe : str, path or Recipe
        ``lossless``, ``lossless-max`` or a TOML file.
    jobs : int, optional
        Threads; all cores by default.

    Raises
    ------
    SourceError, RecipeError, DestinationError
    """
    from cmpk.packing import pack

    pack(tensors, path, recipe=recipe, jobs=jobs, metadata=metadata, force=True)


def save(
    tensors: Mapping[str, torch.Tensor],
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


def load_file(
    path: PathLike, device: str | torch.device | int = "cpu", *, jobs: int | None = None
) -> dict[str, torch.Tensor]:
    """Load every tensor of a ``.cmpk`` file.

    Parameters
    ----------
    path : path
    device : str, torch.device or int
        Where the tensors go; an int is the index of a CUDA device.
    jobs : int, optional
        Threads; all cores by default.

    Returns
    -------
    dict of str to torch.Tensor
        In file order. Tensors that were tied when saved are tied again.

    Raises
    ------
    SourceError
        If the file can't be opened.
    FormatError
        If it is damaged; CorruptStreamError where the damage is in a stream.
    UnknownIdError
        If it needs a plugin that is not installed; the message names the package.
    DeviceError
        If the device is missing or fails.
    """
    with Archive(path) as archive:
        return load_tensors(archive, archive.keys(), _device(device), jobs or default_threads())


def load(data: bytes) -> dict[str, torch.Tensor]:
    """Load every tensor from the bytes of a ``.cmpk`` file, onto the CPU; see `load_file`."""
    with Archive(data) as archive:
        return load_tensors(archive, archive.keys(), "cpu", default_threads())


def save_model(
    model: torch.nn.Module,
    path: PathLike,
    metadata: Mapping[str, str] | None = None,
    recipe: str | os.PathLike[str] | Recipe = "lossless",
) -> None:
    """Save a module's state dict; parameters that are tied are stored once and stay tied."""
    save_file(model.state_dict(), path, metadata, recipe)


@overload
def load_model(
    model: torch.nn.Module,
    path: PathLike,
    strict: bool = ...,
    device: str | torch.device | int = ...,
    *,
    resident: str = ...,
    activations: str = ...,
    dense_nbytes: int = ...,
    jobs: int | None = ...,
) -> tuple[list[str], list[str]]: ...


@overload
def load_model(
    model: Callable[[], torch.nn.Module],
    path: PathLike,
    strict: bool = ...,
    device: str | torch.device | int = ...,
    *,
    resident: str = ...,
    activations: str = ...,
    dense_nbytes: int = ...,
    jobs: int | None = ...,
) -> torch.nn.Module: ...


def load_model(
    model: torch.nn.Module | Callable[[], torch.nn.Module],
    path: PathLike,
    strict: bool = True,
    device: str | torch.device | int = "cpu",
    *,
    resident: str = "dense",
    activations: str = "float",
    dense_nbytes: int = 0,
    jobs: int | None = None,
) -> torch.nn.Module | tuple[list[str], list[str]]:
    """Load a file into a module, or make one for it.

    Parameters
    ----------
    model : torch.nn.Module or function without arguments
        A module, whose parameters and buffers are overwritten. Or a factory of one: its parameters get no
        memory until the file's tensors take their places, as they are, of the file's dtypes; so there is
        never a second copy of the weights.
    path : path
    strict : bool
        Raise where names are missing or left over. What a factory's parameters are called must be in the
        file anyway.
    device : str, torch.device or int
        Where a factory's model goes. Where the file is decoded to before the values are copied into a
        module.
    resident : str
        ``dense``: tensors like any other. ``packed``: the weights of linear layers, convolutions and
        embeddings stay entropy coded in memory, and are decoded for each forward. ``quantized``: those that
        the file has as codes and scales stay so. Either way a forward gives the same bits as that of the
        dense model. On a CUDA device with Triton, weights are stored and decoded there; those that no
        kernel decodes, and all on other devices but the CPU, are decoded on the CPU and copied. The tensors
        of a module that is given are replaced, not overwritten. See `cmpk.nn`.
    activations : str
        With ``quantized``, ``int8`` has linear layers round each token to 8 bits as well and multiply
        integers, which is faster and not bit-identical; see `cmpk.nn.IntegerLinear`. ``int8-minmax``,
        ``int8-percentile`` and ``int8-mse`` round within the ranges that calibration saw instead, which
        the file has if it was packed with a calibration; layers without one do as with ``int8``.
    dense_nbytes : int
        Bytes of weights that are kept dense all the same: the smallest ones, which take the most calls.
        Small batches, for which decoding takes longer than the layers do, run faster by as much of the
        model as fits.
    jobs : int, optional
        Threads for loading; all cores by default.

    Returns
    -------
    missing, unexpected : list of str
        Names that only the module has, and that only the file has; for a factory the model instead.

    Raises
    ------
    SourceError
        If ``strict`` and names differ, or if a shape differs. The module is then unchanged.
    FormatError, UnknownIdError, DeviceError
        As from `load_file`.
    """
    threads = jobs or default_threads()
    if isinstance(model, torch.nn.Module) and (resident, activations) == ("dense", "float"):
        return _overwrite(model, path, strict, device, threads)
    from cmpk.nn import load

    loaded = load(
        model,
        path,
        strict=strict,
        device=_device(device),
        resident=resident,
        activations=activations,
        dense_nbytes=dense_nbytes,
        threads=threads,
    )
    if isinstance(model, torch.nn.Module):
        return loaded.missing, loaded.unexpected
    return loaded.model


def _overwrite(
    model: torch.nn.Module, path: PathLike, strict: bool, device: str | torch.device | int, threads: int
) -> tuple[list[str], list[str]]:
    state = load_file(path, device, jobs=threads)
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    if strict and (missing or unexpected):
        raise SourceError(f"{str(path)!r} does not fit the model: missing {missing}, unexpected {unexpected}")
    for name, value in own.items():
        if name in state and value.shape != state[name].shape:
            raise SourceError(
                f"tensor {name!r} is {list(state[name].shape)}, the model's is {list(value.shape)}"
            )
    model.load_state_dict(state, strict=False)
    return missing, unexpected


class safe_open:  # noqa: N801  # the name that safetensors users know
    """A file opened for reading tensors one at a time, or in part.

    Parameters
    ----------
    path : path
    framework : str
        ``pt`` for torch tensors, ``np`` for NumPy arrays.
    device : str, torch.device or int
        Where tensors go; ``cpu`` for ``np``.

    Raises
    ------
    SourceError, FormatError
    """

    def __init__(
        self, path: PathLike, framework: str = "pt", device: str | torch.device | int = "cpu"
    ) -> None:
        if framework not in ("pt", "torch", "pytorch", "np", "numpy"):
            raise SourceError(f"the framework is {framework!r}; give 'pt' or 'np'")
        self._as_numpy = framework.startswith("n")
        self._device = _device(device)
        self._archive = Archive(path)

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    def keys(self) -> list[str]:
        """Names of the tensors, ascending."""
        return sorted(self._archive.keys())

    def offset_keys(self) -> list[str]:
        """Names of the tensors, in file order."""
        return self._archive.keys()

    def metadata(self) -> dict[str, str] | None:
        """The user's metadata; None where there is none."""
        return dict(self._archive.metadata) or None

    def get_tensor(self, name: str) -> Any:
        """A whole tensor."""
        if self._as_numpy:
            from cmpk.numpy import read_array

            return read_array(self._archive, name, (), default_threads())
        return load_tensors(self._archive, [name], self._device, default_threads())[name]

    def get_slice(self, name: str) -> TensorSlice:
        """A tensor to take parts of; nothing is decoded yet."""
        self._archive.entry(name)
        return TensorSlice(self._archive, name, self._device, as_numpy=self._as_numpy)


class TensorSlice:
    """A stored tensor to take parts of by indexing; only the rows that are touched are decoded."""

    def __init__(self, archive: Archive, name: str, device: str | torch.device, *, as_numpy: bool) -> None:
        self._archive = archive
        self._name = name
        self._device = device
        self._as_numpy = as_numpy

    def get_shape(self) -> list[int]:
        """Shape of the whole tensor."""
        return list(self._archive.spec(self._name).shape)

    def get_dtype(self) -> str:
        """Name of the dtype, as in safetensors."""
        return self._archive.spec(self._name).dtype

    def __getitem__(self, index: Any) -> Any:
        """The part, as indexing the whole tensor by integers, slices and ``...`` would give it."""
        index = index if isinstance(index, tuple) else (index,)
        if self._as_numpy:
            from cmpk.numpy import read_array

            return read_array(self._archive, self._name, index, default_threads())
        to_torch(self.get_dtype())
        return load_tensor(self._archive, self._name, index, self._device, default_threads())


def _device(device: str | torch.device | int) -> str | torch.device:
    return f"cuda:{device}" if isinstance(device, int) else device
