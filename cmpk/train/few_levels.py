"""Binary and ternary weights: signs times one magnitude for each row, trained below them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import nn

from cmpk.encodings.base import Part
from cmpk.errors import PassError
from cmpk.passes.base import Planned
from cmpk.passes.options import number
from cmpk.passes.scales import Slices, layout
from cmpk.train.fake_quantize import plan_on_grid, spread
from cmpk.train.parametrized import attach, parametrizations_of, weight_names
from cmpk.values import to_float32

__all__ = ["Binary", "Ternary", "binarize", "ternarize"]

TWN_THRESHOLD: Final = 0.7


class _FewLevels(nn.Module):
    """What both have in common: gradients straight through, weights held in a clip, how they are stored."""

    def __init__(self, slices: Slices, clip: float) -> None:
        super().__init__()
        self.slices, self.clip = slices, clip

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The levels."""
        found: torch.Tensor = _StraightThrough.apply(  # type: ignore[no-untyped-call]  # torch's
            weight, self.levels(weight.detach().float()).to(weight.dtype), self.clip
        )
        return found

    def levels(self, weight: torch.Tensor) -> torch.Tensor:
        """The level of each weight, both float32."""
        raise NotImplementedError

    def planned(self, part: Part) -> Planned | None:
        """See `cmpk.train.Storable`. Masks that come later are no matter."""
        scale = self.slices.largest(abs(to_float32(part))).astype("float32")
        # A scale is one of the tensor's own numbers.
        dtype = part.spec.dtype if part.spec.dtype in ("F16", "BF16") else "F32"
        return plan_on_grid(part, scale, self.slices, dtype)

    def _mean(self, numbers: torch.Tensor, counted: torch.Tensor | None = None) -> torch.Tensor:
        """The mean of each part, of those that are counted; shape (parts,)."""
        axis = self.slices.axis
        others = [index for index in range(numbers.dim()) if index != axis]
        if counted is None:
            return numbers.mean(others).reshape(-1)
        return ((numbers * counted).sum(others) / counted.sum(others).clamp_min(1)).reshape(-1)

    def extra_repr(self) -> str:
        """What `repr` says of it."""
        return f"axis {self.slices.axis}, clip {self.clip}"


class Binary(_FewLevels):
    """A parametrization that keeps the signs of weights: −a and a, 0 becoming a.

    BinaryConnect (Courbariaux, Bengio and David, 2015), with the magnitude of XNOR-Net (Rastegari et al.
    2016): a is the mean magnitude of the row's weights, which has the least squared error. Gradients go
    straight through to the weights below, whose signs they change in time.

    Parameters
    ----------
    slices : Slices
        Which weights have a magnitude in common: rows, or all.
    clip : float
        A weight that is beyond ±clip gets no gradient that would push it further, in place of
        BinaryConnect's clipping after each update.
    scaled : bool
        Whether levels have the mean magnitude; else they are −1 and 1, as in BinaryConnect.
    """

    def __init__(self, slices: Slices, clip: float = 1.0, *, scaled: bool = True) -> None:
        super().__init__(slices, clip)
        self.scaled = scaled

    def levels(self, weight: torch.Tensor) -> torch.Tensor:
        """See the class."""
        sign = torch.where(weight < 0, -1.0, 1.0)
        return sign * spread(self._mean(weight.abs()), self.slices) if self.scaled else sign


class Ternary(_FewLevels):
    """A parametrization that keeps the signs of the larger weights, and zeroes the others: −a, 0 and a.

    Ternary weight networks (Li, Zhang and Liu, 2016): larger are those above ``threshold`` times the mean
    magnitude of the row, and a is their mean magnitude. Gradients go straight through to the weights below.

    Parameters
    ----------
    slices : Slices
        Which weights have a magnitude in common: rows, or all.
    clip : float
        See `Binary`.
    threshold : float
        0.7 is nearly optimal for normal weights.
    """

    def __init__(self, slices: Slices, clip: float = 1.0, *, threshold: float = TWN_THRESHOLD) -> None:
        super().__init__(slices, clip)
        self.threshold = threshold

    def levels(self, weight: torch.Tensor) -> torch.Tensor:
        """See the class."""
        magnitude = weight.abs()
        kept = magnitude > self.threshold * spread(self._mean(magnitude), self.slices)
        scale = spread(self._mean(magnitude, kept), self.slices)
        return torch.where(kept, torch.where(weight < 0, -scale, scale), scale.new_zeros(()))


def binarize(
    model: nn.Module,
    *,
    names: Iterable[str] | None = None,
    per: str = "row",
    clip: float = 1.0,
    scaled: bool = True,
) -> None:
    """Let weights have two levels from now on.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place; its parameters stay the same objects.
    names : iterable of str, optional
        By default the weights of linear layers and convolutions.
    per : str
        ``row`` or ``tensor``: which weights have a magnitude in common.
    clip, scaled
        See `Binary`.

    Raises
    ------
    PassError
        If a tensor has few levels already.
    RecipeError
        If an option is unknown or out of range.
    SourceError
        If the model has no such tensor.
    """
    clip = number("binarize", {"clip": clip}, "clip", 1.0, 0.0)
    for name, slices in _sites(model, names, per, "binarize"):
        attach(model, name, Binary(slices, clip, scaled=scaled))


def ternarize(
    model: nn.Module,
    *,
    names: Iterable[str] | None = None,
    per: str = "row",
    clip: float = 1.0,
    threshold: float = TWN_THRESHOLD,
) -> None:
    """Let weights have three levels from now on.

    Parameters
    ----------
    model, names, per, clip
        See `binarize`.
    threshold : float
        See `Ternary`.

    Raises
    ------
    PassError, RecipeError, SourceError
        See `binarize`.
    """
    clip = number("ternarize", {"clip": clip}, "clip", 1.0, 0.0)
    threshold = number("ternarize", {"threshold": threshold}, "threshold", TWN_THRESHOLD, 0.0)
    for name, slices in _sites(model, names, per, "ternarize"):
        attach(model, name, Ternary(slices, clip, threshold=threshold))


def _sites(
    model: nn.Module, names: Iterable[str] | None, per: str, pass_id: str
) -> Iterable[tuple[str, Slices]]:
    chosen = layout(pass_id, {"per": per})
    if per == "group":
        raise PassError(f"{pass_id}: magnitudes are per row or tensor, not per group")
    for name in weight_names(model) if names is None else names:
        if parametrizations_of(model, name, _FewLevels):
            raise PassError(f"{name!r} has few levels already")
        shape = tuple(_tensor(model, name).shape)
        yield name, chosen.slices(shape, None)


def _tensor(model: nn.Module, name: str) -> torch.Tensor:
    prefix, _, last = name.rpartition(".")
    found = getattr(model.get_submodule(prefix), last)
    assert isinstance(found, torch.Tensor)
    return found


class _StraightThrough(torch.autograd.Function):
    """Other numbers in place of weights; gradients go to the weights, but not further beyond a clip."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, levels: torch.Tensor, clip: float) -> torch.Tensor:
        """Take the levels."""
        ctx.save_for_backward(weight)
        ctx.clip = clip
        return levels

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Drop what a step down the gradient would use to push a weight out."""
        (weight,) = ctx.saved_tensors
        # Such a step goes against the gradient, so it goes out where their signs differ.
        outward = (weight.abs() >= ctx.clip) & (weight * gradient < 0)
        return gradient.masked_fill(outward, 0), None, None
