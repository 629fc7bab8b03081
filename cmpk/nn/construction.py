"""Modules without weights, and tensors put into them without a copy."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from cmpk.errors import SourceError

__all__ = ["Slot", "assign", "construct", "parameter_slots"]

Slot = tuple[torch.nn.Module, str]
"""A module, and the name under which it keeps a parameter."""


_WRITES: Final = ("copy_", "fill_", "mul_", "normal_", "uniform_", "zero_")


def construct(factory: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Call a factory whose parameters get no memory.

    Each parameter becomes one on the meta device as soon as a module takes it, before anything is written
    into it. Buffers are real: those that no file holds, such as tables of frequencies, have only the
    values that the factory gives them.

    Parameters
    ----------
    factory : function without arguments

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    SourceError
        If it gives something else.
    """
    with _parameters_on_meta(), _NoInitialization():
        module = factory()
    if not isinstance(module, torch.nn.Module):
        raise SourceError(f"the factory gave a {type(module).__name__!r}; it must give a torch.nn.Module")
    return module


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    thread = threading.get_ident()
    # One parameter may be taken twice, by layers that share it.
    seen: dict[int, tuple[weakref.ref[torch.nn.Parameter], torch.nn.Parameter]] = {}

    def to_meta(_: torch.nn.Module, __: str, parameter: torch.nn.Parameter) -> torch.nn.Parameter | None:
        # The hook sees what all threads construct; parameters of other types know best how to move.
        if threading.get_ident() != thread or type(parameter) is not torch.nn.Parameter or parameter.is_meta:
            return None
        known = seen.get(id(parameter))
        if known is not None and known[0]() is parameter:
            return known[1]
        moved = torch.nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        seen[id(parameter)] = weakref.ref(parameter), moved
        return moved

    # Its annotation forgets that a hook may give another parameter.
    handle = register_module_parameter_registration_hook(cast(Callable[..., None], to_meta))
    try:
        yield
    finally:
        handle.remove()


class _NoInitialization(TorchFunctionMode):
    """Leaves out what would be written into parameters on the meta device.

    It would do nothing but import half of torch, whose in-place operations on meta tensors are in Python.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # Functions of torch.nn.init come with their tensor as a keyword.
        target = args[0] if args else (kwargs or {}).get("tensor")
        is_on_meta = isinstance(target, torch.nn.Parameter) and target.is_meta
        is_init = getattr(func, "__module__", "") == torch.nn.init.__name__
        if is_on_meta and (is_init or getattr(func, "__name__", "") in _WRITES):
            return target
        return func(*args, **(kwargs or {}))


def parameter_slots(module: torch.nn.Module) -> dict[str, Slot]:
    """Where each parameter is kept, by its name in the state dict; a tied one is kept in several places."""
    return {
        f"{prefix}.{name}" if prefix else name: (child, name)
        for prefix, child in module.named_modules(remove_duplicate=False)
        for name, parameter in child._parameters.items()
        if parameter is not None
    }


def assign(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Make tensors the parameters and buffers of a module, of their own dtype, without a copy.

    Parameters that are one in the module stay one, and those that are one tensor in ``tensors`` become one.

    Parameters
    ----------
    module : torch.nn.Module
    tensors : mapping of str to torch.Tensor
        Of the shapes that the module expects.

    Raises
    ------
    SourceError
        If torch refuses one.
    """
    before = {name: getattr(*slot) for name, slot in parameter_slots(module).items()}
    try:
        module.load_state_dict(tensors, strict=False, assign=True)
    except RuntimeError as error:
        raise SourceError(f"torch can't put the tensors into the model: {error}") from error
    after = parameter_slots(module)
    of_tensor: dict[int, Any] = {}
    of_parameter: dict[int, Any] = {}
    for name, replaced in before.items():
        if name in tensors and name in after:
            parameter = of_tensor.setdefault(id(tensors[name]), getattr(*after[name]))
            of_parameter[id(replaced)] = parameter
    for name, (child, attribute) in after.items():
        parameter = of_parameter.get(id(before.get(name)))
        if parameter is not None:
            child._parameters[attribute] = parameter
