"""Weights that stay compressed on a device, and are decoded there when they are used, the next one ahead."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NamedTuple

import torch

from cmpk.device import on_device
from cmpk.device.resident import Resident, jobs_as_stored, residents
from cmpk.device.streams import Pending, SideStream
from cmpk.dtypes import TensorSpec, to_torch
from cmpk.encodings.base import allocate
from cmpk.errors import CorruptStreamError
from cmpk.nn.compressed import Compressed
from cmpk.nn.untraced import untraced
from cmpk.nn.weights import UseOrder, WeightTable

__all__ = ["DeviceWeight", "DeviceWeights"]


class DeviceWeight(NamedTuple):
    """A weight on a device, and what it decodes to."""

    resident: Resident
    spec: TensorSpec

    @property
    def nbytes(self) -> int:
        """Bytes that it takes there, with what kernels are told of it."""
        return self.resident.nbytes


class DeviceWeights(WeightTable[DeviceWeight]):
    """Weights whose streams are on a device, whose kernels decode them for each use.

    While one is in use, the one that was used after it the last time is decoded on a stream of its own. The
    memory of each is that of the stream that is the current one when it is decoded, and is used again for
    what this stream is given after the weight is gone.

    Parameters
    ----------
    stored : mapping of str to Compressed
        Those of which the CPU would have to decode something are left out. The others are decoded once,
        which checks every rule.
    device : torch.device
    threads : int
        For what the CPU does on the way.

    Raises
    ------
    CmpkError
        CorruptStreamError if what is stored breaks a rule, DeviceError if the device fails.
    """

    def __init__(self, stored: Mapping[str, Compressed], device: torch.device, threads: int) -> None:
        super().__init__({}, device, device)
        self._lock = threading.Lock()
        self._order = UseOrder()
        self._ready: dict[str, Pending] = {}
        with on_device(device), torch.inference_mode(False):
            self._side = SideStream(device)
            try:
                self._put(stored, threads)
            except CorruptStreamError:
                for compressed in stored.values():  # the CPU says which one, and where
                    compressed.decode_into(allocate(compressed.spec.nbytes), threads)
                raise

    def _put(self, stored: Mapping[str, Compressed], threads: int) -> None:
        found = {name: jobs_as_stored(tree.root, tree.streams, threads) for name, tree in stored.items()}
        kept = residents({name: jobs for name, jobs in found.items() if jobs}, self.device, threads)
        self._stored = {name: DeviceWeight(resident, stored[name].spec) for name, resident in kept.items()}
        for name, resident in kept.items():
            for memory in resident.memory:
                self._side.uses(memory)
            self._decoded(name).joined()
        for name, resident in kept.items():
            resident.check(name)

    def close(self) -> None:
        """As of any weights."""
        with self._lock:
            super().close()
            self._ready = {}

    @untraced
    def get(self, name: str) -> torch.Tensor:
        """A weight, for what the current stream is given from now on.

        Raises
        ------
        CmpkError
            DeviceError if the device fails; or if the weights have been closed.
        """
        with self._lock, on_device(self.device):
            self.stored(name)
            following = self._order.after(name)
            # Before anything is decoded, so that it may take the memory of what is let go of.
            self._ready = {key: self._ready[key] for key in (name, following) if key in self._ready}
            for wanted in (name, following):
                if wanted not in self._ready:
                    self._ready[wanted] = self._decoded(wanted)
            return self._ready[name].joined()

    def _decoded(self, name: str) -> Pending:
        resident, spec = self.stored(name)
        with torch.inference_mode(False):  # it may be used again in another mode
            out = torch.empty(spec.shape, dtype=to_torch(spec.dtype), device=self.device)
            return self._side.write(out, resident.decode_into)

    def dtype(self, name: str) -> torch.dtype:
        """The type of a weight."""
        return to_torch(self.stored(name).spec.dtype)

    @untraced
    def rows(self, name: str, index: torch.Tensor) -> torch.Tensor:
        """Some rows of a weight, in memory of their own; all of it is decoded."""
        return torch.nn.functional.embedding(index, self.get(name))

    def copy(self, name: str) -> torch.Tensor:
        """A weight in memory of its own."""
        with self._lock, on_device(self.device):
            return self._decoded(name).joined()
