"""What lossy passes have in common: which tensors they work on, and which rows they leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES
from cmpk.encodings import RowGroups
from cmpk.encodings.base import Part
from cmpk.passes.base import Planned, branch
from cmpk.values import FLOAT_NAMES, blocks, to_float32

__all__ = ["apart_from_rows", "has_rows", "has_weights", "weights_of"]


def has_weights(part: Part) -> bool:
    """Whether all elements are finite numbers in single precision, and there is one at least."""
    if part.spec.dtype not in FLOAT_NAMES or not part.spec.numel:
        return False
    with np.errstate(invalid="ignore"):
        return all(np.isfinite(values.min()) and np.isfinite(values.max()) for _, values in blocks(part))


def weights_of(part: Part) -> NDArray[np.float32] | None:
    """The numbers of a tensor, in its shape; None for one that `has_weights` refuses."""
    return to_float32(part) if has_weights(part) else None


def has_rows(part: Part, rows: Sequence[int]) -> bool:
    """Whether a tensor has all of some rows, given in ascending order; a row runs along the first axis."""
    return not rows or (bool(part.spec.shape) and rows[-1] < part.spec.shape[0])


def apart_from_rows(
    part: Part, rows: Sequence[int], plan: Callable[[Part, NDArray[np.intp] | slice], Planned | None]
) -> Planned | None:
    """Plan a tensor without some of its rows, which are kept as they are.

    Parameters
    ----------
    part : Part
    rows : sequence of int, ascending
    plan : function
        Given the other rows as a tensor, and which they are, decides how they are stored.

    Returns
    -------
    Planned or None
        None if ``plan`` says so, or if the tensor does not have these rows and others.
    """
    if not rows:
        return plan(part, slice(None))
    if not has_rows(part, rows) or len(rows) == part.spec.shape[0] or not DTYPES[part.spec.dtype].nbytes:
        return None
    group = np.zeros(part.spec.shape[0], np.uint8)
    group[list(rows)] = 1
    encoded = RowGroups().encode(part.data, part.spec, group)
    planned = plan(encoded.parts["0"], np.flatnonzero(group == 0))
    return None if planned is None else branch(RowGroups.id, part.spec, encoded, **{"0": planned})
