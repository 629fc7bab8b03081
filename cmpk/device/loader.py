"""Archive → tensors that are decoded on their device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from cmpk.archive import Archive
from cmpk.device.ring import Ring
from cmpk.device.tasks import MAX_ROW_ELEMENTS, Task, batches, task_of
from cmpk.encodings.jobs import BytesJob, DeviceJob
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import FloatJob, Source
from cmpk.kernels.triton.errors import corrupt

__all__ = ["decode_onto"]


def decode_onto(
    archive: Archive, outs: Mapping[str, torch.Tensor], threads: int, ring: Ring | None = None
) -> None:
    """Decode whole tensors to where they are.

    Parameters
    ----------
    archive : Archive
    outs : mapping of str to torch.Tensor
        Contiguous, of the shape and type that the archive has for each name, all on one device.
    threads : int
        For what the CPU does on the way.
    ring : Ring, optional
        What the bytes pass through; one of the usual size by default.

    Raises
    ------
    CorruptStreamError
        If a stream is damaged; the message names the tensor. The tensors are then in an undefined state.
    """
    if not outs:
        return
    device = next(iter(outs.values())).device
    errors = torch.zeros(len(outs), dtype=torch.int32, device=device)
    ring = ring or Ring(device)

    def tasks() -> Iterator[Task]:
        for number, (name, out) in enumerate(outs.items()):
            for job in _jobs(archive, name, threads):
                try:
                    yield task_of(name, job, out.data_ptr(), errors[number:].data_ptr(), threads)
                except CorruptStreamError as error:
                    raise CorruptStreamError(f"tensor {name!r}: {error}") from error

    ring.run(batches(tasks(), ring.slot_nbytes, ring.scratch_nbytes))
    for name, flags in zip(outs, errors.tolist(), strict=True):
        if flags:
            archive.read(name, threads)  # the CPU tells more exactly what is wrong, if it sees it
            raise CorruptStreamError(f"tensor {name!r}: {corrupt(flags)}")


def _jobs(archive: Archive, name: str, threads: int) -> list[DeviceJob]:
    jobs = archive.jobs(name, threads)
    rows = (job.row_elements if isinstance(job, FloatJob) else job.row_nbytes for job in jobs)
    if any(n > MAX_ROW_ELEMENTS for n in rows):
        return [BytesJob(archive.spec(name).nbytes, Source("raw", archive.read(name, threads)))]
    return jobs
