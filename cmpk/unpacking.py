"""File → files: what was packed, byte for byte."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cmpk.archive import Archive, Progress
from cmpk.errors import CmpkError, DestinationError
from cmpk.format import FileEntry, atomic_file
from cmpk.indexing import default_threads
from cmpk.kernels.interface import U8

__all__ = ["unpack"]

_DEFAULT_NAME = "model.safetensors"


def unpack(
    src: str | os.PathLike[str] | Archive,
    dest: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Restore the files that were packed, byte for byte; those of lossy tensors as these are decoded.

    Parameters
    ----------
    src : path or Archive
    dest : path
        A folder, made if need be. If the archive restores a single file and ``dest`` ends in that
        file's suffix and is no folder, it is the file itself. An archive that was made from tensors
        in memory gives one file, ``model.safetensors``.
    jobs : int, optional
        Threads; all cores by default.
    force : bool
        Overwrite files that exist.
    progress : function, optional
        Called with bytes done and bytes in all.

    Returns
    -------
    list of Path
        The files written. Each appears under its name only when it is complete and its SHA-256 has
        been checked, or, where it has lossy tensors and so none, every tensor's BLAKE3.

    Raises
    ------
    DestinationError
        If a file exists, can't be written, or would lie outside ``dest``.
    FormatError, UnknownIdError
        If the archive is damaged, or needs a plugin.
    """
    if not isinstance(src, Archive):
        with Archive(src) as archive:
            return unpack(archive, dest, jobs=jobs, force=force, progress=progress)
    threads = jobs or default_threads()
    targets = _targets(src, Path(dest))
    if not force:
        for _, path in targets:
            if os.path.lexists(path):
                raise DestinationError(
                    f"{str(path)!r} exists; name another folder, or overwrite it with --force"
                )
    total = sum(file.nbytes for file in src.manifest.files) or src.decoded_nbytes
    done = 0
    for file, path in targets:
        chunks = _safetensors_chunks(src, threads) if file is None else src.file_chunks(file, threads)
        _make_parent(path)
        with atomic_file(path, overwrite=force) as out:
            for chunk in chunks:
                out.write(chunk.data)
                done += len(chunk)
                if progress is not None:
                    progress(min(done, total), total)
    return [path for _, path in targets]


def _targets(archive: Archive, dest: Path) -> list[tuple[FileEntry | None, Path]]:
    """Each file and where it goes."""
    files: list[FileEntry | None] = [*archive.manifest.files] or [None]
    names = [_DEFAULT_NAME if file is None else file.path for file in files]
    if len(files) == 1 and not dest.is_dir() and dest.suffix and dest.suffix == Path(names[0]).suffix:
        return [(files[0], dest)]
    if dest.exists() and not dest.is_dir():
        raise DestinationError(f"{str(dest)!r} is a file; name a folder to unpack into")
    root = _resolved(dest)
    targets = []
    for file, name in zip(files, names, strict=True):
        path = dest.joinpath(*name.split("/"))
        # The manifest's paths are plain; only a link that lies in the folder already can lead out of it.
        if not _resolved(path.parent).is_relative_to(root):
            raise DestinationError(
                f"{name!r} would be written outside {str(dest)!r} through a link; remove the link"
            )
        targets.append((file, path))
    return targets


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle; a name that no file can have
        raise DestinationError(f"can't write to {str(path)!r}: {error}") from error


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DestinationError(f"can't make the folder {str(path.parent)!r}: {error.strerror}") from error


def _safetensors_chunks(archive: Archive, threads: int) -> Iterator[U8]:
    """A safetensors file of all tensors: its header, then their bytes."""
    table: dict[str, object] = {"__metadata__": dict(archive.metadata)} if archive.metadata else {}
    end = 0
    for name in archive.keys():  # noqa: SIM118  # an Archive is no dict
        spec = archive.spec(name)
        if name == "__metadata__":
            raise CmpkError("a safetensors file can't hold a tensor that is named '__metadata__'")
        table[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [end, end + spec.nbytes],
        }
        end += spec.nbytes
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    # Readers map the data as it is; safetensors pads its header with spaces to keep it aligned.
    text += b" " * (-len(text) % 8)
    yield np.frombuffer(len(text).to_bytes(8, "little") + text, np.uint8)
    for name in archive.keys():  # noqa: SIM118
        yield archive.read(name, threads)
