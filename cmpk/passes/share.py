"""Pass share: few values for many weights, found by k-means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Codebook
from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.passes.base import Pass, Planned, Statistics, branch
from cmpk.passes.importance import squared_errors_weight
from cmpk.passes.kmeans import INITS, Nearest, cluster, points_of
from cmpk.passes.options import check_known, choice, flag, integer, rows
from cmpk.passes.vector_kmeans import MAX_DIMENSIONS, cluster_vectors
from cmpk.passes.weights import apart_from_rows, has_weights
from cmpk.values import blocks, from_float32, to_float32

__all__ = ["Share"]

_BLOCK_ELEMENTS: Final = 1 << 22
"""Numbers counted at a time; a histogram of as many bins is added after each."""

_WEIGHTINGS: Final = ("none", "activation", "fisher")


class _Options(NamedTuple):
    """Options of the pass, checked; see `Share`."""

    bits: int
    vector: int
    group_rows: int
    init: str
    weighting: str
    keep_zeros: bool
    keep_rows: list[int]
    seed: int


class Share(Pass):
    """Replaces each weight by the nearest of ``2**bits`` values, those of least squared error.

    Trained quantization without the training (Han et al., "Deep Compression", 2015). Work on the values
    does not grow with the tensor (`cmpk.passes.kmeans`).

    Options: ``bits``, 1 to 8; ``group_rows``: so many rows have values of their own, 0 (the default): all
    have the same; ``init``, where Lloyd's iteration starts: ``optimal`` (exact on a histogram), ``linear``,
    ``density`` or ``random``, the last with ``seed``; ``weighting`` of the squared errors: ``none``,
    ``activation`` (the second moment of the input that a weight meets) or ``fisher`` (the squared gradient;
    Choi et al. 2017); ``keep_zeros``: zeros, where there are any, stay exactly zero and have a value of their
    own; ``keep_rows`` are stored as they are.

    ``vector`` of 2, 4 or 8 replaces so many neighbours along the last axis by the nearest of ``2**bits``
    vectors, 12 bits at most, which share what single weights can't (Gong et al. 2014;
    `cmpk.passes.vector_kmeans`). Then ``seed`` is that of the start, ``init`` and ``weighting`` have no say,
    and zeros stay where all neighbours are zero.

    The squared error of single weights is the least that intervals which begin at the places that were tried
    can have; a weight's own error is at most half the gap between the values around it.
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
            lambda rest, left: _shared(rest, None if weights is None else weights[left], chosen),
        )


def _checked(options: Mapping[str, object]) -> _Options:
    check_known(Share.id, options, _Options._fields)
    vector = integer(Share.id, options, "vector", 1, 1, MAX_DIMENSIONS)
    if vector not in (1, 2, 4, 8):
        raise RecipeError(f"pass 'share': vector is {vector}; give 1, 2, 4 or 8")
    if vector > 1 and not {"init", "weighting"}.isdisjoint(options):
        raise RecipeError("pass 'share': init and weighting are for single weights, not for vectors")
    return _Options(
        bits=integer(Share.id, options, "bits", 4, 1, 8 if vector == 1 else 12),
        vector=vector,
        group_rows=integer(Share.id, options, "group_rows", 0, 0, 1 << 32),
        init=choice(Share.id, options, "init", INITS),
        weighting=choice(Share.id, options, "weighting", _WEIGHTINGS),
        keep_zeros=flag(Share.id, options, "keep_zeros", True),
        keep_rows=rows(Share.id, options, "keep_rows"),
        seed=integer(Share.id, options, "seed", 0, 0, (1 << 32) - 1),
    )


def _shared(part: Part, weights: NDArray[np.float32] | None, options: _Options) -> Planned | None:
    spec, vector = part.spec, options.vector
    if vector > 1 and (not spec.shape or spec.shape[-1] % vector):
        return None
    n_rows = spec.shape[0] if spec.shape else 1
    group_rows = options.group_rows if options.group_rows < n_rows else 0
    starts = range(0, n_rows, group_rows or n_rows)
    if not _pays(spec, len(starts), options):
        return None
    found: list[tuple[NDArray[np.float32], NDArray[np.unsignedinteger]]] = []
    for start in starts:
        group, cut = _rows_of(part, start, start + (group_rows or n_rows))
        if vector > 1:
            found.append(_vectors(group, options))
        else:
            found.append(_values(group, None if weights is None else weights.reshape(-1)[cut], options))
    size = max(len(values) for values, _ in found)
    # A codebook of fewer values repeats its last, which no code names.
    tables = [np.concatenate([values, np.repeat(values[-1:], size - len(values), 0)]) for values, _ in found]
    encoded = Codebook().encode_codes(
        np.concatenate([codes for _, codes in found]),
        from_float32(np.concatenate(tables), spec.dtype),
        spec,
        size,
        vector=vector,
        group_rows=group_rows,
    )
    return branch(
        Codebook.id, spec, encoded, codes=encoded.parts["codes"]._replace(is_memoryless=vector == 1)
    )


def _pays(spec: TensorSpec, n_groups: int, options: _Options) -> bool:
    """Whether codes of a fixed width and codebooks that are full take fewer bits than the tensor."""
    nbits = DTYPES[spec.dtype].nbits
    codes = spec.numel // options.vector * options.bits
    return codes + n_groups * (options.vector * nbits << options.bits) < spec.numel * nbits


def _rows_of(part: Part, start: int, stop: int) -> tuple[Part, slice]:
    """Some rows, and which elements they are."""
    spec = part.spec
    if not spec.shape:
        return part, slice(0, 1)
    stop = min(stop, spec.shape[0])
    per_row, itemsize = spec.numel // spec.shape[0], DTYPES[spec.dtype].nbytes
    cut = slice(start * per_row, stop * per_row)
    rest = TensorSpec(spec.dtype, (stop - start, *spec.shape[1:]))
    return Part(rest, part.data[cut.start * itemsize : cut.stop * itemsize]), cut


def _values(
    part: Part, weights: NDArray[np.float32] | None, options: _Options
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Values in ascending order, and which of them is nearest to each weight."""
    spec = part.spec
    points = points_of(_weighted(part, weights), spec.numel)
    if not len(points.values):  # none has any weight: so all have the same
        points = points_of(_weighted(part, None), spec.numel)
    zero = options.keep_zeros and bool((points.values == 0).any())
    centroids = cluster(points, 1 << options.bits, options.init, options.seed, zero)
    # The numbers that will come back, so that each weight gets the nearest of these.
    stored = from_float32(centroids.astype(np.float32), spec.dtype)
    values = np.unique(to_float32(Part(TensorSpec(spec.dtype, centroids.shape), stored)))
    nearest = Nearest(values.astype(np.float64), spec.numel)
    codes = np.empty(spec.numel, np.uint8)
    for where, numbers in blocks(part):
        codes[where] = nearest(numbers)
    return values, codes


def _vectors(part: Part, options: _Options) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Vectors, and which of them is nearest to each run of neighbours."""
    vectors = to_float32(part).reshape(-1, options.vector)
    zero = options.keep_zeros and not vectors.any(axis=1).all()
    codes, centroids = cluster_vectors(vectors, 1 << options.bits, options.seed, zero)
    return centroids, codes


def _weighted(
    part: Part, weights: NDArray[np.float32] | None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
    for where, values in blocks(part, _BLOCK_ELEMENTS):
        yield values, None if weights is None else weights[where]
