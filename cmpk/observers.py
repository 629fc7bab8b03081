"""What layers see: second moments and ranges of their inputs, gathered while a model runs."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import numpy as np

from cmpk.ranges import Histogram

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["MAX_FEATURES", "Observer", "watching"]

MAX_FEATURES: Final = 8192
"""Inputs of more features keep the diagonal of their second moment alone."""

_PATCH_ELEMENTS: Final = 1 << 24
"""Patches of a convolution's input that are held at a time have about this many elements."""

_ATTENTION: Final[Mapping[str, tuple[str, ...]]] = {
    "in_proj_weight": ("query", "key", "value"),
    "q_proj_weight": ("query",),
    "k_proj_weight": ("key",),
    "v_proj_weight": ("value",),
}
"""The weights that attention has of its own, and which of its inputs they meet."""


class Observer:
    """Gathers what one weight meets.

    Parameters
    ----------
    weight : torch.nn.Parameter
    kind : str
        See `cmpk.calibration.TensorStatistics`.
    patches : function, optional
        Of a tensor, gives what the weight meets of it, a row each, piece by piece; by default the tensor's
        last dimension.

    Attributes
    ----------
    count : int
        Rows so far, or look-ups of an embedding.
    inputs : Histogram
        Of all numbers so far, where a linear layer meets them.
    """

    def __init__(
        self,
        weight: nn.Parameter,
        kind: str,
        patches: Callable[[torch.Tensor], Iterator[torch.Tensor]] | None = None,
    ) -> None:
        self.weight = weight
        self.kind = kind
        self.count = 0
        self.inputs = Histogram()
        self._patches = patches or _rows
        self._moment: torch.Tensor | None = None
        self._gradients: torch.Tensor | None = None

    def take(self, x: torch.Tensor, times: int = 1) -> None:
        """Take an input, as so many."""
        import torch

        with torch.no_grad():
            x = x.detach()
            if self.kind == "embedding":
                seen = x.reshape(-1)
                self._add(torch.bincount(seen, minlength=len(self.weight)).float(), len(seen))
                return
            if self.kind == "linear":
                self.inputs.add(x, times)
            for rows in self._patches(x):
                count = times * len(rows)
                if rows.shape[1] > MAX_FEATURES:
                    self._add(rows.square().sum(0).mul_(times), count)
                elif self._moment is None:
                    self._add((rows.T @ rows).mul_(times), count)
                else:
                    self._moment.addmm_(rows.T, rows, alpha=times)
                    self.count += count

    def _add(self, moment: torch.Tensor, count: int) -> None:
        self._moment = moment if self._moment is None else self._moment.add_(moment)
        self.count += count

    def take_gradient(self, gradient: torch.Tensor) -> None:
        """Take the gradient of one batch's loss."""
        squares = gradient.detach().float().square()
        self._gradients = squares if self._gradients is None else self._gradients.add_(squares)

    def second_moment(self) -> torch.Tensor:
        """Mean over what was taken; there must be some."""
        assert self._moment is not None
        return self._moment / self.count

    def gradient_squares(self, n_batches: int) -> torch.Tensor | None:
        """Mean over the batches; None if none had a gradient."""
        return None if self._gradients is None else self._gradients / n_batches


@contextlib.contextmanager
def watching(model: nn.Module) -> Iterator[dict[str, Observer]]:
    """Watch a model's layers meanwhile.

    Yields
    ------
    dict of str to Observer
        By the names that the state dict gives to the weights.
    """
    import torch

    observers: dict[str, Observer] = {}
    hooks = []
    # What is fused runs without the modules that it is written with, and shows their hooks nothing.
    was_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for name, module in model.named_modules(remove_duplicate=False):
            see = _watched(f"{name}." if name else "", module, observers)
            if see is not None:
                hooks.append(module.register_forward_hook(see, with_kwargs=True))
        yield observers
    finally:
        for hook in hooks:
            hook.remove()
        torch.backends.mha.set_fastpath_enabled(was_fused)


def _watched(prefix: str, module: nn.Module, observers: dict[str, Observer]) -> Callable[..., None] | None:
    """A forward hook for a module that has weights to be watched; adds their observers."""
    from torch import nn

    # Others of this name call layers, which have hooks of their own.
    if getattr(type(module), "forward", None) is nn.MultiheadAttention.forward:
        return _watched_attention(prefix, module, observers)
    weight = getattr(module, "weight", None)
    kind = _kind_of(module)
    if not kind or not _is_watched(weight):
        return None
    patches = (lambda x: _patches(module, x)) if kind == "conv" else None
    observer = observers[prefix + "weight"] = Observer(weight, kind, patches)

    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        observer.take(next(iter((*args, *kwargs.values()))))

    return see


def _watched_attention(prefix: str, module: Any, observers: dict[str, Observer]) -> Callable[..., None]:
    own = {name: getattr(module, name) for name in _ATTENTION if _is_watched(getattr(module, name, None))}
    found = {name: Observer(weight, "linear") for name, weight in own.items()}
    observers |= {prefix + name: observer for name, observer in found.items()}

    def see(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        given = {**dict(zip(("query", "key", "value"), args, strict=False)), **kwargs}
        for name, observer in found.items():
            inputs = {id(x): x for x in (given[what] for what in _ATTENTION[name])}
            times = Counter(id(given[what]) for what in _ATTENTION[name])
            for key, x in inputs.items():
                observer.take(x, times[key])
        # Its last layer is never called: only its weight is used.
        last = observers.get(prefix + "out_proj.weight")
        if last is not None:
            last.take(_before_projection(module, args, kwargs))

    return see


def _before_projection(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """What all heads together give, before it is projected: attention once more, with an identity."""
    import torch
    from torch import nn

    last = module.out_proj
    identity = nn.Linear(last.in_features, last.in_features, bias=False, device="meta")
    identity.weight = nn.Parameter(
        torch.eye(last.in_features, dtype=last.weight.dtype, device=last.weight.device)
    )
    twin = copy.copy(module)
    twin._modules = {**module._modules, "out_proj": identity}
    with torch.no_grad():
        heads: torch.Tensor = twin.forward(*args, **kwargs)[0]
    return heads


def _is_watched(weight: object) -> TypeGuard[nn.Parameter]:
    from torch import nn

    return isinstance(weight, nn.Parameter) and weight.is_floating_point()


def _kind_of(module: nn.Module) -> str:
    from torch import nn

    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return "conv"
    # By name, lest transformers be imported: a linear layer whose weight is stored transposed.
    weight = getattr(module, "weight", None)
    return "conv1d" if type(module).__name__ == "Conv1D" and getattr(weight, "ndim", 0) == 2 else ""


def _rows(x: torch.Tensor) -> Iterator[torch.Tensor]:
    """The input of a linear layer, a row for each position."""
    yield x.reshape(-1, x.shape[-1]).float()


def _patches(module: Any, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """What a convolution's kernel meets, a row each, the groups' one after another.

    Yields
    ------
    tensor, shape (rows, in / groups * kernel elements)
    """
    import torch

    n_dims = len(module.kernel_size)
    x = x[None] if x.ndim == n_dims + 1 else x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    window = int(np.prod(module.kernel_size))
    at_once = max(1, _PATCH_ELEMENTS // max(1, x[0].numel() * window))
    for start in range(0, len(x), at_once):
        padded = x[start : start + at_once].float()
        if any(module._reversed_padding_repeated_twice):
            padded = torch.nn.functional.pad(padded, module._reversed_padding_repeated_twice, mode=mode)
        for i in range(n_dims):
            size, dilation = module.kernel_size[i], module.dilation[i]
            padded = padded.unfold(2 + i, (size - 1) * dilation + 1, module.stride[i])[..., ::dilation]
        # (samples, channels, *positions, *kernel) → (samples, groups, *positions, channels, *kernel)
        grouped = padded.reshape(len(padded), module.groups, -1, *padded.shape[2:]).movedim(2, 2 + n_dims)
        yield grouped.reshape(-1, x.shape[1] // module.groups * window)
