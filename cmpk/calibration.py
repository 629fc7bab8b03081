"""What a model sees while it runs: statistics that tell the passes which errors matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TensorStatistics"]


@dataclass(frozen=True, slots=True, eq=False)
class TensorStatistics:
    """How one weight was used.

    Attributes
    ----------
    kind : str
        ``"linear"``, shape (out, in); ``"conv"``, shape (out, in / groups, *kernel); ``"conv1d"``, a
        linear layer that keeps its weight as (in, out); ``"embedding"``, shape (rows, row elements).
    count : int
        Inputs seen: positions, or look-ups of an embedding.
    second_moment : float32 array
        Mean of x xᵀ over the inputs, shape (n, n), where n is ``in``, or ``in / groups`` times the
        kernel's elements. Its diagonal alone, shape (n,), where the whole would be too large. Of an
        embedding: how often each row was looked up, shape (rows,), as a share of all look-ups.
    gradient_squares : float32 array, the weight's shape, or None
        Mean over the batches of the squared gradient of the loss, where one was given.
    """

    kind: str
    count: int
    second_moment: NDArray[np.float32]
    gradient_squares: NDArray[np.float32] | None = None
