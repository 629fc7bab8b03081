"""Uniform quantization: the nearest code, the best for rate and distortion, and errors fed on."""

from __future__ import annotations

from collections.abc import Iterator
from types import EllipsisType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cmpk import kernels
from cmpk.values import BLOCK_ELEMENTS

__all__ = ["SLOPE", "code_nbits", "error_feedback", "largest_multiple", "quantize_rdo", "quantize_uniform"]

SLOPE: Final = float(2 * np.log(2) / 12)
"""Squared error, in steps squared, that a further bit removes at high rates: the derivative of Δ²/12."""

_MAX_BITS: Final = 24.0
_RDO_SYMBOLS: Final = 1 << 12


def quantize_uniform(
    values: NDArray[np.float32], step: NDArray[np.float32], dtype: type[np.signedinteger[Any]] = np.int32
) -> NDArray[np.signedinteger[Any]]:
    """The nearest whole multiples of a step, ties to even.

    Parameters
    ----------
    values : float32 array
    step : float32 array that broadcasts against it, positive
    dtype : type
        An integer that holds all multiples; see `largest_multiple`.

    Returns
    -------
    dtype array, shape of ``values``
        The error of ``code * step`` is at most half a step.
    """
    codes = np.empty(values.shape, dtype)
    for rows, steps in _pieces(values, step):
        scaled = values[rows] / steps
        codes[rows] = np.rint(scaled, out=scaled)
    return codes


def largest_multiple(values: NDArray[np.float32], step: NDArray[np.float32]) -> float:
    """The largest magnitude of some values in steps; parameters as for `quantize_uniform`."""
    if step.size == 1 and values.size:
        # Division never changes the order of numbers, not by its rounding either.
        return float(np.maximum(values.max(), -values.min()) / step.reshape(()))
    return max(
        (float(np.abs(values[rows] / steps).max()) for rows, steps in _pieces(values, step)), default=0.0
    )


def _pieces(
    values: NDArray[np.float32], step: NDArray[np.float32]
) -> Iterator[tuple[slice | EllipsisType, NDArray[np.float32]]]:
    """Rows of values, so few that they stay in a core's cache, and their steps."""
    steps = np.broadcast_to(step, values.shape)
    if not values.shape:
        yield ..., steps
        return
    height = max(1, BLOCK_ELEMENTS * len(values) // max(1, 2 * values.size))
    for top in range(0, len(values) if values.size else 0, height):
        rows = slice(top, top + height)
        yield rows, steps[rows]


def code_nbits(codes: NDArray[np.int32]) -> tuple[int, NDArray[np.float64]]:
    """Lengths of an ideal code for some symbols.

    Returns
    -------
    int
        The lowest symbol.
    float64 array, shape (highest - lowest + 1,)
        Bits of each symbol, `_MAX_BITS` for those that do not occur.
    """
    low = int(codes.min())
    counts = np.bincount((codes - low).reshape(-1)).astype(np.float64)
    with np.errstate(divide="ignore"):
        nbits = np.log2(counts.sum() / counts)
    return low, np.minimum(nbits, _MAX_BITS)


def quantize_rdo(
    values: NDArray[np.float32], step: NDArray[np.float32], slope: float = SLOPE
) -> NDArray[np.int32]:
    """The codes of least squared error plus bits, as rate–distortion optimised coders choose them.

    Each value goes to the nearest multiple or the next one towards zero, which most often takes fewer bits.

    Parameters
    ----------
    values, step : float32 arrays
        As for `quantize_uniform`.
    slope : float
        What a bit is worth, in squared steps.

    Returns
    -------
    int32 array, shape of ``values``
        The error of ``code * step`` is less than one and a half steps.
    """
    scaled = values / step
    codes: NDArray[np.int32] = np.rint(scaled).astype(np.int32)
    if not codes.size or int(np.abs(codes).max()) > _RDO_SYMBOLS:
        return codes
    low, nbits = code_nbits(codes)
    towards_zero = codes - np.sign(codes)
    gain = (nbits * slope).astype(np.float32)
    cost = np.square(scaled - codes) + gain[codes - low]
    other = np.square(scaled - towards_zero) + gain[towards_zero - low]
    better: NDArray[np.int32] = np.where(other < cost, towards_zero, codes)
    return better


def error_feedback(
    values: NDArray[np.float32], factor: NDArray[np.float32], step: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Round column by column, each error made up for in the columns that are still to come.

    Least squares on the outputs ``values @ x``: GPTQ's order and update (Frantar et al. 2022), here into
    steps without bounds, whose codes are entropy coded. What the errors so far leave in a column of the
    outputs' error, its code takes up as far as it can: Babai's nearest plane, to which GPTQ's updates come
    down.

    Parameters
    ----------
    values : float32 array, shape (outputs, inputs)
    factor : float32 array, shape (inputs, inputs)
        R, each column over its diagonal element, where R is upper triangular and R Rᵀ the second moment of
        the inputs.
    step : float32 array that broadcasts against ``values``

    Returns
    -------
    int32 array, shape (outputs, inputs)
        The codes.
    """
    # A kernel of its own: with BLAS the codes would depend on its threads, and these wait for each other and
    # for those that pack (all-MiniLM-L6-v2 with a calibration to 9.7 MB on 2 idle cores: 7.6 s; with the
    # kernel, and factors kept from round to round, 3.1 s).
    # Columns as rows: each is contiguous.
    steps = np.broadcast_to(step, values.shape)
    codes = kernels.active().feed_errors(
        np.ascontiguousarray(values.T), np.ascontiguousarray(steps.T), np.ascontiguousarray(factor)
    )
    return np.ascontiguousarray(codes.T)
