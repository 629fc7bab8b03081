"""Encodings affine and cast: codes to elements (spec/encodings/affine.md, cast.md)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, CodeJob
from cmpk.kernels.reference.buffers import bytes_of
from cmpk.kernels.reference.rounding import round_float32

__all__ = ["Scales", "check_apart", "dequantize", "scales_of"]

_BLOCK = 1 << 20
_MAX_CODE = 1 << 24


class Scales(NamedTuple):
    """The scales of a job, known to keep the rules.

    Attributes
    ----------
    scale : float32 array, shape (n_scales,)
    zero_point : int64 array, shape (n_scales,)
    offset, line, run : int
        As those of `CodeJob`.
    numbers : float32 array, shape (256,), or None
        Likewise.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    offset: int
    line: int
    run: int
    numbers: NDArray[np.float32] | None

    def of(self, elements: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the scale that each element has."""
        line, within = np.divmod(elements, self.line)
        which: NDArray[np.int64] = line * -(-self.line // self.run) + within // self.run
        return which % np.int64(max(1, self.scale.size))


def scales_of(job: CodeJob) -> Scales:
    """The scales of a job, and the rules about them.

    Raises
    ------
    CorruptStreamError
        If a scale is not finite, or codes are not exact in float32 with one of the zero points.
    ValueError
        If sizes of the job contradict each other.
    """
    if job.dtype not in FLOAT_LAYOUTS:
        raise ValueError(f"no codes for dtype {job.dtype!r}; it is one of {', '.join(FLOAT_LAYOUTS)}")
    octets = bytes_of(job.scale)
    n_scales = octets.size // 4
    if octets.size % 4 or (job.n and not n_scales):
        raise ValueError(f"scale has {octets.size} bytes; each takes 4, and {job.n} elements need one")
    if not 1 <= job.run <= job.line or abs(job.offset) > _MAX_CODE:
        raise ValueError(f"offset is {job.offset}, line {job.line} and run {job.run}")
    zero_point = np.zeros(n_scales, np.int64)
    if job.zero_point is not None:
        zero_octets = bytes_of(job.zero_point)
        if zero_octets.size != octets.size:
            raise ValueError(
                f"{zero_octets.size} bytes of zero points do not go with {octets.size} of scales"
            )
        zero_point = zero_octets.view("<i4").astype(np.int64)
    scale = octets.view("<f4")
    if not np.isfinite(scale).all():
        raise CorruptStreamError("encoding 'affine': a scale is not finite")
    lowest = job.offset - zero_point
    if zero_point.size and (lowest.min() < -_MAX_CODE or lowest.max() + 255 > _MAX_CODE):
        raise CorruptStreamError(
            f"encoding 'affine': codes from {job.offset} on are too far from a zero point"
        )
    return Scales(scale, zero_point, job.offset, job.line, job.run, _numbers_of(job))


def _numbers_of(job: CodeJob) -> NDArray[np.float32] | None:
    if job.numbers is None:
        return None
    octets = bytes_of(job.numbers)
    if (
        octets.size != 1024
        or job.offset
        or job.zero_point is not None
        or (job.exception_index is not None and bytes_of(job.exception_index).size)
    ):
        raise ValueError("numbers are 256 of 4 bytes, without an offset, zero points and exceptions")
    if job.dtype.startswith("F8"):
        raise ValueError(f"numbers do not go with {job.dtype}, which has no quiet NaN")
    return octets.view("<f4")


def dequantize(
    scales: Scales, dtype: str, start: int, codes: U8, index: NDArray[np.int64], apart: NDArray[np.int32]
) -> NDArray[Any]:
    """Decode some elements in a row.

    Parameters
    ----------
    scales : Scales
    dtype : str
        A key of `FLOAT_LAYOUTS`.
    start : int
        The first element.
    codes : uint8 array, shape (m,)
    index : int64 array, shape (x,)
        Positions in ``codes`` of the exceptions, ascending.
    apart : int32 array, shape (x,)
        Their codes.

    Returns
    -------
    unsigned integer array of the element's width, shape (m,)
    """
    blocks = [round_float32(np.empty(0, np.float32), dtype)]
    for at in range(0, codes.size, _BLOCK):
        block = codes[at : at + _BLOCK]
        which = scales.of(np.arange(start + at, start + at + block.size, dtype=np.int64))
        if scales.numbers is None:
            distance = block.astype(np.int64) + scales.offset
            first, stop = np.searchsorted(index, (at, at + _BLOCK))
            distance[index[first:stop] - at] = apart[first:stop]
            factor = (distance - scales.zero_point[which]).astype(np.float32)
        else:
            factor = scales.numbers[block]
        # Too large a product is an infinity, and the rule of the page; too small a one is a zero.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            product = factor * scales.scale[which]
        blocks.append(round_float32(product, dtype))
    return np.concatenate(blocks)


def check_apart(scales: Scales, index: NDArray[np.uint64], apart: NDArray[np.int32]) -> None:
    """See that the codes of the exceptions are exact with their zero points.

    Raises
    ------
    CorruptStreamError
        If one is not.
    """
    if not index.size:
        return
    distance = apart.astype(np.int64) - scales.zero_point[scales.of(index.astype(np.int64))]
    if np.abs(distance).max() > _MAX_CODE:
        raise CorruptStreamError("encoding 'affine': the code of an exception is too far from its zero point")
