"""Importer directory: a model's folder; tensors from its safetensors files, the rest as attachments."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from cmpk.errors import FormatError, SourceError
from cmpk.format import is_unfinished
from cmpk.format.manifest import Segment, check_file_path
from cmpk.importers.base import Importer, ModelSource, SourceFile, SourceTensor
from cmpk.importers.safetensors import SafetensorsFile, SafetensorsSource

__all__ = ["DirectoryImporter", "DirectorySource"]


class DirectorySource(ModelSource):
    """All files below a folder but archives, links to files followed.

    Safetensors files are taken tensor by tensor. One that holds a name which an earlier one holds
    already (as two variants of one model do) travels as an attachment instead.
    """

    def __init__(self, root: Path) -> None:
        self.notes = []
        self._attachments: list[tuple[str, Path]] = []
        opened: list[SafetensorsFile] = []
        taken: set[str] = set()
        try:
            for name, path in _files_below(root):
                if is_unfinished(path):  # what is being packed itself, maybe
                    continue
                if path.suffix == ".cmpk":
                    self.notes.append(f"{name} is left out: an archive, maybe of this very folder")
                    continue
                file = _open_safetensors(path, name) if path.suffix == ".safetensors" else None
                if file is not None and taken.isdisjoint(entry.name for entry in file.header.entries):
                    taken.update(entry.name for entry in file.header.entries)
                    opened.append(file)
                    continue
                if file is not None:
                    file.close()
                    self.notes.append(
                        f"{name} repeats tensor names of another file and travels as an attachment"
                    )
                elif path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".safetensors"):
                    self.notes.append(f"{name} travels as an attachment; its tensors are not split")
                self._attachments.append((name, path))
        except BaseException:
            for file in opened:
                file.close()
            raise
        if not opened:
            raise SourceError(f"{str(root)!r} holds no .safetensors file; name a checkpoint file to pack it")
        self._tensors = SafetensorsSource(opened)
        self.metadata = self._tensors.metadata
        self.nbytes = self._tensors.nbytes + sum(path.stat().st_size for _, path in self._attachments)

    def tensors(self) -> Iterator[SourceTensor]:
        """See `ModelSource.tensors`."""
        self._tensors.expects_digests = self.expects_digests
        return self._tensors.tensors()

    def files(self) -> Iterator[SourceFile]:
        """See `ModelSource.files`."""
        yield from self._tensors.files()
        for name, path in self._attachments:
            yield attachment(name, path)

    def close(self) -> None:
        """See `ModelSource.close`."""
        self._tensors.close()


def attachment(name: str, path: Path) -> SourceFile:
    """A file taken as it is.

    Raises
    ------
    SourceError
        If it can't be read.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SourceError(f"can't read {str(path)!r}: {error.strerror}") from error
    segments = [Segment(literal=len(content))] if len(content) else []
    return SourceFile(name, segments, content, lambda: hashlib.sha256(content.data).hexdigest())


def _files_below(root: Path) -> list[tuple[str, Path]]:
    """Every file and its path in the archive, in order of that path."""
    found = []
    for folder, folders, names in os.walk(root, onerror=_walk_failed):
        for name in folders:
            if Path(folder, name).is_symlink():
                # Followed, it could lead anywhere, even round in circles; left out, files would be missing.
                raise SourceError(
                    f"{str(Path(folder, name))!r} is a link to a folder; put the folder in its place"
                )
        for name in names:
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if not path.is_file():
                raise SourceError(f"{str(path)!r} is not a regular file; move it out of the folder")
            try:
                check_file_path(relative)
            except (FormatError, UnicodeEncodeError):
                raise SourceError(f"the file name {relative!r} can't be stored; rename the file") from None
            found.append((relative, path))
    return sorted(found)


def _walk_failed(error: OSError) -> None:
    raise SourceError(f"can't list {error.filename!r}: {error.strerror}") from error


def _open_safetensors(path: Path, name: str) -> SafetensorsFile | None:
    """The file; None if it is not really one (then it is only an attachment)."""
    try:
        return SafetensorsFile(path, name)
    except SourceError:
        return None


class DirectoryImporter(Importer):
    """A folder as model hubs lay it out."""

    id: ClassVar[str] = "directory"
    summary: ClassVar[str] = (
        "a model directory: .safetensors files (sharded or not) and everything beside them"
    )

    def accepts(self, path: Path) -> bool:
        """See `Importer.accepts`."""
        return path.is_dir()

    def open(self, path: Path) -> ModelSource:
        """See `Importer.open`."""
        return DirectorySource(path)
