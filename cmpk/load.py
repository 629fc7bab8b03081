"""File → tensors on a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from cmpk.archive import Archive
from cmpk.device import kernels_of, on_device
from cmpk.dtypes import TensorSpec, to_torch
from cmpk.errors import CmpkError, DeviceError
from cmpk.indexing import Index, row_range

__all__ = ["checked_device", "load_parts", "load_tensor", "load_tensors", "to_device"]


def load_tensors(
    archive: Archive, names: Iterable[str], device: str | torch.device, threads: int
) -> dict[str, torch.Tensor]:
    """Decode whole tensors and put them on a device.

    Parameters
    ----------
    archive : Archive
    names : iterable of str
    device : str or torch.device
    threads : int

    Returns
    -------
    dict of str to torch.Tensor
        Names that are tied in the file share one tensor.

    Raises
    ------
    CmpkError
        CorruptStreamError for damage, DeviceError for the device, SourceError for an unknown name.
    """
    target = checked_device(device)
    tied: dict[str, str] = {}
    names = list(names)
    for name in names:
        if archive.is_tied(name):
            tied[name] = archive.target_of(name)
    holders = dict.fromkeys(tied.get(name, name) for name in names)
    decodes_there = kernels_of(target) is not None
    place = target if decodes_there else torch.device("cpu")
    tensors = {name: _empty(name, archive.spec(name), place) for name in holders}
    outs = {name: tensor.view(-1).view(torch.uint8) for name, tensor in tensors.items()}
    if decodes_there:
        from cmpk.device.loader import decode_onto

        with on_device(target):
            decode_onto(archive, outs, threads)
    else:
        archive.read_into({name: out.numpy() for name, out in outs.items()}, threads)
        tensors = {name: to_device(tensor, target) for name, tensor in tensors.items()}
    return {name: tensors[tied.get(name, name)] for name in names}


def load_tensor(
    archive: Archive, name: str, index: tuple[Index, ...], device: str | torch.device, threads: int
) -> torch.Tensor:
    """Part of a tensor on a device; see `load_parts`."""
    return load_parts(archive, {name: index}, device, threads)[name]


def load_parts(
    archive: Archive,
    indices: Mapping[str, tuple[Index, ...]],
    device: str | torch.device,
    threads: int,
) -> dict[str, torch.Tensor]:
    """Parts of tensors on a device; decodes only the rows that the indices touch.

    Parameters
    ----------
    archive : Archive
    indices : mapping of str to tuple of int, slice and ``...``
        For each tensor, as for indexing a torch tensor.
    device : str or torch.device
    threads : int

    Raises
    ------
    CmpkError
        As from `load_tensors`; SourceError also for an index that does not fit.
    """
    target = checked_device(device)
    rows = {name: row_range(archive.spec(name).shape, index) for name, index in indices.items()}
    ranges = {name: _elements(archive.spec(name), first, last) for name, (first, last, _) in rows.items()}
    decoded: dict[str, torch.Tensor] = {}
    if kernels_of(target) is not None:
        from cmpk.device.loader import decode_rows

        there = {name: (start, stop) for name, (start, stop) in ranges.items() if start < stop}
        with on_device(target):
            decoded = decode_rows(archive, there, target, threads)
    found = {}
    for name, (first, last, index) in rows.items():
        spec = archive.spec(name)
        data = decoded.pop(name, None)
        if data is None:
            data = torch.from_numpy(archive.read_range(name, *ranges[name], threads))
        shape = (last - first, *spec.shape[1:]) if spec.shape else ()
        if len(data):
            whole = data.view(to_torch(spec.dtype)).view(shape)
        else:  # an empty array has no strides that torch could view as another type
            whole = _empty(name, TensorSpec(spec.dtype, shape), torch.device("cpu"))
        # A clone where indexing leaves a part, so that the rest is not kept alive by it.
        part = whole[index]
        found[name] = to_device(part.clone() if part.numel() < whole.numel() else part, target)
    return found


def _elements(spec: TensorSpec, first: int, last: int) -> tuple[int, int]:
    """The elements of rows ``first .. last - 1``."""
    row_elements = spec.numel // spec.shape[0] if spec.shape and spec.shape[0] else spec.numel
    return first * row_elements, last * row_elements


def checked_device(device: str | torch.device) -> torch.device:
    """The device, if this machine has it.

    Raises
    ------
    DeviceError
        If it is malformed or missing.
    """
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"{device!r} is not a device; name one like 'cpu' or 'cuda:0'") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"{str(device)!r}: torch finds no CUDA device here; load onto 'cpu', or check torch.version.cuda"
        )
    if target == torch.device("cuda"):  # whichever is the current one, which may be another one later
        return torch.device("cuda", torch.cuda.current_device())
    return target


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to a device.

    Raises
    ------
    DeviceError
        If the device fails, for want of memory perhaps.
    """
    if device.type == "cpu":
        return tensor
    try:
        return tensor.to(device)
    except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:
        raise DeviceError(f"can't put a tensor of {tensor.nbytes} bytes on {device}: {error}") from error


def _empty(name: str, spec: TensorSpec, device: torch.device) -> torch.Tensor:
    dtype = to_torch(spec.dtype)
    try:
        return torch.empty(spec.shape, dtype=dtype, device=device)
    except RuntimeError as error:
        if device.type != "cpu":
            raise DeviceError(f"tensor {name!r}: {device} can't hold {spec.nbytes} bytes: {error}") from error
        raise CmpkError(
            f"tensor {name!r}: torch can't hold {list(spec.shape)} {spec.dtype}: {error}"
        ) from error
