"""Optimal brain surgeon (Hassibi and Stork 1993) by layer: what all others of a row can make up for may go.

The error of a row of weights w is that of the layer's output, (w - v)ᵀ H (w - v) with the second moment H of
the inputs. Weights go one by one, each time the one that costs the least when all that are left make up for
it, as they do in Frantar, Singh and Alistarh 2022 ("Optimal Brain Compression"); which is a Cholesky
decomposition of the inverse of H with that choice of pivots.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cmpk.passes.sensitivity import DAMPING

__all__ = ["made_up", "removal_costs"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

MAX_INPUTS: Final = 1024
"""A row takes time with the cube of its inputs. Blocks of more of them are chosen from on their own."""


def removal_costs(weights: F32, moment: F32) -> F32:
    """What the output loses when a weight goes, after those of its row that cost less.

    Parameters
    ----------
    weights : float32 array, shape (outputs, inputs)
    moment : float32 array, shape (inputs, inputs)
        Second moment of the inputs.

    Returns
    -------
    float32 array, shape (outputs, inputs)
        Half the squared error. A weight costs more than those of its row that went before it.
    """
    damped = _damped(moment)
    n_inputs = weights.shape[1]
    costs = np.empty(weights.shape, np.float32)
    n_blocks = -(-n_inputs // MAX_INPUTS)
    for block in np.array_split(np.arange(n_inputs), n_blocks):
        chosen = slice(block[0], block[-1] + 1)
        inverse = np.linalg.inv(damped[chosen, chosen]).astype(np.float32)
        for row, found in zip(weights, costs, strict=True):
            found[chosen] = _removed_one_by_one(row[chosen].copy(), inverse)
    return costs


def made_up(weights: F32, kept: NDArray[np.bool_], moment: F32) -> F32:
    """What is kept of each row, changed so that the output errs the least.

    Parameters
    ----------
    weights : float32 array, shape (outputs, inputs)
    kept : bool array, shape (outputs, inputs)
    moment : float32 array, shape (inputs, inputs)

    Returns
    -------
    float32 array, shape (outputs, inputs)
        Zero where nothing is kept.
    """
    damped = _damped(moment)
    wanted = weights.astype(np.float64) @ damped
    found = np.zeros(weights.shape, np.float32)
    masks, mask_of = np.unique(np.packbits(kept, axis=1), axis=0, return_inverse=True)
    for index in range(len(masks)):
        rows = np.flatnonzero(mask_of.reshape(-1) == index)
        columns = np.flatnonzero(kept[rows[0]])
        if len(columns) == weights.shape[1]:
            found[rows] = weights[rows]  # nothing to make up for
        elif len(columns):
            solved = np.linalg.solve(damped[np.ix_(columns, columns)], wanted[np.ix_(rows, columns)].T)
            found[np.ix_(rows, columns)] = solved.T
    return found


def _damped(moment: F32) -> F64:
    """A moment that has an inverse, whatever a file of statistics says."""
    mean = float(np.diagonal(moment).mean(dtype=np.float64))
    damping = DAMPING * mean if mean > 0 else 1.0
    symmetric = (moment + moment.T.astype(np.float64)) / 2
    while True:
        damped = symmetric + damping * np.eye(len(moment))
        try:
            np.linalg.cholesky(damped)
        except np.linalg.LinAlgError:
            damping *= 10
        else:
            return damped


def _removed_one_by_one(row: F32, inverse: F32) -> F32:
    """The costs of one row; ``row`` is used up."""
    n = len(row)
    gone = np.empty((n, n), np.float32)  # the columns of the decomposition, as rows
    left = np.diagonal(inverse).copy()
    above = np.float32(np.inf)
    least = np.float32(1e-6) * left.min()
    costs, highest = np.empty(n, np.float32), np.float32(0)
    for step in range(n):
        pivot = int(np.argmin(row * row / left))
        highest = max(np.nextafter(highest, above), row[pivot] ** 2 / left[pivot] / np.float32(2))
        costs[pivot] = highest
        root = np.sqrt(left[pivot])
        column = np.subtract(inverse[pivot], gone[:step, pivot] @ gone[:step], out=gone[step])
        column /= root
        row -= column * (row[pivot] / root)
        left -= column * column
        np.maximum(left, least, out=left)  # what rounding takes away
        row[pivot], left[pivot] = np.inf, 1.0  # never chosen again
    return costs
