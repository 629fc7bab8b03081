"""Reading files straight to where their bytes are used."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from cmpk.encodings.base import allocate
from cmpk.errors import SourceError
from cmpk.kernels.interface import U8

__all__ = ["file_digest", "open_unbuffered", "read_exactly"]


def open_unbuffered(path: Path) -> io.FileIO:
    """Open a file for reading whole tensors; a buffer in between would only copy them.

    Raises
    ------
    SourceError
        If it can't be opened.
    """
    try:
        return io.FileIO(path)
    except OSError as error:
        raise SourceError(f"can't open {str(path)!r}: {error.strerror}") from error


def read_exactly(file: io.FileIO, nbytes: int) -> U8:
    """The next bytes of a file; uint8, shape (nbytes,).

    Raises
    ------
    SourceError
        If there are not so many, which the file's size had promised, or reading fails.
    """
    data = allocate(nbytes)
    view = data.data
    done = 0
    while done < nbytes:
        try:
            got = file.readinto(view[done:])
        except OSError as error:
            raise SourceError(f"can't read {str(file.name)!r}: {error.strerror}") from error
        if not got:
            raise SourceError(f"{str(file.name)!r} was changed while it was read")
        done += got
    return data


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises
    ------
    SourceError
        If it can't be read.
    """
    with open_unbuffered(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise SourceError(f"can't read {str(path)!r}: {error.strerror}") from error
