"""Pass merge_rows: one row stands for several that are much alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from cmpk.encodings import Codebook
from cmpk.encodings.base import Part
from cmpk.passes.base import Pass, Planned, Statistics, branch
from cmpk.passes.options import check_known, rows
from cmpk.passes.similar_rows import METRICS, metric_and_threshold, representatives
from cmpk.passes.weights import apart_from_rows, weights_of

__all__ = ["MergeRows"]


class MergeRows(Pass):
    """Stores rows, or filters, once where others are much alike; those that stay keep their bits.

    Options: ``euclidean``: a row may be off by this share of its length; or ``cosine``, −1 to 1: the cosine
    between a row and the one that stands for it is at least this, and its length becomes that one's;
    ``keep_rows`` are stored as they are. A tensor of fewer than two dimensions stays as it is, and one of
    whose rows too few are alike.
    """

    id: ClassVar[str] = "merge_rows"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """See `Pass.apply`."""
        check_known(self.id, options, (*METRICS, "keep_rows"))
        metric, threshold = metric_and_threshold(self.id, options)
        return apart_from_rows(
            part, rows(self.id, options, "keep_rows"), lambda rest, _: _merged(rest, metric, threshold)
        )


def _merged(part: Part, metric: str, threshold: float) -> Planned | None:
    weights = weights_of(part)
    if weights is None or weights.ndim < 2:
        return None
    spec, n_rows = part.spec, len(weights)
    stands_for = representatives(weights.reshape(n_rows, -1), metric, threshold, n_rows - 1)
    if stands_for is None:
        return None
    leaders, codes = np.unique(stands_for, return_inverse=True)
    kept = part.data.reshape(n_rows, -1)[leaders]
    encoded = Codebook().encode_codes(codes, kept.reshape(-1), spec, len(leaders), vector=0)
    return branch(Codebook.id, spec, encoded)
