"""Files → models, whose weights may stay compressed."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import torch

from cmpk.archive import Archive, leaves_of
from cmpk.device import kernels_of
from cmpk.encodings.base import Stored
from cmpk.errors import DeviceError, SourceError
from cmpk.load import checked_device, load_tensors
from cmpk.nn.compressed import Compressed, with_raw_leaves
from cmpk.nn.construction import Slot, assign, construct, parameter_slots
from cmpk.nn.integer import IntegerLinear, IntegerWeight, IntegerWeights, integer_weight
from cmpk.nn.layers import CompressedLayer, compress, is_supported
from cmpk.nn.weights import Weights, WeightTable
from cmpk.ranges import RANGES

__all__ = ["ACTIVATIONS", "RESIDENT", "Loaded", "load"]

RESIDENT: Final = ("dense", "quantized", "packed")
"""What weights may be in memory."""

ACTIVATIONS: Final = ("float", "int8", *(f"int8-{name}" for name in RANGES))
"""What linear layers with codes multiply these by: bytes, within ranges of each token or of calibration."""

_MIN_NBYTES: Final = 1 << 14
"""Smaller weights are kept dense: they save too little for what a call of the kernels takes."""

_MAX_CODES: Final = 0.57
"""Codes are kept where they take at most this share of what they decode to."""

_SMALL_PART: Final = 256
"""A part that is this much smaller than its tensor, as a table of its rows, is decoded only once."""


class Loaded(NamedTuple):
    """A model, the names that only it has, and those that only the file has."""

    model: torch.nn.Module
    missing: list[str]
    unexpected: list[str]


def load(
    source: torch.nn.Module | Callable[[], torch.nn.Module],
    path: str | os.PathLike[str],
    *,
    strict: bool,
    device: str | torch.device,
    resident: str,
    activations: str,
    dense_nbytes: int,
    threads: int,
) -> Loaded:
    """Load a file into a model whose tensors it replaces; see `cmpk.torch.load_model`."""
    if resident not in RESIDENT:
        raise SourceError(f"resident is {resident!r}; give one of {', '.join(map(repr, RESIDENT))}")
    if activations not in ACTIVATIONS or (activations != "float" and resident != "quantized"):
        others = ", ".join(map(repr, ACTIVATIONS[1:]))
        raise SourceError(
            f"activations are {activations!r} and resident is {resident!r}; give 'float', or one of {others} "
            "with resident='quantized'"
        )
    if dense_nbytes < 0:
        raise SourceError(f"dense_nbytes is {dense_nbytes}; give 0 or more")
    target = checked_device(device)
    if activations != "float" and target.type != "cpu":
        raise DeviceError(f"integers are multiplied on the CPU; load onto {target} with activations='float'")
    with Archive(path) as archive:
        model = source if isinstance(source, torch.nn.Module) else construct(source)
        fit = _fit(model, archive)
        if strict and (fit.missing or fit.unexpected):
            raise SourceError(
                f"{str(path)!r} does not fit the model: missing {fit.missing}, unexpected {fit.unexpected}"
            )
        slots = parameter_slots(model)
        names = [] if resident == "dense" else _compressible(archive, fit, slots, resident, dense_nbytes)
        stored = {name: _resident(archive, name, resident, threads) for name in names}
        # Torch dequantizes codes anywhere, with or without kernels that decode there.
        with_codes = resident == "quantized" and (activations != "float" or target.type != "cpu")
        integers = _integers(stored, fit, slots) if with_codes else {}
        if activations not in ("float", "int8"):
            integers = _within_ranges(integers, archive, fit, activations.removeprefix("int8-"))
        trees = {name: found for name, found in stored.items() if name not in integers}
        if stored:
            model.requires_grad_(False)
            for weights in _decoded_weights(trees, target, threads):
                _compress(slots, fit, weights, None)
            base = CompressedLayer if activations == "float" else IntegerLinear
            _compress(slots, fit, IntegerWeights(integers, target), base)
        dense = [name for name in fit.names if name in archive and fit.names[name] not in stored]
        assign(model, load_tensors(archive, dense, target, threads))
    if target.type != "cpu":
        model.to(target)  # buffers that the file lacks
    # Not whole devices: a module that was given may have its other parameters elsewhere.
    valueless = [name for name, value in model.named_parameters() if value.device.type != target.type]
    if valueless:
        raise SourceError(f"{str(path)!r} has no values for {valueless}, and a factory gives parameters none")
    return Loaded(model, fit.missing, fit.unexpected)


class _Fit(NamedTuple):
    """How a file fits a model.

    Attributes
    ----------
    names : dict of str to str
        The tensor of the file that holds the values of each name in the state dict.
    missing, unexpected : list of str
        Names that only the model has, and that only the file has.
    """

    names: dict[str, str]
    missing: list[str]
    unexpected: list[str]


def _fit(model: torch.nn.Module, archive: Archive) -> _Fit:
    """Compare names and shapes.

    Raises
    ------
    SourceError
        If a shape differs, or the model is compressed already.
    """
    if any(isinstance(module, CompressedLayer) for module in model.modules()):
        raise SourceError("the model has compressed weights already; load into a new one")
    own = model.state_dict(keep_vars=True)
    of_value = {id(value): archive.target_of(name) for name, value in own.items() if name in archive}
    # A name that the file lacks has the values of one that it is tied to in the model.
    names = {name: of_value[id(value)] for name, value in own.items() if id(value) in of_value}
    for name, holder in names.items():
        found, expected = archive.spec(holder).shape, own[name].shape
        if found != expected:
            raise SourceError(f"tensor {name!r} is {list(found)}, the model's is {list(expected)}")
    missing = [name for name in own if name not in names]
    return _Fit(names, missing, [name for name in archive if name not in own])


def _compressible(
    archive: Archive, fit: _Fit, slots: Mapping[str, Slot], resident: str, dense_nbytes: int
) -> list[str]:
    """The tensors that stay compressed: all of whose places in the model are layers that decode them.

    The smallest are left out, of as many bytes as may be dense: they gain most for each byte.
    """
    places: dict[str, list[str]] = {}
    for name, holder in fit.names.items():
        places.setdefault(holder, []).append(name)
    found = []
    for holder, names in places.items():
        nbytes = archive.spec(holder).nbytes
        if nbytes < _MIN_NBYTES:
            continue
        if not all(name in slots and is_supported(*slots[name]) for name in names):
            continue
        if resident == "quantized" and _n_codes(archive.stored(holder)) > _MAX_CODES * nbytes:
            continue
        found.append(holder)
    found.sort(key=lambda holder: archive.spec(holder).nbytes)
    ends = itertools.accumulate(archive.spec(holder).nbytes for holder in found)
    return [holder for holder, end in zip(found, ends, strict=True) if end > dense_nbytes]


def _resident(archive: Archive, name: str, resident: str, threads: int) -> Compressed:
    """A tensor as it is kept: its codes, or all but its small tables entropy coded."""
    nbytes = archive.spec(name).nbytes
    compressed = Compressed(name, archive.stored(name), archive.streams(name))
    return with_raw_leaves(compressed, threads, nbytes if resident == "quantized" else nbytes // _SMALL_PART)


def _decoded_weights(
    stored: Mapping[str, Compressed], device: torch.device, threads: int
) -> list[WeightTable[Any]]:
    """Weights by where they are decoded: on the device as far as it has kernels, the others on the CPU."""
    if kernels_of(device) is None:
        return [Weights(stored, device)]
    from cmpk.nn.device_weights import DeviceWeights

    there = DeviceWeights(stored, device, threads)
    here = {name: compressed for name, compressed in stored.items() if name not in there}
    return [there, Weights(here, device)]


def _n_codes(root: Stored) -> int:
    """Bytes of all parts when their entropy coding is undone."""
    return sum(0 if leaf.spec is None else leaf.spec.nbytes for leaf in leaves_of(root))


def _integers(
    stored: Mapping[str, Compressed], fit: _Fit, slots: Mapping[str, Slot]
) -> dict[str, IntegerWeight]:
    """Those of the stored weights that only linear layers use, and whose codes they can multiply."""
    others = {
        holder
        for name, holder in fit.names.items()
        if name not in slots or type(slots[name][0]) is not torch.nn.Linear
    }
    found = {}
    for name, compressed in stored.items():
        weight = None if name in others else integer_weight(compressed)
        if weight is not None:
            found[name] = weight
    return found


def _within_ranges(
    integers: Mapping[str, IntegerWeight], archive: Archive, fit: _Fit, method: str
) -> dict[str, IntegerWeight]:
    """The weights with the ranges of their layers' inputs, where calibration saw these."""
    n_places = Counter(fit.names.values())
    ranges = {name: archive.entry(name).input for name in integers if n_places[name] == 1}
    found = {name: seen.range(method) for name, seen in ranges.items() if seen is not None}
    if not found:
        raise SourceError(
            f"activations are {'int8-' + method!r} and the file has no ranges of the inputs of its linear "
            "layers; pack with a calibration, or give 'int8'"
        )
    return {name: weight._replace(input_range=found.get(name)) for name, weight in integers.items()}


def _compress(
    slots: Mapping[str, Slot],
    fit: _Fit,
    weights: WeightTable[Any],
    base: type[CompressedLayer] | None,
) -> None:
    done: set[Slot] = set()
    for name, slot in slots.items():
        if fit.names.get(name, "") in weights and slot not in done:
            done.add(slot)  # one layer may have several names
            compress(*slot, weights, fit.names[name], base)
