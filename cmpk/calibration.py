"""What a model sees while it runs: statistics that tell the passes which errors matter.

`calibrate` runs a torch module once over sample batches. What it keeps is a file of its own (a safetensors
file), so that a model is calibrated once and packed many times, also where it can't be run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from cmpk.errors import DestinationError, SourceError
from cmpk.observers import Observer, watching
from cmpk.ranges import RANGES

if TYPE_CHECKING:
    import torch

__all__ = ["Calibration", "TensorStatistics", "calibrate", "load_calibration"]

_FORMAT: Final = "cmpk calibration 1"
_PARTS: Final = ("second_moment", "gradient_squares", "input_ranges")


@dataclass(frozen=True, slots=True, eq=False)
class TensorStatistics:
    """How one weight was used. The arrays can't be written: what is computed from them may be kept.

    Attributes
    ----------
    kind : str
        ``"linear"``, shape (out, in); ``"conv"``, shape (out, in / groups, *kernel); ``"conv1d"``, a
        linear layer that keeps its weight as (in, out); ``"embedding"``, shape (rows, row elements).
        The weight of attention for queries, keys and values together is linear: the mean is over the inputs
        of all three, one after another, as it is over the groups of a convolution.
    count : int
        Inputs seen: positions, or look-ups of an embedding.
    second_moment : float32 array
        Mean of x xᵀ over the inputs, shape (n, n), where n is ``in``, or ``in / groups`` times the
        kernel's elements. Its diagonal alone, shape (n,), where the whole would be too large. Of an
        embedding: how often each row was looked up, shape (rows,), as a share of all look-ups.
    gradient_squares : float32 array, the weight's shape, or None
        Mean over the batches of the squared gradient of the loss, where one was given.
    input_ranges : float32 array, shape (3, 2), or None
        Of a linear layer: the lowest and the highest number in its inputs, by `cmpk.ranges.RANGES`.
    """

    kind: str
    count: int
    second_moment: NDArray[np.float32]
    gradient_squares: NDArray[np.float32] | None = None
    input_ranges: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for name in ("second_moment", "gradient_squares", "input_ranges"):
            array = getattr(self, name)
            if array is not None:
                view = array.view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)


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

    Linear layers, convolutions (also transformers' Conv1D), embeddings and `torch.nn.MultiheadAttention` are
    watched; the model is run as for use (``eval``), without torch's fused path for attention, and left as it
    was. Padding counts as input, so give batches without it, if need be of one sample each. A layer that no
    batch reaches has no statistics.

    Memory: a matrix of n × n float32 for each layer of n input features, n floats beyond
    `cmpk.observers.MAX_FEATURES`; with a loss, two copies of the weights.

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

    training = {module: module.training for module in model.modules()}
    required: dict[torch.nn.Parameter, bool] = {}
    n_batches = 0
    try:
        model.eval()
        with watching(model) as observers, torch.set_grad_enabled(loss is not None):
            required |= {seen.weight: seen.weight.requires_grad for seen in observers.values()}
            for weight in required:
                weight.requires_grad_(loss is not None)
            for batch in batches:
                output = _run(model, batch)
                if loss is not None:
                    _take_gradients(loss(output, batch), observers)
                n_batches += 1
    finally:
        for weight, was in required.items():
            weight.requires_grad_(was)
        for module, was in training.items():
            module.training = was
    tensors = {name: _statistics(seen, n_batches) for name, seen in sorted(observers.items()) if seen.count}
    if not tensors:
        raise SourceError(
            "the batches reach no linear layer, convolution, attention or embedding of the model"
        )
    return Calibration(tensors)


def _statistics(seen: Observer, n_batches: int) -> TensorStatistics:
    gradients = seen.gradient_squares(n_batches)
    return TensorStatistics(
        seen.kind,
        seen.count,
        seen.second_moment().cpu().numpy(),
        None if gradients is None else gradients.cpu().numpy(),
        seen.inputs.ranges(),
    )


def _run(model: torch.nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def _take_gradients(loss: torch.Tensor, observers: Mapping[str, Observer]) -> None:
    import torch

    # Weights that are tied have one gradient; those that the batch did not reach have none.
    weights = list({id(seen.weight): seen.weight for seen in observers.values() if seen.count}.values())
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    gradient_of = {id(weight): gradient for weight, gradient in zip(weights, found, strict=True)}
    for seen in observers.values():
        gradient = gradient_of.get(id(seen.weight))
        if gradient is not None:
            seen.take_gradient(gradient)


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
        for part in _PARTS:
            array = getattr(seen, part)
            if array is not None:
                arrays[f"{name}/{part}"] = np.ascontiguousarray(array, np.float32)
    # One entry: safetensors writes several in an order that differs from run to run.
    return safetensors.numpy.save(arrays, {_FORMAT: msgspec.json.encode(table).decode()})


def _checked(table: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, TensorStatistics]:
    tensors = {}
    for name, entry in msgspec.json.decode(table, type=dict[str, _Entry]).items():
        moment = arrays[f"{name}/second_moment"]
        gradients, ranges = arrays.get(f"{name}/gradient_squares"), arrays.get(f"{name}/input_ranges")
        square = moment.ndim == 2 and moment.shape[0] == moment.shape[1]
        if moment.ndim != 1 and (entry.kind == "embedding" or not square):
            raise ValueError(f"the second moment of {name!r} has the shape {moment.shape}")
        if ranges is not None and (ranges.shape != (len(RANGES), 2) or (ranges[:, 0] > ranges[:, 1]).any()):
            raise ValueError(f"the ranges of the input of {name!r} are not {len(RANGES)} pairs that ascend")
        for array in (moment, gradients, ranges):
            if array is not None and (array.dtype != np.float32 or not np.isfinite(array).all()):
                raise ValueError(f"the statistics of {name!r} are not finite numbers in single precision")
        tensors[name] = TensorStatistics(entry.kind, entry.count, moment, gradients, ranges)
    return tensors
