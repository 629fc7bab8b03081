"""Importer torch: checkpoints of ``torch.save``, read with ``weights_only=True`` and nothing else."""

from __future__ import annotations

import dataclasses
import functools
import io
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np

from cmpk.errors import SourceError
from cmpk.format.manifest import Segment
from cmpk.importers.base import Importer, ModelSource, SourceFile, SourceTensor
from cmpk.importers.files import file_digest, open_unbuffered, read_exactly
from cmpk.importers.state_dict import StateDictSource
from cmpk.kernels.interface import U8

if TYPE_CHECKING:
    import torch

__all__ = ["TorchCheckpointImporter", "TorchCheckpointSource"]

_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "module")
"""Where training scripts keep the weights beside an optimizer's state."""

_ZIP_HEADER_NBYTES: Final = 30

_ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What zipfile raises on files that torch's own reader has taken."""

_MAX_VALUES: Final = 1 << 22
"""A container may hold another one twice, that one a third twice: names double with every level."""


class TorchCheckpointImporter(Importer):
    """A ``.pt``, ``.pth``, ``.bin`` or ``.ckpt`` file."""

    id: ClassVar[str] = "torch"
    summary: ClassVar[str] = "a torch checkpoint (.pt .pth .bin .ckpt), loaded with weights_only=True"

    def accepts(self, path: Path) -> bool:
        """See `Importer.accepts`."""
        return path.is_file() and path.suffix in (".pt", ".pth", ".bin", ".ckpt")

    def open(self, path: Path) -> ModelSource:
        """See `Importer.open`."""
        found, notes = _unwrap(_load(path))
        try:
            named = list(_tensors_in(found, "", iter(range(_MAX_VALUES))))
        except (RecursionError, OverflowError):
            raise SourceError(f"{str(path)!r} nests its tensors too deeply, or in themselves") from None
        tensors = dict(named)
        if not tensors:
            raise SourceError(f"{str(path)!r} holds no tensors")
        if len(tensors) < len(named):
            raise SourceError(
                f"{str(path)!r} has tensors whose names become the same, like 'a.b' and 'a' → 'b'"
            )
        source = StateDictSource(tensors)
        places = None if notes else _places(path, tensors)
        if places is None:
            source.notes = [
                *notes,
                "the checkpoint itself can't be restored; unpacking gives a .safetensors file",
            ]
            return source
        return TorchCheckpointSource(path, source, places)


class TorchCheckpointSource(ModelSource):
    """A checkpoint that is restored byte for byte: tensors where they stand in it, the rest literally.

    Parameters
    ----------
    path : Path
    tensors : StateDictSource
        All tensors of the file.
    places : dict of str to int
        For tensors that are stored contiguously: at which byte of the file they start.
    """

    def __init__(self, path: Path, tensors: StateDictSource, places: dict[str, int]) -> None:
        self._path = path
        self._tensors = tensors
        self._places = places
        self._taken: list[tuple[int, int, int]] = []  # first byte, number of bytes, index in the archive
        self.metadata = tensors.metadata
        self.nbytes = path.stat().st_size
        self.notes = []

    def tensors(self) -> Iterator[SourceTensor]:
        """See `ModelSource.tensors`; read from the file, for mapped pages would pile up in memory."""
        with open_unbuffered(self._path) as file:
            for index, tensor in enumerate(self._tensors.tensors()):
                place, nbytes = self._places.get(tensor.name), tensor.spec.nbytes
                if place is None or tensor.tied_to or not nbytes:
                    yield tensor
                    continue
                self._taken.append((place, nbytes, index))
                read = functools.partial(_read, file, place, nbytes)
                yield dataclasses.replace(tensor, read=read)

    def files(self) -> Iterator[SourceFile]:
        """See `ModelSource.files`."""
        segments: list[Segment] = []
        literals: list[U8] = []
        at = 0
        with open_unbuffered(self._path) as file:
            for place, nbytes, index in [*sorted(self._taken), (self.nbytes, 0, -1)]:
                if place < at:
                    continue  # a view into a tensor that has been taken already
                if place > at:
                    literals.append(_read(file, at, place - at))
                    segments.append(Segment(literal=place - at))
                if nbytes:
                    segments.append(Segment(first=index, count=1))
                at = place + nbytes
        # Each record of the zip file has a checksum, which other values would belie.
        yield SourceFile(
            self._path.name,
            segments,
            np.concatenate(literals),
            functools.partial(file_digest, self._path),
            takes_other_values=False,
        )


def _load(path: Path) -> Any:
    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{str(path)!r} holds more than tensors and plain containers, which would run code on loading; "
            "save a state dict, or a .safetensors file, where you trust it"
        ) from error
    except Exception as error:  # torch raises whatever the damage leads to
        raise SourceError(f"{str(path)!r} is not a torch checkpoint: {error}") from error


def _unwrap(found: Any) -> tuple[Any, list[str]]:
    """The weights of a training checkpoint, and a note on what was left beside them."""
    if not isinstance(found, dict):
        return found, []
    wrapper = next((key for key in _WRAPPERS if isinstance(found.get(key), dict)), None)
    if wrapper is None or len(found) == 1:
        return found if wrapper is None else found[wrapper], []
    left_out = ", ".join(sorted(str(key) for key in found if key != wrapper))
    return found[wrapper], [f"took {wrapper!r} of the checkpoint, left out {left_out}"]


def _tensors_in(value: Any, prefix: str, budget: Iterator[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in nested containers, with their dotted names; at most so many values are looked at."""
    import torch

    if next(budget, None) is None:
        raise OverflowError
    if isinstance(value, torch.Tensor):
        yield prefix or "tensor", value
    elif isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _tensors_in(item, f"{prefix}.{key}" if prefix else str(key), budget)


class _Record(NamedTuple):
    """A storage as the file holds it."""

    offset: int
    nbytes: int


def _places(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, int] | None:
    """Where the contiguous tensors stand in the file; None if that can't be told.

    torch maps the file as one piece, so a storage's address minus its record's offset is the same
    for all of them.
    """
    try:
        records = set(_records(path))
    except _ZIP_ERRORS:
        return None
    storages = {
        (t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) for t in tensors.values() if t.numel()
    }
    if not storages:
        return {}
    lowest, lowest_nbytes = min(storages)
    for candidate in sorted(records):
        base = lowest - candidate.offset
        if candidate.nbytes == lowest_nbytes and all((at - base, size) in records for at, size in storages):
            return {
                name: t.data_ptr() - base for name, t in tensors.items() if t.numel() and _is_as_stored(t)
            }
    return None


def _is_as_stored(tensor: torch.Tensor) -> bool:
    """Whether its memory holds its elements in order, none of them still to be conjugated or negated."""
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def _records(path: Path) -> Iterator[_Record]:
    """The uncompressed members of the zip file that a checkpoint is.

    Raises
    ------
    ValueError
        If the numbers in them are not little-endian: torch has turned them, in memory, on loading.
    """
    with zipfile.ZipFile(path) as archive, open_unbuffered(path) as file:
        for member in archive.infolist():
            if member.filename.endswith("/byteorder"):
                with archive.open(member) as order:
                    if order.read(16) != b"little":
                        raise ValueError("the numbers are not little-endian")
            if member.compress_type == zipfile.ZIP_STORED:
                # The extra field of the local header is not that of the directory: torch aligns with it.
                head = _read(file, member.header_offset, _ZIP_HEADER_NBYTES)
                name_nbytes, extra_nbytes = head[26:30].view("<u2").tolist()
                start = member.header_offset + _ZIP_HEADER_NBYTES + name_nbytes + extra_nbytes
                yield _Record(start, member.file_size)


def _read(file: io.FileIO, offset: int, nbytes: int) -> U8:
    file.seek(offset)
    return read_exactly(file, nbytes)
