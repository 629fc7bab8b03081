"""Importer safetensors: one ``.safetensors`` file, restored byte for byte."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

import numpy as np

from cmpk.dtypes import TensorSpec
from cmpk.errors import FormatError, SourceError
from cmpk.format.manifest import Segment, check_tensor
from cmpk.importers.base import Importer, ModelSource, SourceFile, SourceTensor
from cmpk.importers.files import file_digest, open_unbuffered, read_exactly
from cmpk.kernels.interface import U8

__all__ = ["SafetensorsFile", "SafetensorsImporter", "SafetensorsSource", "header_of"]

MAX_HEADER_NBYTES: Final = 100_000_000
"""The limit that safetensors itself sets."""


class HeaderEntry(NamedTuple):
    """One tensor of a header; ``start`` and ``stop`` count from the end of the header."""

    name: str
    spec: TensorSpec
    start: int
    stop: int


class Header(NamedTuple):
    """A parsed header.

    Attributes
    ----------
    stored : bytes
        The header as it is in the file, length field included.
    metadata : dict of str to str
    entries : list of HeaderEntry
        In the order of their data.
    """

    stored: bytes
    metadata: dict[str, str]
    entries: list[HeaderEntry]


def header_of(file: io.FileIO, nbytes: int) -> Header:
    """Read and check the header of a safetensors file.

    Parameters
    ----------
    file : binary file
        Read from where it stands; left at the first byte of data.
    nbytes : int
        Size of the whole file.

    Raises
    ------
    SourceError
        If it is not a valid safetensors file.
    """
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(MAX_HEADER_NBYTES, nbytes - 8):
        raise SourceError("it is too short, or its header too long, for a safetensors file")
    text = file.read(length)
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"its header is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise SourceError("its header is not a JSON object")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise SourceError("its __metadata__ is not an object of strings")
    entries = sorted((_entry(name, item) for name, item in table.items()), key=lambda e: (e.start, e.stop))
    end = 0
    for entry in entries:
        if entry.start != end:
            raise SourceError(f"its tensors leave a hole or overlap before {entry.name!r}")
        end = entry.stop
    if 8 + length + end != nbytes:
        raise SourceError(f"its tensors end at byte {8 + length + end}, the file at {nbytes}")
    return Header(prefix + text, metadata, entries)


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a member is repeated")
    for key, value in pairs:
        # Raises a ValueError for half a surrogate pair, which JSON can escape but UTF-8 can't hold.
        (key + value if isinstance(value, str) else key).encode()
    return table


def _entry(name: str, item: object) -> HeaderEntry:
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise SourceError(f"its entry {name!r} is malformed")
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise SourceError(f"its entry {name!r} is malformed")
    try:
        check_tensor(name, dtype, tuple(shape))
    except FormatError as error:
        raise SourceError(str(error)) from None
    spec = TensorSpec(dtype, tuple(shape))
    if offsets[1] - offsets[0] != spec.nbytes:
        raise SourceError(
            f"tensor {name!r} has {offsets[1] - offsets[0]} bytes, its shape needs {spec.nbytes}"
        )
    return HeaderEntry(name, spec, offsets[0], offsets[1])


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


class SafetensorsFile:
    """An open file, read once from front to back.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Its path in the archive.

    Attributes
    ----------
    is_hashed : bool
        Whether it is hashed on the way; to be set before the first tensor is read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.is_hashed = True
        self._path = path
        self._file = open_unbuffered(path)
        self.nbytes = os.fstat(self._file.fileno()).st_size
        try:
            self.header = header_of(self._file, self.nbytes)
        except SourceError as error:
            self._file.close()
            raise SourceError(f"{str(path)!r} can't be packed: {error}") from error
        self._sha256 = hashlib.sha256(self.header.stored)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read_next(self, nbytes: int) -> U8:
        """The next bytes of data.

        Raises
        ------
        SourceError
            If the file has become shorter.
        """
        data = read_exactly(self._file, nbytes)
        if self.is_hashed:
            self._sha256.update(data.data)
        return data

    def digest(self) -> str:
        """SHA-256 of the whole file, in hexadecimal; reads it again if it was not hashed on the way."""
        return self._sha256.hexdigest() if self.is_hashed else file_digest(self._path)

    def source_file(self, first: int) -> SourceFile:
        """How the file is put together again.

        Parameters
        ----------
        first : int
            Index in the archive of its first tensor; the others follow.
        """
        segments = [Segment(literal=len(self.header.stored))]
        if self.header.entries:
            segments.append(Segment(first=first, count=len(self.header.entries)))
        return SourceFile(self.name, segments, np.frombuffer(self.header.stored, np.uint8), self.digest)


class SafetensorsSource(ModelSource):
    """The tensors of one or more safetensors files."""

    def __init__(self, files: list[SafetensorsFile]) -> None:
        self._files = files
        self.metadata = dict(files[0].header.metadata) if len(files) == 1 else {}
        self.nbytes = sum(file.nbytes for file in files)
        self.notes = []

    def tensors(self) -> Iterator[SourceTensor]:
        """See `ModelSource.tensors`."""
        for file in self._files:
            file.is_hashed = self.expects_digests
            for entry in file.header.entries:
                nbytes = entry.stop - entry.start
                yield SourceTensor(entry.name, entry.spec, functools.partial(file.read_next, nbytes))

    def files(self) -> Iterator[SourceFile]:
        """See `ModelSource.files`."""
        first = 0
        for file in self._files:
            yield file.source_file(first)
            first += len(file.header.entries)

    def close(self) -> None:
        """See `ModelSource.close`."""
        for file in self._files:
            file.close()


class SafetensorsImporter(Importer):
    """One ``.safetensors`` file."""

    id: ClassVar[str] = "safetensors"
    summary: ClassVar[str] = "a .safetensors file"

    def accepts(self, path: Path) -> bool:
        """See `Importer.accepts`."""
        return path.is_file() and path.suffix == ".safetensors"

    def open(self, path: Path) -> ModelSource:
        """See `Importer.open`."""
        return SafetensorsSource([SafetensorsFile(path, path.name)])
