"""Running jobs on a device and on the reference kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cmpk.dtypes import DTYPES
from cmpk.errors import CorruptStreamError
from cmpk.kernels import reference
from cmpk.kernels.interface import FloatJob, Job, LookupJob

__all__ = ["SMALL", "on_device", "on_reference", "out_nbytes"]

SMALL = {"slot_nbytes": 1 << 20, "scratch_nbytes": 1 << 20}

Outcome = list[bytes] | type[CorruptStreamError]


def out_nbytes(job: Job) -> int:
    """Size of the output: a row more than the job has, where it goes by rows."""
    rows = 0 if job.rows is None else job.row_elements
    if isinstance(job, LookupJob):
        return (job.count + rows) * job.element_nbytes
    dtype = job.out_dtype or job.dtype if isinstance(job, FloatJob) else job.dtype
    return (job.count + rows) * DTYPES[dtype].nbytes


def on_reference(jobs: Sequence[Job]) -> Outcome:
    """The outputs, or that something is corrupt."""
    outs = [np.zeros(out_nbytes(job), np.uint8) for job in jobs]
    try:
        reference.decode_floats([job._replace(out=out) for job, out in zip(jobs, outs, strict=True)])
    except CorruptStreamError:
        return CorruptStreamError
    return [out.tobytes() for out in outs]


def on_device(jobs: Sequence[Job], device: torch.device, **ring: Any) -> Outcome:
    """The same, decoded by the device's kernels, through a ring that is small or as ``ring`` says."""
    from cmpk.device.preparing import task_of
    from cmpk.device.ring import Ring
    from cmpk.device.tasks import batches

    outs = [torch.zeros(out_nbytes(job), dtype=torch.uint8, device=device) for job in jobs]
    errors = torch.zeros(1, dtype=torch.int32, device=device)
    small = Ring(device, **{**SMALL, **ring})
    try:
        tasks = [
            task_of("a", job, out.data_ptr(), errors.data_ptr(), 1)
            for job, out in zip(jobs, outs, strict=True)
        ]
        small.run(batches(iter(tasks), small.slot_nbytes, small.scratch_nbytes))
    except CorruptStreamError:
        return CorruptStreamError
    return CorruptStreamError if int(errors) else [out.cpu().numpy().tobytes() for out in outs]
