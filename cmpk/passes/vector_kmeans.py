"""The best few vectors for many: k-means in some dimensions.

Seeded as k-means++ (Arthur and Vassilvitskii 2007) on a sample, followed by Lloyd's iteration on it and one
step over all vectors. Distances are of whole numbers that double precision holds exactly, so that a matrix
product may add them in any order: the result is the same on every machine, with any number of threads.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_DIMENSIONS", "cluster_vectors"]

MAX_DIMENSIONS: Final = 8

_UNIT_BITS: Final = 20
"""Vectors are rounded to this many bits: squares and their sums stay below 2**45."""

_SAMPLE_PER_CENTROID: Final = 64
_STEPS: Final = 12
_BLOCK_SCORES: Final = 1 << 20

F64 = NDArray[np.float64]


def cluster_vectors(
    vectors: NDArray[np.float32], n_centroids: int, seed: int = 0, zero: bool = False
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Find centroids, and which of them is nearest to each vector.

    Parameters
    ----------
    vectors : float32 array, shape (n, d)
        Finite; n at least 1, d at most `MAX_DIMENSIONS`.
    n_centroids : int
        At least 1, and 2 with ``zero``; at most 65536.
    seed : int
    zero : bool
        Make the first centroid exactly zero.

    Returns
    -------
    uint16 array, shape (n,)
        Which centroid.
    float32 array, shape (at most n_centroids, d)
        Means of the vectors that each is nearest to, or was before the last step; none is without vectors,
        but for zero.
    """
    largest = float(np.abs(vectors).max())
    if not largest:
        return np.zeros(len(vectors), np.uint16), np.zeros((1, vectors.shape[1]), np.float32)
    unit = largest / (1 << _UNIT_BITS)
    step = max(1, len(vectors) // (_SAMPLE_PER_CENTROID * n_centroids))
    sample = np.rint(vectors[::step].astype(np.float64) / unit)
    centroids = _seeds(sample, n_centroids, np.random.default_rng(seed), zero)
    for _ in range(_STEPS):
        centroids = _means(sample, _nearest(sample, centroids), centroids, zero)
    codes = np.empty(len(vectors), np.uint16)
    sums, counts = np.zeros(centroids.shape), np.zeros(len(centroids))
    rows = max(1, _BLOCK_SCORES // len(centroids))
    for start in range(0, len(vectors), rows):
        block = vectors[start : start + rows].astype(np.float64)
        found = _nearest(np.rint(block / unit), centroids)
        codes[start : start + rows] = found
        counts += np.bincount(found, minlength=len(counts))
        for axis in range(block.shape[1]):
            sums[:, axis] += np.bincount(found, block[:, axis], len(counts))
    used = counts > 0
    used[0] |= zero
    means = sums / np.maximum(counts, 1)[:, None]
    if zero:
        means[0] = 0
    numbers = np.cumsum(used) - 1
    return numbers[codes].astype(np.uint16), means[used].astype(np.float32)


def _seeds(sample: F64, n_centroids: int, rng: np.random.Generator, zero: bool) -> F64:
    """Vectors of the sample, each drawn by its squared distance to those before; fewer if all are met."""
    chosen = np.zeros(sample.shape[1]) if zero else sample[int(rng.integers(len(sample)))]
    centroids = [chosen]
    distance = ((sample - chosen) ** 2).sum(axis=1)
    while len(centroids) < n_centroids:
        reached = np.cumsum(distance)
        if not reached[-1]:
            break
        # Not on a vector that weighs nothing: such a one is met already.
        drawn = int(np.searchsorted(reached, np.floor(rng.random() * reached[-1]), side="right"))
        centroids.append(sample[drawn])
        distance = np.minimum(distance, ((sample - sample[drawn]) ** 2).sum(axis=1))
    return np.array(centroids)


def _nearest(vectors: F64, centroids: F64) -> NDArray[np.intp]:
    """The nearest centroid to each vector, the first of equals; both of whole numbers."""
    squares = (centroids * centroids).sum(axis=1)
    rows = max(1, _BLOCK_SCORES // len(centroids))
    found = np.empty(len(vectors), np.intp)
    for start in range(0, len(vectors), rows):
        scores = vectors[start : start + rows] @ centroids.T
        scores *= -2
        scores += squares
        found[start : start + rows] = scores.argmin(axis=1)
    return found


def _means(vectors: F64, codes: NDArray[np.intp], centroids: F64, zero: bool) -> F64:
    """Means in whole numbers; a centroid without vectors stays where it is."""
    counts = np.bincount(codes, minlength=len(centroids))
    sums = np.stack([np.bincount(codes, column, len(centroids)) for column in vectors.T], axis=1)
    means = np.where(counts[:, None] > 0, np.rint(sums / np.maximum(counts, 1)[:, None]), centroids)
    if zero:
        means[0] = 0
    return np.asarray(means)
