"""A batch of ranges laid out in a slot: streams, then tables that tell kernels what is where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.device.arena import Arena
from cmpk.device.planes import HuffmanPlane, PlaneFields, StoredPlane
from cmpk.device.tasks import Kind, Range, Task
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8

__all__ = ["GPU", "INTERPRETER", "Batch", "Merge", "Shape", "fill"]

BLOCK = 1024
"""Elements that are merged together (`cmpk.kernels.triton.merge`)."""

MAX_PLANES = 8


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
        Blocks of 1024 elements that one program merges.
    """

    lanes: int
    warps: int
    window_nbits: int
    n_blocks: int


GPU: Final = Shape(lanes=32, warps=1, window_nbits=9, n_blocks=4)
"""One warp decodes its intervals alone, so that none waits for another warp's longest."""

INTERPRETER: Final = Shape(lanes=1024, warps=1, window_nbits=9, n_blocks=4)
"""Few steps of much: each costs the same, however wide."""


@dataclass(frozen=True)
class Merge:
    """One launch of `merge`: addresses of its tables, and how many programs."""

    kind: Kind
    items: int
    programs: int
    n_programs: int


@dataclass
class Batch:
    """What to launch once the slot's first ``nbytes`` are on the device.

    Attributes
    ----------
    nbytes : int
    sources : int
        Address of the table of Huffman streams.
    n_sources : int
    programs, n_programs : int
        The programs that decode them.
    merges : list of Merge
    """

    nbytes: int = 0
    sources: int = 0
    n_sources: int = 0
    programs: int = 0
    n_programs: int = 0
    merges: list[Merge] = field(default_factory=list)


def fill(ranges: Sequence[Range], arena: Arena, scratch: Arena, shape: Shape) -> Batch:
    """Lay ranges out.

    Parameters
    ----------
    ranges : sequence of Range
        Of sizes that fit (`cmpk.device.tasks.batches`).
    arena : Arena
        The slot.
    scratch : Arena
        Memory of the device for what is decoded before it is merged.
    shape : Shape
        How much one program does.

    Raises
    ------
    CorruptStreamError
        If a rule is broken that takes no decoding to see.
    """
    sources: list[list[int]] = []
    items: dict[Kind, list[list[int]]] = {}
    programs: dict[Kind, list[NDArray[np.int32]]] = {}
    for task, start, stop in ranges:
        try:
            fields = [
                _stage(plane, start, stop, arena, scratch, task.error, sources) for plane in task.planes
            ]
        except CorruptStreamError as error:
            raise CorruptStreamError(f"tensor {task.name!r}: {error}") from error
        rows = task.row_range(start, stop)
        index, high = _exceptions_of(task, start, stop)
        item = [
            task.out if task.rows is not None else task.out + start * task.kind.out_nbytes,
            stop - start,
            task.base,
            task.lower_nbits,
            task.upper_nbits,
            task.error,
            arena.put(_octets(task.rows[rows])) if task.rows is not None else 0,
            task.row_elements,
            start % task.row_elements if task.row_elements else 0,
            arena.put(_octets(index)) if len(index) else 0,
            arena.put(_octets(high)) if len(index) else 0,
            *(value for plane in fields for value in plane),
            *(0 for _ in range(len(PlaneFields._fields) * (MAX_PLANES - len(fields)))),
        ]
        of_kind = items.setdefault(task.kind, [])
        programs.setdefault(task.kind, []).append(
            _merge_programs(len(of_kind), stop - start, index, shape.n_blocks * BLOCK)
        )
        of_kind.append(item)
    batch = Batch()
    if sources:
        n_lanes = [source[-3] for source in sources]
        batch.sources, batch.n_sources = arena.put(_octets(np.array(sources, np.int64))), len(sources)
        decoding = np.concatenate(
            [_decode_programs(number, n, shape.lanes) for number, n in enumerate(n_lanes)]
        )
        batch.programs, batch.n_programs = arena.put(_octets(decoding)), len(decoding)
    for kind, of_kind in items.items():
        table = np.concatenate(programs[kind])
        batch.merges.append(
            Merge(
                kind, arena.put(_octets(np.array(of_kind, np.int64))), arena.put(_octets(table)), len(table)
            )
        )
    batch.nbytes = arena.used
    return batch


def _stage(
    plane: StoredPlane | HuffmanPlane,
    start: int,
    stop: int,
    arena: Arena,
    scratch: Arena,
    error: int,
    sources: list[list[int]],
) -> PlaneFields:
    """Stage a plane; where it has to be decoded first, say so in ``sources``."""
    if isinstance(plane, HuffmanPlane):
        source = plane.stage(start, stop, arena, scratch, error)
        sources.append(source)
        return PlaneFields(source[-2], 8, 0)
    return plane.stage(start, stop, arena)


def _exceptions_of(task: Task, start: int, stop: int) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """The exceptions of a range, counted from its start."""
    if task.exceptions is None:
        return np.empty(0, np.int32), np.empty(0, np.uint16)
    wanted = task.exception_range(start, stop)
    index, high = task.exceptions
    return (index[wanted] - np.uint64(start)).astype(np.int32), high[wanted]


def _decode_programs(number: int, n_lanes: int, lanes: int) -> NDArray[np.int32]:
    table = np.empty((-(-n_lanes // lanes), 2), np.int32)
    table[:, 0] = number
    table[:, 1] = np.arange(len(table)) * lanes
    return table


def _merge_programs(
    number: int, n: int, exception_index: NDArray[np.int32], n_elements: int
) -> NDArray[np.int32]:
    """The programs of an item of ``n`` elements, ``n_elements`` each."""
    table = np.zeros((-(-n // n_elements), 4), np.int32)
    table[:, 0] = number
    table[:, 1] = np.arange(len(table)) * (n_elements // BLOCK)
    if len(exception_index):
        ends = np.searchsorted(exception_index, np.arange(len(table) + 1) * n_elements)
        table[:, 2], table[:, 3] = ends[:-1], ends[1:]
    return table


def _octets(array: NDArray[np.generic]) -> U8:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
