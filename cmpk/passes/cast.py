"""Pass cast: a narrower float type, to the nearest number that it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from cmpk import encodings
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Narrow
from cmpk.encodings.base import Part
from cmpk.passes.base import Pass, Planned, Split, Statistics, branch
from cmpk.passes.options import check_known, choice, rows
from cmpk.passes.scales import SCALE_DTYPES, Slices, layout, stored_scales
from cmpk.passes.split_floats import SplitFloats
from cmpk.passes.weights import apart_from_rows, weights_of
from cmpk.values import from_float32, to_float32

__all__ = ["Cast"]

_LARGEST: Final = {"F8_E4M3": 448.0, "F8_E5M2": 57344.0}

_STRUCTURE: Final = {"mantissa_bits": {"F16": [3], "other": [0, 1]}, "min_gain": 0.0033, "max_groups": 4}
"""How numbers of 16 bits are split: as by recipe `lossless`."""


class Cast(Pass):
    """Rounds weights to a narrower type; the tensor keeps its own, and is stored in the narrower one.

    Options: ``dtype``:

    - ``BF16``, off by at most a 256th of each number,
    - ``F16``, a 2048th or, of small ones, 2**−25,
    - ``F8_E4M3``, a 16th or, of small ones, 2**−10 scales, and ``F8_E5M2``, an 8th or 2**−17 scales
      (Micikevicius et al. 2022). The scale makes the largest magnitude the largest of the type: one ``per``
      ``row``, ``tensor`` or ``group`` of ``group_size``, in ``scale_dtype``.

    ``keep_rows`` are stored as they are. A tensor stays as it is if it is no wider, or has a number that is
    beyond the range of a type without a scale.
    """

    id: ClassVar[str] = "cast"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """See `Pass.apply`."""
        dtype = choice(self.id, options, "dtype", ("BF16", "F16", *_LARGEST))
        has_scale = dtype in _LARGEST
        known = ("dtype", "keep_rows", *(("per", "group_size", "scale_dtype") if has_scale else ()))
        check_known(self.id, options, known)
        scaled = layout(self.id, options)
        scale_dtype = choice(self.id, options, "scale_dtype", SCALE_DTYPES)

        def plan(rest: Part, _: object) -> Planned | None:
            weights = weights_of(rest)
            if weights is None or DTYPES[rest.spec.dtype].nbits <= DTYPES[dtype].nbits:
                return None
            if has_scale:
                return _eight_bits(
                    rest, weights, dtype, scaled.slices(rest.spec.shape, statistics), scale_dtype
                )
            narrow = Part(TensorSpec(dtype, rest.spec.shape), from_float32(weights, dtype))
            if not np.isfinite(to_float32(narrow)).all():
                return None
            values = SplitFloats().apply(name, narrow, _STRUCTURE) or narrow
            return Split(Narrow.id, rest.spec, {"dtype": dtype}, {"values": values})

        return apart_from_rows(part, rows(self.id, options, "keep_rows"), plan)


def _eight_bits(
    part: Part, weights: NDArray[np.float32], dtype: str, slices: Slices, scale_dtype: str
) -> Planned:
    scale, scale_dtype = stored_scales(slices.largest(np.abs(weights)) / _LARGEST[dtype], scale_dtype)
    quotients = weights / slices.spread(np.where(scale == 0, np.float32(1), scale))
    encoded = encodings.Cast().encode(
        from_float32(quotients, dtype),
        dtype,
        part.spec,
        scale,
        axis=slices.axis,
        group_size=slices.group_size,
        scale_dtype=scale_dtype,
    )
    return branch(encodings.Cast.id, part.spec, encoded)
