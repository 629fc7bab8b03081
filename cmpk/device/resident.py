"""Tensors whose streams stay on a device, as they are stored, and are decoded there time and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from cmpk.device.arena import Arena
from cmpk.device.batch import GPU, INTERPRETER, Batch, Shape, fill
from cmpk.device.codes import runs_on_devices
from cmpk.device.launch import launch
from cmpk.device.preparing import task_of
from cmpk.device.ring import SCRATCH_NBYTES, SLOT_NBYTES, copy_to_host_half
from cmpk.device.tasks import MAX_COUNT, Range, batches
from cmpk.encodings.base import Decoder, Leaf, Stored, known_spec
from cmpk.encodings.jobs import BytesJob, DeviceJob, jobs_of
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import CodeJob, FloatJob, LookupJob, Source
from cmpk.kernels.triton.errors import corrupt

__all__ = ["Resident", "jobs_as_stored", "residents"]


class Resident:
    """A tensor on a device, as its kernels decode it.

    Parameters
    ----------
    batches : sequence of _Placed
        What is launched for it, laid out for an output at address 0.
    scratch : uint8 tensor
        What is decoded to on the way. Others may decode to it as well, on the same stream.
    error : int32 tensor, shape ()
        Where kernels tell of damage.
    shape : Shape
        Of the programs.
    """

    def __init__(
        self, batches: Sequence[_Placed], scratch: torch.Tensor, error: torch.Tensor, shape: Shape
    ) -> None:
        self._batches = batches
        self._scratch = scratch
        self._error = error
        self._shape = shape
        self._out = 0

    @property
    def nbytes(self) -> int:
        """Bytes that its streams take there, and what kernels are told of them."""
        return sum(placed.memory.numel() for placed in self._batches)

    @property
    def memory(self) -> list[torch.Tensor]:
        """All memory that kernels use but the output."""
        return [*(placed.memory for placed in self._batches), self._scratch, self._error]

    def decode_into(self, out: torch.Tensor) -> None:
        """Launch the kernels that decode it on the current stream, which must be the same each time.

        Parameters
        ----------
        out : contiguous tensor
            Of as many bytes as the tensor has, at an address that is a multiple of 16.
        """
        address = out.data_ptr()
        for placed in self._batches:
            for field in placed.outs:
                field.add_(address - self._out)
        self._out = address
        for placed in self._batches:
            launch(placed.batch, self._shape)

    def check(self, name: str) -> None:
        """Raise if decoding has found damage; waits for it. Sound streams stay sound.

        Raises
        ------
        CorruptStreamError
        """
        flags = int(self._error)
        if flags:
            raise CorruptStreamError(f"tensor {name!r}: {corrupt(flags)}")


class _Placed(NamedTuple):
    """A batch in memory of its own, and the fields in there that tell kernels where the output is."""

    batch: Batch
    memory: torch.Tensor
    outs: list[torch.Tensor]


def jobs_as_stored(root: Stored, streams: Mapping[int, memoryview], threads: int) -> list[DeviceJob] | None:
    """The jobs that decode a tensor, if kernels of a device do so from its streams as they are.

    Parameters
    ----------
    root : Stored
        Every codec and encoding of it is installed.
    streams : mapping of int to memoryview
        The streams of its leaves by their offsets.
    threads : int

    Returns
    -------
    list of DeviceJob, or None
        None if something would have to be decoded on the CPU first.

    Raises
    ------
    CorruptStreamError
        If what had to be read for this is damaged.
    """
    jobs = jobs_of(root, 0, known_spec(root).numel, _StreamsAlone(lambda leaf: streams[leaf.offset], threads))
    own = {id(stream) for stream in streams.values()}
    for job in jobs:
        is_counted = job.row_elements <= MAX_COUNT
        if isinstance(job, CodeJob | LookupJob):
            is_counted = is_counted and runs_on_devices(job)
        if not is_counted or any(id(source.stream) not in own for source in _sources_of(job)):
            return None
    return jobs


class _StreamsAlone(Decoder):
    """Decodes nothing where kernels of a device can't; gives no bytes in its place."""

    def source(self, stored: Stored, start: int, stop: int) -> Source:
        """As that of any decoder, if it is a stream."""
        if isinstance(stored, Leaf) and stored.codec is not None and stored.codec.fused:
            return super().source(stored, start, stop)
        return Source("raw", b"")


def _sources_of(job: DeviceJob) -> Sequence[Source]:
    if isinstance(job, FloatJob):
        return job.sources
    return [job.source if isinstance(job, BytesJob) else job.codes]


def residents(
    jobs: Mapping[str, Sequence[DeviceJob]], device: torch.device, threads: int
) -> dict[str, Resident]:
    """Put tensors on a device as they are stored.

    Parameters
    ----------
    jobs : mapping of str to sequence of DeviceJob
        What decodes each of them, whole.
    device : torch.device
    threads : int
        For what the CPU does on the way.

    Raises
    ------
    CorruptStreamError
        If a rule is broken that takes no decoding to see.
    """
    shape = GPU if device.type == "cuda" else INTERPRETER
    errors = torch.zeros(len(jobs), dtype=torch.int32, device=device)
    planned: dict[str, list[list[Range]]] = {}
    for number, (name, of_tensor) in enumerate(jobs.items()):
        error = errors.data_ptr() + 4 * number
        try:
            tasks = [task_of(name, job, 0, error, threads) for job in of_tensor]
        except CorruptStreamError as found:
            raise CorruptStreamError(f"tensor {name!r}: {found}") from found
        planned[name] = list(batches(iter(tasks), SLOT_NBYTES, SCRATCH_NBYTES))
    needed = [
        sum(task.scratch_nbytes(start, stop) for task, start, stop in ranges)
        for of_tensor in planned.values()
        for ranges in of_tensor
    ]
    scratch = torch.empty(max(needed, default=0), dtype=torch.uint8, device=device)
    return {
        name: Resident([_placed(ranges, scratch, shape) for ranges in of_tensor], scratch, error, shape)
        for (name, of_tensor), error in zip(planned.items(), errors, strict=True)
    }


def _placed(ranges: Sequence[Range], scratch: torch.Tensor, shape: Shape) -> _Placed:
    """Lay a batch out in memory that is as large as it must be."""
    most = sum(task.staged_nbytes(start, stop) for task, start, stop in ranges)
    host = torch.empty(most, dtype=torch.uint8)

    def filled(address: int) -> tuple[Batch, Arena]:
        arena = Arena(address, most, host.numpy())
        return fill(ranges, arena, Arena(scratch.data_ptr(), scratch.numel()), shape), arena

    # Once for the size, and once more for the addresses that the kernels are told.
    nbytes = filled(0)[0].nbytes
    memory = torch.empty(nbytes, dtype=torch.uint8, device=scratch.device)
    batch, arena = filled(memory.data_ptr())
    copy_to_host_half(arena)
    memory.copy_(host[:nbytes])
    words = memory[: nbytes // 8 * 8].view(torch.int64)
    outs = []
    for step in batch.steps:
        first = (step.items - memory.data_ptr()) // 8
        outs.append(words[first : first + step.n_items * step.kind.n_fields : step.kind.n_fields])
    return _Placed(batch, memory, outs)
