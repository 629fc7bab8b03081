"""Tasks of codes that are scaled or looked up on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.device.arena import ALIGNMENT, Arena
from cmpk.device.tasks import MAX_COUNT, Exceptions, Task, octets_of
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, CodeJob, LookupJob
from cmpk.kernels.reference.buffers import bytes_of
from cmpk.kernels.reference.dequantize import Scales, check_apart

__all__ = [
    "CodeKind",
    "CodeTask",
    "LookupKind",
    "LookupTask",
    "code_exceptions",
    "code_kind",
    "runs_on_devices",
]

_TOPS: Final = {"F8_E4M3": 0x7E, "F8_E5M2": 0x7C, "F8_E4M3FNUZ": 0x7F, "F8_E5M2FNUZ": 0x7F}
_MAX_LISTS_NBYTES: Final = 1 << 16


class CodeKind(NamedTuple):
    """The constants of a compiled `cmpk.kernels.triton.codes.dequantize`, in the order of its parameters."""

    exponent: int
    mantissa: int
    top: int
    is_fnuz: int
    has_zero_points: int
    has_numbers: int
    packed: int
    by_rows: int

    @property
    def n_fields(self) -> int:
        """Those of `cmpk.kernels.triton.codes.CODE_FIELDS`."""
        return 21

    @property
    def out_nbytes(self) -> int:
        """Bytes of an element."""
        return (1 + self.exponent + self.mantissa) // 8


class LookupKind(NamedTuple):
    """The constants of a compiled `cmpk.kernels.triton.codes.look_up`, in the order of its parameters."""

    out_nbytes: int
    packed: int
    by_rows: int

    @property
    def n_fields(self) -> int:
        """Those of `cmpk.kernels.triton.codes.LOOKUP_FIELDS`."""
        return 15


@dataclass(frozen=True)
class CodeTask(Task):
    """Codes that are scaled.

    Attributes
    ----------
    scales : Scales
        All of the tensor's, checked.
    """

    scales: Scales

    def own_fields(self, start: int, stop: int, arena: Arena) -> list[int]:
        """See `cmpk.kernels.triton.codes.CODE_FIELDS`."""
        scales = self.scales
        line, run, within = scales.line, scales.run, start % scales.line
        if len(scales.scale) == 1:
            line = run = MAX_COUNT
            within = 0
        first, n = self._staged(start, stop)
        wanted = (first + np.arange(n)) % len(scales.scale)
        first_codes = (scales.offset - scales.zero_point[wanted]).astype(np.int32)
        return [
            scales.offset,
            arena.put(octets_of(first_codes)) if scales.zero_point.any() else 0,
            arena.put(octets_of(scales.scale[wanted])),
            n,
            line,
            run,
            -(-line // run),
            within,
            within // run,
            arena.put(octets_of(scales.numbers)) if scales.numbers is not None else 0,
        ]

    def own_nbytes(self, start: int, stop: int) -> int:
        """See `Task`."""
        return 8 * self._staged(start, stop)[1] + 1024 + 3 * ALIGNMENT

    def _staged(self, start: int, stop: int) -> tuple[int, int]:
        """The number of a range's first scale, were they not repeated, and how many it needs."""
        first, last = (self._number(element) for element in (start, stop - 1))
        return first, min(len(self.scales.scale), last - first + 1)

    def _number(self, element: int) -> int:
        line, run = self.scales.line, self.scales.run
        return element // line * -(-line // run) + element % line // run


@dataclass(frozen=True)
class LookupTask(Task):
    """Codes that are looked up.

    Attributes
    ----------
    table : uint8 array
    size, run : int
        As those of `LookupJob`.
    """

    table: U8
    size: int
    run: int

    def own_fields(self, start: int, stop: int, arena: Arena) -> list[int]:
        """See `cmpk.kernels.triton.codes.LOOKUP_FIELDS`."""
        lists = self._lists(start, stop)
        nbytes = self._list_nbytes
        is_one = lists.stop - lists.start == 1
        return [
            arena.put(self.table[lists.start * nbytes : lists.stop * nbytes]),
            self.size,
            MAX_COUNT if is_one else self.run,
            0 if is_one else start % self.run,
        ]

    def own_nbytes(self, start: int, stop: int) -> int:
        """See `Task`."""
        lists = self._lists(start, stop)
        return int(lists.stop - lists.start) * self._list_nbytes + ALIGNMENT

    @property
    def _list_nbytes(self) -> int:
        return self.size * int(self.kind.out_nbytes)

    def _lists(self, start: int, stop: int) -> slice:
        return slice(start // self.run, (stop - 1) // self.run + 1) if self.run else slice(0, 1)


def code_kind(job: CodeJob, scales: Scales, is_packed: bool) -> CodeKind:
    """Of a job whose codes are packed or not."""
    exponent, mantissa = FLOAT_LAYOUTS[job.dtype]
    return CodeKind(
        exponent,
        mantissa,
        _TOPS.get(job.dtype, ((1 << exponent) - 1) << mantissa if mantissa < 23 else 0),
        int(job.dtype.endswith("FNUZ")),
        int(scales.zero_point.any()),
        int(scales.numbers is not None),
        int(is_packed),
        int(job.rows is not None),
    )


def code_exceptions(job: CodeJob, scales: Scales) -> Exceptions | None:
    """The exceptions of a job, checked; the codes less their zero points.

    Raises
    ------
    CorruptStreamError
        If they are not ascending, beyond the tensor, or too far from their zero points.
    """
    if job.exception_index is None or job.exception_code is None:
        return None
    index = bytes_of(job.exception_index).view("<u8")
    code: NDArray[Any] = bytes_of(job.exception_code).view("<i4")
    if len(index) and (int(index[-1]) >= job.n or (index[1:] <= index[:-1]).any()):
        raise CorruptStreamError(
            f"encoding 'affine': exception_index is not strictly ascending below {job.n}"
        )
    check_apart(scales, index, code)
    zero = scales.zero_point[scales.of(index.astype(np.int64))]
    return Exceptions(index, (code - zero).astype(np.int32))


def runs_on_devices(job: CodeJob | LookupJob) -> bool:
    """Whether the kernels can count what a job has, and a few blocks' lists fit a slot."""
    if isinstance(job, CodeJob):
        return job.line <= MAX_COUNT or len(bytes_of(job.scale)) == 4
    lists_nbytes = (1024 // job.run + 2) * job.size * job.element_nbytes if job.run else 0
    return job.run <= MAX_COUNT and lists_nbytes <= _MAX_LISTS_NBYTES
