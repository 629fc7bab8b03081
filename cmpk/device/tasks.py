"""Jobs made ready to be cut into ranges, each small enough for a slot of the ring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cmpk.device.arena import Arena
from cmpk.device.planes import AnyPlane
from cmpk.kernels.interface import U8

__all__ = ["MAX_COUNT", "Exceptions", "Kind", "Range", "Task", "Where", "batches", "octets_of"]

MAX_COUNT: Final = 1 << 30
"""Kernels count within a row, a line or a run in 32 bits."""

_FIELDS_NBYTES: Final = 8 * 64
_PROGRAM_NBYTES: Final = 16 + 8
"""What telling the programs of 1024 elements where they are takes at most, for each source."""


class Kind(Protocol):
    """Which kernel makes the elements, and its constants: a named tuple of these, in their order."""

    def __iter__(self) -> Iterator[int]:
        """The constants."""

    @property
    def n_fields(self) -> int:
        """What the kernel is told of a range: how many int64."""

    @property
    def out_nbytes(self) -> int:
        """Bytes of an element."""


class Exceptions(NamedTuple):
    """Elements of which something is given apart.

    Attributes
    ----------
    element : uint64 array, shape (n,)
        Which, ascending.
    value : int32 array, shape (n,)
    """

    element: NDArray[np.uint64]
    value: NDArray[np.int32]

    def within(self, start: int, stop: int) -> Exceptions:
        """Those of elements ``start .. stop - 1``."""
        cut = slice(*np.searchsorted(self.element, np.array([start, stop], np.uint64)).tolist())
        return Exceptions(self.element[cut], self.value[cut])


class Where(NamedTuple):
    """Which elements of a tensor are made, and where they go.

    Attributes
    ----------
    name : str
        The tensor, for messages.
    start, stop : int
        The elements; ``start`` is a multiple of 1024.
    out, error : int
        Addresses on the device: of element ``start``, or with `rows` of row 0, and of the int32 that tells
        of damage.
    rows : uint32 array or None
        Where the row of element ``start`` goes, and those after it.
    row_elements : int
    """

    name: str
    start: int
    stop: int
    out: int
    error: int
    rows: NDArray[np.uint32] | None = None
    row_elements: int = 0

    def rows_of(self, start: int, stop: int) -> slice:
        """Which of the rows a range touches."""
        if self.rows is None:
            return slice(0, 0)
        first = self.start // self.row_elements
        return slice(start // self.row_elements - first, -(-stop // self.row_elements) - first)


@dataclass(frozen=True)
class Task:
    """A job whose sources have been checked as far as their heads go.

    Attributes
    ----------
    where : Where
    kind : Kind
    planes : sequence of planes
    exceptions : Exceptions or None
    """

    where: Where
    kind: Kind
    planes: Sequence[AnyPlane]
    exceptions: Exceptions | None

    def own_fields(self, start: int, stop: int, arena: Arena) -> list[int]:
        """What the kernel is told of a range, beyond what all kernels are."""
        return []

    def own_nbytes(self, start: int, stop: int) -> int:
        """At most so many bytes are staged for it."""
        return 0

    @property
    def align(self) -> int:
        """Ranges are best cut at multiples of this many elements."""
        return max(int(plane.align) for plane in self.planes)

    def staged_nbytes(self, start: int, stop: int) -> int:
        """At most so many bytes are copied to the device for a range."""
        listed = 0
        if self.exceptions is not None:
            listed = 8 * len(self.exceptions.within(start, stop).value)
        rows: slice = self.where.rows_of(start, stop)
        n_blocks = -(-(stop - start) // 1024)
        staged: int = sum(plane.staged_nbytes(start, stop) + _FIELDS_NBYTES for plane in self.planes)
        return (
            staged
            + n_blocks * _PROGRAM_NBYTES * len(self.planes)
            + listed
            + 4 * int(rows.stop - rows.start)
            + self.own_nbytes(start, stop)
            + 256
        )

    def scratch_nbytes(self, start: int, stop: int) -> int:
        """At most so many bytes are decoded to for a range, before elements are made of them."""
        return sum(plane.scratch_nbytes(start, stop) for plane in self.planes)


class Range(NamedTuple):
    """Elements ``start .. stop - 1`` of a task."""

    task: Task
    start: int
    stop: int


def batches(tasks: Iterator[Task], staged_nbytes: int, scratch_nbytes: int) -> Iterator[list[Range]]:
    """Ranges that fit a slot together; all of all tasks, in order.

    Parameters
    ----------
    tasks : iterator of Task
    staged_nbytes, scratch_nbytes : int
        What a slot and the scratch memory hold.
    """
    batch: list[Range] = []
    staged, scratch = staged_nbytes, scratch_nbytes
    for task in tasks:
        start = task.where.start
        while start < task.where.stop:
            stop = _furthest(task, start, staged, scratch)
            if stop == start and not batch:
                task = _decoded(task)  # noqa: PLW2901  # a range of it is too large for a slot
                continue
            if stop > start:
                batch.append(Range(task, start, stop))
                staged -= task.staged_nbytes(start, stop)
                scratch -= task.scratch_nbytes(start, stop)
            if stop < task.where.stop:
                yield batch
                batch, staged, scratch = [], staged_nbytes, scratch_nbytes
            start = stop
    if batch:
        yield batch


def octets_of(array: NDArray[np.generic]) -> U8:
    """The bytes of an array."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _furthest(task: Task, start: int, staged: int, scratch: int) -> int:
    """The furthest end of a range that fits; ``start`` if none does."""

    def fits(stop: int) -> bool:
        return task.staged_nbytes(start, stop) <= staged and task.scratch_nbytes(start, stop) <= scratch

    if fits(task.where.stop):
        return task.where.stop
    align = task.align
    low, high = start // align, -(-task.where.stop // align)  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * align) else (low, middle)
    return max(start, low * align)


def _decoded(task: Task) -> Task:
    """The same with planes that can be cut anywhere."""
    return replace(task, planes=[plane.decoded() for plane in task.planes])
