"""Layers whose weights stay compressed: torch's own, with a weight that is decoded when it is read."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from cmpk.errors import CmpkError
from cmpk.nn.weights import Weights

__all__ = ["CompressedEmbedding", "CompressedLayer", "compress", "is_supported"]

_WITH_WEIGHT = (torch.nn.Linear, torch.nn.modules.conv._ConvNd, torch.nn.Embedding, torch.nn.EmbeddingBag)


def is_supported(module: torch.nn.Module, attribute: str) -> bool:
    """Whether a parameter of a layer is read nowhere but as an attribute, when it is used."""
    if isinstance(module, torch.nn.MultiheadAttention):
        return attribute == "in_proj_weight"
    if attribute != "weight" or getattr(module, "max_norm", None) is not None:  # which changes the weight
        return False
    # The linear layer of several models in package transformers, whose weight is (in, out).
    return isinstance(module, _WITH_WEIGHT) or type(module).__name__ == "Conv1D"


def compress(
    module: torch.nn.Module,
    attribute: str,
    weights: Weights | Any,
    name: str,
    base: type[CompressedLayer] | None = None,
) -> None:
    """Have a layer read a parameter from compressed weights.

    The layer becomes one of a subclass, as with ``torch.nn.utils.parametrize``.

    Parameters
    ----------
    module : torch.nn.Module
        One that `is_supported`.
    attribute : str
        Of the parameter, which is removed.
    weights : Weights
        Or whatever ``base`` takes.
    name : str
        Of the tensor among ``weights``.
    base : type, optional
        What the layer becomes, besides what it is.
    """
    names = {**getattr(module, "_compressed_names", {}), attribute: name}
    if base is None:
        base = CompressedEmbedding if type(module) is torch.nn.Embedding else CompressedLayer
    original = type(module)
    if issubclass(original, CompressedLayer):  # another parameter of it is compressed already
        original = original._original_class
    del module._parameters[attribute]
    module.__class__ = _subclass(original, base, tuple(names))  # type: ignore[arg-type]  # classes have hashes
    module.__dict__.update(_compressed_names=names, _compressed_weights=weights)


@functools.cache
def _subclass(
    original: type[torch.nn.Module], base: type[CompressedLayer], attributes: tuple[str, ...]
) -> type[torch.nn.Module]:
    members = {attribute: _decoded(attribute) for attribute in attributes}
    prefix = base.__name__.removesuffix("Layer").removesuffix("Embedding").removesuffix("Linear")
    return type(f"{prefix}{original.__name__}", (base, original), {**members, "_original_class": original})


def _decoded(attribute: str) -> property:
    def get(self: CompressedLayer) -> torch.Tensor:
        weight: torch.Tensor = self._compressed_weights.get(self._compressed_names[attribute])
        return weight

    def replace(self: CompressedLayer, value: object) -> None:
        raise _irreplaceable(attribute)

    return property(get, replace, doc="The weight, decoded now, for as long as it is referred to.")


def _irreplaceable(attribute: str) -> CmpkError:
    return CmpkError(
        f"{attribute!r} of a compressed layer can't be replaced; load the model with resident='dense'"
    )


class CompressedLayer(torch.nn.Module):
    """What layers with compressed weights do differently.

    Their weights are no parameters. They can't be trained, converted, moved or pickled; each attempt is
    refused with a `CmpkError`. ``state_dict`` has their decoded values, and copies share what is stored.
    """

    _original_class: ClassVar[type[torch.nn.Module]]
    _compressed_names: dict[str, str]
    _compressed_weights: Any

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As that of the layer, without gradients."""
        self._refuse_gradients(*args, *kwargs.values())
        return super().forward(*args, **kwargs)

    def _refuse_gradients(self, *inputs: object) -> None:
        if torch.is_grad_enabled() and any(
            isinstance(value, torch.Tensor) and value.requires_grad for value in inputs
        ):
            raise CmpkError(
                f"no gradients flow through {type(self).__name__}: load the model with resident='dense' "
                "to train it, or run it under torch.no_grad()"
            )

    def extra_repr(self) -> str:
        """As that of the layer, and the bytes that its weights take, and where."""
        weights = self._compressed_weights
        nbytes = sum(weights.stored(name).nbytes for name in self._compressed_names.values())
        kept = f"compressed to {nbytes} bytes on {weights.kept_on}"
        return ", ".join(filter(None, (super().extra_repr(), kept)))

    def register_parameter(self, name: str, param: torch.nn.Parameter | None) -> None:
        """As that of any module, but for the compressed weights."""
        if name in self._compressed_names:
            raise _irreplaceable(name)
        super().register_parameter(name, param)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for attribute, name in self._compressed_names.items():
            destination[prefix + attribute] = self._compressed_weights.copy(name)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for attribute in self._compressed_names:
            if prefix + attribute in state_dict:
                raise CmpkError(
                    f"{prefix + attribute!r} is compressed and takes no new values; "
                    "load the model with resident='dense'"
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> CompressedLayer:
        for name in self._compressed_names.values():
            weights = self._compressed_weights
            empty = torch.empty(0, dtype=weights.dtype(name), device=weights.device)
            moved = fn(empty)
            if (moved.dtype, moved.device) != (empty.dtype, empty.device):
                raise CmpkError(
                    f"compressed weights stay {empty.dtype} on {empty.device}: load the model with "
                    f"resident='dense' to have it as {moved.dtype} on {moved.device}"
                )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> CompressedLayer:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise CmpkError(
            "a model with compressed weights can't be pickled; keep its .cmpk file, or save its state_dict()"
        )


class CompressedEmbedding(CompressedLayer):
    """An embedding that decodes the rows that it needs."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Look rows up; see ``torch.nn.Embedding``."""
        rows: torch.Tensor = self._compressed_weights.rows(self._compressed_names["weight"], input)
        return rows
