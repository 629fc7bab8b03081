"""What decoding a tensor or a part of it comes to: jobs for kernels on a device of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from cmpk.dtypes import DTYPES
from cmpk.encodings.base import Branch, Decoder, Stored, allocate, byte_range, known_spec
from cmpk.encodings.row_groups import RowGroups
from cmpk.errors import CmpkError, blame
from cmpk.kernels.interface import CodeJob, FloatJob, LookupJob, Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NOWHERE", "BytesJob", "DeviceJob", "aligned", "jobs_of"]

NOWHERE: Final = 0xFFFFFFFF
"""As the number of a row: its elements are stored nowhere."""

_BLOCK: Final = 1024


class BytesJob(NamedTuple):
    """Bytes that go to where they belong as they are.

    Attributes
    ----------
    n : int
        Bytes that the source holds.
    start, count : int
        The bytes wanted.
    source : Source
    rows : uint32 array or None
        Where the rows go that these bytes are of.
    row_elements : int
        Bytes of a row; 0 without `rows`.
    """

    n: int
    start: int
    count: int  # type: ignore[assignment]  # nobody counts the values of a job
    source: Source
    rows: NDArray[np.uint32] | None = None
    row_elements: int = 0


DeviceJob: TypeAlias = FloatJob | CodeJob | LookupJob | BytesJob
"""Its range starts at a multiple of 1024 elements or bytes, maybe within a row: its rows are those from that
one on. What its ``out`` is, is left to who runs it."""


def aligned(stored: Stored, start: int) -> int:
    """Where jobs for a tensor from element ``start`` on begin, if they do not go by rows."""
    # Elements of less than a byte stand in blocks of bytes.
    step = _BLOCK if DTYPES[known_spec(stored).dtype].nbits >= 8 else 8 * _BLOCK
    return start // step * step


def jobs_of(stored: Stored, start: int, stop: int, decoder: Decoder) -> list[DeviceJob]:
    """The jobs that put elements ``start .. stop - 1`` together; whole rows, of a tensor that has some.

    Those that go by rows take the output to begin with the row of element ``start``; the others start
    where `aligned` says, and take it to begin there. What only the encodings themselves can decode is
    decoded here, to bytes.

    Raises
    ------
    CorruptStreamError
        If what had to be decoded or read for this breaks a rule.
    """
    spec, first = known_spec(stored), aligned(stored, start)
    if isinstance(stored, Branch) and stored.encoding is not None:
        with blame(f"encoding {stored.encoding.id!r}", stored.plugin):
            if isinstance(stored.encoding, RowGroups):
                return _jobs_of_groups(stored, stored.encoding, start, stop, decoder)
            job = stored.encoding.float_job(stored, first, stop, allocate(0), decoder)
        if job is not None and job.rows is None:
            return [job]
    try:
        cut = byte_range(spec, first, stop)
        return [BytesJob(spec.nbytes, cut.start, cut.stop - cut.start, decoder.source(stored, first, stop))]
    except MemoryError as error:
        raise CmpkError(f"not enough memory to decode {spec.nbytes} bytes") from error


def _jobs_of_groups(
    stored: Branch, encoding: RowGroups, start: int, stop: int, decoder: Decoder
) -> list[DeviceJob]:
    import numpy as np

    spec = known_spec(stored)
    row_elements, row_nbytes = spec.numel // spec.shape[0], spec.nbytes // spec.shape[0]
    jobs: list[DeviceJob] = []
    for index, rows in enumerate(encoding.rows_of_groups(stored, decoder)):
        part = stored.parts[str(index)]
        if not row_nbytes:  # parts that hold nothing are read all the same
            decoder.decode(part)
            continue
        first_row = start // row_elements
        low, high = np.searchsorted(rows, (first_row, -(-stop // row_elements))).tolist()
        if low == high:
            continue
        wanted = rows[low:high] - np.uint32(first_row)
        found = jobs_of(part, low * row_elements, high * row_elements, decoder)
        if any(job.rows is not None for job in found):  # groups of groups
            data = decoder.decode(part, low * row_elements, high * row_elements)
            found = [BytesJob(len(data), 0, len(data), Source("raw", data))]
            low = 0
        for job in found:
            size = row_nbytes if isinstance(job, BytesJob) else row_elements
            # Rows may come along only because a range starts with a block.
            along = np.full(low - job.start // size, NOWHERE, np.uint32)
            jobs.append(job._replace(rows=np.concatenate([along, wanted]), row_elements=size))
    return jobs
