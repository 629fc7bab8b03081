"""Jobs made ready to be cut into ranges, each small enough for a slot of the ring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.device.planes import HuffmanPlane, StoredPlane, plane_of
from cmpk.encodings.jobs import BytesJob, DeviceJob
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import FLOAT_LAYOUTS, FloatJob

__all__ = ["MAX_ROW_ELEMENTS", "Kind", "Range", "Task", "batches", "task_of"]

MAX_ROW_ELEMENTS: Final = 1 << 30
"""Kernels count within a row in 32 bits."""

_FIELDS_NBYTES: Final = 8 * 64
_PROGRAM_NBYTES: Final = 16 + 8
"""What telling the programs of 1024 elements where they are takes at most, for each source."""


class Kind(NamedTuple):
    """The constants of a compiled `cmpk.kernels.triton.merge.merge`, in the order of its parameters."""

    n_rest: int
    exponent: int
    mantissa: int
    out_exponent: int
    out_mantissa: int
    packed: int
    by_rows: int

    @property
    def out_nbytes(self) -> int:
        """Bytes of an element."""
        return (1 + self.out_exponent + self.out_mantissa) // 8


@dataclass(frozen=True)
class Task:
    """A job whose sources have been checked as far as their heads go.

    Attributes
    ----------
    name : str
        The tensor, for messages.
    kind : Kind
    n : int
        Elements.
    planes : list of StoredPlane and HuffmanPlane
    out, error : int
        Addresses on the device: of the tensor, and of the int32 that tells of damage.
    base, lower_nbits, upper_nbits : int
    exceptions : uint64 array and uint16 array, or None
        Which elements have upper bits of their own, ascending, and these bits.
    rows : uint32 array or None
    row_elements : int
    """

    name: str
    kind: Kind
    n: int
    planes: list[StoredPlane | HuffmanPlane]
    out: int
    error: int
    base: int = 0
    lower_nbits: int = 0
    upper_nbits: int = 8
    exceptions: tuple[NDArray[np.uint64], NDArray[np.uint16]] | None = None
    rows: NDArray[np.uint32] | None = None
    row_elements: int = 0

    @property
    def align(self) -> int:
        """Ranges start at multiples of this many elements."""
        return max(int(plane.align) for plane in self.planes)

    def exception_range(self, start: int, stop: int) -> slice:
        """The exceptions within a range."""
        if self.exceptions is None:
            return slice(0, 0)
        return slice(*np.searchsorted(self.exceptions[0], np.array([start, stop], np.uint64)).tolist())

    def row_range(self, start: int, stop: int) -> slice:
        """The rows that a range touches."""
        if self.rows is None:
            return slice(0, 0)
        return slice(start // self.row_elements, -(-stop // self.row_elements))

    def staged_nbytes(self, start: int, stop: int) -> int:
        """At most so many bytes are copied to the device for a range."""
        exceptions, rows = self.exception_range(start, stop), self.row_range(start, stop)
        listed: int = 6 * (exceptions.stop - exceptions.start) + 4 * (rows.stop - rows.start)
        n_blocks = -(-(stop - start) // 1024)
        return (
            sum(plane.staged_nbytes(start, stop) + _FIELDS_NBYTES for plane in self.planes)
            + n_blocks * _PROGRAM_NBYTES * len(self.planes)
            + listed
            + 256
        )

    def scratch_nbytes(self, start: int, stop: int) -> int:
        """At most so many bytes are decoded to for a range, before they are merged."""
        return sum(plane.scratch_nbytes(start, stop) for plane in self.planes)


class Range(NamedTuple):
    """Elements ``start .. stop - 1`` of a task."""

    task: Task
    start: int
    stop: int


def task_of(name: str, job: DeviceJob, out: int, error: int, threads: int) -> Task:
    """Check a job and make it ready.

    Parameters
    ----------
    name : str
        The tensor that it is part of.
    job : DeviceJob
    out, error : int
        Addresses on the device.
    threads : int
        For what is decoded here.

    Raises
    ------
    CorruptStreamError
        If a rule is broken that takes no decoding of streams to see.
    """
    if isinstance(job, BytesJob):
        planes = [plane_of(job.source, job.n, threads)]
        kind = _kind(planes, 4, 3, 4, 3, job.rows is not None)
        return Task(name, kind, job.n, planes, out, error, rows=job.rows, row_elements=job.row_nbytes)
    exponent, mantissa = FLOAT_LAYOUTS[job.dtype]
    out_exponent, out_mantissa = FLOAT_LAYOUTS[job.out_dtype or job.dtype]
    lower_nbits, upper_nbits = mantissa - job.mantissa_bits, exponent + job.mantissa_bits
    planes = [plane_of(source, job.n, threads) for source in job.sources]
    return Task(
        name,
        _kind(planes, exponent, mantissa, out_exponent, out_mantissa, job.rows is not None),
        job.n,
        planes,
        out,
        error,
        job.base,
        lower_nbits,
        upper_nbits,
        _exceptions_of(job, upper_nbits),
        None if job.rows is None else np.asarray(job.rows, np.uint32),
        job.row_elements,
    )


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
        start = 0
        while start < task.n:
            stop = _furthest(task, start, staged, scratch)
            if stop == start and not batch:
                task = _decoded(task)  # noqa: PLW2901  # a range of it is too large for a slot
                continue
            if stop > start:
                batch.append(Range(task, start, stop))
                staged -= task.staged_nbytes(start, stop)
                scratch -= task.scratch_nbytes(start, stop)
            if stop < task.n:
                yield batch
                batch, staged, scratch = [], staged_nbytes, scratch_nbytes
            start = stop
    if batch:
        yield batch


def _furthest(task: Task, start: int, staged: int, scratch: int) -> int:
    """The furthest end of a range that fits; ``start`` if none does."""

    def fits(stop: int) -> bool:
        return task.staged_nbytes(start, stop) <= staged and task.scratch_nbytes(start, stop) <= scratch

    if fits(task.n):
        return task.n
    align = task.align
    low, high = start // align, -(-task.n // align)  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * align) else (low, middle)
    return low * align


def _decoded(task: Task) -> Task:
    """The same with planes that can be cut anywhere."""
    return replace(task, planes=[plane.decoded() for plane in task.planes])


def _kind(
    planes: list[StoredPlane | HuffmanPlane],
    exponent: int,
    mantissa: int,
    out_exponent: int,
    out_mantissa: int,
    by_rows: bool,
) -> Kind:
    packed = sum(plane.is_packed << number for number, plane in enumerate(planes))
    return Kind(len(planes) - 1, exponent, mantissa, out_exponent, out_mantissa, packed, int(by_rows))


def _exceptions_of(job: FloatJob, upper_nbits: int) -> tuple[NDArray[np.uint64], NDArray[np.uint16]] | None:
    if job.exception_index is None or job.exception_high is None:
        return None
    index = np.frombuffer(job.exception_index, np.uint64)
    high = np.frombuffer(job.exception_high, np.uint16)
    if len(index) and (int(index[-1]) >= job.n or (index[1:] <= index[:-1]).any()):
        raise CorruptStreamError(
            f"encoding 'float_split': exception_index is not strictly ascending below {job.n}"
        )
    if (high >> upper_nbits).any():
        raise CorruptStreamError(f"encoding 'float_split': exception_high exceeds {upper_nbits} bits")
    return index, high
