"""Reading a container: map, validate, hand out streams (spec/container.md, sections 2, 5 and 6)."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from pathlib import Path
from types import TracebackType

import xxhash
import zstandard

from cmpk.errors import CmpkError, CorruptStreamError, FormatError, SourceError
from cmpk.format.layout import (
    FOOTER_NBYTES,
    PREAMBLE_NBYTES,
    Footer,
    check_preamble,
    padding_before,
)
from cmpk.format.manifest import Manifest, Node, from_json, leaves

__all__ = ["ContainerReader"]


class ContainerReader:
    """A container whose manifest has been read and checked.

    Parameters
    ----------
    source : path or bytes
        A file, which is mapped, or its bytes.

    Attributes
    ----------
    manifest : Manifest
    footer : Footer
    nbytes : int
        Size of the whole file.
    offsets : list of int
        Where each stream starts, in file order: the leaves of all tensors, then those of the files.

    Raises
    ------
    SourceError
        If the file can't be opened.
    FormatError
        If a rule of the format is broken.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        if isinstance(source, bytes):
            self._view = memoryview(source)
        else:
            self._view = self._map_file(Path(source))
        try:
            self.nbytes = len(self._view)
            self.footer, self._manifest_json = self._read_manifest()
            self.manifest: Manifest = from_json(self._manifest_json)
            self.offsets = self._locate()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ContainerReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. Views handed out before stay valid."""
        self._view = memoryview(b"")

    @property
    def manifest_json(self) -> bytes:
        """The manifest as it is in the file."""
        return self._manifest_json

    def stream(self, offset: int, leaf: Node) -> memoryview:
        """The bytes of a stream, checked against their digest.

        Raises
        ------
        CorruptStreamError
            If the digest does not match.
        CmpkError
            If the reader has been closed.
        """
        view = self.unchecked_stream(offset, leaf)
        if xxhash.xxh3_64_hexdigest(view) != leaf.xxh3:
            raise CorruptStreamError(
                f"the {leaf.codec} stream at {offset} does not match its digest; the file is damaged"
            )
        return view

    def unchecked_stream(self, offset: int, leaf: Node) -> memoryview:
        """The bytes of a stream, whatever they are; for who checks them in another way.

        Raises
        ------
        CmpkError
            If the reader has been closed.
        """
        if not self._view:
            raise CmpkError("the archive has been closed")
        return self._view[offset : offset + leaf.nbytes]

    def check_padding(self) -> None:
        """Check that alignment skipped nothing but zeros.

        Raises
        ------
        FormatError
            If it did.
        """
        end = PREAMBLE_NBYTES
        for leaf, offset in zip(self._leaves(), self.offsets, strict=True):
            if any(self._view[end:offset]):
                raise FormatError(f"the padding before offset {offset} is not zero")
            end = offset + leaf.nbytes

    @staticmethod
    def _map_file(path: Path) -> memoryview:
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for who writes to it
                raise SourceError(f"can't open {str(path)!r}: it is not a regular file")
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < PREAMBLE_NBYTES + FOOTER_NBYTES:
                    return memoryview(file.read(PREAMBLE_NBYTES + FOOTER_NBYTES))
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            reason = error.strerror if isinstance(error, OSError) else error
            raise SourceError(f"can't open {str(path)!r}: {reason}") from error
        return memoryview(mapped)

    def _read_manifest(self) -> tuple[Footer, bytes]:
        view = self._view
        if len(view) < PREAMBLE_NBYTES + FOOTER_NBYTES:
            raise FormatError(
                f"{len(view)} bytes are too few for a .cmpk file; it is cut off or something else"
            )
        check_preamble(bytes(view[:PREAMBLE_NBYTES]))
        footer = Footer.from_bytes(bytes(view[-FOOTER_NBYTES:]), len(view))
        stored = view[footer.manifest_offset : footer.manifest_offset + footer.manifest_stored_nbytes]
        data = (
            bytes(stored)
            if len(stored) == footer.manifest_nbytes
            else _decompress(stored, footer.manifest_nbytes)
        )
        if hashlib.sha256(data).digest() != footer.manifest_sha256:
            raise FormatError("the manifest does not match its digest; the file is damaged: fetch it again")
        return footer, data

    def _leaves(self) -> list[Node]:
        manifest = self.manifest
        found = [leaf for tensor in manifest.tensors for leaf in leaves(tensor.data)]
        found += [file.literal for file in manifest.files if file.literal is not None]
        return found

    def _locate(self) -> list[int]:
        offsets = []
        end = PREAMBLE_NBYTES
        for leaf in self._leaves():
            end += padding_before(end, leaf.codec, leaf.nbytes)
            offsets.append(end)
            end += leaf.nbytes
        if end != self.footer.manifest_offset:
            raise FormatError(
                f"the streams end at {end}, but the manifest starts at {self.footer.manifest_offset}"
            )
        return offsets


def _decompress(stored: memoryview, nbytes: int) -> bytes:
    try:
        parameters = zstandard.get_frame_parameters(stored)
        if parameters.content_size != nbytes or parameters.dict_id != 0:
            raise FormatError("the manifest's frame does not state the size that the footer does")
        data = zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"the manifest can't be decompressed: {error}") from error
    if len(data) != nbytes:
        raise FormatError("the manifest's frame does not fill its place")
    return data
