"""Rate and distortion of tensors under a uniform step, and how bytes are shared among tensors.

A step is always relative: a tensor's step in units of its root mean square, as the option ``step`` of the
pass quantize. Curves come from histograms, so nothing is packed to plan a model.

Distortions of different tensors add up. Without calibration each tensor counts by its *relative* squared
error, whatever its size: each is one place of the network at which noise enters. On all-MiniLM-L6-v2 that
is worth 0.85 bits a weight over one relative step for all tensors, most of it taken from the embedding.
With calibration it counts by the error of its layer's output, or by the gradients of the loss
(`cmpk.passes.sensitivity`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.errors import PassError
from cmpk.passes.quantize import root_mean_square
from cmpk.passes.scales import Slices
from cmpk.passes.sensitivity import profile_of
from cmpk.passes.weights import weights_of
from cmpk.values import tiles

if TYPE_CHECKING:
    from cmpk.calibration import TensorStatistics
    from cmpk.encodings.base import Part

__all__ = ["STEPS", "RateCurve", "allot", "tensor_rate"]

F64 = NDArray[np.float64]

STEPS: Final[F64] = np.exp2(np.arange(-24, 9) / 4)
"""The relative steps at which curves are known: quarters of an octave from 1/64 to 4."""

_BIN: Final = 1 / 32
_BINS: Final = 1024
"""Histograms reach 16 root mean squares to either side; what lies beyond is counted at the end."""

_SAMPLE_ELEMENTS: Final = 1 << 20
_CLASSES: Final = 8
_MIN_CLASS_ELEMENTS: Final = 1 << 15

_TENSOR_NBYTES: Final = 160
"""Manifest entry and stream heads."""

_SYMBOL_NBYTES: Final = 1.0
"""What the table of a code takes for each symbol that occurs."""

_BYTE_CODES: Final = 128
_EXCEPTION_NBITS: Final = 26
_RARE_EXCEPTION_NBITS: Final = 70
_RARE_EXCEPTIONS_NBITS: Final = 1500
"""What a code takes that does not fit a byte, its index, itself and the byte in its place: entropy coded, and
what each takes beyond that where they are too few for it, up to a limit. On all-MiniLM-L6-v2, index and code
are 96 bits of less than 10, 45 of 60, 30 of 300, 22 of 50 000."""

_BISECTIONS: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class RateCurve:
    """Bytes and distortion of one tensor as functions of its step.

    Attributes
    ----------
    steps : float64 array, shape (n,)
        Ascending, relative to the tensor's root mean square.
    sizes : float64 array, shape (n,)
        Bytes when stored at each step, never rising.
    distortions : float64 array, shape (n,)
        Expected distortion at each step, never falling; in a unit that all tensors share.
    is_of_loss : bool
        Whether that unit is the loss squared, whose scale nobody knows: `allot` brings all such curves to
        the scale of the others.
    """

    steps: F64
    sizes: F64
    distortions: F64
    is_of_loss: bool = False

    def nbytes(self, step: float) -> float:
        """Estimated stored size at a step; linear in its logarithm between known steps."""
        return float(np.interp(np.log(step), np.log(self.steps), self.sizes))

    def distortion(self, step: float) -> float:
        """Expected distortion at a step; logarithms interpolated between known steps."""
        logs = np.log(np.maximum(self.distortions, np.finfo(np.float64).tiny))
        return float(np.exp(np.interp(np.log(step), np.log(self.steps), logs)))


def tensor_rate(part: Part, statistics: TensorStatistics | None = None) -> RateCurve | None:
    """How a tensor's size and distortion depend on its step.

    Parameters
    ----------
    part : Part
    statistics : TensorStatistics, optional
        The tensor's calibration.

    Returns
    -------
    RateCurve or None
        None if the tensor can't be quantized: it is of no type of float, empty, all zero, or has values
        that are not finite.
    """
    weights = weights_of(part)
    if weights is None or not (mean := root_mean_square(weights)):
        return None
    profile = profile_of(weights, statistics)
    factors = Slices(weights.shape, profile.axis, 0).spread(profile.factors.astype(np.float32))
    if profile.axis >= 0:
        weights = weights / factors
    values = _sampled_rows(weights)
    # Of the least numbers the mean square is none in single precision.
    histograms = _histograms(values, np.float32(max(mean, float(np.finfo(np.float32).tiny))))
    nbits, errors, symbols = _points(histograms)
    row_bits = np.log2(len(histograms)) * (values.shape[0] / values.size)
    sizes = (nbits + row_bits) * (part.spec.numel / 8) + symbols * _SYMBOL_NBYTES
    return RateCurve(
        STEPS,
        np.minimum.accumulate(sizes) + _TENSOR_NBYTES + profile.factors.size / 2,
        np.maximum.accumulate(errors * profile.sensitivity),
        profile.is_of_loss,
    )


def allot(curves: Mapping[str, RateCurve], nbytes: int) -> dict[str, float]:
    """Steps with which all tensors together take at most so many bytes, at the least total distortion.

    Every tensor stands at the same slope of its curve: a further byte would lessen the distortion as
    much in one as in any other (Shoham and Gersho, "Efficient bit allocation for an arbitrary set of
    quantizers", 1988).

    Parameters
    ----------
    curves : mapping of str to RateCurve
    nbytes : int

    Returns
    -------
    dict of str to float
        The relative step of each tensor, in the mapping's order.

    Raises
    ------
    PassError
        If even the largest steps take more.
    """
    least = sum(float(curve.sizes[-1]) for curve in curves.values())
    if least > nbytes:
        raise PassError(f"{nbytes} bytes are too few: the coarsest steps take {round(least)}")
    slopes = {name: _slopes(curve) for name, curve in _in_one_unit(curves).items()}
    low, high = -700.0, 700.0  # logarithms of the slope: the finest and the coarsest steps
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        total = sum(curve.nbytes(slopes[name].step(middle)) for name, curve in curves.items())
        low, high = (low, middle) if total <= nbytes else (middle, high)
    return {name: slopes[name].step(high) for name in curves}


def _in_one_unit(curves: Mapping[str, RateCurve]) -> Mapping[str, RateCurve]:
    """Curves whose distortions at the largest steps have the same median, of the loss or not."""
    largest = {
        of_loss: [float(curve.distortions[-1]) for curve in curves.values() if curve.is_of_loss == of_loss]
        for of_loss in (False, True)
    }
    if not (largest[False] and largest[True]):
        return curves
    factor = float(np.median(largest[False]) / max(np.median(largest[True]), np.finfo(np.float64).tiny))
    return {
        name: replace(curve, distortions=curve.distortions * factor) if curve.is_of_loss else curve
        for name, curve in curves.items()
    }


class _Slopes(NamedTuple):
    """Logarithms of steps, and of the distortion that a byte buys there, rising."""

    log_steps: F64
    log_slopes: F64

    def step(self, log_slope: float) -> float:
        return float(np.exp(np.interp(log_slope, self.log_slopes, self.log_steps)))


def _slopes(curve: RateCurve) -> _Slopes:
    saved = -np.diff(curve.sizes)
    cost = np.diff(curve.distortions)
    useful = saved > 0
    # The ends stand for all that lies beyond: no slope leads further.
    log_steps = np.log(curve.steps)
    if not useful.any():
        return _Slopes(log_steps[[0, -1]], np.array([-1000.0, 1000.0]))
    middles = (log_steps[:-1] + log_steps[1:])[useful] / 2
    slopes = np.log(np.maximum(cost[useful], np.finfo(np.float64).tiny) / saved[useful])
    slopes = np.maximum.accumulate(slopes)  # the lower convex hull, near enough
    slopes += np.arange(len(slopes)) * 1e-9
    return _Slopes(
        np.concatenate([log_steps[:1], middles, log_steps[-1:]]),
        np.concatenate([slopes[:1] - 1.0, slopes, slopes[-1:] + 1.0]),
    )


def _sampled_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows from all over a tensor, about `_SAMPLE_ELEMENTS` of them; shape (rows, row elements)."""
    matrix = values.reshape(values.shape[0] if values.ndim > 1 else 1, -1)
    if matrix.shape[0] == 1:
        return matrix[:, :: max(1, matrix.size // _SAMPLE_ELEMENTS)]
    return matrix[:: max(1, matrix.size // _SAMPLE_ELEMENTS)]


def _histograms(values: NDArray[np.float32], mean: np.float32) -> F64:
    """Histograms of rows of like scale, those of one scale together; shape (classes, `_BINS`)."""
    n_classes = max(1, min(_CLASSES, values.size // _MIN_CLASS_ELEMENTS, values.shape[0] // 64))
    first_bin = np.zeros((len(values), 1), np.intp)
    if n_classes > 1:
        energy = np.einsum("ij,ij->i", values, values)
        bounds = np.quantile(energy, np.linspace(0, 1, n_classes + 1)[1:-1])
        first_bin[:, 0] = np.searchsorted(bounds, energy) * _BINS
    counts = np.zeros(n_classes * _BINS, np.int64)
    for block in tiles(*values.shape):
        scaled = values[block] / mean
        scaled *= np.float32(1 / _BIN)
        scaled += np.float32(_BINS // 2)
        np.clip(scaled, 0, _BINS - 1, out=scaled)
        bins = scaled.astype(np.intp)
        bins += first_bin[block[0]]
        counts += np.bincount(bins.reshape(-1), minlength=len(counts))
    return counts.reshape(n_classes, _BINS).astype(np.float64)


class _Points(NamedTuple):
    """Bits an element, squared errors and symbols of uniform quantizers; each of shape (`STEPS`,)."""

    nbits: F64
    errors: F64
    symbols: NDArray[np.int64]


def _points(histograms: F64) -> _Points:
    """What uniform quantizers of all `STEPS` make, from histograms: all at once, an array of all codes.

    Within a bin values lie evenly.
    """
    density = histograms.sum(axis=0)
    total = float(density.sum())
    present = np.flatnonzero(density)
    used = slice(int(present[0]), int(present[-1]) + 1)
    histograms, density = histograms[:, used], density[used]
    edges = np.arange(used.start - _BINS // 2, used.stop + 1 - _BINS // 2, dtype=np.float64) * _BIN
    middles = (edges[:-1] + edges[1:]) / 2
    first, last = np.rint(edges[0] / STEPS), np.rint(edges[-1] / STEPS)
    # One more each, whose lower bound is the last one's upper bound.
    starts = np.concatenate(([0], np.cumsum(last - first + 2))).astype(np.intp)
    step = np.repeat(STEPS, np.diff(starts))
    codes = np.arange(starts[-1]) - np.repeat(starts[:-1] - first, np.diff(starts))
    weights = np.concatenate([histograms, (density * middles)[None]])
    within = np.diff(_below(weights, (codes - 0.5) * step / _BIN - edges[0] / _BIN), append=0)
    within[:, starts[1:] - 1] = 0
    of_classes, first_moments = within[:-1], within[-1]

    def sums(values: F64) -> F64:
        found: F64 = np.add.reduceat(values, starts[:-1], axis=-1)
        return found

    counts = of_classes.sum(axis=0)
    is_byte = np.abs(codes) <= _BYTE_CODES
    in_bytes = np.where(is_byte, of_classes, 0)
    n_bytes = sums(in_bytes)
    nbits = n_bytes * np.log2(np.maximum(n_bytes, 1)) - sums(in_bytes * np.log2(np.maximum(in_bytes, 1)))
    exceptions = sums(np.where(is_byte, 0, counts))
    exception_nbits = exceptions * _EXCEPTION_NBITS
    exception_nbits += np.minimum(exceptions * _RARE_EXCEPTION_NBITS, _RARE_EXCEPTIONS_NBITS)
    points = codes * step
    errors = float(density @ (np.square(middles) + _BIN**2 / 12)) + sums(
        counts * np.square(points) - 2 * first_moments * points
    )
    # Below a few bins a step's own width tells more than the values do.
    errors = np.where(STEPS <= 4 * _BIN, np.square(STEPS) / 12, errors / total)
    symbols = sums((in_bytes >= 1).sum(axis=0))
    return _Points(
        (nbits.sum(axis=0) + exception_nbits) / total, np.maximum(errors, 0), symbols.astype(np.int64)
    )


def _below(weights: F64, bounds: F64) -> F64:
    """Sums of histograms' weights below bounds, those of a bin spread evenly over it.

    Parameters
    ----------
    weights : float64 array, shape (histograms, bins)
    bounds : float64 array, shape (n,)
        In bins from the first one's lower edge.

    Returns
    -------
    float64 array, shape (histograms, n)
    """
    n_bins = weights.shape[1]
    sums = np.zeros((len(weights), n_bins + 2))
    np.cumsum(weights, axis=1, out=sums[:, 1:-1])
    sums[:, -1] = sums[:, -2]
    place = np.clip(bounds, 0, n_bins)
    whole = place.astype(np.intp)
    rest = place - whole
    found: F64 = sums[:, whole]
    found += rest * np.diff(sums, axis=1)[:, whole]
    return found
