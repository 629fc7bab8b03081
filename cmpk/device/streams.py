"""Streams of a CUDA device beside the current one."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch

__all__ = ["Pending", "SideStream", "new_event", "new_stream"]


def new_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream of a CUDA device."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def new_event() -> torch.cuda.Event:
    """An event that takes no time."""
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


class Pending:
    """A tensor that a side stream may still be writing.

    Parameters
    ----------
    tensor : torch.Tensor
    written : torch.cuda.Event, optional
        When it has been written; None if it has.
    owner : torch.cuda.Stream, optional
        The stream that its memory belongs to.
    """

    def __init__(
        self,
        tensor: torch.Tensor,
        written: torch.cuda.Event | None = None,
        owner: torch.cuda.Stream | None = None,
    ) -> None:
        self._tensor = tensor
        self._written = written
        if owner is not None and written is not None:
            # One that nobody waits for gives its memory back to its owner, which must not write there yet.
            weakref.finalize(self, owner.wait_event, written).atexit = False

    def joined(self) -> torch.Tensor:
        """The tensor, for what the current stream is given from now on."""
        if self._written is not None:
            current = torch.cuda.current_stream(self._tensor.device)
            current.wait_event(self._written)
            self._tensor.record_stream(current)  # which does nothing if this is the owner
        return self._tensor


class SideStream:
    """A stream that writes tensors while the current one goes on; without CUDA, they are written at once.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = new_stream(device) if device.type == "cuda" else None

    def write(self, out: torch.Tensor, launch: Callable[[torch.Tensor], None]) -> Pending:
        """Have a tensor written that was allocated just now, on the current stream.

        Parameters
        ----------
        out : torch.Tensor
        launch : function of a tensor
            Launches on the current stream what writes it. What one call launches is done before what the
            next one does, so that they may share memory.
        """
        if self._stream is None:
            launch(out)
            return Pending(out)
        current = torch.cuda.current_stream(out.device)
        # Whoever had this memory before has been given to the current stream already, if not yet run.
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            launch(out)
        written = new_event()
        written.record(self._stream)
        return Pending(out, written, current)

    def uses(self, tensor: torch.Tensor) -> None:
        """Say that what is launched here uses a tensor: its memory is then not given to others before."""
        if self._stream is not None:
            tensor.record_stream(self._stream)
