"""Writing a container in one forward pass (spec/container.md, sections 2 and 5)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import xxhash
import zstandard

from cmpk.errors import DestinationError
from cmpk.format.layout import Footer, max_manifest_nbytes, padding_before, preamble
from cmpk.format.manifest import Manifest, Node, to_json

__all__ = ["ByteSink", "ContainerWriter", "MemorySink", "atomic_file", "is_unfinished"]

_MANIFEST_LEVEL = 15

_UNFINISHED = ".cmpk-tmp"


class ByteSink(Protocol):
    """What a container is written to: a file, a pipe, a buffer."""

    def write(self, data: memoryview, /) -> object:
        """Take all of ``data``, or return how many bytes of it were taken, as unbuffered files do."""


class MemorySink:
    """Takes what is written without copying it, until all of it is asked for at once.

    Parameters
    ----------
    max_nbytes : int, optional
        Of more, nothing is kept.
    """

    def __init__(self, max_nbytes: int | None = None) -> None:
        self._pieces: list[memoryview] = []
        self._max_nbytes = max_nbytes
        self._nbytes = 0

    def write(self, data: memoryview, /) -> None:
        """Keep a piece; it must not change until `getvalue`."""
        self._nbytes += len(data)
        if self.is_whole:
            self._pieces.append(data)
        else:
            self._pieces.clear()

    @property
    def is_whole(self) -> bool:
        """Whether everything is there that was written."""
        return self._max_nbytes is None or self._nbytes <= self._max_nbytes

    def getvalue(self) -> bytes:
        """All pieces, one after another."""
        return b"".join(self._pieces)

    def copy_to(self, sink: ByteSink) -> None:
        """Write all pieces to another.

        Raises
        ------
        DestinationError
            If it does not take them.
        """
        for piece in self._pieces:
            _write(sink, piece)


class ContainerWriter:
    """Writes streams one after another, then the manifest.

    Parameters
    ----------
    sink : object with ``write``
        Never read, never moved backwards: a pipe will do.
    """

    def __init__(self, sink: ByteSink) -> None:
        self._sink = sink
        self.nbytes = 0
        self._write(preamble())

    def add_stream(self, codec: str, stream: object) -> Node:
        """Write a stream and return its leaf.

        Parameters
        ----------
        codec : str
            Id of the codec that made it.
        stream : buffer
            The bytes.
        """
        view = memoryview(stream).cast("B")  # type: ignore[arg-type]
        self._write(bytes(padding_before(self.nbytes, codec, len(view))))
        self._write(view)
        return Node(codec=codec, nbytes=len(view), xxh3=xxhash.xxh3_64_hexdigest(view))

    def finish(self, manifest: Manifest) -> Footer:
        """Write the manifest and the footer; nothing can be added after."""
        data = to_json(manifest)
        packed = zstandard.ZstdCompressor(level=_MANIFEST_LEVEL).compress(data)
        # One that is compressed too well would be refused as a bomb.
        is_fit = len(packed) < len(data) <= max_manifest_nbytes(len(packed))
        stored = packed if is_fit else data
        footer = Footer(self.nbytes, len(stored), len(data), hashlib.sha256(data).digest())
        self._write(stored)
        self._write(footer.to_bytes())
        return footer

    def _write(self, data: bytes | memoryview) -> None:
        _write(self._sink, memoryview(data))
        self.nbytes += len(data)


def _write(sink: ByteSink, data: memoryview) -> None:
    """Have a sink take all of some bytes."""
    while data:
        try:
            taken = sink.write(data)
        except OSError as error:
            raise DestinationError(f"writing failed: {error.strerror or error}") from error
        if taken == 0 or (taken is None and isinstance(sink, io.RawIOBase)):
            raise DestinationError("writing failed: the destination takes no more bytes")
        data = data[taken:] if isinstance(taken, int) else data[len(data) :]


@contextlib.contextmanager
def atomic_file(path: Path, *, overwrite: bool) -> Iterator[ByteSink]:
    """A file that appears under its name only when it is complete and on disk.

    Parameters
    ----------
    path : Path
        Where it will be.
    overwrite : bool
        Whether a file that is there may be replaced.

    Raises
    ------
    DestinationError
        If it exists already, or can't be written.
    """
    if not overwrite and os.path.lexists(path):
        raise DestinationError(f"{str(path)!r} exists; name another file, or overwrite it with --force")
    if not path.name or "\0" in str(path):
        raise DestinationError(f"{str(path)!r} is not the name of a file")
    # Of a name that fills the 255 bytes that file systems allow, 32 characters leave room in any script.
    temporary = path.with_name(f".{path.name[:32]}.{secrets.token_hex(6)}{_UNFINISHED}")
    try:
        with _blamed_on(path):
            file = temporary.open("xb")
        try:
            yield _Destination(file, path)
            with _blamed_on(path):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with contextlib.suppress(OSError):  # what could not be flushed has been reported
                file.close()
        with _blamed_on(path):
            _publish(temporary, path, overwrite=overwrite)
    finally:
        # Also where an interrupt fell right behind the making of the file.
        with contextlib.suppress(OSError):  # most often it is not there any more
            temporary.unlink()


def is_unfinished(path: Path) -> bool:
    """Whether a file is one that `atomic_file` has not finished yet, or never will."""
    return path.suffix == _UNFINISHED


@contextlib.contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """Only what is done to the file itself: other errors of the system are not the destination's."""
    try:
        yield
    except OSError as error:
        raise DestinationError(f"can't write {str(path)!r}: {error.strerror or error}") from error


class _Destination:
    """The file as `atomic_file` hands it out."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def write(self, data: memoryview, /) -> int:
        with _blamed_on(self._path):
            return self._file.write(data)


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(path)
    else:
        try:
            # A link, unlike a rename, fails if somebody made the file meanwhile.
            os.link(temporary, path)
        except FileExistsError:
            raise DestinationError(
                f"{str(path)!r} exists; name another file, or overwrite it with --force"
            ) from None
        except OSError:
            temporary.rename(path)  # a file system without hard links
    with contextlib.suppress(OSError):
        # The new name itself reaches the disk with its directory (not possible on Windows).
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
