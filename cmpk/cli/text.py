"""Text for people: quantities with their units, and text from files made safe to print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cmpk.format import QualitySummary

__all__ = [
    "NONE",
    "bytes_text",
    "count_text",
    "decimal_text",
    "error_text",
    "json_text",
    "plain",
    "quality_text",
    "rate_text",
    "seconds_text",
    "shape_text",
    "things_text",
]

_PREFIXES: Final = ("", "k", "M", "G", "T", "P", "E")
NONE: Final = "–"
"""Stands where a figure has no meaning, such as the ratio of an empty tensor."""


def plain(text: str) -> str:
    r"""Escape whatever could steer a terminal or hide: control and format characters, as in ``'\x1b'``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def json_text(document: bytes) -> str:
    """Indent a JSON document, and escape in its strings what `plain` escapes."""
    import json

    import msgspec

    text = msgspec.json.format(document, indent=2).decode()
    if text.replace("\n", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def bytes_text(nbytes: int | float | None) -> str:
    """A size to three digits, ``23.4 MB``; None, an unknown size, gives a question mark.

    Units are decimal, and two characters wide so that right-aligned numbers stand below each other.
    """
    return "?" if nbytes is None else _scaled(nbytes, "B")


def things_text(count: int, thing: str) -> str:
    """So many of something, ``1 file`` or ``1,024 files``."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def count_text(count: int) -> str:
    """A large number of things, ``22.7 M``."""
    return _scaled(count, "").rstrip()


def rate_text(nbytes: int, seconds: float) -> str:
    """A speed, ``179 MB/s``."""
    return f"{_scaled(nbytes / max(seconds, 1e-6), 'B').replace('  ', ' ')}/s"


def seconds_text(seconds: float) -> str:
    """A duration, ``2.67 s`` or ``3 min 20 s``."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def decimal_text(value: float | None, digits: int) -> str:
    """A figure with so many digits after the point; None gives a dash."""
    return NONE if value is None else f"{value:.{digits}f}"


def error_text(error: float) -> str:
    """A relative error to three digits, ``0.0123``."""
    return f"{error:.3g}"


def quality_text(quality: QualitySummary) -> str:
    """What the lossy tensors of a model have kept, in a line."""
    return (
        f"{things_text(quality.n_tensors, 'lossy tensor')}, relative error {error_text(quality.error)} "
        f"({quality.sqnr:.1f} dB), at most {error_text(quality.largest_error)} "
        f"in {plain(quality.largest_error_in)}; {quality.bits:.2f} bits an element"
    )


def shape_text(shape: Sequence[int]) -> str:
    """A shape, ``384×384``."""
    return "×".join(map(str, shape)) or "scalar"


def _scaled(value: float, unit: str) -> str:
    step = 0
    # 999.5 would be shown as 1000.
    while value >= 999.5 and step < len(_PREFIXES) - 1:
        value, step = value / 1000, step + 1
    digits = 0 if step == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    width = 2 if unit else 1
    return f"{value:.{digits}f} {_PREFIXES[step] + unit:>{width}}"
