"""Weights that stay compressed, decoded when they are used: into shared buffers, the next one ahead."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, Self, TypeVar

import torch

from cmpk.dtypes import to_torch
from cmpk.encodings.base import allocate
from cmpk.errors import CmpkError, DeviceError
from cmpk.kernels.interface import U8
from cmpk.load import to_device
from cmpk.nn.compressed import Compressed, as_tensor
from cmpk.nn.untraced import untraced

__all__ = ["Scratch", "UseOrder", "WeightTable", "Weights"]


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


_Weight = TypeVar("_Weight", bound=_Sized)


class Scratch:
    """Buffers that are used again once the last tensor in them is gone.

    A tensor in a buffer stays what it is for as long as anything refers to its memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[U8] = []
        # Memory may be given back at any moment, by this very thread while it holds the lock too.
        self._returned: deque[U8] = deque()

    def take(self, nbytes: int) -> U8:
        """An array of undefined bytes: in the smallest free buffer that is large enough, or in a new one."""
        with self._lock:
            while self._returned:
                self._free.append(self._returned.popleft())
            fitting = [at for at, buffer in enumerate(self._free) if len(buffer) >= nbytes]
            if fitting:
                buffer = self._free.pop(min(fitting, key=lambda at: len(self._free[at])))
            else:
                # Those that are free are too small; were they kept, their sizes would add up.
                self._free.clear()
                buffer = allocate(nbytes)
        lease = buffer[:nbytes]
        weakref.finalize(lease, self._returned.append, buffer).atexit = False
        return lease


class UseOrder:
    """Which weight was used after which, the last time."""

    def __init__(self) -> None:
        self._after: dict[str, str] = {}
        self._last = ""

    def after(self, name: str) -> str:
        """The one that was used after this one, which is used now; this one if that is not known."""
        if name != self._last:
            self._after[self._last] = name
            self._last = name
        return self._after.get(name, name)


class WeightTable(Generic[_Weight]):
    """What is kept of a model's weights, by the names of their tensors.

    Parameters
    ----------
    stored : mapping of str to a weight
    device : torch.device
        Where weights are used.
    kept_on : torch.device
        Where they are stored.
    """

    def __init__(self, stored: Mapping[str, _Weight], device: torch.device, kept_on: torch.device) -> None:
        self._stored = dict(stored)
        self.device = device
        self.kept_on = kept_on

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # what is stored never changes

    @property
    def nbytes(self) -> int:
        """Bytes that all weights take as they are stored."""
        return sum(weight.nbytes for weight in self._stored.values())

    def stored(self, name: str) -> _Weight:
        """A weight as it is stored.

        Raises
        ------
        CmpkError
            If the weights have been closed.
        """
        try:
            return self._stored[name]
        except KeyError:
            raise CmpkError(f"tensor {name!r}: the model has been closed; load it again") from None

    def close(self) -> None:
        """Let go of the weights; tensors that were handed out stay valid."""
        self._stored = {}


class Weights(WeightTable[Compressed]):
    """Weights that are decoded for each use, on the CPU, and copied from there to any other device.

    While one is in use, the one that was used after it the last time is decoded on another thread. Several
    threads may use them at once, and processes that were forked.

    Parameters
    ----------
    stored : mapping of str to Compressed
    device : torch.device
    """

    def __init__(self, stored: Mapping[str, Compressed], device: torch.device) -> None:
        super().__init__(stored, device, torch.device("cpu"))
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._ahead: ThreadPoolExecutor | None = None
        self._scratch = Scratch()
        self._ready: dict[str, Future[torch.Tensor]] = {}
        self._alive: weakref.WeakValueDictionary[str, torch.Tensor] = weakref.WeakValueDictionary()
        self._order = UseOrder()

    def close(self) -> None:
        """As of any weights; what is decoded ahead is waited for."""
        with self._lock:
            super().close()
            self._ready.clear()
            ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.shutdown()

    @untraced
    def get(self, name: str) -> torch.Tensor:
        """A weight, in shared memory that stays its own for as long as something refers to it.

        Raises
        ------
        CmpkError
            CorruptStreamError if what is stored breaks a rule; or if the weights have been closed.
        """
        if os.getpid() != self._process:
            self._start()  # no thread survives a fork, nor does what it was about to do
        with self._lock:
            self.stored(name)
            mine = self._claim(name)
            future = self._ready[name]
            self._prepare_next(name)
        try:
            if mine:
                future.set_result(self._decode(name, torch.get_num_threads()))
            tensor = future.result()
        except BaseException as error:
            if not future.done():
                future.set_exception(error)  # for threads that wait for it
            with self._lock:
                if self._ready.get(name) is future:
                    del self._ready[name]
            raise
        with self._lock:
            self._alive[name] = tensor
        if tensor.is_cuda:  # the memory is that of the stream it was copied on, maybe by another thread
            tensor.record_stream(torch.cuda.current_stream(self.device))
        return tensor

    def _claim(self, name: str) -> bool:
        """See that a weight is ready or in the making; whether the caller has to make it."""
        if name in self._ready:
            return False
        self._ready[name] = Future()
        tensor = self._alive.get(name)
        if tensor is None:
            return True
        self._ready[name].set_result(tensor)
        return False

    def _prepare_next(self, name: str) -> None:
        """Keep no weight ready but this one and the one that was used after it the last time."""
        following = self._order.after(name)
        for other in self._ready.keys() - {name, following}:
            del self._ready[other]
        if following not in self._ready and following not in self._alive:
            if self._ahead is None:
                self._ahead = ThreadPoolExecutor(1, "cmpk-decode-ahead")
            with contextlib.suppress(RuntimeError):  # no thread starts while the interpreter ends
                self._ready[following] = self._ahead.submit(self._decode, following, 1)

    def _decode(self, name: str, threads: int) -> torch.Tensor:
        stored = self.stored(name)
        out = self._scratch.take(stored.spec.nbytes)
        stored.decode_into(out, threads)
        return to_device(as_tensor(out, stored.spec), self.device)

    def dtype(self, name: str) -> torch.dtype:
        """The type of a weight."""
        return to_torch(self.stored(name).spec.dtype)

    @untraced
    def rows(self, name: str, index: torch.Tensor) -> torch.Tensor:
        """Some rows of a weight, in memory of their own; see `Compressed.rows`."""
        try:
            wanted = index.cpu()
        except (RuntimeError, NotImplementedError) as error:
            raise DeviceError(f"tensor {name!r}: rows are looked up on the CPU: {error}") from error
        return to_device(self.stored(name).rows(wanted, torch.get_num_threads()), self.device)

    def copy(self, name: str) -> torch.Tensor:
        """A weight in memory of its own."""
        stored = self.stored(name)
        out = allocate(stored.spec.nbytes)
        stored.decode_into(out, torch.get_num_threads())
        return to_device(as_tensor(out, stored.spec), self.device)
