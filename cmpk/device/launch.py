"""Launching the kernels of a batch."""

from __future__ import annotations

from cmpk.device.batch import Batch, Merge, Shape
from cmpk.kernels.triton.huffman import build_tables, decode_intervals
from cmpk.kernels.triton.merge import merge

__all__ = ["launch", "launch_decode", "launch_merge", "launch_tables"]


def launch(batch: Batch, shape: Shape) -> None:
    """Launch all on the current stream; whatever the streams hold, nothing else is touched."""
    if batch.n_sources:
        launch_tables(batch, shape)
        launch_decode(batch, shape)
    for step in batch.merges:
        launch_merge(step, shape)


def launch_tables(batch: Batch, shape: Shape) -> None:
    """Expand the code lengths of all Huffman streams."""
    build_tables[(batch.n_sources,)](batch.sources, shape.window_nbits, num_warps=8)


def launch_decode(batch: Batch, shape: Shape) -> None:
    """Decode all Huffman streams to scratch memory."""
    decode_intervals[(batch.n_programs,)](
        batch.sources, batch.programs, shape.lanes, shape.window_nbits, num_warps=shape.warps
    )


def launch_merge(step: Merge, shape: Shape) -> None:
    """Put the elements of one kind together."""
    merge[(step.n_programs,)](step.items, step.programs, *step.kind, shape.n_blocks, num_warps=4)
