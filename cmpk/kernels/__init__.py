"""Kernels: `active()` is the fastest backend that this installation has."""

from __future__ import annotations

import functools
import importlib
import os
from typing import cast

from cmpk.errors import CmpkError
from cmpk.kernels.interface import KernelBackend

__all__ = ["active", "active_name"]

_ENVIRONMENT_VARIABLE = "CMPK_KERNELS"


@functools.cache
def active_name() -> str:
    """``native`` where it was built, else ``reference``; CMPK_KERNELS overrides the choice."""
    wanted = os.environ.get(_ENVIRONMENT_VARIABLE, "")
    if wanted not in ("", "native", "reference"):
        raise CmpkError(f"{_ENVIRONMENT_VARIABLE} is {wanted!r}; set it to 'native' or 'reference', or unset it")
    if wanted == "reference":
        return "reference"
    try:
        importlib.import_module("cmpk.kernels._native")
    except ImportError as error:
        if wanted == "native":
            raise CmpkError(f"the native kernels are not available: {error}") from error
        return "reference"
    return "native"


@functools.cache
def active() -> KernelBackend:
    """The backend that everything uses unless told otherwise."""
    module = "_native" if active_name() == "native" else "reference"
    return cast(KernelBackend, importlib.import_module(f"cmpk.kernels.{module}"))
