"""The planes that elements are put together from: what of their streams a range needs on a device."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np

from cmpk import kernels
from cmpk.device.arena import ALIGNMENT, Arena
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, Source
from cmpk.kernels.reference import rans
from cmpk.kernels.reference.bitpack import BLOCK_SYMBOLS
from cmpk.kernels.reference.buffers import bytes_of
from cmpk.kernels.reference.huffman_stream import SYNC_SYMBOLS, HuffmanStream, parse_stream
from cmpk.kernels.reference.rans import RansStream

__all__ = ["AnyPlane", "HuffmanPlane", "Plane", "PlaneFields", "RansPlane", "StoredPlane", "plane_of"]

TABLES_NBYTES: Final = 4096 * 4 + 4096 * 2
"""Look-up tables of a Huffman stream (`cmpk.kernels.triton.huffman`)."""

SLOTS_NBYTES: Final = 4096 * 4
"""The table of a rans stream (`cmpk.kernels.triton.rans`)."""

_WHOLE_BYTES: Final = 8
_PADDING: Final = 24
"""Bytes behind a stream's words that a lane may load, and what aligning them takes."""


class PlaneFields(NamedTuple):
    """Where kernels find a plane; see `cmpk.kernels.triton.merge.PLANE_FIELDS`."""

    address: int
    width: int
    n_symbols: int


class Plane(Protocol):
    """A byte for each element, as stored.

    Attributes
    ----------
    align : int
        Ranges are best cut at multiples of this many elements. All start at multiples of 1024.
    is_packed : bool
        Whether the last kernel finds it packed.
    """

    align: int
    is_packed: bool

    def staged_nbytes(self, start: int, stop: int) -> int:
        """At most so many bytes are staged for a range."""

    def scratch_nbytes(self, start: int, stop: int) -> int:
        """At most so many bytes are decoded to for a range."""

    def decoded(self) -> StoredPlane:
        """The same as one that can be cut at every block, decoded on the CPU where it must be."""


class StoredPlane:
    """A plane that the last kernel reads as it is stored: bytes, or packed by the codec bitpack.

    Parameters
    ----------
    octets : uint8 array
        The bytes, or the blocks of packed symbols.
    width : int
        8, or bits of a packed symbol.
    n : int
        Symbols in all.
    """

    align = BLOCK_SYMBOLS

    def __init__(self, octets: U8, width: int, n: int) -> None:
        self._octets = octets
        self._width = width
        self._n = n
        self.is_packed = width != _WHOLE_BYTES

    def staged_nbytes(self, start: int, stop: int) -> int:
        """See `Plane`."""
        # Whole blocks; the last one of a stream takes less than this.
        return -(-(stop - start) // BLOCK_SYMBOLS) * BLOCK_SYMBOLS * self._width // 8 + ALIGNMENT

    def scratch_nbytes(self, start: int, stop: int) -> int:
        """See `Plane`."""
        return 0

    def decoded(self) -> StoredPlane:
        """See `Plane`."""
        return self

    def stage(self, start: int, stop: int, arena: Arena) -> PlaneFields:
        """Copy what the range needs."""
        if not self.is_packed:
            wanted = self._octets[start:stop]
            room = -len(wanted) % BLOCK_SYMBOLS
        else:
            stop = -(-stop // BLOCK_SYMBOLS) * BLOCK_SYMBOLS
            wanted, room = self._octets[start * self._width // 8 : stop * self._width // 8], 0
        return PlaneFields(arena.put(wanted, room), self._width, self._n - start)


class HuffmanPlane:
    """A plane that is decoded to bytes first."""

    def __init__(self, stream: HuffmanStream) -> None:
        self.stream = stream
        self.is_packed = False
        self.align = 1 << stream.chunk_log2

    def staged_nbytes(self, start: int, stop: int) -> int:
        """See `Plane`."""
        first, last = self._chunks(start, stop)
        coded = int(self.stream.offsets[last] - self.stream.offsets[first])
        n_symbols = min(last << self.stream.chunk_log2, self.stream.n) - (first << self.stream.chunk_log2)
        n_lanes = -(-n_symbols // SYNC_SYMBOLS)
        return coded + _PADDING + 512 + 16 * (last - first) + 4 * n_lanes + 4 * ALIGNMENT

    def scratch_nbytes(self, start: int, stop: int) -> int:
        """See `Plane`."""
        return TABLES_NBYTES + -(-(stop - start) // SYNC_SYMBOLS) * SYNC_SYMBOLS + 2 * ALIGNMENT

    def stage(self, start: int, stop: int, arena: Arena, scratch: Arena, error: int) -> tuple[list[int], int]:
        """Copy the chunks that the range needs, and check them as far as that takes no decoding.

        Returns
        -------
        list of int
            In the order of `cmpk.kernels.triton.huffman.SOURCE_FIELDS`.
        int
            The first interval of these chunks that is wanted.
        """
        stream = self.stream
        first, last = self._chunks(start, stop)
        first_lane = (start - (first << stream.chunk_log2)) // SYNC_SYMBOLS
        n_decoded = -(-(stop - start) // SYNC_SYMBOLS)
        stream.check_chunks(first, last)
        begin, end = int(stream.offsets[first]), int(stream.offsets[last])
        chunks = np.empty((last - first, 2), np.int64)
        chunks[:, 0] = (stream.offsets[first:last] - begin) * 8
        chunks[:, 1] = stream.totals[first:last]
        ranked = np.argsort(stream.lengths, kind="stable")[np.count_nonzero(stream.lengths == 0) :]
        code = np.zeros(512, np.uint8)
        code[:256], code[256 : 256 + len(ranked)] = stream.lengths, ranked
        return [
            arena.put(code),
            scratch.take(TABLES_NBYTES)[1],
            arena.put(stream.octets[begin:end], _PADDING),
            (end - begin + 7) // 8,
            arena.put(chunks.view(np.uint8).reshape(-1)),
            arena.put(stream.sync_deviations(first, last).astype(np.int32).view(np.uint8)),
            stream.sync_width,
            stream.chunk_log2,
            stream.n - (first << stream.chunk_log2),
            first_lane + n_decoded,
            scratch.take(n_decoded * SYNC_SYMBOLS)[1] - first_lane * SYNC_SYMBOLS,
            error,
        ], first_lane

    def decoded(self) -> StoredPlane:
        """See `Plane`."""
        out = np.empty(self.stream.n, np.uint8)
        kernels.active().huffman_decode(self.stream.octets, self.stream.n, 0, out)
        return StoredPlane(out, _WHOLE_BYTES, self.stream.n)

    def _chunks(self, start: int, stop: int) -> tuple[int, int]:
        return start >> self.stream.chunk_log2, ((stop - 1) >> self.stream.chunk_log2) + 1


class RansPlane:
    """A plane that is decoded to bytes first, by whole chunks."""

    is_packed = False

    def __init__(self, stream: RansStream) -> None:
        self.stream = stream
        self.align = 1 << stream.chunk_log2

    def staged_nbytes(self, start: int, stop: int) -> int:
        """See `Plane`."""
        first, last = self._chunks(start, stop)
        coded = int(self.stream.offsets[last] - self.stream.offsets[first])
        return coded + 512 + 16 * (last - first) + 3 * ALIGNMENT

    def scratch_nbytes(self, start: int, stop: int) -> int:
        """See `Plane`."""
        return SLOTS_NBYTES + self._n_decoded(start, stop) + 2 * ALIGNMENT

    def stage(self, start: int, stop: int, arena: Arena, scratch: Arena, error: int) -> tuple[list[int], int]:
        """Copy the chunks that the range needs.

        Returns
        -------
        list of int
            In the order of `cmpk.kernels.triton.rans.RANS_FIELDS`.
        int
            The address of the range's first symbol.
        """
        stream = self.stream
        first, last = self._chunks(start, stop)
        offsets = stream.offsets[first : last + 1]
        chunks = np.stack([offsets[:-1] - offsets[0], np.diff(offsets)], 1)
        starts = (np.cumsum(stream.frequencies) - stream.frequencies).astype(np.uint16)
        out = scratch.take(self._n_decoded(start, stop))[1]
        return [
            arena.put(starts.view(np.uint8)),
            scratch.take(SLOTS_NBYTES)[1],
            arena.put(stream.octets[offsets[0] : offsets[-1]]),
            arena.put(chunks.astype(np.int64).reshape(-1).view(np.uint8)),
            last - first,
            stream.chunk_log2,
            stream.n - (first << stream.chunk_log2),
            out,
            error,
        ], out + start - (first << stream.chunk_log2)

    def decoded(self) -> StoredPlane:
        """See `Plane`."""
        out = np.empty(self.stream.n, np.uint8)
        kernels.active().rans_decode(self.stream.octets, self.stream.n, 0, out)
        return StoredPlane(out, _WHOLE_BYTES, self.stream.n)

    def _chunks(self, start: int, stop: int) -> tuple[int, int]:
        return start >> self.stream.chunk_log2, ((stop - 1) >> self.stream.chunk_log2) + 1

    def _n_decoded(self, start: int, stop: int) -> int:
        """Symbols of these chunks, and those that the last block can be read up to."""
        first, last = self._chunks(start, stop)
        n_symbols = min(last << self.stream.chunk_log2, self.stream.n) - (first << self.stream.chunk_log2)
        return -(-n_symbols // BLOCK_SYMBOLS) * BLOCK_SYMBOLS


AnyPlane: TypeAlias = StoredPlane | HuffmanPlane | RansPlane


def plane_of(source: Source, n: int) -> AnyPlane:
    """A source of ``n`` bytes, checked as far as its head goes.

    Raises
    ------
    CorruptStreamError
        If a rule of the codec is broken.
    """
    octets = bytes_of(source.stream)
    if source.codec == "raw":
        if octets.size != n:
            raise CorruptStreamError(f"codec 'raw': {octets.size} bytes are stored where {n} are expected")
        return StoredPlane(octets, _WHOLE_BYTES, n)
    if source.codec == "huffman":
        return HuffmanPlane(parse_stream(octets, n))
    if source.codec == "bitpack":
        # Decoding nothing checks the head, and the padding of the last block.
        kernels.active().bitpack_decode(octets, n, 0, np.empty(0, np.uint8))
        return StoredPlane(octets[1:], int(octets[0]), n)
    return RansPlane(rans.parse_stream(octets, n))
