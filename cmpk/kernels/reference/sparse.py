"""Elements among many of one value: encodings bitmask and gap_index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, Buffer
from cmpk.kernels.reference.buffers import bytes_of, check_range, writable_bytes_of

__all__ = ["bitmask_expand", "gaps_expand"]


def bitmask_expand(mask: Buffer, start: int, values: Buffer, fill: Buffer, out: U8, threads: int = 1) -> None:
    """Spread values over the places that a mask tells.

    Parameters
    ----------
    mask : buffer
        Bit i is bit i mod 8 of byte i / 8.
    start : int
        The bit of the first element.
    values : buffer
        The elements whose bits are set.
    fill : buffer
        One element, of 1, 2, 4 or 8 bytes.
    out : uint8 array
        All bytes of the elements.
    threads : int
        Not used.

    Raises
    ------
    CorruptStreamError
        If not as many bits are set as there are values.
    ValueError
        If sizes do not go together.
    """
    given, one, elements = _elements(values, fill, out)
    octets = bytes_of(mask)
    check_range(8 * octets.size, start, elements.size)
    first = start // 8
    stop = start + elements.size
    bits = np.unpackbits(octets[first : -(-stop // 8)], bitorder="little")
    is_set = bits[start - 8 * first : stop - 8 * first].view(np.bool_)
    n_set = np.count_nonzero(is_set)
    if n_set != given.size:
        raise CorruptStreamError(f"encoding 'bitmask': {n_set} bits are set for {given.size} values")
    elements[:] = one
    elements[is_set] = given


def gaps_expand(
    gaps: Buffer, max_gap: int, n: int, start: int, values: Buffer, fill: Buffer, out: U8
) -> None:
    """Spread values over the places that gaps tell.

    Parameters
    ----------
    gaps : buffer
        How many elements of the fill stand before each value; ``max_gap``: these, and no value.
    max_gap : int
        1 .. 255.
    n : int
        Elements of the whole tensor.
    start : int
        The first element wanted.
    values, fill, out
        As `bitmask_expand` takes them; the values of the whole tensor.

    Raises
    ------
    CorruptStreamError
        If a gap exceeds ``max_gap``, the gaps reach beyond the tensor, or there are not as many
        values as gaps.
    ValueError
        If sizes do not go together.
    """
    given, one, elements = _elements(values, fill, out)
    if not 1 <= max_gap <= 255:
        raise ValueError("max_gap must be 1 .. 255")
    check_range(n, start, elements.size)
    octets = bytes_of(gaps)
    if octets.size and int(octets.max()) > max_gap:
        raise CorruptStreamError("encoding 'gap_index': a gap exceeds max_gap")
    has_value = octets != max_gap
    ends = np.cumsum(octets, dtype=np.uint64) + np.cumsum(has_value, dtype=np.uint64)
    if ends.size and int(ends[-1]) > n:
        raise CorruptStreamError("encoding 'gap_index': the gaps reach beyond the tensor")
    places = ends[has_value].astype(np.int64) - 1
    if places.size != given.size:
        raise CorruptStreamError(f"encoding 'gap_index': {places.size} gaps for {given.size} values")
    low, high = np.searchsorted(places, (start, start + elements.size))
    elements[:] = one
    elements[places[low:high] - start] = given[low:high]


def _elements(values: Buffer, fill: Buffer, out: U8) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Values, fill and output as unsigned integers of the elements' size."""
    one = bytes_of(fill)
    if one.size not in (1, 2, 4, 8):
        raise ValueError(f"elements have 1, 2, 4 or 8 bytes, not {one.size}")
    given, elements = bytes_of(values), writable_bytes_of(out)
    for octets in (given, elements):
        if octets.size % one.size:
            raise ValueError(f"{octets.size} bytes are no whole number of elements of {one.size}")
    word = f"<u{one.size}"
    return given.view(word), one.view(word), elements.view(word)
