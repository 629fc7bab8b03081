"""Quantization-aware training: weights on an evenly spaced grid, as spec/encodings/affine.md stores them.

What a model computes with in training is to the bit what encoding `affine` decodes to, so packing it
changes no value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cmpk.dtypes import to_torch
from cmpk.encodings.base import Part
from cmpk.errors import PassError
from cmpk.passes.base import Planned
from cmpk.passes.clipping import CLIPS, Grid, grid_of
from cmpk.passes.options import choice, integer, number
from cmpk.passes.quantize import QuantizedCodes, plan_codes
from cmpk.passes.scales import SCALE_DTYPES, Slices, layout
from cmpk.train.parametrized import attach, input_of, parametrizations_of, trained_state, weight_names
from cmpk.values import from_float32, to_float32

__all__ = ["Quantized", "fake_quantize", "plan_on_grid", "quantize", "spread"]

_PASS: Final = "quantize"
_SETTINGS: Final = ("low", "high", "scale_dtype", "symmetric")
_MAX_DISTANCE: Final = 1 << 20
"""Codes so far from zero are of no grid that pays."""

_LOWEST: Final = {"F32": 2.0**-100, "BF16": 2.0**-100, "F16": 2.0**-14}
_HIGHEST: Final = {"F32": 2.0**100, "BF16": 2.0**100, "F16": 65504.0}
"""Scales are held within normal numbers of their type, far enough from its ends for products with codes."""


class Quantized(nn.Module):
    """A parametrization that rounds weights to a grid of codes times scales, and trains both.

    With a scale s and codes within l .. h, a weight w becomes ``clip(round(w / s), l, h) * s``. Its gradient
    is that of the result where w / s is within l .. h, and 0 beyond (straight through the rounding, Bengio et
    al. 2013). The gradient of s is that of LSQ (Esser et al., "Learned Step Size Quantization", ICLR 2020,
    equation 3): of each weight, ``round(w / s) - w / s`` within and the code that it is clipped to beyond,
    in sum times ``1 / sqrt(n h)`` for the n weights that share the scale.

    Parameters
    ----------
    grid : Grid
        Where it starts.
    slices : Slices
        Which weights share a scale.
    learn : bool
        Whether scales are parameters; else they stay until `move` changes them.
    max_groups : int
        At most so many groups of rows are stored with a code table of their own.

    Attributes
    ----------
    scale : float32 Parameter or buffer, shape (n_scales,)
        In the order of encoding `affine`. Used are their magnitudes as the type of the grid has them.
    zero_point : int32 buffer, shape (n_scales,)
        All 0 for a symmetric grid.
    low, high : int
        The smallest and the largest code; in the state dict as well.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, grid: Grid, slices: Slices, *, learn: bool = True, max_groups: int = 1) -> None:
        super().__init__()
        self.slices, self.max_groups = slices, max_groups
        scale = torch.zeros(len(grid.scale))
        if learn:
            self.scale = nn.Parameter(scale)
        else:
            self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(len(grid.scale), dtype=torch.int32))
        self.move(grid)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weights on the grid."""
        scale = spread(self.steps(), self.slices)
        zero = spread(self.zero_point, self.slices)
        return fake_quantize(weight, scale, zero, self.low, self.high, len(self.scale))

    def steps(self) -> torch.Tensor:
        """The scales as they are used, float32, shape (n_scales,); the gradient goes to ``scale``."""
        dtype = self.scale_dtype
        scale = self.scale.float().abs().clamp(_LOWEST[dtype], _HIGHEST[dtype])
        return scale if dtype == "F32" else _Narrowed.apply(scale, dtype)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def move(self, grid: Grid) -> None:
        """Take another grid, for the same slices.

        Raises
        ------
        PassError
            If it has not as many scales, or they are not finite.
        """
        scale = torch.from_numpy(grid.scale.astype(np.float32))
        if scale.shape != self.scale.shape or not torch.isfinite(scale).all():
            raise PassError(
                f"{len(scale)} scales can't take the place of {len(self.scale)}, or are not finite"
            )
        # A part of zeros alone has no scale of its own: it gets a usual one, so that it can be trained.
        usual = scale[scale > 0].mean() if (scale > 0).any() else torch.ones(())
        self.scale.copy_(torch.where(scale == 0, usual, scale))
        self.scale_dtype, self.symmetric = grid.scale_dtype, grid.zero_point is None
        self.low, self.high = grid.low, grid.high
        if grid.zero_point is None:
            self.zero_point.zero_()
        else:
            self.zero_point.copy_(torch.from_numpy(grid.zero_point))

    def planned(self, part: Part) -> Planned | None:
        """See `cmpk.train.Storable`."""
        scale: NDArray[np.float32] = self.steps().detach().cpu().numpy()
        zero = None if self.symmetric else self.zero_point.cpu().numpy()
        return plan_on_grid(part, scale, self.slices, self.scale_dtype, zero, max_groups=self.max_groups)

    def extra_repr(self) -> str:
        """What `repr` says of it."""
        return f"codes {self.low} .. {self.high}, scales {len(self.scale)} {self.scale_dtype}"

    def get_extra_state(self) -> dict[str, object]:
        """What the state dict says besides tensors."""
        return {name: getattr(self, name) for name in _SETTINGS}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """See ``torch.nn.Module.set_extra_state``."""
        for name in _SETTINGS:
            setattr(self, name, state[name])


def quantize(
    model: nn.Module,
    *,
    names: Iterable[str] | None = None,
    bits: int = 8,
    per: str = "row",
    group_size: int = 64,
    clip: str = "mse",
    percentile: float = 0.999,
    symmetric: bool = True,
    scale_dtype: str = "F32",
    learn: bool = True,
) -> None:
    """Let weights be multiples of scales from now on, ``2**bits`` of them at most.

    Called again it gives the weights new grids, of fewer bits for example; optimizers keep working, since
    the parameters stay the same objects.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. Learned scales are new parameters: make the optimizer afterwards.
    names : iterable of str, optional
        By default the weights of linear layers and convolutions.
    bits, per, group_size, clip, percentile, symmetric, scale_dtype
        Options of the pass `cmpk.passes.quantize.Quantize` for a fixed width: ``clip`` says where the grid
        starts.
    learn : bool
        Whether the scales are trained (LSQ); else they stay as they are.

    Raises
    ------
    PassError
        If a tensor is not of finite numbers.
    RecipeError
        If an option is unknown or out of range.
    SourceError
        If the model has no such tensor.
    """
    options = {"bits": bits, "per": per, "group_size": group_size, "clip": clip, "scale_dtype": scale_dtype}
    scaled, bits = layout(_PASS, options), integer(_PASS, options, "bits", 8, 2, 8)
    clip, scale_dtype = (
        choice(_PASS, options, "clip", CLIPS),
        choice(_PASS, options, "scale_dtype", SCALE_DTYPES),
    )
    percentile = number(_PASS, {"percentile": percentile}, "percentile", 0.999, 0.5, 1.0)
    names = weight_names(model) if names is None else list(names)
    state = trained_state(model)
    for name in names:
        listed = parametrizations_of(model, name, Quantized)
        latent = input_of(model, name, listed[0]) if listed else state[name]
        weights = latent.detach().float().cpu().numpy()
        if not weights.size or not np.isfinite(weights).all():
            raise PassError(f"{name!r} can't be quantized: it has no elements, or some that are not finite")
        slices = scaled.slices(weights.shape, None)
        grid = grid_of(
            weights,
            slices,
            bits,
            clip=clip,
            percentile=percentile,
            symmetric=symmetric,
            scale_dtype=scale_dtype,
        )
        if not listed:
            attach(model, name, Quantized(grid, slices, learn=learn).to(latent.device))
        elif listed[0].slices != slices:
            raise PassError(f"{name!r} is quantized already, with {len(listed[0].scale)} scales")
        else:
            listed[0].move(grid)


def fake_quantize(
    values: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    low: int,
    high: int,
    n_scales: int = 1,
) -> torch.Tensor:
    """Numbers rounded to a grid, with the gradients that `Quantized` describes.

    Parameters
    ----------
    values : float tensor
    scale : float32 tensor
        Broadcasts against the values.
    zero_point : int32 tensor
        Of the shape of the scales.
    low, high : int
        The smallest and the largest code.
    n_scales : int
        How many scales there are.

    Returns
    -------
    float tensor of the dtype of the values
        ``(code - zero_point) * scale``, rounded to single precision and then to the dtype; no negative zeros.
    """
    factor = (max(1, high) * values.numel() / n_scales) ** -0.5
    found: torch.Tensor = _OnGrid.apply(values.float(), scale, zero_point, low, high, factor)  # type: ignore[no-untyped-call]
    return found.to(values.dtype)


def spread(numbers: torch.Tensor, slices: Slices) -> torch.Tensor:
    """Each part's number where its elements are; see `cmpk.passes.scales.Slices.spread`."""
    if slices.group_size:
        last = slices.shape[-1]
        sizes = [min(slices.group_size, last - start) for start in range(0, last, slices.group_size)]
        lines = numbers.reshape(-1, len(sizes))
        return lines.repeat_interleave(torch.tensor(sizes, device=lines.device), 1).reshape(slices.shape)
    if slices.axis < 0:
        return numbers.reshape(())
    return numbers.reshape([-1 if index == slices.axis else 1 for index in range(len(slices.shape))])


def plan_on_grid(
    part: Part,
    scale: NDArray[np.float32],
    slices: Slices,
    scale_dtype: str,
    zero_point: NDArray[np.int32] | None = None,
    *,
    max_groups: int = 1,
) -> Planned | None:
    """Store a tensor by codes, if each of its elements is exactly on the grid.

    Parameters
    ----------
    part : Part
    scale : float32 array, shape (n_scales,)
        Not negative, each exactly a ``scale_dtype``.
    slices : Slices
        Of the tensor's shape.
    scale_dtype : str
    zero_point : int32 array, shape (n_scales,), optional
    max_groups : int
        See `cmpk.passes.quantize.plan_codes`.
    """
    if part.spec.shape != slices.shape or not np.isfinite(scale).all():
        return None
    values, steps = to_float32(part), slices.spread(scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.rint(np.where(steps > 0, values / steps, np.float32(0)))
    if not np.isfinite(codes).all() or np.abs(codes).max(initial=0) >= _MAX_DISTANCE:
        return None
    if not np.array_equal(from_float32(codes * steps + np.float32(0), part.spec.dtype), part.data):
        return None
    whole = codes.astype(np.int32)
    if zero_point is not None:
        whole += slices.spread(zero_point)
    return plan_codes(part, QuantizedCodes(whole, scale, slices, scale_dtype, zero_point), max_groups)


class _OnGrid(torch.autograd.Function):
    """Rounding to a grid; see `Quantized` for the gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor,
        low: int,
        high: int,
        factor: float,
    ) -> torch.Tensor:
        """Round; a sum with a zero point of 0 makes negative zeros positive."""
        ratio = values / scale
        codes = (torch.round(ratio) + zero_point).clamp_(low, high).sub_(zero_point)
        ctx.save_for_backward(ratio, codes, scale, zero_point)
        ctx.low, ctx.high, ctx.factor = low, high, factor
        return codes * scale

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None, None, None]:
        """See the class."""
        ratio, codes, scale, zero_point = ctx.saved_tensors
        inside = (ratio >= ctx.low - zero_point) & (ratio <= ctx.high - zero_point)
        of_values = gradient * inside if ctx.needs_input_grad[0] else None
        of_scale = None
        if ctx.needs_input_grad[1]:
            slope = codes - ratio * inside
            of_scale = (gradient * slope).sum_to_size(scale.shape) * ctx.factor
        return of_values, of_scale, None, None, None, None


class _Narrowed(torch.autograd.Function):
    """The nearest numbers of a narrower type, as float32; the gradient goes straight through."""

    @staticmethod
    def forward(ctx: Any, scale: torch.Tensor, dtype: str) -> torch.Tensor:
        """Round."""
        return scale.to(to_torch(dtype)).float()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Hand on."""
        return gradient, None
