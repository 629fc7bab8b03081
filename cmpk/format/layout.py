"""Fixed parts and limits of the container (spec/container.md, section 2)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cmpk.errors import FormatError

__all__ = [
    "ALIGNED_FROM_NBYTES",
    "ALIGNMENT",
    "FOOTER_NBYTES",
    "MAGIC",
    "MAX_DEPTH",
    "MAX_EXPANSION",
    "MAX_FILES",
    "MAX_MANIFEST_EXPANSION",
    "MAX_MANIFEST_NBYTES",
    "MAX_NAME_NBYTES",
    "MAX_PARTS",
    "MAX_RANK",
    "MAX_SEGMENTS",
    "MAX_TENSORS",
    "MAX_TENSOR_NBYTES",
    "PREAMBLE_NBYTES",
    "SMALL_MANIFEST_NBYTES",
    "VERSION",
    "Footer",
    "check_preamble",
    "max_manifest_nbytes",
    "padding_before",
    "preamble",
]

MAGIC: Final = b"\x89CMPK\r\n\x1a"
VERSION: Final = (0, 3)

PREAMBLE_NBYTES: Final = 16
FOOTER_NBYTES: Final = 72
MAX_MANIFEST_NBYTES: Final = 1 << 28
SMALL_MANIFEST_NBYTES: Final = 1 << 20
MAX_MANIFEST_EXPANSION: Final = 16
MAX_TENSORS: Final = 1 << 20
MAX_FILES: Final = 1 << 16
MAX_SEGMENTS: Final = 1 << 20
MAX_DEPTH: Final = 8
MAX_PARTS: Final = 64
MAX_RANK: Final = 64
MAX_NAME_NBYTES: Final = 4096
MAX_TENSOR_NBYTES: Final = 1 << 48
MAX_EXPANSION: Final = 1 << 16
ALIGNMENT: Final = 64
ALIGNED_FROM_NBYTES: Final = 4096

_PREAMBLE: Final = struct.Struct("<8sHHI")
_FOOTER: Final = struct.Struct("<QQQ32sQ8s")


class Footer(NamedTuple):
    """Where the manifest is, and its digest."""

    manifest_offset: int
    manifest_stored_nbytes: int
    manifest_nbytes: int
    manifest_sha256: bytes

    def to_bytes(self) -> bytes:
        """The footer as stored; uint8, `FOOTER_NBYTES`."""
        return _FOOTER.pack(*self, 0, MAGIC)

    @classmethod
    def from_bytes(cls, data: bytes, file_nbytes: int) -> Footer:
        """Parse and check the footer of a file of ``file_nbytes``.

        Raises
        ------
        FormatError
            If the file is cut off or a field can't be right.
        """
        *fields, reserved, magic = _FOOTER.unpack(data)
        footer = cls(*fields)
        if magic != MAGIC:
            raise FormatError("the footer is missing: the file is cut off or damaged; fetch it again")
        if reserved != 0:
            raise FormatError("the footer's reserved field is not 0; the file is damaged")
        expected = footer.manifest_offset + footer.manifest_stored_nbytes + FOOTER_NBYTES
        if expected != file_nbytes or footer.manifest_offset < PREAMBLE_NBYTES:
            raise FormatError(f"the footer describes a file of {expected} bytes, this one has {file_nbytes}")
        if footer.manifest_nbytes > MAX_MANIFEST_NBYTES:
            raise FormatError(f"a manifest of {footer.manifest_nbytes} bytes exceeds {MAX_MANIFEST_NBYTES}")
        if footer.manifest_nbytes > max_manifest_nbytes(footer.manifest_stored_nbytes):
            raise FormatError(
                f"a manifest of {footer.manifest_stored_nbytes} stored bytes can't have "
                f"{footer.manifest_nbytes}; the file is damaged, or made to exhaust memory"
            )
        return footer


def max_manifest_nbytes(stored_nbytes: int) -> int:
    """How large the JSON of a manifest may be that takes so many bytes in the file (section 2.2)."""
    return max(SMALL_MANIFEST_NBYTES, MAX_MANIFEST_EXPANSION * stored_nbytes)


def preamble() -> bytes:
    """The first `PREAMBLE_NBYTES` of every file."""
    return _PREAMBLE.pack(MAGIC, *VERSION, 0)


def check_preamble(data: bytes) -> None:
    """Check the first `PREAMBLE_NBYTES` of a file.

    Raises
    ------
    FormatError
        If this is not a cmpk file or one of another version.
    """
    magic, major, minor, reserved = _PREAMBLE.unpack(data)
    if magic != MAGIC:
        raise FormatError("this is not a .cmpk file: it does not start with the magic bytes")
    if (major, minor) != VERSION:
        raise FormatError(
            f"the file has format version {major}.{minor}; this reader knows {VERSION[0]}.{VERSION[1]}: "
            "install the version of cmpk that wrote it, or pack the model again"
        )
    if reserved != 0:
        raise FormatError("the preamble's reserved field is not 0; the file is damaged")


def padding_before(offset: int, codec: str, nbytes: int) -> int:
    """Zero bytes that come before a stream so that large raw streams are aligned (section 5)."""
    if codec == "raw" and nbytes >= ALIGNED_FROM_NBYTES:
        return -offset % ALIGNMENT
    return 0
