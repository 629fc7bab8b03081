"""Codec lz4: blocks of the LZ4 format (SPEC.md)."""

from __future__ import annotations

from typing import ClassVar, Final

import lz4.block
import numpy as np

from cmpk.codecs import Codec
from cmpk.errors import RecipeError
from cmpk.kernels.interface import U8, Buffer

__all__ = ["DEFAULT_LEVEL", "MAX_CHUNK_LOG2", "MAX_EXPANSION", "MAX_LEVEL", "MIN_CHUNK_LOG2", "Lz4"]

MIN_CHUNK_LOG2: Final = 16
MAX_CHUNK_LOG2: Final = 24
MAX_EXPANSION: Final = 255

DEFAULT_LEVEL: Final = 1
MAX_LEVEL: Final = 12

_CHUNK_LOG2: Final = 18
"""LZ4 looks back 64 KiB at most: larger chunks save next to nothing, smaller ones make finer slices."""

_FIRST_HIGH_LEVEL: Final = 3


class Lz4(Codec):
    """LZ4 at a level.

    Parameters
    ----------
    level : int
        1 (fast) to 12 (small), as of the ``lz4`` command; decoding speed does not depend on it.
    """

    id: ClassVar[str] = "lz4"
    max_expansion: ClassVar[int] = MAX_EXPANSION

    def __init__(self, level: int = DEFAULT_LEVEL) -> None:
        if not 1 <= level <= MAX_LEVEL:
            raise RecipeError(f"lz4 level {level} is not within 1 to {MAX_LEVEL}")
        self.level = level

    def encode(self, data: U8, threads: int = 1) -> Buffer:
        """Blocks of 256 KiB each; see `Codec.encode`."""
        chunk = 1 << _CHUNK_LOG2
        blocks = [self._compressed(data[at : at + chunk]) for at in range(0, len(data), chunk)]
        sizes = np.array([len(block) for block in blocks], "<u4")
        return b"".join((bytes([_CHUNK_LOG2]), sizes.tobytes(), *blocks))

    def decode_range(self, stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
        """Decode the blocks that the range touches; see `Codec.decode_range`."""
        octets = np.frombuffer(stream, np.uint8)
        chunk_log2, ends = self._parsed(octets, n)
        stop = start + len(out)
        for index in range(start >> chunk_log2, -(-stop >> chunk_log2) if len(out) else 0):
            first = index << chunk_log2
            chunk = self._decompressed(octets[ends[index] : ends[index + 1]], min(1 << chunk_log2, n - first))
            low, high = max(start, first), min(stop, first + len(chunk))
            out[low - start : high - start] = chunk[low - first : high - first]

    def _compressed(self, chunk: U8) -> bytes:
        mode = "high_compression" if self.level >= _FIRST_HIGH_LEVEL else "default"
        # Without its size: that follows from the stream, and what is not stored can't lie.
        block: bytes = lz4.block.compress(chunk, mode, compression=self.level, store_size=False)
        return block

    def _parsed(self, octets: U8, n: int) -> tuple[int, list[int]]:
        """Size of the chunks, and where each block begins and the last one ends."""
        if not len(octets) or not MIN_CHUNK_LOG2 <= octets[0] <= MAX_CHUNK_LOG2:
            raise self.corrupt("the chunk size is out of range")
        chunk_log2 = int(octets[0])
        n_blocks = -(-n >> chunk_log2)
        head = 1 + 4 * n_blocks
        if len(octets) < head:
            raise self.corrupt("the stream ends within its table of blocks")
        sizes = octets[1:head].view("<u4").astype(np.int64)
        ends = head + np.concatenate(([0], np.cumsum(sizes)))
        if ends[-1] != len(octets):
            raise self.corrupt("the blocks do not fill the stream")
        return chunk_log2, ends.tolist()

    def _decompressed(self, block: U8, nbytes: int) -> U8:
        """The ``nbytes`` of a block: what the stream promises is all that is ever allocated."""
        if len(block) > nbytes + nbytes // 255 + 16:
            raise self.corrupt(f"a block of {len(block)} bytes for a chunk of {nbytes}")
        try:
            chunk = lz4.block.decompress(block, uncompressed_size=nbytes)
        except lz4.block.LZ4BlockError as error:
            raise self.corrupt(f"a block can't be decoded: {error}") from error
        if len(chunk) != nbytes:
            raise self.corrupt(f"a block of {len(chunk)} bytes where its chunk has {nbytes}")
        return np.frombuffer(chunk, np.uint8)
