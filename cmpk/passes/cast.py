"""Pass cast: a narrower float type, to the nearest number that it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Narrow
from cmpk.encodings.base import Part
from cmpk.passes.base import Pass, Planned, Split, Statistics
from cmpk.passes.options import check_known, choice, rows
from cmpk.passes.split_floats import SplitFloats
from cmpk.passes.weights import apart_from_rows, weights_of
from cmpk.values import from_float32, to_float32

__all__ = ["Cast"]

_DTYPES: Final = ("BF16", "F16")

_STRUCTURE: Final = {"mantissa_bits": {"F16": [3], "other": [0, 1]}, "min_gain": 0.0033, "max_groups": 4}
"""How the narrower numbers are split: as by recipe `lossless`."""


class Cast(Pass):
    """Rounds weights to a narrower type; the tensor keeps its own, and is stored in the narrower one.

    There, too, exponents are apart from signs and mantissas.

    Options: ``dtype``: ``BF16``, off by at most a 256th of each number, or ``F16``, a 2048th or, of small
    ones, 2**−25; ``keep_rows`` are stored as they are. A tensor stays as it is if it is no wider, or has a
    number that is beyond the type's range.
    """

    id: ClassVar[str] = "cast"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """See `Pass.apply`."""
        check_known(self.id, options, ("dtype", "keep_rows"))
        dtype = choice(self.id, options, "dtype", _DTYPES)

        def plan(rest: Part, _: object) -> Planned | None:
            weights = weights_of(rest)
            if weights is None or DTYPES[rest.spec.dtype].nbits <= DTYPES[dtype].nbits:
                return None
            narrow = Part(TensorSpec(dtype, rest.spec.shape), from_float32(weights, dtype))
            if not np.isfinite(to_float32(narrow)).all():
                return None
            values = SplitFloats().apply(name, narrow, _STRUCTURE) or narrow
            return Split(Narrow.id, rest.spec, {"dtype": dtype}, {"values": values})

        return apart_from_rows(part, rows(self.id, options, "keep_rows"), plan)
