"""Training what has been packed: a model goes on from an archive, on the grids of its tensors there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cmpk.archive import Archive
from cmpk.dtypes import TensorSpec, to_torch
from cmpk.encodings import Affine, RowGroups
from cmpk.encodings.base import Branch, Decoder, Part, Stored, int_param
from cmpk.encodings.row_groups import MAX_GROUPS
from cmpk.encodings.scales import widened_scale
from cmpk.errors import PassError
from cmpk.indexing import default_threads
from cmpk.passes.clipping import Grid
from cmpk.passes.scales import Slices
from cmpk.sources import PathLike
from cmpk.train.fake_quantize import Quantized, spread
from cmpk.train.parametrized import attach, latent_tensors, parametrizations_of
from cmpk.values import to_float32

__all__ = ["take_up"]


def take_up(
    model: nn.Module,
    archive: PathLike | bytes,
    *,
    names: Iterable[str] | None = None,
    learn: bool = False,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> list[str]:
    """Load a packed model to train it further: quantized tensors stay on their grids.

    Before training the model is the packed one, to the bit. Steps are those of the archive and the codes
    that occur there are those that may: a file that is saved later is about as large.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. Learned scales are new parameters: make the optimizer afterwards.
    archive : path or bytes
        May hold tensors that the model does not have.
    names : iterable of str, optional
        Tensors that are trained on their grids; by default all that have one. All others are loaded as they
        are, so that those which are not to be trained cost nothing; take these up before saving.
    learn : bool
        Whether scales are trained as well.
    weights : mapping of str to tensor, optional
        What was packed. A weight then begins where it was, moved as little as puts it in reach of its code,
        and not in the middle: nearer to where another code would do.

    Returns
    -------
    list of str
        The tensors that are on grids now.

    Raises
    ------
    PassError
        If a tensor has a grid or other parametrizations already, or one that is named has none.
    SourceError, FormatError, UnknownIdError
        If the archive can't be read.
    """
    source = archive if isinstance(archive, bytes) else str(archive)
    chosen = None if names is None else list(names)
    taken = []
    with Archive(source) as opened, torch.no_grad():
        for name, target in latent_tensors(model).items():
            if name not in opened:
                continue
            if parametrizations_of(model, name, nn.Module):
                raise PassError(f"{name!r} has parametrizations already")
            part = Part(opened.spec(name), opened.read(name, default_threads()))
            if tuple(target.shape) != part.spec.shape or target.dtype != to_torch(part.spec.dtype):
                raise PassError(f"{name!r} is {part.spec} in the archive, not what the model has")
            target.copy_(_tensor(part))
            if chosen is None or name in chosen:
                found = _grid(opened, name, part)
                if found is None and chosen is not None:
                    raise PassError(f"{name!r} is on no grid in the archive")
                if found is not None:
                    grid, slices = found
                    quantized = Quantized(grid, slices, learn=learn, max_groups=MAX_GROUPS)
                    if weights is not None and name in weights:
                        target.copy_(_in_reach(weights[name], target, quantized))
                    attach(model, name, quantized)
                    taken.append(name)
    return taken


def _tensor(part: Part) -> torch.Tensor:
    return torch.from_numpy(part.data.copy()).view(to_torch(part.spec.dtype)).reshape(part.spec.shape)


def _grid(archive: Archive, name: str, part: Part) -> tuple[Grid, Slices] | None:
    """The grid that a tensor is stored on; None if it is on none, or on several that are no one."""
    streams = archive.streams(name)
    scaled = _scales(
        archive.stored(archive.target_of(name)), part.spec, Decoder(lambda leaf: streams[leaf.offset])
    )
    if scaled is None:
        return None
    scale, zero_point, slices, dtype = scaled
    # A grid has no directions, and needs a size.
    if (scale < 0).any():
        return None
    steps = slices.spread(scale)
    codes = np.rint(to_float32(part) / np.where(steps > 0, steps, np.float32(1)))
    if zero_point is not None:
        codes += slices.spread(zero_point)
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    return Grid(scale, zero_point, low, high, dtype), slices


_Scales = tuple[NDArray[np.float32], NDArray[np.int32] | None, Slices, str]


def _scales(stored: Stored, spec: TensorSpec, decoder: Decoder) -> _Scales | None:
    if not isinstance(stored, Branch):
        return None
    if isinstance(stored.encoding, RowGroups):
        return _joined(stored, stored.encoding, spec, decoder)
    if not isinstance(stored.encoding, Affine):
        return None
    params = stored.node.params
    dtype = str(params["scale_dtype"])
    scale = np.array(widened_scale(decoder.decode(stored.parts["scale"]), dtype))
    zero_point = None
    if params["zero_point"]:
        zero_point = np.array(decoder.decode(stored.parts["zero_point"]).view("<i4"))
    axis = int_param(params, "axis", -1, len(spec.shape) - 1)
    group_size = int_param(params, "group_size", 0, 1 << 48)
    if group_size:
        group_size = min(group_size, spec.shape[-1])
    # Powers of two are single-precision numbers that training does not keep to.
    return scale, zero_point, Slices(spec.shape, axis, group_size), "F32" if dtype == "F8_E8M0" else dtype


def _joined(stored: Branch, encoding: RowGroups, spec: TensorSpec, decoder: Decoder) -> _Scales | None:
    """Scales of groups of rows, if each row has one, or if they are the same in all groups."""
    found: list[_Scales] = []
    rows = encoding.rows_of_groups(stored, decoder)
    for index, rows_of_group in enumerate(rows):
        group = TensorSpec(spec.dtype, (len(rows_of_group), *spec.shape[1:]))
        scales = _scales(stored.parts[str(index)], group, decoder)
        if scales is None or scales[1] is not None or scales[2].group_size:
            return None
        found.append(scales)
    axes = {slices.axis for _, _, slices, _ in found}
    dtypes = {dtype for _, _, _, dtype in found}
    if len(axes) > 1 or len(dtypes) > 1:
        return None
    axis, dtype = axes.pop(), dtypes.pop()
    if axis == 0:
        scale = np.empty(spec.shape[0], np.float32)
        for rows_of_group, (part, *_) in zip(rows, found, strict=True):
            scale[rows_of_group] = part
    else:
        scale = found[0][0]
        if any(not np.array_equal(scale, part) for part, *_ in found):
            return None
    return scale, None, Slices(spec.shape, axis, 0), dtype


def _in_reach(weight: torch.Tensor, decoded: torch.Tensor, quantized: Quantized) -> torch.Tensor:
    """The weight, moved to where it rounds to what was decoded."""
    half = 0.49 * spread(quantized.steps(), quantized.slices)
    middle = decoded.float()
    moved = torch.clamp(weight.float(), middle - half, middle + half).to(decoded.dtype)
    # In a type of few bits it may have been rounded out of reach.
    return torch.where(quantized(moved) == decoded, moved, decoded)
