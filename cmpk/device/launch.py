"""Launching the kernels of a batch."""

from __future__ import annotations

from typing import Any, Final

from cmpk.device.batch import Batch, Shape, Step
from cmpk.device.codes import CodeKind, LookupKind
from cmpk.device.floats import MergeKind
from cmpk.device.tasks import Kind
from cmpk.kernels.triton.codes import dequantize, look_up
from cmpk.kernels.triton.huffman import build_tables, decode_intervals
from cmpk.kernels.triton.merge import merge

__all__ = ["launch", "launch_decode", "launch_step", "launch_tables"]

_KERNELS: Final[dict[type[Kind], Any]] = {MergeKind: merge, CodeKind: dequantize, LookupKind: look_up}


def launch(batch: Batch, shape: Shape) -> None:
    """Launch all on the current stream; whatever the streams hold, nothing else is touched."""
    if batch.n_sources:
        launch_tables(batch, shape)
        launch_decode(batch, shape)
    for step in batch.steps:
        launch_step(step, shape)


def launch_tables(batch: Batch, shape: Shape) -> None:
    """Expand the code lengths of all Huffman streams."""
    build_tables[(batch.n_sources,)](batch.sources, shape.window_nbits, num_warps=8)


def launch_decode(batch: Batch, shape: Shape) -> None:
    """Decode all Huffman streams to scratch memory."""
    decode_intervals[(batch.n_programs,)](
        batch.sources, batch.programs, shape.lanes, shape.window_nbits, num_warps=shape.warps
    )


def launch_step(step: Step, shape: Shape) -> None:
    """Make the elements of one kind."""
    kernel = _KERNELS[type(step.kind)]
    kernel[(step.n_programs,)](step.items, step.programs, *step.kind, shape.n_blocks, num_warps=4)
