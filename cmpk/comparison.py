"""Two models in any form that can be packed or loaded, compared tensor by tensor."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from cmpk.archive import Archive
from cmpk.deviation import Deviation, deviation
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.format.layout import MAGIC
from cmpk.importers.base import ModelSource, storable
from cmpk.indexing import default_threads
from cmpk.registry import registry
from cmpk.sources import PathLike, open_source

__all__ = ["Comparison", "TensorDifference", "compare"]

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """One tensor of two models.

    Attributes
    ----------
    name : str
    first, second : TensorSpec or None
        What it is in each; None where it is missing.
    is_identical : bool
        Whether type, shape and every bit are the same.
    deviation : Deviation or None
        How far the numbers of the second are from those of the first; None where it is missing, has
        another shape, or is of a type without numbers.
    """

    name: str
    first: TensorSpec | None
    second: TensorSpec | None
    is_identical: bool = False
    deviation: Deviation | None = None

    @property
    def status(self) -> str:
        """``identical``, ``missing`` in the second, ``extra`` there, or what differs."""
        if self.first is None or self.second is None:
            return "extra" if self.first is None else "missing"
        if self.first.shape != self.second.shape:
            return "shape"
        if self.first.dtype != self.second.dtype:
            return "dtype"
        return "identical" if self.is_identical else "values"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is different between two models.

    Attributes
    ----------
    tensors : list of TensorDifference
        Those that only the second has are the last.
    """

    tensors: list[TensorDifference]

    @property
    def is_identical(self) -> bool:
        """Whether both have the same tensors, to the last bit."""
        return all(tensor.is_identical for tensor in self.tensors)

    @property
    def total(self) -> Deviation:
        """Over all tensors that could be compared."""
        found = (tensor.deviation for tensor in self.tensors if tensor.deviation is not None)
        return sum(found, Deviation())


def compare(first: PathLike, second: PathLike, *, progress: Progress | None = None) -> Comparison:
    """Compare two models.

    Archives are read tensor by tensor in whatever order is wanted. Other forms are read from front to
    back; where two of these differ in their order, tensors wait in memory for their counterparts.

    Parameters
    ----------
    first, second : path
        A ``.cmpk`` file, a ``.safetensors`` file, a directory, or a torch checkpoint.
    progress : function, optional
        Called with bytes compared and bytes in all.

    Raises
    ------
    SourceError, FormatError, UnknownIdError
        If one can't be read.
    """
    found: list[TensorDifference] = []
    done = 0
    with _opened(first) as ours, _opened(second) as theirs:
        total = max(_nbytes(ours), _nbytes(theirs))
        for name, one, other in _pairs(ours, theirs):
            found.append(_difference(name, one, other))
            done = min(done + max(len(part.data) for part in (one, other) if part is not None), total)
            if progress is not None:
                progress(done, total)
    return Comparison(sorted(found, key=lambda tensor: tensor.first is None))


@contextlib.contextmanager
def _opened(path: PathLike) -> Iterator[Archive | ModelSource]:
    if _is_archive(path):
        with Archive(path) as archive:
            yield archive
        return
    with contextlib.closing(open_source(path, registry())) as source:
        yield source


def _is_archive(path: PathLike) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):  # a folder, or nothing: importers tell what is wrong
        return False


def _nbytes(model: Archive | ModelSource) -> int:
    return model.decoded_nbytes if isinstance(model, Archive) else model.nbytes


_Pair: TypeAlias = tuple[str, Part | None, Part | None]


def _pairs(first: Archive | ModelSource, second: Archive | ModelSource) -> Iterator[_Pair]:
    """Every tensor of either model, with what it is in each."""
    if isinstance(second, Archive):
        yield from _looked_up(_in_order(first), second)
    elif isinstance(first, Archive):
        yield from ((name, two, one) for name, one, two in _looked_up(_in_order(second), first))
    else:
        yield from _in_step(_in_order(first), _in_order(second))


def _in_order(model: Archive | ModelSource) -> Iterator[tuple[str, Part]]:
    if isinstance(model, Archive):
        for name in model:
            yield name, _read(model, name)
        return
    for tensor in storable(model):
        yield tensor.name, Part(tensor.spec, tensor.read())


def _read(archive: Archive, name: str) -> Part:
    return Part(archive.spec(name), archive.read(name, default_threads()))


def _looked_up(tensors: Iterator[tuple[str, Part]], archive: Archive) -> Iterator[_Pair]:
    seen: set[str] = set()
    for name, part in tensors:
        seen.add(name)
        yield name, part, _read(archive, name) if name in archive else None
    for name in archive:
        if name not in seen:
            yield name, None, _read(archive, name)


def _in_step(first: Iterator[tuple[str, Part]], second: Iterator[tuple[str, Part]]) -> Iterator[_Pair]:
    """Take turns, so that nothing waits where the orders are the same."""
    ours: dict[str, Part] = {}
    theirs: dict[str, Part] = {}
    for one, other in itertools.zip_longest(first, second):
        if one is not None:
            ours[one[0]] = one[1]
        if other is not None:
            theirs[other[0]] = other[1]
        for name in {item[0] for item in (one, other) if item is not None}:
            if name in ours and name in theirs:
                yield name, ours.pop(name), theirs.pop(name)
    yield from ((name, part, None) for name, part in ours.items())
    yield from ((name, None, part) for name, part in theirs.items())


def _difference(name: str, first: Part | None, second: Part | None) -> TensorDifference:
    if first is None or second is None:
        return TensorDifference(name, first and first.spec, second and second.spec)
    is_identical = first.spec == second.spec and np.array_equal(first.data, second.data)
    found = None
    if first.spec.shape == second.spec.shape:
        found = deviation(first.spec, first.data, second.data, second.spec.dtype)
    return TensorDifference(name, first.spec, second.spec, is_identical, found)
