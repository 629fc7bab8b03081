"""Pass quantize: weights as multiples of a step, as many codes as they take, entropy coded.

No number of bits is chosen: the step sets the rate, and the entropy coder turns it into bytes. With
calibration steps differ inside a tensor as far as it pays, and errors are fed on in GPTQ's order. Integers
of a fixed number of bits are there for those who need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Affine, RowGroups
from cmpk.encodings.affine import MAX_CODE
from cmpk.encodings.base import Part
from cmpk.encodings.row_groups import MAX_GROUPS, MAX_ROWS
from cmpk.errors import RecipeError
from cmpk.passes.base import Pass, Planned, Split, Statistics, branch
from cmpk.passes.clipping import CLIPS, grid_of
from cmpk.passes.options import check_known, choice, flag, integer, number, rows
from cmpk.passes.row_classes import row_classes
from cmpk.passes.scales import SCALE_DTYPES, Layout, Slices, layout
from cmpk.passes.sensitivity import as_matrix, of_matrix, profile_of
from cmpk.passes.uniform import error_feedback, largest_multiple, quantize_rdo, quantize_uniform
from cmpk.passes.weights import apart_from_rows, weights_of
from cmpk.values import from_float32, to_float32

__all__ = ["DEFAULT_STEP", "METHODS", "Quantize", "QuantizedCodes", "plan_codes", "root_mean_square"]

DEFAULT_STEP: Final = 0.05
METHODS: Final = ("gptq", "rdo", "nearest")

_STEPPED: Final = ("step", "absolute", "method", "max_groups")
_FIXED: Final = ("bits", "clip", "percentile", "symmetric")
_SHARED: Final = ("per", "group_size", "scale_dtype", "keep_rows")

_FINEST: Final = 4 / 127
"""A slice's own step is no smaller than this share of its root mean square: its codes then fit a byte."""


class _Options(NamedTuple):
    step: float
    absolute: bool
    method: str
    max_groups: int
    scaled: Layout
    scale_dtype: str


class QuantizedCodes(NamedTuple):
    """Codes and the scales that they are multiplied with.

    Attributes
    ----------
    codes : signed integer array, shape of the tensor
    scale : float32 array, shape (parts,)
        Each exactly a ``scale_dtype``.
    slices : Slices
        The parts.
    scale_dtype : str
    zero_point : int32 array, shape (parts,), or None
        None: all are 0.
    """

    codes: NDArray[np.signedinteger[Any]]
    scale: NDArray[np.float32]
    slices: Slices
    scale_dtype: str
    zero_point: NDArray[np.int32] | None = None


class Quantize(Pass):
    """Rounds weights to multiples of a step.

    Options with a step: ``step``, in units of the tensor's root mean square (of each row's or group's, if
    there is a scale ``per`` ``row`` or ``group``), or, if ``absolute``, as it is; ``method`` ``gptq``
    (errors fed on where the calibration has a second moment, else the nearest), ``rdo`` (bits weighed
    against errors) or ``nearest``; ``max_groups`` of rows with a code table of their own. The error of a
    weight is at most half its step with ``nearest``, one and a half with ``rdo``; ``gptq`` bounds none.
    Without ``per`` and with calibration, steps differ by row of an embedding and by input of a layer
    (`cmpk.passes.sensitivity`), and ``step`` is their geometric mean.

    Options of a fixed width: ``bits``, 2 to 8; ``clip`` ``absmax``, ``percentile`` (with ``percentile``) or
    ``mse``; ``symmetric`` or with a zero point.

    For both: ``per`` (``tensor``, ``row`` or ``group`` of ``group_size``), ``scale_dtype``, ``keep_rows``.
    """

    id: ClassVar[str] = "quantize"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """See `Pass.apply`."""
        fixed = "bits" in options
        if fixed and "step" in options:
            raise RecipeError("pass 'quantize': give a step or bits, not both")
        check_known(self.id, options, (*(_FIXED if fixed else _STEPPED), *_SHARED))
        chosen = _Options(
            number(self.id, options, "step", DEFAULT_STEP, 2.0**-60, 2.0**60),
            flag(self.id, options, "absolute", False),
            choice(self.id, options, "method", METHODS),
            integer(self.id, options, "max_groups", 8, 1, MAX_GROUPS),
            layout(self.id, options, "row" if fixed else "tensor"),
            choice(self.id, options, "scale_dtype", SCALE_DTYPES),
        )
        bits = integer(self.id, options, "bits", 8, 2, 8)
        clip = choice(self.id, options, "clip", CLIPS)
        percentile = number(self.id, options, "percentile", 0.999, 0.5, 1.0)
        symmetric = flag(self.id, options, "symmetric", True)

        def plan(rest: Part, kept: NDArray[np.intp] | slice) -> Planned | None:
            weights = weights_of(rest)
            if weights is None or not weights.any():
                return None
            seen = _of_rows(statistics, kept)
            if not fixed:
                found = _stepped(weights, chosen, seen, even="per" in options)
                return None if found is None else plan_codes(rest, found, chosen.max_groups)
            slices = chosen.scaled.slices(rest.spec.shape, statistics)
            grid = grid_of(
                weights,
                slices,
                bits,
                clip=clip,
                percentile=percentile,
                symmetric=symmetric,
                scale_dtype=chosen.scale_dtype,
            )
            codes = grid.codes(weights, slices)
            quantized = QuantizedCodes(codes, grid.scale, slices, grid.scale_dtype, grid.zero_point)
            return plan_codes(rest, quantized, 1)

        return apart_from_rows(part, rows(self.id, options, "keep_rows"), plan)


def root_mean_square(values: NDArray[np.float32]) -> float:
    """In double precision, for any size, and the same whatever adds up: pairwise, in order."""
    flat = values.reshape(-1)
    total = sum(
        float(np.square(flat[start : start + (1 << 16)], dtype=np.float64).sum())
        for start in range(0, flat.size, 1 << 16)
    )
    return float(np.sqrt(total / max(1, flat.size)))


def _of_rows(statistics: Statistics | None, kept: NDArray[np.intp] | slice) -> Statistics | None:
    """Statistics of the rows that are quantized; none where they can't be told apart."""
    return statistics if isinstance(kept, slice) else None


def _stepped(
    weights: NDArray[np.float32], options: _Options, statistics: Statistics | None, *, even: bool
) -> QuantizedCodes | None:
    profile = profile_of(weights, statistics)
    even = even or profile.axis < 0
    if even:
        slices = options.scaled.slices(weights.shape, statistics)
        steps = _even_steps(weights, options, slices)
    else:
        slices = Slices(weights.shape, profile.axis, 0)
        base = options.step * (1.0 if options.absolute else root_mean_square(weights))
        floor = np.minimum(base, _FINEST * np.sqrt(_mean_squares(weights, slices)))
        steps = np.maximum(base * profile.factors, floor)
    scale, scale_dtype = _nearest_scales(steps, options.scale_dtype if even else "BF16")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return None
    spread = slices.spread(scale)
    largest = largest_multiple(weights, spread)
    if largest >= MAX_CODE // 2:
        return None
    if options.method == "gptq" and profile.factor is not None:
        matrix = as_matrix(weights, statistics)
        spread = as_matrix(np.broadcast_to(spread, weights.shape), statistics)
        codes = error_feedback(matrix, profile.factor, spread)
        codes = np.ascontiguousarray(of_matrix(codes, weights.shape, statistics))
    elif options.method == "rdo":
        codes = quantize_rdo(weights, spread)
    else:
        codes = quantize_uniform(weights, spread, _holding(largest))
    return QuantizedCodes(codes, scale, slices, scale_dtype)


def _holding(largest: float) -> type[np.signedinteger[Any]]:
    """The narrowest integer for the codes of magnitudes up to so many steps."""
    # What comes next reads every code several times: the fewer bytes, the better.
    return np.int8 if largest < 127.5 else np.int16 if largest < 32767.5 else np.int32


def _even_steps(weights: NDArray[np.float32], options: _Options, slices: Slices) -> NDArray[np.float64]:
    n_parts = len(slices.sizes())
    if options.absolute:
        return np.full(n_parts, options.step)
    if n_parts == 1:
        return np.array([options.step * root_mean_square(weights)])
    steps = options.step * np.sqrt(_mean_squares(weights, slices))
    # A part of zeros alone: any step will do.
    return np.where(steps > 0, steps, 1.0)


def _mean_squares(weights: NDArray[np.float32], slices: Slices) -> NDArray[np.float64]:
    return slices.total(np.square(weights, dtype=np.float64)) / slices.sizes()


def _nearest_scales(steps: NDArray[np.float64], dtype: str) -> tuple[NDArray[np.float32], str]:
    """The nearest numbers of a type, or of F32 where its range is too narrow for them."""
    with np.errstate(over="ignore"):
        stored = from_float32(steps.astype(np.float32), dtype)
    scale = to_float32(Part(TensorSpec(dtype, steps.shape), stored))
    if dtype != "F32" and not np.allclose(scale, steps, rtol=1 / 64, atol=0):
        return _nearest_scales(steps, "F32")
    return scale, dtype


def plan_codes(part: Part, quantized: QuantizedCodes, max_groups: int) -> Planned:
    """Store codes; rows of like magnitude together, where that makes them smaller.

    Parameters
    ----------
    part : Part
        The tensor that they stand for.
    quantized : QuantizedCodes
    max_groups : int
        At most so many groups of rows have a code table of their own.
    """
    shape, slices = part.spec.shape, quantized.slices
    can_group = len(shape) > 1 and shape[0] <= MAX_ROWS and not slices.group_size
    if can_group and max_groups > 1 and DTYPES[part.spec.dtype].nbytes:
        shared_nbytes = 0 if slices.axis == 0 else 2 * len(quantized.scale)
        group = row_classes(quantized.codes.reshape(shape[0], -1), max_groups, shared_nbytes)
        if group.any():
            params, specs = RowGroups().layout(part.spec, group)
            parts: dict[str, Planned] = {"group": Part(specs.pop("group"), group)}
            for index, spec in enumerate(specs.values()):
                parts[str(index)] = _affine(spec, quantized, group == index)
            return Split(RowGroups.id, part.spec, params, parts)
    return _affine(part.spec, quantized, slice(None))


def _affine(spec: TensorSpec, quantized: QuantizedCodes, chosen: NDArray[np.bool_] | slice) -> Planned:
    codes, scale, slices, scale_dtype, zero_point = quantized
    of_rows = slices.axis == 0 and len(slices.shape) > 0
    encoded = Affine().encode(
        codes[chosen] if codes.ndim else codes,
        spec,
        scale[chosen] if of_rows else scale,
        zero_point[chosen] if of_rows and zero_point is not None else zero_point,
        axis=slices.axis,
        group_size=slices.group_size,
        scale_dtype=scale_dtype,
    )
    return branch(Affine.id, spec, encoded)
