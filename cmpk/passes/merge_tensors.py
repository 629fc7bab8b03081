"""Pass merge_tensors: one tensor stands for several that are much alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from cmpk.deviation import deviation
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.passes.base import Pass, Planned, Statistics
from cmpk.passes.options import check_known
from cmpk.passes.similar_rows import METRICS, metric_and_threshold
from cmpk.passes.weights import has_weights
from cmpk.values import BLOCK_ELEMENTS, blocks

__all__ = ["MergeTensors"]

_BUCKETS: Final = 1024
"""Numbers of a sketch. Its products are those of the tensors, with a variance of at most 2 / 1024 of the
product of their squared lengths."""

_SLACK: Final = 5 * math.sqrt(2 / _BUCKETS)
"""Five standard deviations: a pair that is near enough is as good as never taken for one that is not."""

_PAIRS_AT_A_TIME: Final = 1 << 20

_STANDS_FOR: Final = "stands_for"


class MergeTensors(Pass):
    """Stores a tensor once where others of its type and shape are much alike; that one keeps its bits.

    Options: ``euclidean``: a tensor may be off by this share of its length; or ``cosine``, −1 to 1: the
    cosine between a tensor and the one that stands for it is at least this, and its length becomes that
    one's. In file order, a tensor joins the nearest one before it that is near enough and stands for
    itself; of those that have the same rule. To be the first pass of a rule: what those behind it make of
    equal tensors is equal too, and stored once.

    The model is read once for sketches (count sketches: Charikar, Chen and Farach-Colton 2002), and where
    these are near, once more to compare the tensors themselves; those that may stand for others are kept
    meanwhile, mapped from the file where its format allows it.
    """

    id: ClassVar[str] = "merge_tensors"

    def settle(
        self, tensors: Iterable[tuple[str, Part, Statistics | None]], options: Mapping[str, object]
    ) -> Mapping[str, object]:
        """See `Pass.settle`."""
        check_known(self.id, options, METRICS)
        measure = _Measure(*metric_and_threshold(self.id, options))
        sketches: dict[TensorSpec, list[_Sketch]] = {}
        for name, part, _ in tensors:
            if has_weights(part):
                sketches.setdefault(part.spec, []).append(_sketch(name, part))
        near = _near(sketches, measure)
        stands_for = _nearest(tensors, near, measure) if near else {}
        return {**options, _STANDS_FOR: stands_for}

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """See `Pass.apply`; does nothing without `settle`."""
        check_known(self.id, options, (*METRICS, _STANDS_FOR))
        stands_for = options.get(_STANDS_FOR)
        found = stands_for.get(name) if isinstance(stands_for, dict) else None
        return found if isinstance(found, Part) and found.spec == part.spec else part


@dataclass(frozen=True, slots=True)
class _Measure:
    """What is near enough."""

    metric: str
    threshold: float

    def distance(self, part: Part, other: Part) -> float:
        """From a tensor to one that may stand for it; infinite if it is too far."""
        found = deviation(part.spec, part.data, other.data)
        if found is None:
            return math.inf
        if self.metric == "cosine":
            return 1 - found.cosine if found.cosine >= self.threshold else math.inf
        return found.error if found.error <= self.threshold else math.inf

    def may_be_near(self, mine: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Of each pair of sketches, shape (n, buckets) and (m, buckets), whether it is worth comparing."""
        products = mine @ others.T
        my_squares, squares = (np.einsum("ij,ij->i", rows, rows) for rows in (mine, others))
        if self.metric == "cosine":
            return np.asarray(
                products >= (self.threshold - _SLACK) * np.sqrt(np.outer(my_squares, squares)), np.bool_
            )
        distances = my_squares[:, None] + squares - 2 * products
        # Rounding, where sketches are the same, and the sketches of the two lengths and of the distance.
        limit = (self.threshold**2 * (1 + _SLACK) ** 2 + 1e-9) * my_squares
        return np.asarray(distances <= limit[:, None], np.bool_)


@dataclass(frozen=True, slots=True)
class _Sketch:
    name: str
    numbers: NDArray[np.float64]


def _sketch(name: str, part: Part) -> _Sketch:
    """Sums of a tensor's elements, each with a sign, spread over the buckets.

    The sign is one of the element's place within a block times one of the block and bucket: independent
    for any two elements of a bucket.
    """
    signs = _signs(0, BLOCK_ELEMENTS).reshape(-1, _BUCKETS)
    numbers = np.zeros(_BUCKETS)
    for number, (_, values) in enumerate(blocks(part)):
        flat = values.reshape(-1)
        padded = np.zeros((-(-flat.size // _BUCKETS), _BUCKETS))
        padded.reshape(-1)[: flat.size] = flat
        numbers += _signs(1 + number, _BUCKETS) * (padded * signs[: len(padded)]).sum(axis=0)
    return _Sketch(name, numbers)


def _signs(stream: int, n: int) -> NDArray[np.float64]:
    """Always the same ones for a stream."""
    return np.random.default_rng(stream).choice(np.array([-1.0, 1.0]), n)


def _near(sketches: Mapping[TensorSpec, Sequence[_Sketch]], measure: _Measure) -> dict[str, list[str]]:
    """For each tensor that has some: the names of those before it that may be near enough."""
    near: dict[str, list[str]] = {}
    for group in sketches.values():
        if len(group) == 1:
            continue
        numbers = np.stack([sketch.numbers for sketch in group])
        step = max(1, _PAIRS_AT_A_TIME // len(group))
        for start in range(0, len(group), step):
            found = measure.may_be_near(numbers[start : start + step], numbers)
            for row, is_near in enumerate(found, start):
                before = np.flatnonzero(is_near[:row])
                if len(before):
                    near[group[row].name] = [group[int(index)].name for index in before]
    return near


def _nearest(
    tensors: Iterable[tuple[str, Part, Statistics | None]],
    near: Mapping[str, Sequence[str]],
    measure: _Measure,
) -> dict[str, Part]:
    """The tensors that others stand for, and the bytes of these."""
    wanted = {name for names in near.values() for name in names}
    leaders: dict[str, Part] = {}
    stands_for: dict[str, Part] = {}
    for name, part, _ in tensors:
        candidates = [leaders[other] for other in near.get(name, ()) if other in leaders]
        distances = [measure.distance(part, other) for other in candidates]
        if distances and min(distances) < math.inf:
            stands_for[name] = candidates[int(np.argmin(distances))]
        elif name in wanted:
            leaders[name] = part
    return stands_for
