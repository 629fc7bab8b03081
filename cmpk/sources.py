"""Models to be read: a path or tensors in memory, opened by the importer that takes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from cmpk.errors import SourceError, blame
from cmpk.importers.base import ModelSource
from cmpk.importers.state_dict import StateDictSource
from cmpk.registry import Registry

__all__ = ["PathLike", "Source", "open_source"]

PathLike: TypeAlias = str | os.PathLike[str]
Source: TypeAlias = PathLike | Mapping[str, Any] | ModelSource


def open_source(src: Source, offers: Registry) -> ModelSource:
    """Open a model for reading, tensor by tensor.

    Parameters
    ----------
    src : path, mapping of str to tensor, or ModelSource
        The last is given back as it is.
    offers : Registry

    Raises
    ------
    SourceError
        If it is missing, damaged, or in no form that can be read.
    PluginError
        If a plugin's importer fails.
    """
    if isinstance(src, ModelSource):
        return src
    if isinstance(src, Mapping):
        return StateDictSource(src)
    path = Path(src)
    if not path.exists():
        raise SourceError(f"{str(path)!r} does not exist")
    for registered in offers.importers.values():
        with blame(f"importer {registered.item.id!r}", registered.plugin):
            if registered.item.accepts(path):
                return registered.item.open(path)
    forms = "; ".join(registered.item.summary for registered in offers.importers.values())
    raise SourceError(f"{str(path)!r} is in no form that can be packed: {forms}")
