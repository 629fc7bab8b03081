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
from cmpk.kernels.triton.rans import build_slots, decode_chunks

__all__ = ["launch", "launch_decode", "launch_step", "launch_tables"]

_KERNELS: Final[dict[type[Kind], Any]] = {MergeKind: merge, CodeKind: dequantize, LookupKind: look_up}


def launch(batch: Batch, shape: Shape) -> None:
    """Launch all on the current stream; whatever the streams hold, nothing else is touched."""
    launch_tables(batch, shape)
    launch_decode(batch, shape)
    for step in batch.steps:
        launch_step(step, shape)


def launch_tables(batch: Batch, shape: Shape) -> None:
    """Expand the code lengths and frequencies of all streams."""
    if batch.huffman.n_sources:
        build_tables[(batch.huffman.n_sources,)](batch.huffman.sources, shape.window_nbits, num_warps=8)
    if batch.rans.n_sources:
        build_slots[(batch.rans.n_sources,)](batch.rans.sources, num_warps=8)


def launch_decode(batch: Batch, shape: Shape) -> None:
    """Decode all streams to scratch memory."""
    if batch.huffman.n_programs:
        decode_intervals[(batch.huffman.n_programs,)](
            batch.huffman.sources,
            batch.huffman.programs,
            shape.lanes,
            shape.window_nbits,
            num_warps=shape.warps,
        )
    if batch.rans.n_programs:
        decode_chunks[(batch.rans.n_programs,)](
            batch.rans.sources, batch.rans.programs, shape.chunks, num_warps=1
        )


def launch_step(step: Step, shape: Shape) -> None:
    """Make the elements of one kind."""
    kernel = _KERNELS[type(step.kind)]
    kernel[(step.n_programs,)](step.items, step.programs, *step.kind, shape.n_blocks, num_warps=4)
