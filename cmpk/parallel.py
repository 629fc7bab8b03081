"""Work on the tensors of a model, several at a time and within a bound of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from cmpk.importers.base import ModelSource, SourceTensor, storable
from cmpk.kernels.interface import U8

__all__ = ["in_order"]

T = TypeVar("T")

_IN_FLIGHT_NBYTES: Final = 128 << 20
"""Tensors that are worked on at a time may have this many bytes in all; a larger one goes alone."""


def in_order(
    source: ModelSource, work: Callable[[SourceTensor, U8, int], T], jobs: int
) -> Iterator[tuple[SourceTensor, T | None]]:
    """Do work on every tensor of a model.

    Parameters
    ----------
    source : ModelSource
    work : function
        Gets a tensor, its bytes, and how many threads it may use itself.
    jobs : int
        Threads.

    Yields
    ------
    SourceTensor
        In the order of the source.
    what the work gives, or None
        None for a tensor that is tied to another.
    """
    if jobs == 1:
        for tensor in storable(source):
            yield tensor, None if tensor.tied_to else work(tensor, tensor.read(), 1)
        return
    waiting: deque[tuple[SourceTensor, Future[T] | None]] = deque()
    in_flight = 0
    pool = ThreadPoolExecutor(jobs)
    try:
        for tensor in storable(source):
            nbytes = 0 if tensor.tied_to else tensor.spec.nbytes
            while waiting and in_flight + nbytes > _IN_FLIGHT_NBYTES:
                first, future = waiting.popleft()
                in_flight -= 0 if future is None else first.spec.nbytes
                yield first, None if future is None else future.result()
            future = None
            if not tensor.tied_to:
                # The threads of the pool are shared by small tensors; a large one is nearly alone.
                threads = jobs if nbytes > _IN_FLIGHT_NBYTES // 4 else 1
                future = pool.submit(work, tensor, tensor.read(), threads)
                in_flight += nbytes
            waiting.append((tensor, future))
        while waiting:
            first, future = waiting.popleft()
            yield first, None if future is None else future.result()
    finally:
        # After an error or an interrupt nobody wants what is still to be coded, or being coded.
        pool.shutdown(wait=False, cancel_futures=True)
