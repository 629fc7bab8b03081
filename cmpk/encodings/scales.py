"""Scales of a tensor, of its slices or of its groups (spec/encodings/affine.md, parts)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cmpk import kernels
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import int_param
from cmpk.errors import FormatError, PassError
from cmpk.format.manifest import Params
from cmpk.kernels.interface import U8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SCALE_DTYPES", "ScaleLayout", "scale_bytes", "scale_layout", "scale_spec", "widened_scale"]

SCALE_DTYPES: Final = ("F32", "F16", "BF16", "F8_E8M0")

_MAX_GROUP_SIZE: Final = 1 << 48


class ScaleLayout(NamedTuple):
    """Which scale each element has: ``(i // line * ceil(line / run) + i % line // run) % n_scales``."""

    n_scales: int
    line: int
    run: int


def scale_spec(spec: TensorSpec, params: Params) -> TensorSpec:
    """Type and shape of the part with the scales.

    Raises
    ------
    FormatError
        If a parameter about scales breaks a rule.
    """
    dtype = params["scale_dtype"]
    if not isinstance(dtype, str) or dtype not in SCALE_DTYPES:
        raise FormatError(f"the parameter 'scale_dtype' is {dtype!r}, not one of {SCALE_DTYPES}")
    return TensorSpec(dtype, (scale_layout(spec, params).n_scales,))


def scale_layout(spec: TensorSpec, params: Params) -> ScaleLayout:
    """The scales that the parameters promise.

    Raises
    ------
    FormatError
        If the tensor has no such slices or groups.
    """
    shape = spec.shape
    axis = int_param(params, "axis", -1, len(shape) - 1)
    group_size = int_param(params, "group_size", 0, _MAX_GROUP_SIZE)
    if group_size:
        if axis != -1 or not shape:
            raise FormatError(f"groups go with axis -1 and a dimension, not with {axis} of {len(shape)}")
        if not shape[-1]:
            return ScaleLayout(0, 1, 1)
        run = min(group_size, shape[-1])
        return ScaleLayout(math.prod(shape[:-1]) * -(-shape[-1] // run), shape[-1], run)
    if axis == -1:
        return ScaleLayout(1, max(1, spec.numel), max(1, spec.numel))
    run = max(1, math.prod(shape[axis + 1 :]))
    return ScaleLayout(shape[axis], run, run)


def widened_scale(scale: U8, dtype: str) -> NDArray[Any]:
    """Scales as float32; one that is not finite stays so, for the kernels to refuse."""
    import numpy as np

    if dtype == "F8_E8M0":
        # The exponent of 2^-127 is that of subnormal numbers, and its mantissa has the leading bit.
        bits = np.where(scale == 0, 1 << 22, scale.astype(np.uint32) << 23)
        return bits.astype("<u4").view("<f4")
    octets = scale if dtype == "F32" else kernels.active().widen(scale, dtype, "F32")
    return octets.view("<f4")


def scale_bytes(encoding: str, scale: NDArray[np.float32], dtype: str) -> U8:
    """The scales in a dtype that holds them exactly.

    Raises
    ------
    PassError
        If it does not, or one is not finite.
    """
    import numpy as np

    exact = np.ascontiguousarray(scale, "<f4").reshape(-1)
    if not np.isfinite(exact).all():
        raise PassError(f"encoding {encoding!r}: a scale is not finite")
    if dtype == "F32":
        return exact.view(np.uint8)
    if dtype == "F8_E8M0":
        stored = (exact.view("<u4") >> 23).astype(np.uint8)
        is_exact = np.array_equal(widened_scale(stored, dtype).view(np.uint8), exact.view(np.uint8))
        if not is_exact:
            raise PassError(f"encoding {encoding!r}: a scale is not a power of two")
        return stored
    try:
        return kernels.active().narrow(exact.view(np.uint8), "F32", dtype)
    except ValueError:
        raise PassError(f"encoding {encoding!r}: a scale is not exactly a {dtype}") from None
