"""What comes with cmpk, registered through the same hooks as any plugin.

Imports are inside the hooks: a process that only loads a model never imports passes or importers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cmpk import kernels
from cmpk.codecs import Bitpack, Codec, Huffman, Rans, Raw, Zstd
from cmpk.encodings import (
    Affine,
    Alias,
    Bitmask,
    Cast,
    Codebook,
    Encoding,
    FloatSplit,
    GapIndex,
    Narrow,
    Product,
    RowGroups,
)
from cmpk.hookspecs import hookimpl

if TYPE_CHECKING:
    from cmpk.importers.base import Importer
    from cmpk.kernels.interface import KernelBackend
    from cmpk.passes.base import Pass

__all__ = ["cmpk_codecs", "cmpk_encodings", "cmpk_importers", "cmpk_kernels", "cmpk_passes"]


@hookimpl
def cmpk_codecs() -> Sequence[Codec]:
    """The codecs of the specification."""
    return (Raw(), Zstd(), Bitpack(), Huffman(), Rans())


@hookimpl
def cmpk_encodings() -> Sequence[Encoding]:
    """The encodings of the specification."""
    return (
        Alias(),
        FloatSplit(),
        Narrow(),
        RowGroups(),
        Codebook(),
        Affine(),
        Cast(),
        Bitmask(),
        GapIndex(),
        Product(),
    )


@hookimpl
def cmpk_passes() -> Sequence[Pass]:
    """The passes of the built-in recipes."""
    from cmpk import passes

    return (
        passes.SplitFloats(),
        passes.Prune(),
        passes.Share(),
        passes.MergeRows(),
        passes.MergeTensors(),
        passes.Factorize(),
        passes.Cast(),
        passes.Quantize(),
        passes.RoundInt(),
        passes.FixedPoint(),
        passes.Binarize(),
        passes.Ternarize(),
        passes.NormalFloat(),
    )


@hookimpl
def cmpk_importers() -> Sequence[Importer]:
    """Model files and directories."""
    from cmpk.importers import DirectoryImporter, SafetensorsImporter, TorchCheckpointImporter

    return (SafetensorsImporter(), TorchCheckpointImporter(), DirectoryImporter())


@hookimpl
def cmpk_kernels() -> Mapping[str, KernelBackend]:
    """The kernels that this installation has."""
    return kernels.built_in()
