"""What a vector is, and what many of them are made of."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from .assemble import Entry, Object, build, leaf, one

__all__ = ["NBITS", "STEEP", "Invalid", "Valid", "container_example", "raw"]

NBITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "U16": 16,
    "I16": 16,
    "U32": 32,
    "I32": 32,
    "U64": 64,
    "I64": 64,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "F16": 16,
    "BF16": 16,
    "F32": 32,
    "F64": 64,
    "C64": 64,
}
"""Bits of an element of each dtype."""

STEEP = {symbol: min(symbol + 1, 12) for symbol in range(13)}
"""Code lengths 1, 2, ..., 11, 12, 12."""


class Valid(NamedTuple):
    """A vector that a reader takes, and how its file is built.

    Attributes
    ----------
    name : str
    content : dict
        The manifest.
    options : dict
        Of `build`.
    """

    name: str
    content: Object
    options: dict[str, Any] | None = None

    def to_bytes(self) -> bytes:
        """The file."""
        return build(self.content, **self.options or {})

    def expected(self) -> Object:
        """What a reader makes of it."""
        tensors = {}
        for entry in self.content.get("tensors", []):
            found = {"dtype": entry["dtype"], "shape": entry["shape"], "sha256": sha256(entry)}
            tensors[entry["name"]] = found | ({"bytes": entry.data.hex()} if len(entry.data) <= 64 else {})
        files = {entry["path"]: sha256(entry) for entry in self.content.get("files", [])}
        return {"tensors": tensors, "files": files}


class Invalid(NamedTuple):
    """A vector that a reader refuses.

    Attributes
    ----------
    name : str
    rule : str
        The rule that it breaks, with the page and section that states it.
    error : str
        ``format``, ``stream``, ``version`` or ``unknown_id``.
    found_by : str
        The step at which it is noticed at the latest: ``open``, ``load`` or ``validate``.
    data : bytes
        The file.
    """

    name: str
    rule: str
    error: str
    found_by: str
    data: bytes


def sha256(entry: Entry) -> str:
    """Digest of what an entry stands for."""
    return hashlib.sha256(entry.data).hexdigest()


def raw(data: bytes) -> Object:
    """A raw leaf."""
    return leaf("raw", data)


def container_example() -> Valid:
    """The example of container.md, section 7."""
    return Valid("container-example", one("U8", [3], b"\1\2\3", raw(b"\1\2\3")))
