"""A batch of ranges laid out in a slot: streams, then tables that tell kernels what is where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.device.arena import Arena
from cmpk.device.planes import AnyPlane, PlaneFields, RansPlane, StoredPlane
from cmpk.device.tasks import Kind, Range, Task, octets_of
from cmpk.errors import CorruptStreamError
from cmpk.kernels.reference.huffman_stream import SYNC_SYMBOLS

__all__ = ["GPU", "INTERPRETER", "Batch", "Shape", "Step", "Streams", "fill"]

BLOCK = 1024
"""Elements that are made together (`cmpk.kernels.triton.elements`)."""


_N_LANES: Final = -3
_OUT: Final = -2
"""Of `cmpk.kernels.triton.huffman.SOURCE_FIELDS`."""

_N_CHUNKS: Final = 4
"""Of `cmpk.kernels.triton.rans.RANS_FIELDS`."""


class Shape(NamedTuple):
    """How much one program does; no result depends on it.

    Attributes
    ----------
    lanes : int
        Sync intervals that one program decodes.
    warps : int
        That they are spread over.
    window_nbits : int
        Bits that are looked up at once, 12 at most. A smaller table fits fewer cache lines, and codes
        that are longer than this take a second look-up.
    n_blocks : int
        Blocks of 1024 elements that one program makes.
    chunks : int
        Chunks of the codec rans that one program decodes.
    """

    lanes: int
    warps: int
    window_nbits: int
    n_blocks: int
    chunks: int


GPU: Final = Shape(lanes=32, warps=1, window_nbits=9, n_blocks=4, chunks=1)
"""One warp decodes its intervals alone, so that none waits for another warp's longest."""

INTERPRETER: Final = Shape(lanes=1024, warps=1, window_nbits=12, n_blocks=4, chunks=16)
"""Few steps of much: each costs the same, however wide. No second look-up: only a cache would want it."""


@dataclass(frozen=True)
class Step:
    """One launch of a kernel that makes elements: addresses of its tables, and how long they are."""

    kind: Kind
    items: int
    n_items: int
    programs: int
    n_programs: int


class Streams(NamedTuple):
    """Two launches: addresses of the tables of streams and of programs, and how many there are of each."""

    sources: int
    n_sources: int
    programs: int
    n_programs: int


NO_STREAMS: Final = Streams(0, 0, 0, 0)


@dataclass
class Batch:
    """What to launch once the slot's first ``nbytes`` are on the device.

    Attributes
    ----------
    nbytes : int
    huffman, rans : Streams
        What is decoded first.
    steps : list of Step
    """

    nbytes: int = 0
    huffman: Streams = NO_STREAMS
    rans: Streams = NO_STREAMS
    steps: list[Step] = field(default_factory=list)


def fill(ranges: Sequence[Range], arena: Arena, scratch: Arena, shape: Shape) -> Batch:
    """Lay ranges out.

    Parameters
    ----------
    ranges : sequence of Range
        Of sizes that fit (`cmpk.device.tasks.batches`).
    arena : Arena
        The slot.
    scratch : Arena
        Memory of the device for what is decoded before elements are made of it.
    shape : Shape
        How much one program does.

    Raises
    ------
    CorruptStreamError
        If a rule is broken that takes no decoding to see.
    """
    decoding = _Decoding(shape)
    items: dict[Kind, list[list[int]]] = {}
    within: dict[Kind, list[_Within]] = {}
    for task, start, stop in ranges:
        try:
            planes = [decoding.fields_of(plane, start, stop, task, arena, scratch) for plane in task.planes]
        except CorruptStreamError as error:
            raise CorruptStreamError(f"tensor {task.where.name!r}: {error}") from error
        exceptions = _exceptions_of(task, start, stop)
        own = task.own_fields(start, stop, arena)
        item = (
            _head(task, start, stop, exceptions, arena) + own + [field for plane in planes for field in plane]
        )
        items.setdefault(task.kind, []).append(item + [0] * (task.kind.n_fields - len(item)))
        within.setdefault(task.kind, []).append(exceptions)
    batch = Batch()
    decoding.put(batch, arena)
    for kind, of_kind in items.items():
        table = np.array(of_kind, np.int64)
        programs = _programs(table[:, 1], within[kind], shape.n_blocks)
        items_at, programs_at = arena.put(octets_of(table)), arena.put(octets_of(programs))
        batch.steps.append(Step(kind, items_at, len(table), programs_at, len(programs)))
    batch.nbytes = arena.used
    return batch


class _Decoding:
    """The streams of a batch that are decoded before elements are made of them."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._huffman: list[list[int]] = []
        self._first_lanes: list[int] = []
        self._rans: list[list[int]] = []

    def fields_of(
        self, plane: AnyPlane, start: int, stop: int, task: Task, arena: Arena, scratch: Arena
    ) -> PlaneFields:
        """Stage a plane."""
        if isinstance(plane, StoredPlane):
            return plane.stage(start, stop, arena)
        source, first = plane.stage(start, stop, arena, scratch, task.where.error)
        if isinstance(plane, RansPlane):
            self._rans.append(source)
            return PlaneFields(first, 8, 0)
        self._huffman.append(source)
        self._first_lanes.append(first)
        return PlaneFields(source[_OUT] + first * SYNC_SYMBOLS, 8, 0)

    def put(self, batch: Batch, arena: Arena) -> None:
        """Lay out what kernels are told of the streams."""
        if self._huffman:
            sources = np.array(self._huffman, np.int64)
            first = np.array(self._first_lanes)
            batch.huffman = _streams(sources, first, sources[:, _N_LANES], self._shape.lanes, arena)
        if self._rans:
            sources = np.array(self._rans, np.int64)
            batch.rans = _streams(
                sources, 0 * sources[:, 0], sources[:, _N_CHUNKS], self._shape.chunks, arena
            )


def _streams(
    sources: NDArray[np.int64], first: NDArray[np.int64], stop: NDArray[np.int64], n: int, arena: Arena
) -> Streams:
    """Streams of which units ``first .. stop - 1`` are decoded, ``n`` by each program."""
    number, nth = _numbered(-(-(stop - first) // n))
    programs = np.stack([number, first[number] + nth * n], 1).astype(np.int32)
    return Streams(arena.put(octets_of(sources)), len(sources), arena.put(octets_of(programs)), len(programs))


class _Within(NamedTuple):
    """Exceptions of a range: their places in it, and what is given."""

    place: NDArray[np.int32]
    value: NDArray[np.int32]


_NONE: Final = _Within(np.empty(0, np.int32), np.empty(0, np.int32))


def _head(task: Task, start: int, stop: int, exceptions: _Within, arena: Arena) -> list[int]:
    """The fields that all kernels take, in the order of `cmpk.kernels.triton.elements.HEAD_FIELDS`."""
    where = task.where
    by_rows, has_exceptions = where.rows is not None, len(exceptions.place)
    return [
        where.out if by_rows else where.out + (start - where.start) * task.kind.out_nbytes,
        stop - start,
        where.error,
        arena.put(octets_of(where.rows[where.rows_of(start, stop)])) if where.rows is not None else 0,
        where.row_elements,
        start % where.row_elements if by_rows else 0,
        arena.put(octets_of(exceptions.place)) if has_exceptions else 0,
        arena.put(octets_of(exceptions.value)) if has_exceptions else 0,
    ]


def _exceptions_of(task: Task, start: int, stop: int) -> _Within:
    """The exceptions of a range, counted from its start."""
    if task.exceptions is None:
        return _NONE
    found = task.exceptions.within(start, stop)
    return _Within((found.element - np.uint64(start)).astype(np.int32), found.value)


def _programs(n_elements: NDArray[np.int64], within: Sequence[_Within], n_blocks: int) -> NDArray[np.int32]:
    """What programs are told, of items of so many elements."""
    item, nth = _numbered(-(-n_elements // (n_blocks * BLOCK)))
    table = np.zeros((len(item), 4), np.int32)
    table[:, 0], table[:, 1] = item, nth * n_blocks
    for number, exceptions in enumerate(within):
        if len(exceptions.place):
            of_item = item == number
            ends = np.searchsorted(exceptions.place, np.arange(of_item.sum() + 1) * (n_blocks * BLOCK))
            table[of_item, 2], table[of_item, 3] = ends[:-1], ends[1:]
    return table


def _numbered(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whose each of so many are, one's after another's, and the how manieth each is."""
    whose = np.repeat(np.arange(len(counts)), counts)
    return whose, np.arange(len(whose)) - np.repeat(np.cumsum(counts) - counts, counts)
