"""Slots that compressed bytes pass through on their way to a device."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from cmpk.device.arena import Arena
from cmpk.device.batch import GPU, INTERPRETER, Batch, Shape, fill
from cmpk.device.launch import launch
from cmpk.device.streams import new_event, new_stream
from cmpk.device.tasks import Range
from cmpk.kernels.interface import U8

__all__ = ["N_SLOTS", "SCRATCH_NBYTES", "SLOT_NBYTES", "Ring", "copy_to_host_half"]

SLOT_NBYTES = 16 << 20
N_SLOTS = 3
SCRATCH_NBYTES = 16 << 20
"""All of this together is what loading takes beside the tensors, on the device and, pinned, on the host."""


class Ring:
    """A few slots, each on the host and on the device, filled, copied and decoded in turn.

    While kernels decode one slot, the next is being copied on a stream of its own, and the one after is
    being filled. Without CUDA, under Triton's interpreter, both halves are the same memory and one thing
    happens after another.

    Parameters
    ----------
    device : torch.device
    slot_nbytes, scratch_nbytes : int
    shape : Shape, optional
        Of the programs; by default what suits the device.
    """

    def __init__(
        self,
        device: torch.device,
        slot_nbytes: int = SLOT_NBYTES,
        scratch_nbytes: int = SCRATCH_NBYTES,
        shape: Shape | None = None,
    ) -> None:
        self.slot_nbytes, self.scratch_nbytes = slot_nbytes, scratch_nbytes
        self._shape = shape or (GPU if device.type == "cuda" else INTERPRETER)
        self._scratch = torch.empty(scratch_nbytes, dtype=torch.uint8, device=device)
        self._copying = new_stream(device) if device.type == "cuda" else None
        self._slots = [_Slot(device, slot_nbytes) for _ in range(N_SLOTS)]
        if self._copying is not None:
            # The caching allocator may have handed out memory that this stream still has plans with.
            self._copying.wait_stream(torch.cuda.current_stream(device))

    def run(self, batches: Iterable[list[Range]]) -> None:
        """Pass batches through; kernels may still run when this returns.

        Raises
        ------
        CorruptStreamError
            As `cmpk.device.batch.fill` does.
        """
        try:
            for number, ranges in enumerate(batches):
                slot = self._slots[number % N_SLOTS]
                self._launch(slot, slot.fill(ranges, self._scratch, self._shape))
        finally:
            if self._copying is not None:
                self._copying.synchronize()

    def _launch(self, slot: _Slot, batch: Batch) -> None:
        if self._copying is None or slot.events is None:
            launch(batch, self._shape)
            return
        copied, decoded = slot.events
        current = torch.cuda.current_stream(slot.device.device)
        with torch.cuda.stream(self._copying):
            self._copying.wait_event(decoded)
            slot.device[: batch.nbytes].copy_(slot.host[: batch.nbytes], non_blocking=True)
            copied.record(self._copying)
        current.wait_event(copied)
        launch(batch, self._shape)
        decoded.record(current)


class _Slot:
    """The two halves, and on a real device when each is free again: copied from, and decoded from."""

    def __init__(self, device: torch.device, nbytes: int) -> None:
        is_cuda = device.type == "cuda"
        self.host = torch.empty(nbytes, dtype=torch.uint8, pin_memory=is_cuda)
        self.device = torch.empty(nbytes, dtype=torch.uint8, device=device) if is_cuda else self.host
        self.events = (new_event(), new_event()) if is_cuda else None
        self._octets = self.host.numpy()

    def fill(self, ranges: list[Range], scratch: torch.Tensor, shape: Shape) -> Batch:
        """Lay a batch out, once the last one has left."""
        if self.events is not None:
            self.events[0].synchronize()
        arena = Arena(self.device.data_ptr(), len(self._octets), self._octets)
        batch = fill(ranges, arena, Arena(scratch.data_ptr(), scratch.numel()), shape)
        copy_to_host_half(arena)
        return batch


class _Alias:
    """The memory of an array, said to be writable."""

    def __init__(self, array: U8) -> None:
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def copy_to_host_half(arena: Arena) -> None:
    """Do the copies that laying out has left.

    By torch's threads: those of Python would wait for the interpreter's lock.
    """
    for to, what in arena.copies:
        # Torch warns of arrays that can't be written, as those of a mapped file; this one is only read.
        torch.from_numpy(to).copy_(torch.from_numpy(np.asarray(_Alias(what))))
