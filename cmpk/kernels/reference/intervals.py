"""The best intervals of numbers on a line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_intervals"]

F64 = NDArray[np.float64]


def best_intervals(mass: F64, moment: F64, square: F64, n_intervals: int) -> NDArray[np.int64]:
    """Where the best intervals begin; see `cmpk.kernels.interface.KernelBackend.best_intervals`.

    For each end the best last begin only grows with the end: so the ends in the middle bound those on either
    side of them, and a layer costs O(places log places).

    Raises
    ------
    ValueError
        If the sums are not of the same places, or these are too few.
    """
    n_places = len(mass)
    if len(moment) != n_places or len(square) != n_places:
        raise ValueError("the sums are not of the same places")
    if not 1 <= n_intervals < n_places:
        raise ValueError(f"{n_intervals} intervals can't begin at {n_places} places, the end among them")

    def error(begin: NDArray[np.intp], end: NDArray[np.intp]) -> F64:
        weight, first = mass[end] - mass[begin], moment[end] - moment[begin]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = square[end] - square[begin] - first * first / weight
        # Weights that are too small to show in the sums have no say.
        return np.where(weight > 0, found, 0.0)

    ends = np.arange(1, n_places)
    best = np.concatenate(([0.0], error(np.zeros_like(ends), ends)))
    layers = []
    for layer in range(1, n_intervals):
        reached, begin = np.full(n_places, np.inf), np.full(n_places, layer)
        step = 1 << (n_places - layer - 1).bit_length()
        while step > 1:
            half = step // 2
            end = np.arange(layer + half, n_places, step)
            low = np.where(end - half > layer, begin[np.maximum(end - half, layer)], layer)
            beyond = end + half
            high = np.where(beyond < n_places, begin[np.minimum(beyond, n_places - 1)], end - 1)
            high = np.minimum(high, end - 1)
            sizes = high - low + 1
            firsts = np.cumsum(sizes) - sizes
            tried = np.arange(int(sizes.sum())) - np.repeat(firsts - low, sizes)
            costs = best[tried] + error(tried, np.repeat(end, sizes))
            lowest = np.minimum.reduceat(costs, firsts)
            hits = np.flatnonzero(costs == np.repeat(lowest, sizes))
            # The first of each end's: hits are in order, and every end has one.
            where = hits[np.searchsorted(hits, firsts)]
            reached[end], begin[end] = lowest, tried[where]
            step = half
        layers.append(begin)
        best = reached
    begins = [n_places - 1]
    for begin in reversed(layers):
        begins.append(int(begin[begins[-1]]))
    begins.append(0)
    return np.array(begins[:0:-1], np.int64)
