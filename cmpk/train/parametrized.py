"""Parametrized tensors of a module by the names that its state dict gives them without parametrizations."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from cmpk.errors import SourceError

__all__ = [
    "attach",
    "evaluating",
    "input_of",
    "latent_tensors",
    "parametrizations_of",
    "trained_state",
    "weight_names",
]

WEIGHTED: Final = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""Modules whose ``weight`` is pruned and shared where nobody says which; embeddings are not among them."""

_INSIDE: Final = re.compile(r"(?:^|(?<=\.))parametrizations\.")
_ORIGINAL: Final = re.compile(r"^(?P<module>.*?)parametrizations\.(?P<name>[^.]+)\.original\d*$")

Kind = TypeVar("Kind", bound=nn.Module)


def weight_names(model: nn.Module) -> list[str]:
    """Names of the weights of linear layers and convolutions, in the model's order."""
    return [
        f"{prefix}.weight" if prefix else "weight"
        for prefix, module in model.named_modules()
        if isinstance(module, WEIGHTED)
    ]


def attach(model: nn.Module, name: str, parametrization: nn.Module) -> None:
    """Let a tensor be computed by one more parametrization, after those that it has.

    Raises
    ------
    SourceError
        If the model has no such tensor.
    """
    module, tensor_name = _site(model, name)
    if parametrize.is_parametrized(module):
        # Torch puts properties on a class that copies of the module share, and these would look for it too.
        shared = type(module)
        own = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, own)
    parametrize.register_parametrization(module, tensor_name, parametrization)


def parametrizations_of(model: nn.Module, name: str, kind: type[Kind]) -> list[Kind]:
    """The parametrizations of a kind that a tensor has, in the order in which they are computed.

    Raises
    ------
    SourceError
        If the model has no such tensor.
    """
    return [each for each in _listed(model, name) or () if isinstance(each, kind)]


def input_of(model: nn.Module, name: str, parametrization: nn.Module) -> torch.Tensor:
    """What one of a tensor's parametrizations gets from those before it."""
    listed = _listed(model, name)
    assert listed is not None
    value = listed.original
    assert isinstance(value, torch.Tensor)
    with torch.no_grad():
        for each in listed:
            if each is parametrization:
                break
            value = each(value)
    return value


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a model with every parametrized tensor as it is used in evaluation.

    What belongs to parametrizations alone, masks and the like, is left out: these are the names and
    shapes of the module without them.
    """
    state: dict[str, torch.Tensor] = {}
    with evaluating(model), torch.no_grad():
        for key, value in model.state_dict().items():
            original = _ORIGINAL.match(key)
            if original is not None:
                name = original["module"] + original["name"]
                if name not in state:
                    made = getattr(*_site(model, name)).detach()
                    # Codes have no negative zero, which rounding may give.
                    state[name] = made + 0 if made.is_floating_point() else made.clone()
            elif not _INSIDE.search(key):
                state[key] = value
    return state


def latent_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model by the names of `trained_state`, as they are below any parametrizations.

    They are the model's own: what is written into them changes it.
    """
    tensors: dict[str, torch.Tensor] = {}
    for key, value in model.state_dict(keep_vars=True).items():
        original = _ORIGINAL.match(key)
        if original is not None:
            tensors.setdefault(original["module"] + original["name"], value)
        elif not _INSIDE.search(key) and isinstance(value, torch.Tensor):
            tensors[key] = value
    return tensors


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model as for use, and each of its modules back in its mode at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _listed(model: nn.Module, name: str) -> parametrize.ParametrizationList | None:
    module, tensor_name = _site(model, name)
    if not parametrize.is_parametrized(module, tensor_name):
        return None
    parametrizations = module.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    listed = parametrizations[tensor_name]
    assert isinstance(listed, parametrize.ParametrizationList)
    return listed


def _site(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    prefix, _, tensor_name = name.rpartition(".")
    try:
        module = model.get_submodule(prefix)
    except AttributeError:
        module = None
    if module is None or not isinstance(getattr(module, tensor_name, None), torch.Tensor):
        raise SourceError(f"the model has no tensor {name!r}; it has {', '.join(_some(model))}")
    return module, tensor_name


def _some(model: nn.Module) -> list[str]:
    names = [name for name, _ in model.named_parameters()]
    return [*names[:5], "..."] if len(names) > 5 else names
