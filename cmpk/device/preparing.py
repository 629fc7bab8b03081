"""Jobs to tasks: what needs no decoding is checked, and what no kernel of a device does is done here."""

from __future__ import annotations

import numpy as np

from cmpk import kernels
from cmpk.device.codes import (
    CodeTask,
    LookupKind,
    LookupTask,
    code_exceptions,
    code_kind,
    runs_on_devices,
)
from cmpk.device.floats import FloatTask, bytes_kind, float_exceptions, float_kind, upper_nbits_of
from cmpk.device.planes import plane_of
from cmpk.device.tasks import Task, Where
from cmpk.dtypes import DTYPES
from cmpk.encodings.base import allocate
from cmpk.encodings.jobs import BytesJob, DeviceJob
from cmpk.kernels.interface import FLOAT_LAYOUTS, CodeJob, FloatJob, LookupJob, Source
from cmpk.kernels.reference.buffers import bytes_of
from cmpk.kernels.reference.dequantize import scales_of

__all__ = ["task_of"]


def task_of(name: str, job: DeviceJob, out: int, error: int, threads: int) -> Task:
    """Check a job and make it ready.

    Parameters
    ----------
    name : str
        The tensor that it is part of.
    job : DeviceJob
    out, error : int
        Addresses on the device: of the job's first element, or with rows of row 0, and of an int32.
    threads : int
        For what is decoded here.

    Raises
    ------
    CorruptStreamError
        If a rule is broken that takes no decoding of streams to see.
    """
    if isinstance(job, CodeJob | LookupJob) and not runs_on_devices(job):
        job = _decoded(job, threads)
    # Which elements, whereto, and by which rows: what all tasks have.
    rows = None if job.rows is None else np.asarray(job.rows, np.uint32)
    where = Where(name, job.start, job.start + job.count, out, error, rows, job.row_elements)
    if isinstance(job, FloatJob):
        return _float_task(job, where)
    if isinstance(job, CodeJob):
        return _code_task(job, where)
    if isinstance(job, LookupJob):
        return _lookup_task(job, where)
    plane = plane_of(job.source, job.n)
    return FloatTask(where, bytes_kind(plane, job.rows is not None), [plane], None, 0, 0, 8)


def _float_task(job: FloatJob, where: Where) -> FloatTask:
    planes = [plane_of(source, job.n) for source in job.sources]
    upper_nbits = upper_nbits_of(job)
    return FloatTask(
        where,
        float_kind(job, planes),
        planes,
        float_exceptions(job),
        job.base,
        sum(FLOAT_LAYOUTS[job.dtype]) - upper_nbits,
        upper_nbits,
    )


def _code_task(job: CodeJob, where: Where) -> CodeTask:
    scales = scales_of(job)
    exceptions = code_exceptions(job, scales)
    plane = plane_of(job.codes, job.n)
    return CodeTask(where, code_kind(job, scales, plane.is_packed), [plane], exceptions, scales)


def _lookup_task(job: LookupJob, where: Where) -> LookupTask:
    plane = plane_of(job.codes, job.n)
    kind = LookupKind(job.element_nbytes, int(plane.is_packed), int(job.rows is not None))
    return LookupTask(where, kind, [plane], None, bytes_of(job.table), job.size, job.run)


def _decoded(job: CodeJob | LookupJob, threads: int) -> BytesJob:
    """The job done here, to bytes that stand where those of the whole tensor would."""
    nbytes = DTYPES[job.dtype].nbytes if isinstance(job, CodeJob) else job.element_nbytes
    start, stop = job.start * nbytes, (job.start + job.count) * nbytes
    data = allocate(stop)
    kernels.active().decode_floats([job._replace(out=data[start:], rows=None, row_elements=0)], threads)
    rows = None if job.rows is None else np.asarray(job.rows, np.uint32)
    return BytesJob(stop, start, stop - start, Source("raw", data), rows, job.row_elements * nbytes)
