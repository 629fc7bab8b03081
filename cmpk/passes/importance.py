"""How much each weight matters: from its size, from calibration, or by chance as a baseline."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cmpk.passes.base import Statistics
from cmpk.passes.sensitivity import as_matrix, of_matrix
from cmpk.passes.surgeon import removal_costs

__all__ = [
    "METHODS",
    "ImportanceHistogram",
    "importance_of",
    "input_axis",
    "squared_errors_weight",
    "whole_moment",
]

METHODS: Final = (
    "magnitude",
    "activation",
    "gradient",
    "taylor",
    "fisher",
    "surgeon",
    "entropy",
    "random",
)

_BITS: Final = 20
"""Upper bits of a single-precision number that a bin of the histogram shares: 12 of the mantissa."""


def importance_of(
    method: str, name: str, weights: NDArray[np.float32], statistics: Statistics | None, seed: int = 0
) -> NDArray[np.float32] | None:
    """How much each weight matters.

    Parameters
    ----------
    method : str
        ``magnitude``: the absolute value (Han et al. 2015).
        ``activation``: that times the root mean square of the input that it meets (Sun et al. 2023).
        ``gradient``: root mean square of the gradient.
        ``taylor``: absolute value of weight times gradient, the loss that its removal costs to
        first order (Molchanov et al. 2017).
        ``fisher``: F w² / 2 with the diagonal Fisher information F, the mean of g²: what the model's
        output tells about the weight, in nats that are lost without it (Theis et al. 2018).
        ``surgeon``: half the squared error of the layer's output when the weight goes, after those of its
        row that cost less, and all that are left make up for it (`cmpk.passes.surgeon.removal_costs`); for
        layers whose whole second moment was kept.
        ``entropy``: the absolute value over an exponential draw. The k largest are a mask drawn with
        chances in proportion to the weights (Efraimidis and Spirakis 2006; with one weight kept, the draw
        of most entropy for the mean logarithm of what it keeps).
        ``random``: uniform in 0 .. 1.
    name : str
        The tensor's name; different tensors draw different random numbers.
    weights : float32 array
    statistics : Statistics or None
    seed : int

    Returns
    -------
    float32 array of the weights' shape, none negative; None if the statistics lack what the method needs.
    """
    if method == "magnitude":
        return np.abs(weights)
    if method in ("random", "entropy"):
        drawn = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if method == "random":
            return drawn.random(weights.shape, np.float32)
        # Of all positive numbers the smallest could give infinity.
        waits = np.maximum(drawn.standard_exponential(weights.shape, np.float32), np.float32(1e-6))
        return np.minimum(np.abs(weights) / waits, np.finfo(np.float32).max)
    if method == "surgeon":
        moment = whole_moment(weights, statistics)
        if moment is None:
            return None
        costs = removal_costs(as_matrix(weights, statistics), moment)
        return of_matrix(costs, weights.shape, statistics)
    if method == "activation":
        moment = _input_squares(weights.shape, statistics)
        return None if moment is None else np.abs(weights) * np.sqrt(moment)
    squares = _gradient_squares(weights.shape, statistics)
    if squares is None:
        return None
    if method == "gradient":
        return np.sqrt(squares)
    if method == "taylor":
        return np.sqrt(squares) * np.abs(weights)
    return np.float32(0.5) * squares * weights * weights


def input_axis(statistics: Statistics | None) -> int:
    """The axis of a weight that runs along the module's input features."""
    return 0 if statistics is not None and statistics.kind == "conv1d" else 1


def squared_errors_weight(
    weighting: str, shape: tuple[int, ...], statistics: Statistics | None
) -> NDArray[np.float32] | None:
    """How much the squared error of each weight matters.

    Parameters
    ----------
    weighting : str
        ``activation``: the mean square of the input that it meets, which makes it the error of the
        module's output if inputs are independent. ``fisher``: the mean square of its gradient, which makes
        it the loss of the model to second order (Choi et al. 2017).
    shape : tuple of int
    statistics : Statistics or None

    Returns
    -------
    float32 array of that shape, none negative; None if the statistics lack what it needs.
    """
    if weighting == "fisher":
        return _gradient_squares(shape, statistics)
    moment = _input_squares(shape, statistics)
    return None if moment is None else np.broadcast_to(moment, shape)


def _gradient_squares(shape: tuple[int, ...], statistics: Statistics | None) -> NDArray[np.float32] | None:
    squares = None if statistics is None else statistics.gradient_squares
    if squares is None or squares.shape != shape or not np.isfinite(squares).all():
        return None
    return np.maximum(squares, np.float32(0))


def _input_squares(shape: tuple[int, ...], statistics: Statistics | None) -> NDArray[np.float32] | None:
    """Mean square of each input, in a shape that broadcasts against the weights."""
    moment = None if statistics is None else statistics.second_moment
    if statistics is None or moment is None or len(shape) < 2:
        return None
    diagonal = np.diagonal(moment) if moment.ndim == 2 else moment
    kept = (shape[0], 1) if statistics.kind in ("conv1d", "embedding") else (1, *shape[1:])
    if diagonal.size != np.prod(kept) or not np.isfinite(diagonal).all():
        return None
    return np.maximum(diagonal, np.float32(0)).reshape(kept)


def whole_moment(weights: NDArray[np.float32], statistics: Statistics | None) -> NDArray[np.float32] | None:
    """The second moment of the inputs, shape (inputs, inputs) as `as_matrix` has them; None if unknown."""
    moment = None if statistics is None else statistics.second_moment
    if moment is None or moment.ndim != 2 or weights.ndim < 2:
        return None
    n_inputs = as_matrix(weights, statistics).shape[1]
    return moment if len(moment) == n_inputs and np.isfinite(moment).all() else None


class ImportanceHistogram:
    """Importances of a whole model, tensor by tensor, in 8 MB.

    Bins are the upper 20 bits of the numbers, sign aside: each spans a share of 2**-12 of its value.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(1 << _BITS, np.int64)

    def add(self, importance: NDArray[np.float32]) -> None:
        """Count the importances of one tensor; none may be negative or NaN."""
        bits = np.ascontiguousarray(importance, np.float32).reshape(-1).view(np.uint32)
        for start in range(0, len(bits), 1 << 18):
            bins = (bits[start : start + (1 << 18)] & 0x7FFFFFFF) >> (31 - _BITS)
            self._counts += np.bincount(bins, minlength=1 << _BITS)

    def threshold(self, ratio: float) -> float:
        """The number that a share of all importances lies below.

        Of those counted at most ``ratio`` are below it, and what lacks is fewer than share the bin above:
        numbers that are closer to each other than one in 4096.
        """
        occupied = np.flatnonzero(self._counts)
        if not len(occupied):
            return 0.0
        reached = np.cumsum(self._counts)
        n_bins = int(np.searchsorted(reached, ratio * float(reached[-1]), side="right"))
        edge = np.uint32(min(n_bins, int(occupied[-1]) + 1) << (31 - _BITS)).view(np.float32)
        return float(min(edge, np.finfo(np.float32).max))
