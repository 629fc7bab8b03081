"""Quantization-aware training of activations: what goes into a layer, rounded to integers of few bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cmpk.errors import PassError, SourceError
from cmpk.passes.clipping import CLIPS, Grid, grid_of
from cmpk.passes.options import choice, integer, number
from cmpk.passes.scales import Slices
from cmpk.train.fake_quantize import fake_quantize
from cmpk.train.parametrized import WEIGHTED

__all__ = ["QuantizedInput", "quantize_inputs"]

_PASS: Final = "quantize_inputs"
_MAX_SAMPLE: Final = 1 << 16
"""Of a batch so many numbers are looked at, evenly spaced."""


class QuantizedInput(nn.Module):
    """Rounds what goes through it to ``2**bits`` levels, that it finds out by watching.

    In training, the first ``n_observed`` batches are watched and go through as they are: their range is that
    of all (``clip`` ``absmax``) or the mean of each batch's (``percentile`` and ``mse``; see
    `cmpk.passes.clipping.grid_of`). From then on they are rounded, in evaluation as well, and the scale is
    trained as that of `Quantized` weights is (LSQ, Esser et al. 2020). What never is negative is given
    levels that never are.

    Parameters
    ----------
    bits : int
        2 to 8.
    clip : str
    percentile : float
    n_observed : int
        1 or more.
    learn : bool
        Whether the scale is trained, or stays as it was observed.

    Attributes
    ----------
    scale : float32 Parameter or buffer, shape (1,)
    zero_point : int32 buffer, shape (1,)
    range : float64 buffer, shape (2,)
        The lowest and the highest number, so far.
    observed : int64 buffer, shape ()
        How many batches have been watched.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    range: torch.Tensor
    observed: torch.Tensor

    def __init__(
        self,
        bits: int = 8,
        *,
        clip: str = "absmax",
        percentile: float = 0.999,
        n_observed: int = 16,
        learn: bool = True,
    ) -> None:
        super().__init__()
        self.bits, self.clip, self.percentile, self.n_observed = bits, clip, percentile, n_observed
        if learn:
            self.scale = nn.Parameter(torch.ones(1))
        else:
            self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("range", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("observed", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Round, or watch."""
        seen = int(self.observed)
        if self.training and seen < self.n_observed:
            self._watch(x.detach())
            return x
        if not seen:
            return x
        scale = self.scale.float().abs().clamp_min(torch.finfo(torch.float32).tiny)
        return fake_quantize(x, scale, self.zero_point, 0, (1 << self.bits) - 1)

    @torch.no_grad()
    def _watch(self, x: torch.Tensor) -> None:
        flat = x.reshape(-1)
        if not flat.numel() or not torch.isfinite(flat).all():
            return
        before, seen = self.range.tolist(), int(self.observed)
        if self.clip == "absmax":  # of all, since the largest numbers are rare
            low, high = (float(end) for end in torch.aminmax(flat))
            low, high = min(before[0], low), max(before[1], high)
        else:
            sample = flat[:: max(1, flat.numel() // _MAX_SAMPLE)].float().cpu().numpy()
            low, high = _reach(_grid(sample, self.bits, self.clip, self.percentile))
            low, high = ((before[0] * seen + low) / (seen + 1), (before[1] * seen + high) / (seen + 1))
        self.range.copy_(torch.tensor([low, high], dtype=torch.float64))
        self.observed += 1
        grid = _grid(np.array([low, high], np.float32), self.bits, "absmax", 1.0)
        if grid.scale[0] > 0 and grid.zero_point is not None:
            self.scale.copy_(torch.from_numpy(grid.scale.copy()))
            self.zero_point.copy_(torch.from_numpy(grid.zero_point))

    def extra_repr(self) -> str:
        """What `repr` says of it."""
        return f"bits {self.bits}, {self.clip}"


def quantize_inputs(
    model: nn.Module,
    *,
    modules: Iterable[str] | None = None,
    bits: int = 8,
    clip: str = "absmax",
    percentile: float = 0.999,
    n_observed: int = 16,
    learn: bool = True,
) -> None:
    """Let the inputs of layers be rounded from now on.

    Each layer gets a module ``input_quantizer``, whose scale and zero point are in the state dict, and in
    the archive: what loads it is the model after this function.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. Learned scales are new parameters: make the optimizer afterwards.
    modules : iterable of str, optional
        Names of layers; by default all linear ones and convolutions.
    bits, clip, percentile, n_observed, learn
        See `QuantizedInput`.

    Raises
    ------
    PassError
        If the inputs of a layer are rounded already.
    RecipeError
        If an option is unknown or out of range.
    SourceError
        If the model has no such layer.
    """
    options = {"bits": bits, "clip": clip, "percentile": percentile, "n_observed": n_observed}
    bits, clip = integer(_PASS, options, "bits", 8, 2, 8), choice(_PASS, options, "clip", CLIPS)
    percentile = number(_PASS, options, "percentile", 0.999, 0.5, 1.0)
    n_observed = integer(_PASS, options, "n_observed", 16, 1, 1 << 32)
    if modules is None:
        modules = [name for name, module in model.named_modules() if isinstance(module, WEIGHTED)]
    for name in modules:
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            raise SourceError(f"the model has no module {name!r}") from None
        if hasattr(layer, "input_quantizer"):
            raise PassError(f"the inputs of {name!r} are rounded already")
        quantizer = QuantizedInput(bits, clip=clip, percentile=percentile, n_observed=n_observed, learn=learn)
        layer.add_module("input_quantizer", quantizer.to(next(layer.parameters()).device))
        layer.register_forward_pre_hook(_rounded_input)


def _rounded_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    quantizer = layer.get_submodule("input_quantizer")
    return (quantizer(inputs[0]), *inputs[1:])


def _grid(numbers: NDArray[np.float32], bits: int, clip: str, percentile: float) -> Grid:
    slices = Slices(numbers.shape, -1, 0)
    return grid_of(numbers, slices, bits, clip=clip, percentile=percentile, symmetric=False)


def _reach(grid: Grid) -> tuple[float, float]:
    """The lowest and the highest number of a grid with one scale."""
    assert grid.zero_point is not None
    scale, zero = float(grid.scale[0]), int(grid.zero_point[0])
    return (grid.low - zero) * scale, (grid.high - zero) * scale
