"""The best few values for many numbers: k-means in one dimension, on a histogram.

Numbers are counted by the upper 20 bits of their single precision, so that the work and the memory after
that do not depend on how many there are. In one dimension clusters are intervals, and where k intervals
best begin is found exactly by dynamic programming (Wang and Song, "Ckmeans.1d.dp", R Journal 2011), here
with the divide and conquer that the monotone starts allow. The intervals may begin at up to
`_MAX_PLACES` places, all of them where there are no more bins that occur; Lloyd's iteration over all bins,
which never makes it worse, goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk import kernels

__all__ = ["INITS", "Nearest", "Points", "cluster", "points_of"]

INITS: Final = ("optimal", "linear", "density", "random")

_SHIFT: Final = 12
_N_BINS: Final = 1 << (32 - _SHIFT)
_FEW: Final = 1 << 17
_MAX_PLACES: Final = 4096
_PLACES_PER_CENTROID: Final = 16
_MIN_PLACES: Final = 1024
_MAX_STEPS: Final = 300

F64 = NDArray[np.float64]


class Points(NamedTuple):
    """Numbers that occur, in ascending order, and how much each of them weighs; float64, shape (n,)."""

    values: F64
    weights: F64


def points_of(
    pieces: Iterable[tuple[NDArray[np.float32], NDArray[np.float32] | None]], n_values: int
) -> Points:
    """Count numbers by their upper bits; a bin stands at their mean, within a 2048th of each of them.

    Parameters
    ----------
    pieces : iterable of (float32 array, float32 array or None)
        Finite numbers, and what each weighs, 1 by default.
    n_values : int
        How many there are in all; few are sorted, instead of counted in all bins that there may be.
    """
    kept, sums = np.empty(0, np.intp), np.zeros((2, 0 if n_values < _FEW else _N_BINS))
    for values, their_weights in pieces:
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        bins = flat.view(np.uint32) >> _SHIFT
        theirs = None if their_weights is None else their_weights.reshape(-1).astype(np.float64)
        moments = flat if theirs is None else theirs * flat
        if n_values < _FEW:
            both, where = np.unique(np.concatenate([kept, bins]), return_inverse=True)
            old, new = where[: len(kept)], where[len(kept) :]
            counted = np.array([np.bincount(new, each, len(both)) for each in (theirs, moments)], np.float64)
            counted[:, old] += sums
            kept, sums = both, counted
        else:
            sums[0] += np.bincount(bins, theirs, _N_BINS)
            sums[1] += np.bincount(bins, moments, _N_BINS)
    if n_values >= _FEW:
        kept = np.arange(_N_BINS)
    return _ascending(kept, sums)


def _ascending(bins: NDArray[np.intp], sums: F64) -> Points:
    """Points from the weights and moments of bins, in the order of their numbers."""
    half = _N_BINS // 2
    at_zero = bins % half == 0  # both zeros, and what is next to nothing
    zero = np.array([[sums[0][at_zero].sum()], [0.0]])
    counted = (sums[0] > 0) & ~at_zero
    negative = np.flatnonzero(counted & (bins >= half))[::-1]
    positive = np.flatnonzero(counted & (bins < half))
    found = [sums[:, negative], zero[:, zero[0] > 0], sums[:, positive]]
    weights, moments = np.concatenate(found, axis=1)
    return Points(moments / weights, weights)


def cluster(
    points: Points, n_centroids: int, init: str = "optimal", seed: int = 0, zero: bool = False
) -> F64:
    """Centroids with the least weighted squared distance to the points that can be found.

    Parameters
    ----------
    points : Points
        One at least.
    n_centroids : int
        At least 1, and 2 with ``zero``.
    init : str
        ``optimal``: see the module. ``linear``, ``density``, ``random``: evenly over the range, evenly
        over the points, or points at random, each followed by Lloyd's iteration (Han et al., "Deep
        Compression", 2015).
    seed : int
        For ``random``.
    zero : bool
        Make one of them exactly 0; points at 0 then have no part in where the others are.

    Returns
    -------
    float64 array, ascending, at most ``n_centroids`` of them; none is without points, but for zero.
    """
    if zero:
        apart = points.values != 0
        points = Points(points.values[apart], points.weights[apart])
        n_centroids -= 1
    n_centroids = min(n_centroids, len(points.values))
    if not n_centroids:
        return np.zeros(1)
    centroids = np.unique(_start(points, n_centroids, init, seed))
    if zero:
        centroids = np.insert(centroids, np.searchsorted(centroids, 0.0), 0.0)
    return _lloyd(points, centroids, zero)


class Nearest:
    """Tells which of up to 256 ascending centroids is nearest to a number; the lower of two.

    Parameters
    ----------
    centroids : float64 array
    n_values : int
        How many will be asked for: for many, a table by their upper bits replaces the search.
    """

    def __init__(self, centroids: F64, n_values: int) -> None:
        middles = (centroids[1:] + centroids[:-1]) / 2
        rounded = middles.astype(np.float32)
        # Down: a number up to the middle is at most that in single precision, too.
        below = np.nextafter(rounded, np.float32(-np.inf))
        self._bounds = np.append(np.where(rounded > middles, below, rounded), np.float32(np.inf))
        self._lowest: NDArray[np.uint8] | None = None
        if n_values > 2 * _N_BINS:
            self._build_table()

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Which of them, for finite numbers of any shape."""
        if self._lowest is None:
            return np.searchsorted(self._bounds, values).astype(np.uint8)
        codes: NDArray[np.uint8] = self._lowest[values.view(np.uint32) >> _SHIFT]
        for _ in range(self._bounds_in_a_bin):
            codes += values > self._bounds[codes]
        return codes

    def _build_table(self) -> None:
        bits = np.arange(_N_BINS, dtype=np.uint32) << _SHIFT
        ends = [(bits | within).view(np.float32) for within in (0, (1 << _SHIFT) - 1)]
        # What is neither finite nor a number is at the end of either half; it is never asked for.
        codes = [np.searchsorted(self._bounds, np.nan_to_num(end)).astype(np.uint8) for end in ends]
        half = _N_BINS // 2
        self._lowest = np.concatenate([codes[0][:half], codes[1][half:]])
        highest = np.concatenate([codes[1][:half], codes[0][half:]])
        self._bounds_in_a_bin = int((highest.astype(np.int16) - self._lowest).max())


def _start(points: Points, n_centroids: int, init: str, seed: int) -> F64:
    values, weights = points
    if init == "optimal":
        return _optimal(points, n_centroids)
    if init == "linear":
        return np.linspace(values[0], values[-1], n_centroids)
    reached = np.cumsum(weights) / weights.sum()
    if init == "density":
        shares = (np.arange(n_centroids) + 0.5) / n_centroids
    else:
        shares = np.random.default_rng(seed).random(n_centroids)
    return values[np.minimum(np.searchsorted(reached, shares), len(values) - 1)]


def _lloyd(points: Points, centroids: F64, zero: bool) -> F64:
    """Lloyd's iteration; one without points goes, and with ``zero`` the one at 0 stays there."""
    values, weights = points
    moments = weights * values
    cuts = np.empty(0, np.intp)
    for _ in range(_MAX_STEPS):
        before = cuts
        cuts = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2, side="right")
        cuts = np.concatenate(([0], cuts, [len(values)]))
        if np.array_equal(cuts, before):
            break
        # Sums of each interval on its own: differences of running ones would cancel near zero.
        used = np.diff(cuts) > 0
        starts = cuts[:-1][used]
        means = np.add.reduceat(moments, starts) / np.add.reduceat(weights, starts)
        fixed = (centroids == 0) & zero
        moved = centroids.copy()
        moved[used] = means
        moved[fixed] = 0
        centroids = moved[used | fixed]
    return centroids


def _optimal(points: Points, n_centroids: int) -> F64:
    """Means of the best intervals that begin at places of `_places`."""
    values, weights = points
    if n_centroids == len(values):
        return values
    places = _places(points, n_centroids)
    # From the middle of the numbers: squares of what is far from zero would cancel.
    shifted = values - np.average(values, weights=weights)
    sums = [np.concatenate(([0.0], np.cumsum(weights * shifted**power)))[places] for power in range(3)]
    begins = kernels.active().best_intervals(sums[0], sums[1], sums[2], n_centroids)
    ends = np.append(begins[1:], len(places) - 1)
    mass, moment = (each[ends] - each[begins] for each in sums[:2])
    # Weights that are too small to show in the sums make no mean.
    means = moment[mass > 0] / mass[mass > 0]
    return np.asarray(means + np.average(values, weights=weights))


def _places(points: Points, n_centroids: int) -> NDArray[np.intp]:
    """Where intervals may begin, as indices into the points, the end included.

    Evenly in the cube root of the density, as the best intervals of many are (Panter and Dite 1951).
    """
    values, weights = points
    wanted = min(max(_MIN_PLACES, _PLACES_PER_CENTROID * n_centroids), _MAX_PLACES)
    if len(values) <= wanted:
        return np.arange(len(values) + 1)
    width = np.gradient(values)
    reached = np.cumsum(np.cbrt(weights * width * width))
    found = np.searchsorted(reached, np.linspace(0, reached[-1], wanted + 1))
    return np.unique(np.concatenate(([0], found[1:-1], [len(values)])))
