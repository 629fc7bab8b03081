"""What decoding a whole tensor comes to: jobs for kernels on a device of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from cmpk.encodings.base import Branch, Decoder, Stored, allocate, known_spec
from cmpk.encodings.row_groups import RowGroups
from cmpk.errors import CmpkError, blame
from cmpk.kernels.interface import FloatJob, Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BytesJob", "DeviceJob", "jobs_of"]


class BytesJob(NamedTuple):
    """Bytes that go to where they belong as they are.

    Attributes
    ----------
    n : int
        Bytes that the source holds.
    source : Source
    rows : uint32 array or None
        The bytes are rows; row ``i`` of them goes to row ``rows[i]`` of the tensor.
    row_nbytes : int
        Bytes of a row; 0 without `rows`.
    """

    n: int
    source: Source
    rows: NDArray[np.uint32] | None = None
    row_nbytes: int = 0


DeviceJob: TypeAlias = FloatJob | BytesJob
"""A `FloatJob` here covers all elements of its sources, and its ``out`` is left to who runs it."""


def jobs_of(stored: Stored, decoder: Decoder) -> list[DeviceJob]:
    """The jobs that put a whole tensor together.

    What only the encodings themselves can decode is decoded here, to bytes.

    Raises
    ------
    CorruptStreamError
        If what had to be decoded or read for this breaks a rule.
    """
    spec = known_spec(stored)
    if isinstance(stored, Branch) and stored.encoding is not None:
        with blame(f"encoding {stored.encoding.id!r}", stored.plugin):
            if isinstance(stored.encoding, RowGroups):
                return _jobs_of_groups(stored, stored.encoding, decoder)
            job = stored.encoding.float_job(stored, 0, spec.numel, allocate(0), decoder)
        if isinstance(job, FloatJob) and job.rows is None:
            return [job]
    try:
        return [BytesJob(spec.nbytes, decoder.source(stored, 0, spec.numel))]
    except MemoryError as error:
        raise CmpkError(f"not enough memory to decode {spec.nbytes} bytes") from error


def _jobs_of_groups(stored: Branch, encoding: RowGroups, decoder: Decoder) -> list[DeviceJob]:
    spec = known_spec(stored)
    row_elements, row_nbytes = spec.numel // spec.shape[0], spec.nbytes // spec.shape[0]
    jobs: list[DeviceJob] = []
    for index, rows in enumerate(encoding.rows_of_groups(stored, decoder)):
        part = stored.parts[str(index)]
        if not row_nbytes:  # parts that hold nothing are read all the same
            decoder.decode(part)
            continue
        found = jobs_of(part, decoder)
        if any(job.rows is not None for job in found):  # groups of groups
            found = [BytesJob(known_spec(part).nbytes, Source("raw", decoder.decode(part)))]
        for job in found:
            if isinstance(job, FloatJob):
                jobs.append(job._replace(rows=rows, row_elements=row_elements))
            else:
                jobs.append(job._replace(rows=rows, row_nbytes=row_nbytes))
    return jobs
