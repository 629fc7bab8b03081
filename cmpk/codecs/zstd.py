"""Codec zstd: Zstandard frames (spec/codecs/zstd.md)."""

from __future__ import annotations

import itertools
import struct
import threading
from typing import ClassVar, Final

import zstandard

from cmpk.codecs.base import Codec
from cmpk.errors import RecipeError
from cmpk.kernels.interface import U8, Buffer

__all__ = ["DEFAULT_LEVEL", "MAX_CHUNK_LOG2", "MAX_EXPANSION", "MIN_CHUNK_LOG2", "Zstd"]

MIN_CHUNK_LOG2: Final = 16
MAX_CHUNK_LOG2: Final = 26
MAX_EXPANSION: Final = 65536
DEFAULT_LEVEL: Final = 3

_CHUNK_LOG2: Final = 22


class Zstd(Codec):
    """Zstandard at a level.

    Parameters
    ----------
    level : int
        1 (fast) to 22 (small); decoding speed hardly depends on it.
    """

    id: ClassVar[str] = "zstd"
    max_expansion: ClassVar[int] = MAX_EXPANSION

    def __init__(self, level: int = DEFAULT_LEVEL) -> None:
        if not 1 <= level <= zstandard.MAX_COMPRESSION_LEVEL:
            raise RecipeError(f"zstd level {level} is not within 1 to {zstandard.MAX_COMPRESSION_LEVEL}")
        self.level = level
        # One for each thread, kept: making one takes longer than most streams do.
        self._of_thread = threading.local()

    def encode(self, data: U8, threads: int = 1) -> Buffer:
        """Frames of 4 MiB each; see `Codec.encode`."""
        compressor = self._compressor()
        chunk = 1 << _CHUNK_LOG2
        view = data.data
        frames = [compressor.compress(view[at : at + chunk]) for at in range(0, len(data), chunk)]
        sizes = struct.pack(f"<{len(frames)}I", *map(len, frames))
        return b"".join((bytes([_CHUNK_LOG2]), sizes, *frames))

    def decode_range(self, stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
        """Decode the frames that the range touches; see `Codec.decode_range`."""
        view = memoryview(stream)  # type: ignore[arg-type]  # arrays are buffers; their stubs say so from 3.12 on
        chunk_log2, ends = self._frame_ends(view, n)
        chunk = 1 << chunk_log2
        stop = start + len(out)
        for index in range(start >> chunk_log2, -(-stop >> chunk_log2) if len(out) else 0):
            first = index << chunk_log2
            decoded = self._decode_frame(view[ends[index] : ends[index + 1]], min(chunk, n - first))
            low, high = max(start, first), min(stop, first + len(decoded))
            out[low - start : high - start] = decoded[low - first : high - first]

    def _frame_ends(self, view: memoryview, n: int) -> tuple[int, list[int]]:
        """The chunk size, and where each frame begins; then the end of the last."""
        if not len(view) or not MIN_CHUNK_LOG2 <= view[0] <= MAX_CHUNK_LOG2:
            raise self.corrupt("the chunk size is out of range")
        n_frames = -(-n >> view[0])
        if len(view) < 1 + 4 * n_frames:
            raise self.corrupt("the stream ends within its table of frames")
        # Plain integers: most streams have one frame, and an array costs more than its whole table.
        sizes = struct.unpack_from(f"<{n_frames}I", view, 1)
        ends = list(itertools.accumulate(sizes, initial=1 + 4 * n_frames))
        if ends[-1] != len(view):
            raise self.corrupt("the frames do not fill the stream")
        return view[0], ends

    def _decode_frame(self, frame: memoryview, nbytes: int) -> U8:
        import numpy as np

        try:
            parameters = zstandard.get_frame_parameters(frame)
            if parameters.content_size != nbytes or parameters.dict_id != 0:
                raise self.corrupt("a frame does not state the size of its chunk")
            decoded = self._decompressor().decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise self.corrupt(f"a frame can't be decoded: {error}") from error
        if len(decoded) != nbytes:
            raise self.corrupt("a frame is shorter than its chunk")
        return np.frombuffer(decoded, np.uint8)

    def _compressor(self) -> zstandard.ZstdCompressor:
        try:
            return self._of_thread.compressor  # type: ignore[no-any-return]
        except AttributeError:
            self._of_thread.compressor = zstandard.ZstdCompressor(level=self.level)
            return self._compressor()

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        try:
            return self._of_thread.decompressor  # type: ignore[no-any-return]
        except AttributeError:
            self._of_thread.decompressor = zstandard.ZstdDecompressor()
            return self._decompressor()
