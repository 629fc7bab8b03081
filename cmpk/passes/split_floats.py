"""Pass split_floats: the lossless structure of floating-point tensors.

Exponents are skewed and pay; signs and lower mantissa bits hardly do. The pass finds, exactly and by
measuring: tensors of few distinct values, rows that are really a narrower float, rows of like scale
that should share a code table, and how many mantissa bits are worth coding with the exponent.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk import kernels
from cmpk.codecs.huffman import stream_nbytes
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Codebook, FloatSplit, Narrow, RowGroups
from cmpk.encodings.base import Part
from cmpk.encodings.narrow import NARROWER
from cmpk.encodings.row_groups import MAX_GROUPS, MAX_ROWS
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8
from cmpk.passes.base import Pass, Planned, Split, Statistics, branch
from cmpk.passes.options import check_known, int_list, integer, share

__all__ = ["SplitFloats"]

_MIN_ELEMENTS: Final = 512
"""Below this a code table costs more than it saves."""

_DISTINCT_SAMPLE_ELEMENTS: Final = 1 << 11
_SAMPLE_ELEMENTS: Final = 1 << 17
_SAMPLE_ROW_ELEMENTS: Final = 512
_SAMPLED_ROWS: Final = 1 << 14
_SAMPLE_PIECES: Final = 64
_SAMPLE_PIECE_ELEMENTS: Final = 1 << 11
_LLOYD_STEPS: Final = 6
_BIT: Final = 1 << 12

_MIN_NARROW_SHARE: Final = 1 / 256
_MIN_GROUP_ELEMENTS: Final = 1 << 18
"""Rows of a group must outweigh the group's own table, streams and manifest entries."""

_GROUP_NBYTES: Final = 160
"""What a further group costs before its first row: tables and manifest entries."""

_EXCEPTION_NBYTES: Final = 10
_MAX_SHARE_OF_EXCEPTIONS: Final = 1 / 4096


class _Options(NamedTuple):
    """Options of the pass, checked; see `SplitFloats`."""

    mantissa_bits: list[int]
    min_gain: float
    max_groups: int


class _Upper(NamedTuple):
    """A choice for one group of rows: parameters of ``float_split``, and the estimated size."""

    mantissa_bits: int
    base: int
    nbytes: int


class _Rows(NamedTuple):
    """A tensor, or some of its rows, which are copied only where they must be.

    Attributes
    ----------
    part : Part
        The whole tensor.
    picked : uint32 array or None
        Which rows; None for all of them.
    """

    part: Part
    picked: NDArray[np.uint32] | None = None

    @property
    def spec(self) -> TensorSpec:
        """Type and shape of these rows."""
        dtype, shape = self.part.spec
        return TensorSpec(dtype, shape if self.picked is None else (len(self.picked), *shape[1:]))

    def gathered(self) -> Part:
        """The rows, one after another."""
        if self.picked is None:
            return self.part
        return Part(self.spec, self._matrix()[self.picked].reshape(-1).view(np.uint8))

    def sample(self) -> Part:
        """Elements from all over the rows, as a tensor of one dimension; all of them where they are few."""
        if self.spec.numel <= 2 * _SAMPLE_PIECES * _SAMPLE_PIECE_ELEMENTS:
            return self.gathered()
        last = self.spec.numel - _SAMPLE_PIECE_ELEMENTS
        starts = np.arange(_SAMPLE_PIECES) * last // (_SAMPLE_PIECES - 1)
        lines, begins = self._matrix().reshape(1, -1), starts
        if self.picked is not None:
            matrix = self._matrix()
            firsts, begins = np.divmod(starts, matrix.shape[1])
            # As many rows as a piece may touch; beyond the last one, whichever.
            touched = firsts[:, None] + np.arange(_SAMPLE_PIECE_ELEMENTS // matrix.shape[1] + 2)
            lines = matrix[self.picked[np.minimum(touched, len(self.picked) - 1)]].reshape(_SAMPLE_PIECES, -1)
        pieces = zip(itertools.cycle(lines), begins.tolist(), strict=False)
        sample = np.concatenate([line[begin : begin + _SAMPLE_PIECE_ELEMENTS] for line, begin in pieces])
        return Part(TensorSpec(self.part.spec.dtype, sample.shape), sample.view(np.uint8))

    def _matrix(self) -> NDArray[Any]:
        dtype, shape = self.part.spec
        return self.part.data.view(f"<u{DTYPES[dtype].nbytes}").reshape(shape[0] if shape else 1, -1)


class SplitFloats(Pass):
    """Splits floating-point tensors; takes no others.

    Options: ``mantissa_bits``, how many may be coded with the exponent, a list, or a table of lists by
    dtype with one for ``other`` dtypes; ``min_gain``, the share of a
    tensor that more of them than the fewest must save, for they cost decoding time; ``max_groups``
    of rows (1: none).
    """

    id: ClassVar[str] = "split_floats"
    is_lossless: ClassVar[bool] = True

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """See `Pass.apply`."""
        check_known(self.id, options, _Options._fields)
        chosen = _Options(
            _mantissa_bits(options, part.spec.dtype),
            share(self.id, options, "min_gain", 0.0),
            integer(self.id, options, "max_groups", 1, 1, MAX_GROUPS // (1 + len(NARROWER["F64"]))),
        )
        spec = part.spec
        if spec.dtype not in FLOAT_LAYOUTS or spec.numel < _MIN_ELEMENTS:
            return None
        if _may_be_codebook(part):
            encoded = Codebook().encode(part.data, spec)
            if encoded is not None:
                return branch(Codebook.id, spec, encoded)
        return _plan(part, chosen)


def _mantissa_bits(options: Mapping[str, object], dtype: str) -> list[int]:
    given = options.get("mantissa_bits", [0])
    if isinstance(given, dict):
        check_known(SplitFloats.id, given, ("other", *FLOAT_LAYOUTS))
        return int_list(SplitFloats.id, given, dtype if dtype in given else "other", [0])
    return int_list(SplitFloats.id, options, "mantissa_bits", [0])


def _may_be_codebook(part: Part) -> bool:
    elements = part.data.view(f"u{DTYPES[part.spec.dtype].nbytes}")
    sample = np.sort(elements[:: max(1, len(elements) // _DISTINCT_SAMPLE_ELEMENTS)])
    n_distinct = 1 + int(np.count_nonzero(sample[1:] != sample[:-1]))
    # A float_split symbol costs a byte or more an element in the end; one code costs up to a byte.
    # Bytes themselves have at most 256 values: there a codebook says nothing.
    return bool(elements.itemsize > 1 and n_distinct <= min(256, len(sample) // 8))


def _plan(part: Part, options: _Options) -> Planned:
    """Find the groups of rows, first by the type that they really are, then by scale."""
    spec = part.spec
    kind, kinds = _kinds_of_rows(part)
    if len(spec.shape) < 2 or spec.shape[0] > MAX_ROWS:
        return _split(_Rows(part), kinds[0] if len(kinds) == 1 else "", options)
    rows_of_kind = [part]
    if len(kinds) > 1:
        encoded = RowGroups().encode(part.data, spec, kind)
        rows_of_kind = [encoded.parts[str(index)] for index in range(len(kinds))]
    group = np.zeros(len(kind), np.uint8)
    dtypes: list[str] = []
    for index, (dtype, rows) in enumerate(zip(kinds, rows_of_kind, strict=True)):
        scale = _groups_that_pay(_narrowed(rows, dtype), options)
        group[kind == index] = len(dtypes) + scale
        dtypes += [dtype] * (int(scale.max()) + 1)
    if len(dtypes) == 1:
        return _split(_Rows(part), dtypes[0], options)
    groups = {
        str(i): _split(_Rows(part, np.flatnonzero(group == i).astype(np.uint32)), dtype, options)
        for i, dtype in enumerate(dtypes)
    }
    params, specs = RowGroups().layout(spec, group)
    return Split(RowGroups.id, spec, params, {"group": Part(specs["group"], group), **groups})


def _kinds_of_rows(part: Part) -> tuple[U8, list[str]]:
    """Which rows are really a narrower float.

    Returns
    -------
    kind : uint8 array, shape (rows,)
        Index into ``kinds``; every one occurs.
    kinds : list of str
        Narrower types; empty for rows that are what they seem. A tensor of one dimension is one row.
    """
    spec = part.spec
    n_rows = spec.shape[0] if len(spec.shape) > 1 else 1
    kind = np.zeros(n_rows, np.uint8)
    kinds = [""]
    for narrower in NARROWER.get(spec.dtype, ()):
        if not _may_narrow(part, narrower, n_rows):
            continue
        fits = kernels.active().narrows_to(part.data, spec.dtype, narrower, spec.numel // n_rows)
        fits &= kind == 0
        if fits.mean() >= _MIN_NARROW_SHARE:
            kind[fits] = len(kinds)
            kinds.append(narrower)
    if (kind == 0).any():
        return kind, kinds
    return kind - 1, kinds[1:]


def _may_narrow(part: Part, narrower: str, n_rows: int) -> bool:
    """Whether a look at a few elements of many rows leaves it possible."""
    spec = part.spec
    itemsize = DTYPES[spec.dtype].nbytes
    rows = part.data.reshape(n_rows, -1)[:, : 8 * itemsize]
    sample = np.ascontiguousarray(rows[:: max(1, n_rows // _SAMPLED_ROWS)]).reshape(-1)
    per_row = rows.shape[1] // itemsize
    return bool(kernels.active().narrows_to(sample, spec.dtype, narrower, per_row).any())


def _narrowed(part: Part, dtype: str) -> Part:
    """The values in a narrower type; the part itself for none."""
    return Narrow().encode(part.data, part.spec, dtype).parts["values"] if dtype else part


def _groups_that_pay(part: Part, options: _Options) -> U8:
    """Groups of rows of like scale, if they make the tensor smaller; else one group.

    Each row goes to the group whose code tells its exponents in the fewest bits: Lloyd's iteration on
    a sample of rows, from quantiles of their mean exponents, then one look at all rows.

    Returns
    -------
    uint8 array, shape (rows,)
        Every number below the largest occurs.
    """
    spec = part.spec
    one = np.zeros(spec.shape[0], np.uint8)
    n_groups = min(options.max_groups, spec.numel // _MIN_GROUP_ELEMENTS)
    if n_groups < 2 or spec.shape[0] < 64 * n_groups:
        return one
    counts = _sampled_histograms(part.data, spec)
    n_exponents = counts.shape[1]
    present = np.flatnonzero(np.bitwise_or.reduce(counts))
    histograms = counts[:, present].astype(np.float64)
    scales = histograms @ np.arange(histograms.shape[1]) / histograms.sum(axis=1)
    group = np.searchsorted(_quantiles(scales, n_groups), scales)
    for _ in range(_LLOYD_STEPS):
        members = group == np.arange(n_groups)[:, None]
        costs = _code_costs(members @ histograms)
        totals = histograms @ costs.T
        before, group = group, np.argmin(totals, axis=1)
        if np.array_equal(group, before):
            break
    together = histograms.sum(axis=0)
    nbits_saved = (float(together @ _code_costs(together)) - float(totals.min(axis=1).sum())) / _BIT
    overhead = n_groups * _GROUP_NBYTES + spec.shape[0] * n_groups.bit_length() / 8
    if nbits_saved / 8 * (spec.numel / together.sum()) <= overhead:
        return one
    # Sixteenths of a bit fit a byte: no exponent costs more than 15, nor one that the sample lacks.
    table = np.full((n_groups, n_exponents), 255, np.uint8)
    table[:, present] = np.minimum(np.rint(costs * (16 / _BIT)), 255)
    sums = kernels.active().row_costs(part.data, spec.dtype, spec.numel // spec.shape[0], table)
    return _numbered_densely(_lowest_column(sums), n_groups)


def _quantiles(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """What divides two values or more into n parts; as ``np.quantile``, which takes much longer."""
    ordered = np.sort(values)
    places = np.linspace(0, 1, n + 1)[1:-1] * (len(values) - 1)
    below = places.astype(np.intp)
    lower, upper = ordered[below], ordered[below + 1]
    return np.asarray(lower + (upper - lower) * (places - below))


def _lowest_column(sums: NDArray[np.uint64]) -> U8:
    """Which number of each row is the smallest, the first of equal ones; shape (rows,).

    Column by column: NumPy's ``argmin`` takes its time for each row of a few.
    """
    column = np.zeros(len(sums), np.uint8)
    least = sums[:, 0]
    for index in range(1, sums.shape[1]):
        column[sums[:, index] < least] = index
        least = np.minimum(least, sums[:, index])
    return column


def _numbered_densely(group: U8, n_groups: int) -> U8:
    """The same groups, without numbers that none has."""
    is_used = np.bincount(group, minlength=n_groups) > 0
    return (np.cumsum(is_used) - 1).astype(np.uint8)[group]


def _split(rows: _Rows, dtype: str, options: _Options) -> Planned:
    """Split what can be split; narrowed first, if it is really a narrower type."""
    spec = rows.spec
    if dtype:
        encoded = Narrow().encode(rows.gathered().data, spec, dtype)
        values = _split(_Rows(encoded.parts["values"]), "", options)
        return branch(Narrow.id, spec, encoded, values=values)
    if spec.numel < _MIN_ELEMENTS:
        return rows.gathered()
    upper = _best_upper(rows.sample(), options)
    encoded = FloatSplit().encode(rows.part.data, spec, upper.mantissa_bits, upper.base, rows.picked)
    index = encoded.parts.get("exception_index")
    if index is not None and index.spec.numel > spec.numel * _MAX_SHARE_OF_EXCEPTIONS:
        # The sample missed something; all elements tell what suits all.
        upper = _best_upper(rows.gathered(), options)
        encoded = FloatSplit().encode(rows.part.data, spec, upper.mantissa_bits, upper.base, rows.picked)
    return branch(FloatSplit.id, spec, encoded)


def _sampled_histograms(data: U8, spec: TensorSpec) -> NDArray[np.uint32]:
    """Histograms of the exponents of rows from all over a tensor; shape (sampled rows, 2**E)."""
    n_rows, row_elements = spec.shape[0], spec.numel // spec.shape[0]
    step = max(1, n_rows * min(row_elements, _SAMPLE_ROW_ELEMENTS) // _SAMPLE_ELEMENTS)
    picked = np.arange(0, n_rows - step + 1, step)
    # One further along each step, lest rows that take turns be taken for rows that are all alike.
    picked += np.arange(len(picked)) % step
    return kernels.active().exponent_histograms(
        data, spec.dtype, row_elements, picked.astype(np.uint32), _SAMPLE_ROW_ELEMENTS
    )


def _code_costs(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """What an ideal code for a histogram takes for each symbol, those it does not have included.

    In parts of a bit, `_BIT` each, and whole numbers: sums of them are exact in any order, so that the
    groups, and the file, are the same whatever a machine adds up first.

    Parameters
    ----------
    counts : float64 array, shape (symbols,) or (histograms, symbols)
    """
    smoothed = counts + 1 / 16
    nbits = np.log2(smoothed.sum(axis=-1, keepdims=True) / smoothed)
    return np.asarray(np.rint(_BIT * np.minimum(15, nbits)))


def _best_upper(part: Part, options: _Options) -> _Upper:
    """The number of mantissa bits, and the base, that give the smallest streams by Huffman's sizes."""
    spec = part.spec
    exponent_nbits, mantissa_nbits = FLOAT_LAYOUTS[spec.dtype]
    allowed = sorted({min(bits, mantissa_nbits, 16 - exponent_nbits) for bits in options.mantissa_bits})
    counts = kernels.active().upper_bits_histogram(part.data, spec.dtype, allowed[-1])
    choices = []
    for bits in allowed:
        merged = counts.reshape(1 << (exponent_nbits + bits), -1).sum(axis=1)
        base, covered = _window(merged)
        n_exceptions = int(merged.sum()) - int(covered.sum())
        rest_nbits = DTYPES[spec.dtype].nbits - exponent_nbits - bits
        nbytes = stream_nbytes(covered) + n_exceptions * _EXCEPTION_NBYTES + rest_nbits * spec.numel // 8
        choices.append(_Upper(bits, base, nbytes))
    best = min(choices, key=lambda choice: choice.nbytes)
    return best if choices[0].nbytes - best.nbytes >= options.min_gain * spec.nbytes else choices[0]


def _window(counts: NDArray[np.uint64]) -> tuple[int, NDArray[np.uint64]]:
    """The base whose 256 values cover the most elements, and their counts, shape (256,).

    The lowest such base: 0 where everything fits, which is most often.
    """
    if len(counts) <= 256:
        covered = np.zeros(256, np.uint64)
        covered[: len(counts)] = counts
        return 0, covered
    ends = np.concatenate(([0], np.cumsum(counts)))
    base = int(np.argmax(ends[256:] - ends[:-256]))
    return base, counts[base : base + 256]
