"""Structured pruning: whole neurons and channels are removed, and a smaller module is left."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from cmpk.calibration import Calibration
from cmpk.errors import PassError
from cmpk.passes.importance import importance_of
from cmpk.train.parametrized import WEIGHTED, evaluating

__all__ = ["prune_structure"]


def prune_structure(
    model: nn.Module,
    example_inputs: torch.Tensor | tuple[torch.Tensor, ...],
    ratio: float,
    *,
    keep: Sequence[str] = (),
    scope: str = "layer",
    method: str = "magnitude",
    calibration: Calibration | None = None,
    seed: int = 0,
) -> nn.Module:
    """A copy of a model with fewer neurons and channels.

    Which layers must shrink together is found by running the model once (torch-pruning's dependency graph:
    Fang et al., "DepGraph", 2023). A neuron matters as much as the weights that make its output do on
    average, summed over the layers whose outputs go with it (Li et al. 2017).

    Parameters
    ----------
    model : torch.nn.Module
        Without parametrizations: prune its structure before masks are made.
    example_inputs : tensor or tuple of tensors
        What the model can be called with.
    ratio : float
        Share of the neurons and channels to remove; less where a layer would lose all of them.
    keep : sequence of str
        Names of modules whose outputs stay as many as they are; the last layer's, most often.
    scope : str
        ``layer``: the same ratio everywhere. ``global``: those that matter least anywhere.
    method : str
        See `cmpk.passes.importance.importance_of`.
    calibration : Calibration, optional
        Of this model, where the method needs it.
    seed : int
        For ``method = "random"``.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    PassError
        If torch-pruning is not installed, the ratio is none, or the model can't be pruned so.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise PassError("structured pruning needs torch-pruning: pip install 'cmpk[structured]'") from error
    if not 0 <= ratio < 1 or scope not in ("layer", "global"):
        raise PassError(f"ratio is {ratio} and scope {scope!r}; give 0 to below 1, and 'layer' or 'global'")
    if any(parametrize.is_parametrized(module) for module in model.modules()):
        raise PassError("the model has parametrizations; prune its structure before these are attached")
    smaller = copy.deepcopy(model)
    modules = dict(smaller.named_modules())
    unknown = sorted(set(keep) - set(modules))
    if unknown:
        raise PassError(f"the model has no module {unknown[0]!r} whose outputs could be kept")
    names = {module: name for name, module in modules.items()}

    def of_group(group: Any) -> torch.Tensor | None:
        return _importance_of_group(group, names, method, calibration, seed)

    with evaluating(smaller):
        pruner = torch_pruning.BasePruner(
            smaller,
            example_inputs,
            of_group,
            global_pruning=scope == "global",
            pruning_ratio=ratio,
            ignored_layers=[modules[name] for name in keep],
        )
        pruner.step()
    return smaller


def _importance_of_group(
    group: Any, names: dict[nn.Module, str], method: str, calibration: Calibration | None, seed: int
) -> torch.Tensor | None:
    """How much each output of the layers in a group matters; None where no layer has weights.

    Parameters
    ----------
    group : torch_pruning.Group
        Pairs of a dependency, a module and how it is pruned, and of indices of its outputs or inputs.
    names : dict of module to str
    method, calibration, seed
        See `prune_structure`.
    """
    total: torch.Tensor | None = None
    for dependency, indices in group:
        module = dependency.target.module
        makes_outputs = "out_channels" in dependency.handler.__name__
        if not makes_outputs or not isinstance(module, WEIGHTED):
            continue
        name = f"{names[module]}.weight"
        weight = module.weight.detach()
        statistics = None if calibration is None else calibration.get(name)
        found = importance_of(method, name, weight.float().cpu().numpy(), statistics, seed)
        if found is None:
            raise PassError(f"pruning {name!r} by {method!r} needs a calibration that has seen it in use")
        is_transposed = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
        outputs = np.moveaxis(found, 1 if is_transposed else 0, 0)
        means = outputs.reshape(len(outputs), -1).mean(1, dtype=np.float64)
        mine = torch.from_numpy(means[np.asarray(indices)])
        # Several outputs of a layer may stand for one of the group's, as those of a flattened channel do.
        if total is not None and len(mine) != len(total):
            shared = math.gcd(len(mine), len(total))
            mine, total = mine.reshape(shared, -1).mean(1), total.reshape(shared, -1).mean(1)
        total = mine if total is None else total + mine
    return total
