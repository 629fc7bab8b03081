"""Tasks of planes that are merged to floats, and of bytes that only go where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cmpk.device.arena import Arena
from cmpk.device.planes import AnyPlane
from cmpk.device.tasks import Exceptions, Task
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import FLOAT_LAYOUTS, FloatJob

__all__ = ["FloatTask", "MergeKind", "bytes_kind", "float_exceptions", "float_kind", "upper_nbits_of"]


class MergeKind(NamedTuple):
    """The constants of a compiled `cmpk.kernels.triton.merge.merge`, in the order of its parameters."""

    n_rest: int
    exponent: int
    mantissa: int
    out_exponent: int
    out_mantissa: int
    packed: int
    by_rows: int

    @property
    def n_fields(self) -> int:
        """Those of `cmpk.kernels.triton.merge.ITEM_FIELDS`."""
        return 35

    @property
    def out_nbytes(self) -> int:
        """Bytes of an element."""
        return (1 + self.out_exponent + self.out_mantissa) // 8


@dataclass(frozen=True)
class FloatTask(Task):
    """Planes that are merged; of one of them alone, elements are its bytes.

    Attributes
    ----------
    base, lower_nbits, upper_nbits : int
        See `cmpk.kernels.triton.merge.ITEM_FIELDS`.
    """

    base: int
    lower_nbits: int
    upper_nbits: int

    def own_fields(self, start: int, stop: int, arena: Arena) -> list[int]:
        """See `Task`."""
        return [self.base, self.lower_nbits, self.upper_nbits]


def bytes_kind(plane: AnyPlane, by_rows: bool) -> MergeKind:
    """Of one plane whose bytes are the elements."""
    return MergeKind(0, 4, 3, 4, 3, int(plane.is_packed), int(by_rows))


def float_kind(job: FloatJob, planes: Sequence[AnyPlane]) -> MergeKind:
    """Of a job with these planes."""
    packed = sum(plane.is_packed << number for number, plane in enumerate(planes))
    layouts = (*FLOAT_LAYOUTS[job.dtype], *FLOAT_LAYOUTS[job.out_dtype or job.dtype])
    return MergeKind(len(planes) - 1, *layouts, packed, int(job.rows is not None))


def upper_nbits_of(job: FloatJob) -> int:
    """Bits of an element that its first plane, or an exception, gives."""
    return FLOAT_LAYOUTS[job.dtype][0] + job.mantissa_bits


def float_exceptions(job: FloatJob) -> Exceptions | None:
    """The exceptions of a job, checked.

    Raises
    ------
    CorruptStreamError
        If they are not ascending, beyond the tensor, or of too many bits.
    """
    if job.exception_index is None or job.exception_high is None:
        return None
    index = np.frombuffer(job.exception_index, np.uint64)
    high = np.frombuffer(job.exception_high, np.uint16)
    if len(index) and (int(index[-1]) >= job.n or (index[1:] <= index[:-1]).any()):
        raise CorruptStreamError(
            f"encoding 'float_split': exception_index is not strictly ascending below {job.n}"
        )
    if (high >> upper_nbits_of(job)).any():
        raise CorruptStreamError(f"encoding 'float_split': exception_high exceeds {upper_nbits_of(job)} bits")
    return Exceptions(index, high.astype(np.int32))
