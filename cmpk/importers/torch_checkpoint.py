"""Importer torch: checkpoints of ``torch.save``, read with ``weights_only=True`` and nothing else."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cmpk.errors import SourceError
from cmpk.importers.base import Importer, ModelSource
from cmpk.importers.state_dict import StateDictSource

if TYPE_CHECKING:
    import torch

__all__ = ["TorchCheckpointImporter"]

_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "module")
"""Where training scripts keep the weights beside an optimizer's state."""


class TorchCheckpointImporter(Importer):
    """A ``.pt``, ``.pth``, ``.bin`` or ``.ckpt`` file."""

    id: ClassVar[str] = "torch"
    summary: ClassVar[str] = "a torch checkpoint (.pt .pth .bin .ckpt), loaded with weights_only=True"

    def accepts(self, path: Path) -> bool:
        """See `Importer.accepts`."""
        return path.is_file() and path.suffix in (".pt", ".pth", ".bin", ".ckpt")

    def open(self, path: Path) -> ModelSource:
        """See `Importer.open`."""
        found = _load(path)
        notes = []
        if isinstance(found, dict):
            wrapper = next((key for key in _WRAPPERS if isinstance(found.get(key), dict)), None)
            if wrapper is not None:
                left_out = ", ".join(sorted(str(key) for key in found if key != wrapper))
                notes.append(f"took {wrapper!r} of the checkpoint" + (f", left out {left_out}" if left_out else ""))
                found = found[wrapper]
        tensors = dict(_tensors_in(found, ""))
        if not tensors:
            raise SourceError(f"{str(path)!r} holds no tensors")
        n_other = sum(1 for _ in _others_in(found))
        if n_other:
            notes.append(f"left out {n_other} values that are not tensors")
        source = StateDictSource(tensors)
        source.notes = notes
        return source


def _load(path: Path) -> Any:
    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{str(path)!r} holds more than tensors and plain containers, and loading that would run its code; "
            "save a state dict, or a .safetensors file, where you trust it"
        ) from error
    except Exception as error:  # torch raises whatever the damage leads to
        raise SourceError(f"{str(path)!r} is not a torch checkpoint: {error}") from error


def _tensors_in(value: Any, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield prefix or "tensor", value
    for key, item in _children(value):
        yield from _tensors_in(item, f"{prefix}.{key}" if prefix else str(key))


def _others_in(value: Any) -> Iterator[Any]:
    import torch

    if not isinstance(value, torch.Tensor | dict | list | tuple):
        yield value
    for _, item in _children(value):
        yield from _others_in(item)


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
