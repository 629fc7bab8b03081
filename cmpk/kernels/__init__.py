"""Kernels: `active()` is the fastest backend that this installation has."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from typing import Final, cast

from cmpk.errors import CmpkError
from cmpk.kernels.interface import KernelBackend

__all__ = ["BUILT_IN", "active", "active_name", "built_in", "register", "requested"]

BUILT_IN: Final = {"native": "cmpk.kernels._native", "reference": "cmpk.kernels.reference"}
"""Modules of the backends that come with cmpk, by name."""

_ENVIRONMENT_VARIABLE: Final = "CMPK_KERNELS"

_registered: dict[str, KernelBackend] = {}


def requested() -> str:
    """The backend that CMPK_KERNELS names; empty where it names none."""
    return os.environ.get(_ENVIRONMENT_VARIABLE, "")


def register(name: str, backend: KernelBackend) -> None:
    """Add a backend, for CMPK_KERNELS to name; of use only before the first call of `active`."""
    _registered[name] = backend


def built_in() -> dict[str, KernelBackend]:
    """The backends of cmpk's own that this installation has, by name."""
    found = {}
    for name in BUILT_IN:
        with contextlib.suppress(ImportError):
            found[name] = _imported(name)
    return found


@functools.cache
def active_name() -> str:
    """``native`` where it was built, else ``reference``; CMPK_KERNELS overrides the choice."""
    wanted = requested()
    if wanted in _registered or wanted == "reference":
        return wanted
    if wanted not in ("", "native"):
        raise CmpkError(
            f"{_ENVIRONMENT_VARIABLE} is {wanted!r}; "
            "set it to 'native', 'reference' or the name of a plugin's backend, or unset it"
        )
    try:
        _imported("native")
    except ImportError as error:
        if wanted == "native":
            raise CmpkError(f"the native kernels are not available: {error}") from error
        return "reference"
    return "native"


@functools.cache
def active() -> KernelBackend:
    """The backend that everything uses unless told otherwise."""
    name = active_name()
    return _registered[name] if name in _registered else _imported(name)


def _imported(name: str) -> KernelBackend:
    return cast(KernelBackend, importlib.import_module(BUILT_IN[name]))
