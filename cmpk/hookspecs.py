"""What a plugin may offer. Each hook is called once, when what it gives is first needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

from cmpk.codecs.base import Codec
from cmpk.encodings.base import Encoding

if TYPE_CHECKING:
    import click

    from cmpk.importers.base import Importer
    from cmpk.kernels.interface import KernelBackend
    from cmpk.passes.base import Pass

__all__ = [
    "PROJECT",
    "cmpk_codecs",
    "cmpk_commands",
    "cmpk_encodings",
    "cmpk_importers",
    "cmpk_kernels",
    "cmpk_passes",
    "hookimpl",
    "hookspec",
]

PROJECT = "cmpk"
"""Name of the entry-point group, and prefix of the hooks."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def cmpk_codecs() -> Sequence[Codec]:
    """Codecs: bytes to a stream and back."""
    return ()


@hookspec
def cmpk_encodings() -> Sequence[Encoding]:
    """Encodings: a tensor to part tensors and back."""
    return ()


@hookspec
def cmpk_passes() -> Sequence[Pass]:
    """Passes: what a tensor becomes. Not called where a model is only loaded.

    One whose ``apply`` has no parameter ``statistics`` is called without calibration.
    """
    return ()


@hookspec
def cmpk_importers() -> Sequence[Importer]:
    """Importers: further forms of models that can be packed. Not called where one is only loaded."""
    return ()


@hookspec
def cmpk_kernels() -> Mapping[str, KernelBackend]:
    """Kernel backends by name. Only called where CMPK_KERNELS names one that is not cmpk's own."""
    return {}


@hookspec
def cmpk_commands() -> Sequence[click.Command]:
    """Subcommands of ``cmpk``. Not called where cmpk is used as a library."""
    return ()
