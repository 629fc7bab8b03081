"""Pass share: few values for many weights, found by k-means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Codebook
from cmpk.encodings.base import Part
from cmpk.passes.base import Pass, Planned, Split, Statistics
from cmpk.passes.importance import squared_errors_weight
from cmpk.passes.kmeans import INITS, Nearest, cluster, points_of
from cmpk.passes.options import check_known, choice, flag, integer, rows
from cmpk.passes.weights import apart_from_rows, has_weights
from cmpk.values import blocks, from_float32, to_float32

__all__ = ["Share"]

_BLOCK_ELEMENTS: Final = 1 << 22
"""Numbers counted at a time; a histogram of as many bins is added after each."""

_WEIGHTINGS: Final = ("none", "activation", "fisher")


class _Options(NamedTuple):
    """Options of the pass, checked; see `Share`."""

    bits: int
    init: str
    weighting: str
    keep_zeros: bool
    keep_rows: list[int]
    seed: int


class Share(Pass):
    """Replaces each weight by the nearest of ``2**bits`` values, those of least squared error.

    Trained quantization without the training (Han et al., "Deep Compression", 2015). Work on the values
    does not grow with the tensor (`cmpk.passes.kmeans`).

    Options: ``bits``, 1 to 8; ``init``, where Lloyd's iteration starts: ``optimal`` (exact on a histogram),
    ``linear``, ``density`` or ``random``, the last with ``seed``; ``weighting`` of the squared errors:
    ``none``, ``activation`` (the second moment of the input that a weight meets) or ``fisher`` (the squared
    gradient; Choi et al. 2017); ``keep_zeros``: zeros, where there are any, stay exactly zero and have a
    value of their own; ``keep_rows`` are stored as they are.

    The result's squared error is the least that intervals which begin at the places that were tried can
    have; a weight's own error is at most half the gap between the values around it.
    """

    id: ClassVar[str] = "share"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """See `Pass.apply`."""
        chosen = _checked(options)
        if not has_weights(part):
            return None
        weights = None
        if chosen.weighting != "none":
            weights = squared_errors_weight(chosen.weighting, part.spec.shape, statistics)
            if weights is None:
                return None
        return apart_from_rows(
            part,
            chosen.keep_rows,
            lambda rest, rows: _shared(rest, None if weights is None else weights[rows], chosen),
        )


def _checked(options: Mapping[str, object]) -> _Options:
    check_known(Share.id, options, _Options._fields)
    return _Options(
        bits=integer(Share.id, options, "bits", 4, 1, 8),
        init=choice(Share.id, options, "init", INITS),
        weighting=choice(Share.id, options, "weighting", _WEIGHTINGS),
        keep_zeros=flag(Share.id, options, "keep_zeros", True),
        keep_rows=rows(Share.id, options, "keep_rows"),
        seed=integer(Share.id, options, "seed", 0, 0, (1 << 32) - 1),
    )


def _shared(part: Part, weights: NDArray[np.float32] | None, options: _Options) -> Planned | None:
    spec = part.spec
    nbits = DTYPES[spec.dtype].nbits
    if spec.numel * (nbits - options.bits) <= nbits << options.bits:
        # So few that the values take more than the codes save.
        return None
    flat = None if weights is None else np.ascontiguousarray(weights).reshape(-1)
    points = points_of(_weighted(part, flat), spec.numel)
    if not len(points.values):
        return None
    zero = options.keep_zeros and bool((points.values == 0).any())
    centroids = cluster(points, 1 << options.bits, options.init, options.seed, zero)
    stored = from_float32(centroids.astype(np.float32), spec.dtype)
    # Ascending, and of the numbers that will come back, so that each weight gets the nearest of these.
    values = np.unique(to_float32(Part(TensorSpec(spec.dtype, centroids.shape), stored)))
    nearest = Nearest(values.astype(np.float64), spec.numel)
    codes = np.empty(spec.numel, np.uint8)
    for where, numbers in blocks(part):
        codes[where] = nearest(numbers)
    return Split(
        Codebook.id,
        spec,
        {"size": len(values)},
        {
            "codes": Part(TensorSpec("U8", spec.shape), codes, is_memoryless=True),
            "centroids": Part(TensorSpec(spec.dtype, values.shape), from_float32(values, spec.dtype)),
        },
    )


def _weighted(
    part: Part, weights: NDArray[np.float32] | None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
    for where, values in blocks(part, _BLOCK_ELEMENTS):
        yield values, None if weights is None else weights[where]
