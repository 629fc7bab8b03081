"""What a model sees while it runs: statistics that tell the passes which errors matter.

`calibrate` runs a torch module once over sample batches. What it keeps is a file of its own (a safetensors
file), so that a model is calibrated once and packed many times, also where it can't be run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from cmpk.errors import DestinationError, SourceError

if TYPE_CHECKING:
    import torch

__all__ = ["Calibration", "TensorStatistics", "calibrate", "load_calibration"]

MAX_FEATURES: Final = 8192
"""Inputs of more features keep the diagonal of their second moment alone."""

_FORMAT: Final = "cmpk calibration 1"
_PATCH_ELEMENTS: Final = 1 << 24
"""Patches of a convolution's input that are held at a time have about this many elements."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorStatistics:
    """How one weight was used.

    Attributes
    ----------
    kind : str
        ``"linear"``, shape (out, in); ``"conv"``, shape (out, in / groups, *kernel); ``"conv1d"``, a
        linear layer that keeps its weight as (in, out); ``"embedding"``, shape (rows, row elements).
    count : int
        Inputs seen: positions, or look-ups of an embedding.
    second_moment : float32 array
        Mean of x xᵀ over the inputs, shape (n, n), where n is ``in``, or ``in / groups`` times the
        kernel's elements. Its diagonal alone, shape (n,), where the whole would be too large. Of an
        embedding: how often each row was looked up, shape (rows,), as a share of all look-ups.
    gradient_squares : float32 array, the weight's shape, or None
        Mean over the batches of the squared gradient of the loss, where one was given.
    """

    kind: str
    count: int
    second_moment: NDArray[np.float32]
    gradient_squares: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Statistics of a model's weights, by the names that its state dict gives them.

    Attributes
    ----------
    tensors : mapping of str to TensorStatistics
    sha256 : str
        Digest of the file that `save` writes: the calibration's name in what is packed with it.
    """

    tensors: Mapping[str, TensorStatistics]
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.to_bytes()).hexdigest())

    def to_bytes(self) -> bytes:
        """The file that `save` writes: the same each time."""
        return _to_bytes(self.tensors)

    def get(self, name: str) -> TensorStatistics | None:
        """The statistics of a tensor; None if it was not seen in use."""
        return self.tensors.get(name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file.

        Raises
        ------
        DestinationError
            If it can't be written.
        """
        try:
            Path(path).write_bytes(self.to_bytes())
        except OSError as error:
            raise DestinationError(f"can't write {os.fspath(path)!r}: {error.strerror}") from error


def load_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Read what `Calibration.save` wrote.

    Raises
    ------
    SourceError
        If the file can't be read or is not a calibration.
    """
    import safetensors
    import safetensors.numpy

    name = repr(os.fspath(path))
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
        return Calibration(_checked(metadata[_FORMAT], arrays))
    except OSError as error:
        raise SourceError(f"can't read the calibration {name}: {error.strerror or error}") from error
    except (safetensors.SafetensorError, msgspec.DecodeError, KeyError, ValueError, RecursionError) as error:
        raise SourceError(f"{name} is not a calibration: {error}") from error


def calibrate(
    model: torch.nn.Module,
    batches: Iterable[Any],
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
) -> Calibration:
    """Run a model over sample batches and keep what its layers saw.

    Linear layers, convolutions (also transformers' Conv1D) and embeddings are watched; the model is run
    as for use (``eval``) and left as it was. Padding counts as input, so give batches without it, if
    need be of one sample each. A layer that no batch reaches has no statistics.

    Memory: a matrix of n × n float32 for each layer of n input features, n floats beyond `MAX_FEATURES`;
    with a loss, two copies of the weights.

    Parameters
    ----------
    model : torch.nn.Module
    batches : iterable
        A tensor, a tuple or list of arguments, or a mapping of arguments by their names, each.
    loss : function, optional
        Of the model's output and the batch, giving a tensor of one element. Its gradients tell how much
        each weight matters. Where there is no such function, let it be the sum of the output times random
        numbers: that measures how far an error in each weight moves the output.

    Returns
    -------
    Calibration

    Raises
    ------
    SourceError
        If there are no batches, or the model uses no such layers.
    """
    import torch

    observers = {
        f"{name}.weight" if name else "weight": _Observer(module, kind)
        for name, module in model.named_modules(remove_duplicate=False)
        for kind in [_kind_of(module)]
        if kind
    }
    weights = {name: observer.weight for name, observer in observers.items()}
    training = {module: module.training for module in model.modules()}
    required = {weight: weight.requires_grad for weight in weights.values()}
    hooks = [observer.module.register_forward_hook(observer.see) for observer in observers.values()]
    n_batches = 0
    try:
        model.eval()
        for weight in required:
            weight.requires_grad_(loss is not None)
        with torch.set_grad_enabled(loss is not None):
            for batch in batches:
                output = _run(model, batch)
                if loss is not None:
                    _add_gradients(loss(output, batch), observers)
                n_batches += 1
    finally:
        for hook in hooks:
            hook.remove()
        for weight, was in required.items():
            weight.requires_grad_(was)
        for module, was in training.items():
            module.training = was
    tensors = {name: seen.statistics(n_batches) for name, seen in sorted(observers.items()) if seen.count}
    if not tensors:
        raise SourceError("the batches reach no linear layer, convolution or embedding of the model")
    return Calibration(tensors)


class _Observer:
    """Gathers what one layer sees."""

    def __init__(self, module: torch.nn.Module, kind: str) -> None:
        self.module = module
        self.kind = kind
        self.weight: torch.nn.Parameter = module.weight  # type: ignore[assignment]
        self.count = 0
        self._moment: torch.Tensor | None = None
        self._gradients: torch.Tensor | None = None

    def see(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        """Take the input of one call; a forward hook."""
        import torch

        if not inputs or not isinstance(inputs[0], torch.Tensor):
            return  # given by name: torch shows hooks only what is given by position
        with torch.no_grad():
            if self.kind == "embedding":
                seen = inputs[0].detach().reshape(-1)
                self._add(torch.bincount(seen, minlength=len(self.weight)).float(), len(seen))
                return
            for x in _patches(self.module, inputs[0]) if self.kind == "conv" else _rows(inputs[0]):
                if x.shape[1] > MAX_FEATURES:
                    self._add(x.square().sum(0), len(x))
                elif self._moment is None:
                    self._add(x.T @ x, len(x))
                else:
                    self._moment.addmm_(x.T, x)
                    self.count += len(x)

    def _add(self, moment: torch.Tensor, count: int) -> None:
        self._moment = moment if self._moment is None else self._moment.add_(moment)
        self.count += count

    def add_gradient(self, gradient: torch.Tensor) -> None:
        """Take the gradient of one batch's loss."""
        squares = gradient.detach().float().square()
        self._gradients = squares if self._gradients is None else self._gradients.add_(squares)

    def statistics(self, n_batches: int) -> TensorStatistics:
        """What was gathered."""
        assert self._moment is not None
        gradients = None if self._gradients is None else (self._gradients / n_batches).cpu().numpy()
        return TensorStatistics(self.kind, self.count, (self._moment / self.count).cpu().numpy(), gradients)


def _kind_of(module: torch.nn.Module) -> str:
    from torch import nn

    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
        return ""
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return "conv"
    # By name, lest transformers be imported: a linear layer whose weight is stored transposed.
    return "conv1d" if type(module).__name__ == "Conv1D" and weight.ndim == 2 else ""


def _rows(x: torch.Tensor) -> Iterator[torch.Tensor]:
    """The input of a linear layer, a row for each position."""
    yield x.detach().reshape(-1, x.shape[-1]).float()


def _patches(module: Any, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """What a convolution's kernel meets, a row each, the groups' one after another.

    Yields
    ------
    tensor, shape (rows, in / groups * kernel elements)
    """
    import torch

    n_dims = len(module.kernel_size)
    x = x.detach()
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


def _run(model: torch.nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def _add_gradients(loss: torch.Tensor, observers: Mapping[str, _Observer]) -> None:
    import torch

    # Weights that are tied have one gradient; those that the batch did not reach have none.
    weights = list({id(seen.weight): seen.weight for seen in observers.values() if seen.count}.values())
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    gradient_of = {id(weight): gradient for weight, gradient in zip(weights, found, strict=True)}
    for seen in observers.values():
        gradient = gradient_of.get(id(seen.weight))
        if gradient is not None:
            seen.add_gradient(gradient)


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file's metadata say of a tensor."""

    kind: Literal["linear", "conv", "conv1d", "embedding"]
    count: Annotated[int, msgspec.Meta(ge=1)]


def _to_bytes(tensors: Mapping[str, TensorStatistics]) -> bytes:
    import safetensors.numpy

    arrays: dict[str, NDArray[np.float32]] = {}
    table = {}
    for name in sorted(tensors):
        seen = tensors[name]
        table[name] = {"count": seen.count, "kind": seen.kind}
        arrays[f"{name}/second_moment"] = np.ascontiguousarray(seen.second_moment, np.float32)
        if seen.gradient_squares is not None:
            arrays[f"{name}/gradient_squares"] = np.ascontiguousarray(seen.gradient_squares, np.float32)
    # One entry: safetensors writes several in an order that differs from run to run.
    return safetensors.numpy.save(arrays, {_FORMAT: msgspec.json.encode(table).decode()})


def _checked(table: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, TensorStatistics]:
    tensors = {}
    for name, entry in msgspec.json.decode(table, type=dict[str, _Entry]).items():
        moment = arrays[f"{name}/second_moment"]
        gradients = arrays.get(f"{name}/gradient_squares")
        square = moment.ndim == 2 and moment.shape[0] == moment.shape[1]
        if moment.ndim != 1 and (entry.kind == "embedding" or not square):
            raise ValueError(f"the second moment of {name!r} has the shape {moment.shape}")
        for array in (moment, gradients):
            if array is not None and (array.dtype != np.float32 or not np.isfinite(array).all()):
                raise ValueError(f"the statistics of {name!r} are not finite numbers in single precision")
        tensors[name] = TensorStatistics(entry.kind, entry.count, moment, gradients)
    return tensors
