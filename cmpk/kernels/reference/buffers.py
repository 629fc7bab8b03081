"""Views of the bytes and elements behind any object with the buffer protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, Buffer

__all__ = ["bytes_of", "check_range", "words_of", "writable_bytes_of"]


def bytes_of(buffer: Buffer) -> U8:
    """The bytes of a contiguous buffer, not copied; uint8, one-dimensional."""
    view = _view(buffer)
    # NumPy can't import an empty view of several dimensions, or one with a zero stride.
    return np.frombuffer(view.cast("B"), np.uint8) if view.nbytes else np.empty(0, np.uint8)


def writable_bytes_of(buffer: Buffer) -> U8:
    """The same, to be written; ValueError where the buffer is read-only."""
    if _view(buffer).readonly:
        raise ValueError("the output buffer is read-only")
    return bytes_of(buffer)


def words_of(data: Buffer, dtype: str) -> NDArray[Any]:
    """The elements of a float tensor as unsigned integers of its width, not copied."""
    if dtype not in FLOAT_LAYOUTS:
        raise ValueError(f"no float_split for dtype {dtype!r}; it takes {', '.join(FLOAT_LAYOUTS)}")
    nbytes = DTYPES[dtype].nbytes
    octets = bytes_of(data)
    if octets.size % nbytes:
        raise ValueError(f"{octets.size} bytes are no whole number of {dtype} elements")
    return octets.view(f"<u{nbytes}")


def check_range(n: int, start: int, count: int) -> None:
    """Raise ValueError unless ``start .. start + count - 1`` lies within ``n`` symbols."""
    if n < 0 or start < 0 or count < 0 or start + count > n:
        raise ValueError(f"range {start} .. {start + count} does not lie within {n} symbols")


def _view(buffer: Buffer) -> memoryview:
    # NumPy's stubs tell type checkers of the buffer protocol from Python 3.12 on only.
    return buffer.data if isinstance(buffer, np.ndarray) else memoryview(buffer)
