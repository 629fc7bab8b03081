"""A rank's share of an archive's tensors, as DTensors over a device mesh."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from cmpk.archive import Archive
from cmpk.errors import SourceError
from cmpk.indexing import default_threads
from cmpk.load import load_parts, load_tensors

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Placement

__all__ = ["Placements", "load_sharded", "shard_index"]

Placements: TypeAlias = "Mapping[str, Sequence[Placement]] | Callable[[str], Sequence[Placement] | None]"


def load_sharded(
    path: str | os.PathLike[str], mesh: DeviceMesh, placements: Placements, *, jobs: int | None = None
) -> dict[str, DTensor]:
    """Load this rank's shards of the tensors of a ``.cmpk`` file; no rank talks to another.

    A rank decodes only the rows that it keeps. Of a tensor that is sharded by another dimension than its
    first it decodes whole rows, one such tensor at a time, and keeps its columns.

    Parameters
    ----------
    path : path
    mesh : DeviceMesh
        Tensors go onto its type of device: this rank's current one.
    placements : mapping of str to sequence of Placement, or function of a name
        ``Shard(dim)`` or ``Replicate()`` for each dimension of the mesh. Tensors that a mapping leaves out,
        or for which the function gives None, are replicated.
    jobs : int, optional
        Threads; all cores by default.

    Returns
    -------
    dict of str to DTensor
        In file order. Shards are those that ``distribute_tensor`` makes: of equal size, but for the last
        ones, which may be smaller or empty. Tensors that were tied when saved are tied again where their
        placements are the same.

    Raises
    ------
    SourceError
        If placements do not fit the mesh or the tensor, or are of another kind, or if this rank is not of
        the mesh.
    SourceError, FormatError, UnknownIdError, DeviceError
        As from `cmpk.torch.load_file`.
    """
    from torch.distributed.tensor import DTensor, Replicate

    threads = jobs or default_threads()
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise SourceError(f"this rank is not of the mesh {mesh}")
    with Archive(path) as archive:
        given = _placements_of(archive, placements, (Replicate(),) * mesh.ndim)
        holders = {
            name: archive.target_of(name)
            if archive.is_tied(name) and given[archive.target_of(name)] == given[name]
            else name
            for name in archive
        }
        wanted = {
            name: shard_index(name, archive.spec(name).shape, mesh.shape, coordinate, given[name])
            for name in dict.fromkeys(holders.values())
        }
        local = _load(archive, wanted, _device_of(mesh), threads)
        tensors = {
            name: DTensor.from_local(
                part,
                mesh,
                given[name],
                run_check=False,
                shape=torch.Size(archive.spec(name).shape),
                stride=_strides(archive.spec(name).shape),
            )
            for name, part in local.items()
        }
    return {name: tensors[holder] for name, holder in holders.items()}


def shard_index(
    name: str,
    shape: tuple[int, ...],
    mesh_shape: Sequence[int],
    coordinate: Sequence[int],
    placements: Sequence[Any],
) -> tuple[slice, ...]:
    """Which part of a tensor a rank has.

    Parameters
    ----------
    name : str
        The tensor, for messages.
    shape : tuple of int
    mesh_shape, coordinate : sequence of int
        Sizes of the mesh, and the rank's place in it.
    placements : sequence of Placement
        One for each dimension of the mesh.

    Raises
    ------
    SourceError
        If the placements do not fit.
    """
    from torch.distributed.tensor import Replicate, Shard

    if len(placements) != len(mesh_shape):
        raise SourceError(f"tensor {name!r}: {len(placements)} placements for a mesh of {len(mesh_shape)}")
    index = [slice(0, size) for size in shape]
    for n_ranks, rank, placement in zip(mesh_shape, coordinate, placements, strict=True):
        if type(placement) is Replicate:
            continue
        if type(placement) is not Shard:
            raise SourceError(f"tensor {name!r}: {placement} is neither Shard nor Replicate")
        if not 0 <= placement.dim < len(shape):
            raise SourceError(f"tensor {name!r}: the shape {list(shape)} has no dimension {placement.dim}")
        # As torch.chunk cuts what the mesh's earlier dimensions have left.
        whole = index[placement.dim]
        size = -(-(whole.stop - whole.start) // n_ranks)
        start = min(whole.start + rank * size, whole.stop)
        index[placement.dim] = slice(start, min(start + size, whole.stop))
    return tuple(index)


def _placements_of(
    archive: Archive, placements: Placements, replicated: Sequence[Placement]
) -> dict[str, Sequence[Placement]]:
    """Placements of every tensor.

    Raises
    ------
    SourceError
        If a mapping names a tensor that the archive has not.
    """
    if isinstance(placements, Mapping):
        unknown = [name for name in placements if name not in archive]
        if unknown:
            raise SourceError(f"the archive has no tensors {unknown}; `cmpk inspect` lists its tensors")
        given: Iterable[Sequence[Placement] | None] = (placements.get(name) for name in archive)
    else:
        given = (placements(name) for name in archive)
    return {
        name: replicated if found is None else _positive(found, len(archive.spec(name).shape))
        for name, found in zip(archive, given, strict=True)
    }


def _positive(placements: Sequence[Placement], rank: int) -> tuple[Placement, ...]:
    """With dimensions counted from the first one."""
    from torch.distributed.tensor import Shard

    return tuple(
        Shard(found.dim + rank) if type(found) is Shard and -rank <= found.dim < 0 else found
        for found in placements
    )


def _load(
    archive: Archive, wanted: Mapping[str, tuple[slice, ...]], device: torch.device, threads: int
) -> dict[str, torch.Tensor]:
    """The parts, in the order in which they are wanted."""
    whole, rows, columns = [], {}, []
    for name, index in wanted.items():
        cut = [part != slice(0, size) for part, size in zip(index, archive.spec(name).shape, strict=True)]
        if any(cut[1:]):
            columns.append(name)
        elif any(cut):
            rows[name] = index
        else:
            whole.append(name)
    found = load_tensors(archive, whole, device, threads) if whole else {}
    found |= load_parts(archive, rows, device, threads) if rows else {}
    for name in columns:
        found |= load_parts(archive, {name: wanted[name]}, device, threads)
    return {name: found[name] for name in wanted}


def _device_of(mesh: DeviceMesh) -> torch.device:
    if mesh.device_type == "cuda" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(mesh.device_type)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Those of a contiguous tensor."""
    return torch.empty(shape, device="meta").stride()
