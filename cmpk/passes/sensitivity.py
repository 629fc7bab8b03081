"""Which errors of a weight matter, read off its calibration: how steps should differ inside a tensor.

An error of size δ in a weight costs about δ² times its curvature. With a fixed rate the sum is least where
every weight costs the same, so a step goes with the inverse root of the curvature (reverse water-filling).
For a linear layer that feeds errors on (`cmpk.passes.uniform.error_feedback`), the curvature of column j is
what is left of it once the later columns have made up for what they can: R[j, j]² where H = R Rᵀ with an
upper triangular R. Then the error is that of the determinant of H, the least there is for high rates.

Measured on all-MiniLM-L6-v2 at 9.7 MB, mean cosine. Tensors weighed by the relative error of their outputs
0.9854; of their weights 0.9914; by gradients 0.9931. By estimates of the rate: steps by input 0.9933, the
same for all inputs 0.9925; steps by output as well, from the gradients of rows, 0.9907: 256 sentences say too
little about single rows.
"""

from __future__ import annotations

import weakref
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cmpk.passes.base import Statistics

__all__ = ["DAMPING", "Profile", "as_matrix", "of_matrix", "profile_of"]

F64 = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

DAMPING: Final = 0.01
"""Share of the mean diagonal that is added to second moments: what few samples do not show may still come."""

_MIN_ROWS: Final = 64
"""A scale for each column takes about half a byte of its own; below so many rows it does not pay."""

_UNSEEN: Final = (1 / 8, 1 / 2)
"""Bounds of the share of look-ups that the rows without any are thought to get in truth."""


class Profile(NamedTuple):
    """How steps differ inside a tensor, and what errors in it cost.

    Attributes
    ----------
    axis : int
        The tensor's axis along which they differ; -1: one step for all.
    factors : float64 array, shape (elements of the axis,), or (1,)
        Steps relative to the tensor's, whole powers of 2**(1/4).
    sensitivity : float
        Cost of an expected squared error of one unit, the tensor's mean square, in every weight.
    factor : float32 array, shape (columns, columns), or None
        Upper triangular R, where R Rᵀ is the damped second moment of the inputs, each column over its
        diagonal element. None without one.
    is_of_loss : bool
        Whether the cost is in units of the loss squared; else relative to the tensor's output.
    """

    axis: int
    factors: F64
    sensitivity: float
    factor: NDArray[np.float32] | None = None
    is_of_loss: bool = False


def as_matrix(values: NDArray[Scalar], statistics: Statistics | None) -> NDArray[Scalar]:
    """A weight as (outputs, inputs); a view where it can be. One row for fewer than two dimensions."""
    if values.ndim < 2:
        return values.reshape(1, -1)
    matrix = values.reshape(values.shape[0], -1)
    return matrix.T if statistics is not None and statistics.kind == "conv1d" else matrix


def of_matrix(
    matrix: NDArray[Scalar], shape: tuple[int, ...], statistics: Statistics | None
) -> NDArray[Scalar]:
    """What `as_matrix` made of a weight of a shape, in that shape again."""
    is_transposed = len(shape) > 1 and statistics is not None and statistics.kind == "conv1d"
    return (matrix.T if is_transposed else matrix).reshape(shape)


def profile_of(values: NDArray[np.float32], statistics: Statistics | None) -> Profile:
    """The profile of a tensor; one step for all, and sensitivity 1, where nothing fitting is known.

    Parameters
    ----------
    values : float32 array, the tensor's shape
        Finite, not all zero.
    statistics : Statistics or None
    """
    plain = Profile(-1, np.ones(1), 1.0)
    if statistics is None or statistics.second_moment is None or values.ndim < 2:
        return plain
    moment = statistics.second_moment
    matrix = as_matrix(values, statistics)
    if statistics.kind == "embedding":
        return (
            _of_rows(matrix, moment.astype(np.float64), statistics)
            if moment.shape == matrix.shape[:1]
            else plain
        )
    if moment.shape[0] != matrix.shape[1] or _mean_of(moment) <= 0:
        return plain
    return _of_columns(values.shape, matrix, moment, statistics)


def _of_columns(
    shape: tuple[int, ...], matrix: NDArray[np.float32], moment: NDArray[np.float32], statistics: Statistics
) -> Profile:
    spread, factor = _factors.of(moment)
    log_steps = -np.log2(spread)
    mean = float(log_steps.mean())
    total, is_of_loss = _gradient_total(statistics)
    square = float(np.square(matrix, dtype=np.float64).mean())
    if not is_of_loss:
        total = 1 / square  # relative to the weights; relative to the outputs was measured to be worse
    sensitivity = total * square * 2.0 ** (-2 * mean)
    if matrix.shape[0] < _MIN_ROWS:
        return Profile(-1, np.ones(1), sensitivity, factor, is_of_loss)
    # A convolution's channel has one step for its whole kernel.
    log_steps = log_steps.reshape(shape[1] if len(shape) > 2 else len(log_steps), -1).mean(axis=1)
    axis = 0 if statistics.kind == "conv1d" else 1
    return Profile(axis, _on_grid(log_steps - mean), sensitivity, factor, is_of_loss)


def _of_rows(matrix: NDArray[np.float32], shares: F64, statistics: Statistics) -> Profile:
    """Of an embedding: rows that are looked up often have smaller steps."""
    counts = np.rint(shares * statistics.count)
    # What was seen once tells how much is still unseen (Good 1953), spread evenly over all rows.
    unseen = float(np.clip((counts == 1).sum() / max(1.0, counts.sum()), *_UNSEEN))
    shares = shares / max(float(shares.sum()), np.finfo(np.float64).tiny)
    shares = shares * (1 - unseen) + unseen / len(shares)
    log_steps = -np.log2(shares) / 2
    mean = float(log_steps.mean())
    square = float(np.square(matrix, dtype=np.float64).mean())
    total, is_of_loss = _gradient_total(statistics)
    if not is_of_loss:
        energy = np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64)
        total = matrix.shape[1] / max(float(shares @ energy), np.finfo(np.float64).tiny)
    sensitivity = total * square * len(shares) * 2.0 ** (-2 * mean)
    return Profile(0, _on_grid(log_steps - mean), sensitivity, None, is_of_loss)


def _gradient_total(statistics: Statistics) -> tuple[float, bool]:
    """The sum of the squared gradients, and whether there are any."""
    gradients = statistics.gradient_squares
    total = 0.0 if gradients is None else float(gradients.sum(dtype=np.float64))
    return (total, True) if total > 0 else (0.0, False)


class _Spread(NamedTuple):
    """Of a second moment: the diagonal of R, float64, and `Profile.factor`."""

    diagonal: F64
    factor: NDArray[np.float32] | None


def _mean_of(moment: NDArray[np.float32]) -> float:
    """Of its diagonal."""
    diagonal = np.diag(moment) if moment.ndim == 2 else moment
    return float(diagonal.sum(dtype=np.float64)) / max(1, len(moment))


def _spread(moment: NDArray[np.float32]) -> _Spread:
    """For second moments that are none: their diagonal alone."""
    scaled = moment.astype(np.float64) / _mean_of(moment)
    damping = DAMPING
    while moment.ndim == 2 and damping < 1e3:
        damped = scaled + np.eye(len(scaled)) * damping
        try:
            root = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
        except np.linalg.LinAlgError:
            damping *= 10
            continue
        diagonal = np.array(np.diag(root))
        return _Spread(diagonal, (root / diagonal).astype(np.float32))
    diagonal = np.diag(scaled) if moment.ndim == 2 else scaled
    return _Spread(np.sqrt(np.maximum(diagonal, 0) + DAMPING), None)


class _Factors:
    """What `_spread` gives, kept as long as the moment lives, if it can't change and there is room.

    It takes as long as a round of quantization at sizes of a few hundred inputs, and planning asks for it in
    every round.
    """

    def __init__(self, max_nbytes: int) -> None:
        self._max_nbytes = max_nbytes
        self._kept: dict[int, tuple[_Spread, int]] = {}

    def of(self, moment: NDArray[np.float32]) -> _Spread:
        key = id(moment)
        if key in self._kept:
            return self._kept[key][0]
        found = _spread(moment)
        nbytes = moment.nbytes + sum(nbytes for _, nbytes in list(self._kept.values()))
        if found.factor is not None and not moment.flags.writeable and nbytes <= self._max_nbytes:
            self._kept[key] = found, moment.nbytes
            weakref.finalize(moment, self._kept.pop, key, None)
        return found


_factors: Final = _Factors(1 << 30)


def _on_grid(log_steps: F64) -> F64:
    """Powers of 2**(1/4): few distinct scales, which code well; costs 0.003 bits a weight."""
    return np.exp2(np.rint(4 * log_steps) / 4)
