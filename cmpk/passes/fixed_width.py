"""Passes round_int, fixed_point, binarize, ternarize and normal_float: codes of a fixed number of bits.

For those who need a fixed width, and to compare with: at the same size the entropy-coded step of pass
`quantize` has a far smaller error. All are stored by encoding `affine`; a tensor without finite weights, or
with a scale that single precision does not hold, stays as it is. Bounds are those of the numbers before
they are rounded to the tensor's own type.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import TensorSpec
from cmpk.encodings import Affine
from cmpk.encodings.affine import MAX_CODE
from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.passes.base import Pass, Planned, Split, Statistics, branch
from cmpk.passes.options import check_known, choice, integer, number, rows
from cmpk.passes.scales import SCALE_DTYPES, Slices, layout, stored_scales
from cmpk.passes.weights import apart_from_rows, weights_of
from cmpk.values import from_float32

__all__ = ["Binarize", "FixedPoint", "NormalFloat", "RoundInt", "Ternarize", "normal_levels"]

_SHARED: Final = ("per", "group_size", "keep_rows")
_NORMAL_RANGE: Final = 127
_EXPONENTS: Final = (-127, 127)
"""Of powers of two that are stored by their exponents alone."""

_MAX_FIXED: Final = MAX_CODE - 256
_FEW: Final = 256
"""A code that exceeds a byte takes 13: one in so many is too many."""

F32 = NDArray[np.float32]

_Rounding: TypeAlias = Callable[[TensorSpec, F32, Slices], Planned | None]
"""How a tensor of some weights is stored, with a scale for each slice; None if it can't be."""


class _FixedWidth(Pass):
    """What these passes share: options for what has a scale, rows that are kept, weights that are finite.

    Attributes
    ----------
    options : tuple of str
        What else can be said, by name.
    per : str
        What has a scale of its own if nothing is said.
    """

    options: ClassVar[tuple[str, ...]]
    per: ClassVar[str] = "row"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """See `Pass.apply`."""
        check_known(self.id, options, (*self.options, *_SHARED))
        rounding = self._rounding(options)
        scaled = layout(self.id, options, self.per)

        def plan(rest: Part, _: object) -> Planned | None:
            weights = weights_of(rest)
            if weights is None:
                return None
            return rounding(rest.spec, weights, scaled.slices(rest.spec.shape, statistics))

        return apart_from_rows(part, rows(self.id, options, "keep_rows"), plan)

    @abstractmethod
    def _rounding(self, options: Mapping[str, object]) -> _Rounding:
        """Read the options."""


class RoundInt(_FixedWidth):
    """Scales weights to −1 .. 1 and rounds them to integers of ``bits`` bits, evenly spaced and symmetric.

    The recipe of every textbook (Jacob et al. 2018, symmetric): with the largest magnitude m and
    L = 2**(bits − 1) − 1, the code is ``round(w / m * L)`` and the scale m / L. An error is at most half
    the scale.

    Options: ``bits``, 2 to 8; ``per`` ``row``, ``tensor`` or ``group`` of ``group_size``; ``scale_dtype``;
    ``keep_rows`` are stored as they are.
    """

    id: ClassVar[str] = "round_int"
    options = ("bits", "scale_dtype")

    def _rounding(self, options: Mapping[str, object]) -> _Rounding:
        limit = (1 << integer(self.id, options, "bits", 8, 2, 8) - 1) - 1
        scale_dtype = choice(self.id, options, "scale_dtype", SCALE_DTYPES)

        def plan(spec: TensorSpec, weights: F32, slices: Slices) -> Planned | None:
            scale, dtype = stored_scales(slices.largest(np.abs(weights)) / limit, scale_dtype)
            codes = np.rint(_over(weights, scale, slices))
            return _affine(spec, codes.astype(np.int8), scale, slices, dtype)

        return plan


class FixedPoint(_FixedWidth):
    """Rounds weights to multiples of a power of two, the scale that needs no multiplication.

    Options: ``bits``, 2 to 8, in all: the scale is the lowest 2**p with which the largest magnitude still
    rounds to 2**(bits − 1) − 1; or ``fraction_bits`` f, 0 to 126: the scale is 2**−f, and codes are as large
    as they must be; where many of these exceed a byte, the rounded weights go on to the next pass. An error
    is at most half the scale. ``per`` (``tensor`` by default), ``group_size`` and ``keep_rows`` as for
    ``round_int``.
    """

    id: ClassVar[str] = "fixed_point"
    options = ("bits", "fraction_bits")
    per = "tensor"

    def _rounding(self, options: Mapping[str, object]) -> _Rounding:
        if "bits" in options and "fraction_bits" in options:
            raise RecipeError("pass 'fixed_point': give bits or fraction_bits, not both")
        is_fixed = "fraction_bits" in options
        fraction = integer(self.id, options, "fraction_bits", 0, 0, 126)
        limit = (1 << integer(self.id, options, "bits", 8, 2, 8) - 1) - 1

        def plan(spec: TensorSpec, weights: F32, slices: Slices) -> Planned | None:
            largest = slices.largest(np.abs(weights))
            exponent = np.full(len(largest), -fraction) if is_fixed else _lowest_exponent(largest, limit)
            if (largest > np.ldexp(float(_MAX_FIXED if is_fixed else limit) + 0.5, exponent)).any():
                return None
            scale = np.ldexp(np.float32(1), exponent)
            codes = np.rint(_over(weights, scale, slices))
            if is_fixed and np.count_nonzero(np.abs(codes) > 127) > codes.size // _FEW:
                return Part(spec, from_float32(codes * slices.spread(scale), spec.dtype))
            return _affine(spec, codes.astype(np.int32), scale, slices, "F8_E8M0")

        return plan


class Binarize(_FixedWidth):
    """Keeps the sign of each weight, times the mean magnitude, the scale of least squared error.

    XNOR-Net (Rastegari et al. 2016). The squared error of n weights of mean magnitude a is Σ w² − n a²;
    zeros become positive.

    Options: ``per``, ``group_size``, ``scale_dtype`` and ``keep_rows`` as for ``round_int``.
    """

    id: ClassVar[str] = "binarize"
    options = ("scale_dtype",)

    def _rounding(self, options: Mapping[str, object]) -> _Rounding:
        scale_dtype = choice(self.id, options, "scale_dtype", SCALE_DTYPES)

        def plan(spec: TensorSpec, weights: F32, slices: Slices) -> Planned | None:
            means = slices.total(np.abs(weights)) / slices.sizes()
            scale, dtype = stored_scales(means, scale_dtype)
            codes = np.where(weights < 0, np.int8(-1), np.int8(1))
            return _affine(spec, codes, scale, slices, dtype)

        return plan


class Ternarize(_FixedWidth):
    """Keeps the sign of the larger weights, times their mean magnitude, and zeroes the others.

    Ternary weight networks (Li, Zhang and Liu 2016): those above ``threshold`` times the mean magnitude
    stay, 0.7 of it by default, which is nearly optimal for normal weights. The squared error is that of
    the zeroed weights plus Σ w² − n a² for the n others, of mean magnitude a.

    Options: ``threshold``; ``per``, ``group_size``, ``scale_dtype`` and ``keep_rows`` as for ``round_int``.
    """

    id: ClassVar[str] = "ternarize"
    options = ("threshold", "scale_dtype")

    def _rounding(self, options: Mapping[str, object]) -> _Rounding:
        threshold = number(self.id, options, "threshold", 0.7, 0.0)
        scale_dtype = choice(self.id, options, "scale_dtype", SCALE_DTYPES)

        def plan(spec: TensorSpec, weights: F32, slices: Slices) -> Planned | None:
            magnitude = np.abs(weights)
            means = slices.total(magnitude) / slices.sizes()
            kept = magnitude > slices.spread(threshold * means)
            count = slices.total(kept)
            total = slices.total(np.where(kept, magnitude, np.float32(0)))
            scale, dtype = stored_scales(total / np.maximum(count, 1), scale_dtype)
            codes = kept * np.sign(weights).astype(np.int8)
            return _affine(spec, codes, scale, slices, dtype)

        return plan


class NormalFloat(_FixedWidth):
    """Rounds weights to levels that normal numbers use equally often: NF4 and its kin of other widths.

    QLoRA (Dettmers et al. 2023): `normal_levels` times the largest magnitude. Stored as multiples of a
    127th of that, which moves a level by at most a 254th, and lets decoding be a multiplication as for any
    integers. Every weight gets the nearest of these levels.

    Options: ``bits``, 2 to 6; ``per`` (``group`` by default), ``group_size`` (64), ``scale_dtype`` and
    ``keep_rows`` as for ``round_int``.
    """

    id: ClassVar[str] = "normal_float"
    options = ("bits", "scale_dtype")
    per = "group"

    def _rounding(self, options: Mapping[str, object]) -> _Rounding:
        levels = normal_levels(integer(self.id, options, "bits", 4, 2, 6))
        scale_dtype = choice(self.id, options, "scale_dtype", SCALE_DTYPES)
        grid = np.rint(levels * _NORMAL_RANGE)
        bounds = ((grid[1:] + grid[:-1]) / 2).astype(np.float32)

        def plan(spec: TensorSpec, weights: F32, slices: Slices) -> Planned | None:
            scale, dtype = stored_scales(slices.largest(np.abs(weights)) / _NORMAL_RANGE, scale_dtype)
            codes = grid.astype(np.int8)[np.searchsorted(bounds, _over(weights, scale, slices))]
            return _affine(spec, codes, scale, slices, dtype)

        return plan


def normal_levels(bits: int) -> NDArray[np.float64]:
    """The levels of NormalFloat: −1, 0 and 1, and quantiles of the normal distribution between them.

    Half of the 2**bits levels are positive, one is 0. Those of each sign are evenly spaced in probability,
    up to the mean of what the outermost of either would be if all were.

    References
    ----------
    Dettmers et al., "QLoRA: efficient finetuning of quantized LLMs", 2023, section 3 and appendix E.
    """
    half = 1 << bits - 1
    outermost = 1 - (1 / (2 * (2 * half - 1)) + 1 / (4 * half)) / 2
    quantile = NormalDist().inv_cdf
    positive = [quantile(p) for p in np.linspace(outermost, 0.5, half + 1)[:-1]]
    negative = [-quantile(p) for p in np.linspace(outermost, 0.5, half)[:-1]]
    return np.sort([*positive, 0.0, *negative]) / quantile(outermost)


def _over(weights: NDArray[np.float32], scale: NDArray[np.float32], slices: Slices) -> NDArray[np.float32]:
    """Weights in units of their scales; where a scale is 0, so are all of its weights."""
    return np.asarray(weights / slices.spread(np.where(scale == 0, np.float32(1), scale)))


def _lowest_exponent(largest: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Of the lowest powers of two with which numbers still round to at most ``limit``."""
    # A ratio is below 2**e and no lower power, so the number is below limit and a half; there it would tie.
    return np.clip(np.frexp(largest / (limit + 0.5))[1], *_EXPONENTS)


def _affine(
    spec: TensorSpec, codes: NDArray[Any], scale: NDArray[np.float32], slices: Slices, scale_dtype: str
) -> Split:
    encoded = Affine().encode(
        codes, spec, scale, axis=slices.axis, group_size=slices.group_size, scale_dtype=scale_dtype
    )
    return branch(Affine.id, spec, encoded)
