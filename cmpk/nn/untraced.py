"""Methods that torch.compile leaves as they are: between the graphs that it makes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["untraced"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def untraced(function: _Function) -> _Function:
    """As ``torch.compiler.disable``, but without importing the compiler where nobody has.

    That import takes longer than loading most models.
    """

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args)
        return _disabled(function)(*args)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]  # what the compiler looks for
    return call  # type: ignore[return-value]


_known: dict[Callable[..., Any], Callable[..., Any]] = {}


def _disabled(function: Callable[..., Any]) -> Callable[..., Any]:
    if function not in _known:
        import torch

        _known[function] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return _known[function]


_disabled._torchdynamo_disable = True  # type: ignore[attr-defined]
