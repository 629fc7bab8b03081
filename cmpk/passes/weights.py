"""What lossy passes have in common: which tensors they work on, and what they know about them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cmpk.encodings.base import Part
from cmpk.values import FLOAT_NAMES, blocks, to_float32

__all__ = ["Statistics", "has_weights", "weights_of"]


class Statistics(Protocol):
    """What calibration knows about one tensor.

    Attributes
    ----------
    kind : str
        Of the module: ``linear``, ``conv``, ``conv1d`` (a transposed linear) or ``embedding``.
    second_moment : float32 array or None
        Mean of ``x xᵀ`` over the module's inputs, shape (in_features, in_features), or its diagonal,
        shape (in_features,).
    gradient_squares : float32 array or None
        Mean of the squared gradient of the loss, of the tensor's shape.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def second_moment(self) -> NDArray[np.float32] | None: ...  # noqa: D102

    @property
    def gradient_squares(self) -> NDArray[np.float32] | None: ...  # noqa: D102


def has_weights(part: Part) -> bool:
    """Whether all elements are finite numbers in single precision, and there is one at least."""
    if part.spec.dtype not in FLOAT_NAMES or not part.spec.numel:
        return False
    with np.errstate(invalid="ignore"):
        return all(np.isfinite(values.min()) and np.isfinite(values.max()) for _, values in blocks(part))


def weights_of(part: Part) -> NDArray[np.float32] | None:
    """The numbers of a tensor, in its shape; None for one that `has_weights` refuses."""
    return to_float32(part) if has_weights(part) else None
