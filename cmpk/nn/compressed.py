"""Tensors that stay as they are stored, and what is decoded of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from cmpk.codecs import Raw
from cmpk.dtypes import TensorSpec, to_torch
from cmpk.encodings.base import Branch, Decoder, Leaf, Stored, allocate, known_spec
from cmpk.errors import CmpkError
from cmpk.format import Node
from cmpk.kernels.interface import U8

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Compressed", "as_tensor", "with_raw_leaves"]

_GAP_NBYTES: Final = 1 << 19
"""About what is decoded in the time that one more range takes; closer rows are decoded as one range."""

_BLOCK_NBYTES: Final = 1 << 23
"""Rows are gathered from blocks of this size."""

_Rows = tuple[int, int]
"""The first of some rows, and the one after the last."""


class Compressed(NamedTuple):
    """A tensor as it is stored.

    Attributes
    ----------
    name : str
        For messages.
    root : Stored
        Every codec and encoding of it is installed.
    streams : mapping of int to memoryview
        The streams of its leaves by their offsets, whose digests have been checked before.
    """

    name: str
    root: Stored
    streams: Mapping[int, memoryview]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes as it is stored."""
        return sum(map(len, self.streams.values()))

    @property
    def spec(self) -> TensorSpec:
        """Type and shape of what it decodes to."""
        return known_spec(self.root)

    def decode_into(self, out: U8, threads: int) -> None:
        """Decode all of it.

        Parameters
        ----------
        out : uint8 array, shape (spec.nbytes,)
        threads : int

        Raises
        ------
        CmpkError
            CorruptStreamError if what is stored breaks a rule.
        """
        self._decode([(0, self.spec.numel, out)], threads)

    def rows(self, index: torch.Tensor, threads: int) -> torch.Tensor:
        """Some rows.

        Decodes the rows that are asked for and what lies closely between them.

        Parameters
        ----------
        index : integer tensor of any shape
        threads : int

        Returns
        -------
        tensor, shape (*index.shape, *row)

        Raises
        ------
        IndexError
            If there is no such row, as from torch.
        """
        spec = self.spec
        unique, place = torch.unique(index, return_inverse=True)
        wanted = unique.numpy()
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < spec.shape[0]:
            raise IndexError(f"tensor {self.name!r} has no row {wanted[0] if wanted[0] < 0 else wanted[-1]}")
        n_elements = spec.numel // spec.shape[0]
        row_nbytes = spec.nbytes // spec.shape[0]
        found = allocate(len(wanted) * row_nbytes).reshape(-1, row_nbytes)
        scratch = allocate(max(1, _BLOCK_NBYTES // row_nbytes) * row_nbytes).reshape(-1, row_nbytes)
        for first, last in _blocks(wanted, len(scratch)):
            ranges, positions = [], wanted[first:last].copy()
            at = 0
            for low, high in _runs(wanted[first:last], _GAP_NBYTES // row_nbytes):
                start, stop = int(wanted[first + low]), int(wanted[first + high - 1]) + 1
                out = scratch[at : at + stop - start].reshape(-1)
                ranges.append((start * n_elements, stop * n_elements, out))
                positions[low:high] += at - start
                at += stop - start
            self._decode(ranges, threads)
            np.take(scratch, positions, 0, found[first:last])
        return as_tensor(found.reshape(-1), TensorSpec(spec.dtype, (len(wanted), *spec.shape[1:])))[place]

    def _decode(self, ranges: Iterable[tuple[int, int, U8]], threads: int) -> None:
        decoder = Decoder(lambda leaf: self.streams[leaf.offset], threads)
        try:
            for start, stop, out in ranges:
                decoder.decode_into(self.root, start, stop, out)
            decoder.flush()
        except CmpkError as error:
            raise type(error)(f"tensor {self.name!r}: {error}") from error


def with_raw_leaves(compressed: Compressed, threads: int, max_nbytes: int) -> Compressed:
    """The same tree with the coding of its leaves undone, where they decode to so many bytes at most."""
    streams: dict[int, memoryview] = {}
    decoder = Decoder(lambda leaf: compressed.streams[leaf.offset], threads)

    def raw(stored: Stored) -> Stored:
        if isinstance(stored, Branch):
            parts = {name: raw(part) for name, part in stored.parts.items()}
            return Branch(stored.node, stored.spec, stored.encoding, parts, stored.plugin)
        if known_spec(stored).nbytes > max_nbytes:
            streams[stored.offset] = compressed.streams[stored.offset]
            return stored
        data = streams[stored.offset] = decoder.decode(stored).data
        return Leaf(Node(codec=Raw.id, nbytes=len(data)), stored.offset, stored.spec, Raw())

    try:
        return Compressed(compressed.name, raw(compressed.root), streams)
    except CmpkError as error:
        raise type(error)(f"tensor {compressed.name!r}: {error}") from error


def as_tensor(data: U8, spec: TensorSpec) -> torch.Tensor:
    """A tensor in the memory of an array, which it keeps alive."""
    if not len(data):  # an empty array has no strides that torch could view as another type
        return torch.empty(spec.shape, dtype=to_torch(spec.dtype))
    return torch.from_numpy(data).view(to_torch(spec.dtype)).view(spec.shape)


def _blocks(wanted: NDArray[Any], n_rows: int) -> Iterator[_Rows]:
    """Which of the rows, ascending, lie in each block of so many rows."""
    return _cut(np.diff(wanted // n_rows) != 0, len(wanted))


def _runs(wanted: NDArray[Any], gap: int) -> Iterator[_Rows]:
    """Which of the rows, ascending, lie closely together."""
    return _cut(np.diff(wanted) > gap, len(wanted))


def _cut(ends: NDArray[np.bool_], n: int) -> Iterator[_Rows]:
    """The ranges of ``n`` items that end where it is said."""
    bounds = [0, *(np.flatnonzero(ends) + 1).tolist(), n] if n else []
    return itertools.pairwise(bounds)
