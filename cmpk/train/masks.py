"""Masks: weights that are zero and stay zero while all others are trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cmpk.calibration import Calibration
from cmpk.errors import PassError, SourceError
from cmpk.passes.importance import importance_of, input_axis
from cmpk.passes.prune import pruned_by, without
from cmpk.train.fake_quantize import Quantized
from cmpk.train.parametrized import (
    attach,
    input_of,
    latent_tensors,
    parametrizations_of,
    trained_state,
    weight_names,
)

__all__ = ["Mask", "kept_shares", "prune"]

_GLOBAL: Final = frozenset(("method", "ratio", "scope", "seed"))


class Mask(nn.Module):
    """A parametrization that keeps some elements and makes the others zero, in values and gradients.

    Parameters
    ----------
    mask : bool tensor
        True where an element is kept; a buffer, so it is in the state dict and follows the device.
    """

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight without what is masked; positive zeros, which a product would not always give."""
        return torch.where(self.mask, weight, weight.new_zeros(()))


def prune(
    model: nn.Module,
    *,
    names: Iterable[str] | None = None,
    calibration: Calibration | None = None,
    **options: object,
) -> dict[str, float]:
    """Mask the weights that matter least; those that are masked already stay so.

    With ``method`` ``surgeon`` what is left of each row is changed as well, to make up for what is gone.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place: each tensor gets a `Mask` if it has none. Optimizers keep working, since the
        parameter that they hold stays the same object.
    names : iterable of str, optional
        By default the weights of linear layers and convolutions.
    calibration : Calibration, optional
        What `cmpk.calibrate` found on the model, where ``method`` needs it.
    **options
        Those of the pass `cmpk.passes.prune.Prune`: ``method`` and one of ``ratio`` (of all weights, those
        that are masked already included), ``threshold``, ``mean_abs`` and ``n_of_m``; ``scope``,
        ``structure``, ``keep_rows`` and ``seed``.

    Returns
    -------
    dict of str to float
        Share of the weights that each tensor has kept.

    Raises
    ------
    PassError
        If a tensor can't be pruned so: its shape does not allow it, or calibration is missing.
    RecipeError
        If an option is unknown or out of range.
    SourceError
        If the model has no such tensor.
    """
    names = weight_names(model) if names is None else list(names)
    method, seed = str(options.get("method", "magnitude")), int(str(options.get("seed", 0)))
    weights = _weights(model, names)
    if method == "surgeon":
        for name in names:
            if not all(
                isinstance(each, Mask | Quantized) for each in parametrizations_of(model, name, nn.Module)
            ):
                raise PassError(
                    f"the weights of {name!r} can't make up for others: prune before they are shared"
                )
    importances = {
        name: _importance(model, name, values, method, seed, calibration) for name, values in weights.items()
    }
    if options.get("scope", "tensor") == "global":
        pruned = _globally(importances, options)
    else:
        pruned = {
            name: _of_tensor(name, importance, options, calibration)
            for name, importance in importances.items()
        }
    for name, gone in pruned.items():
        mask = _mask_of(model, name).mask
        mask &= torch.from_numpy(~gone).to(mask.device)
        if method == "surgeon" and calibration is not None:
            _make_up(model, name, without(weights[name], ~mask.cpu().numpy(), calibration.get(name)))
    return kept_shares(model, names)


def kept_shares(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, float]:
    """The share of the elements that the masks of each tensor keep; 1 where there is none."""
    shares = {}
    for name in weight_names(model) if names is None else names:
        masks = parametrizations_of(model, name, Mask)
        shares[name] = float(masks[0].mask.double().mean()) if masks else 1.0
    return shares


def _weights(model: nn.Module, names: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    state = trained_state(model)
    for name in names:
        _mask_of(model, name, state.get(name))
    found = {}
    for name in names:
        # Rounding makes ties, zeros above all, of weights that training still tells apart.
        grids = parametrizations_of(model, name, Quantized)
        weights = input_of(model, name, grids[0]) if grids else state[name]
        found[name] = np.ascontiguousarray(weights.detach().float().cpu().numpy())
    return found


def _mask_of(model: nn.Module, name: str, weight: torch.Tensor | None = None) -> Mask:
    """The mask of a tensor; one that keeps everything is added, before the others, if it has none."""
    masks = parametrizations_of(model, name, Mask)
    if not masks:
        if weight is None:
            raise SourceError(f"the model has no tensor {name!r}")
        attach(model, name, Mask(torch.ones_like(weight, dtype=torch.bool)))
        masks = parametrizations_of(model, name, Mask)
    return masks[0]


def _make_up(model: nn.Module, name: str, values: NDArray[np.float32]) -> None:
    """Change what is below a tensor's mask."""
    with torch.no_grad():
        latent_tensors(model)[name].copy_(torch.from_numpy(values))


def _importance(
    model: nn.Module,
    name: str,
    weights: NDArray[np.float32],
    method: str,
    seed: int,
    calibration: Calibration | None,
) -> NDArray[np.float32]:
    statistics = None if calibration is None else calibration.get(name)
    found = importance_of(method, name, weights, statistics, seed)
    if found is None:
        raise PassError(f"pruning {name!r} by {method!r} needs a calibration that has seen it in use")
    # What is masked goes first, whatever the method makes of a zero.
    return np.where(_mask_of(model, name).mask.cpu().numpy(), found, np.float32(0))


def _of_tensor(
    name: str, importance: NDArray[np.float32], options: Mapping[str, object], calibration: Calibration | None
) -> NDArray[np.bool_]:
    axis = input_axis(None if calibration is None else calibration.get(name))
    pruned = pruned_by(options, importance, axis)
    if pruned is None:
        raise PassError(f"a tensor of shape {importance.shape} can't be pruned by {dict(options)}: {name!r}")
    kept = np.array(np.broadcast_to(pruned, importance.shape))
    rows = options.get("keep_rows", ())
    if isinstance(rows, list) and rows:
        kept[rows] = False
    return kept


def _globally(
    importances: Mapping[str, NDArray[np.float32]], options: Mapping[str, object]
) -> dict[str, NDArray[np.bool_]]:
    """The lowest of all tensors together, exactly the share that is asked for."""
    if not set(options) <= _GLOBAL:
        raise PassError(f"scope 'global' goes with {', '.join(sorted(_GLOBAL))} alone")
    flat = np.concatenate([importance.reshape(-1) for importance in importances.values()])
    local = {key: value for key, value in options.items() if key != "scope"}
    found = pruned_by(local, flat)
    assert found is not None
    ends = np.cumsum([importance.size for importance in importances.values()])
    pieces = np.split(found, ends[:-1])
    return {
        name: piece.reshape(importance.shape)
        for (name, importance), piece in zip(importances.items(), pieces, strict=True)
    }
