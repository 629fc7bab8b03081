"""Pass factorize: a matrix as the product of two smaller ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Product
from cmpk.encodings.base import Part
from cmpk.encodings.product import FACTOR_DTYPES, MAX_RANK
from cmpk.errors import RecipeError
from cmpk.kernels.interface import PRODUCT_DTYPES
from cmpk.passes.base import Pass, Planned, Statistics, branch
from cmpk.passes.low_rank import (
    encode_sparse,
    learn_dictionary,
    rank_for_energy,
    singular_directions,
    truncated,
)
from cmpk.passes.options import check_known, choice, integer, rows, share
from cmpk.passes.weights import apart_from_rows, has_weights, weights_of
from cmpk.values import from_float32

__all__ = ["Factorize"]

_GOALS: Final = ("rank", "energy", "size", "atoms")
_STEPS: Final = 8
"""Rounds of learning a dictionary; more change little."""

F32 = NDArray[np.float32]


class _Options(NamedTuple):
    """Options of the pass, checked; see `Factorize`."""

    rank: int
    energy: float
    size: float
    atoms: int
    nonzero: int
    dtype: str
    seed: int
    keep_rows: list[int]


class Factorize(Pass):
    """Stores a matrix as the product of two, where these take fewer bytes.

    Options, one of: ``rank``; ``energy``, the share of the sum of squares that is kept, by the lowest rank
    that does; ``size``, the share of the tensor's bytes that the factors may take. All three give the
    nearest product of their rank (truncated singular values; Eckart and Young 1936), but for the factors'
    rounding. Or ``atoms``: each row is the sum of at most ``nonzero`` of so many atoms, with weights of its
    own (a sparse dictionary; Engan et al. 1999), learned from ``seed``. ``dtype`` of the factors: ``F32``,
    ``F16`` or ``BF16``; as the tensor's by default. A filter counts as a row, all of its axes as columns;
    ``keep_rows`` are stored as they are.
    """

    id: ClassVar[str] = "factorize"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Planned | None:
        """See `Pass.apply`."""
        chosen = _checked(options, part.spec.dtype)
        return apart_from_rows(part, chosen.keep_rows, lambda rest, _: _factorized(rest, chosen))


def _checked(options: Mapping[str, object], dtype: str) -> _Options:
    check_known(Factorize.id, options, _Options._fields)
    given = [goal for goal in _GOALS if goal in options]
    if len(given) != 1:
        raise RecipeError(f"pass 'factorize': give one of {', '.join(_GOALS)}, not {given or 'none'}")
    if "nonzero" in options and "atoms" not in options:
        raise RecipeError("pass 'factorize': nonzero goes with atoms")
    own = dtype if dtype in FACTOR_DTYPES else "F32"
    atoms = integer(Factorize.id, options, "atoms", 0, 1, MAX_RANK) if "atoms" in options else 0
    return _Options(
        rank=integer(Factorize.id, options, "rank", 1, 1, MAX_RANK) if "rank" in options else 0,
        energy=share(Factorize.id, options, "energy", 0.0),
        size=share(Factorize.id, options, "size", 0.0),
        atoms=atoms,
        nonzero=integer(Factorize.id, options, "nonzero", min(4, atoms), 1, atoms) if atoms else 0,
        dtype=choice(Factorize.id, options, "dtype", FACTOR_DTYPES) if "dtype" in options else own,
        seed=integer(Factorize.id, options, "seed", 0, 0, (1 << 63) - 1),
        keep_rows=rows(Factorize.id, options, "keep_rows"),
    )


def _factorized(part: Part, options: _Options) -> Planned | None:
    spec = part.spec
    weights = weights_of(part)
    if weights is None or weights.ndim < 2 or spec.dtype not in PRODUCT_DTYPES or not weights.any():
        return None
    matrix = weights.reshape(spec.shape[0], -1)
    left, right = _sparse(matrix, options) if options.atoms else _low_rank(matrix, spec.nbytes, options)
    nonzero = int(np.count_nonzero(left)) if options.atoms else left.size
    itemsize = DTYPES[options.dtype].nbytes
    # A mask tells which weights of atoms are not zero; entropy coding takes about an eighth of a byte for it.
    mask_nbytes = left.size // 8 if options.atoms else 0
    if not right.size or (nonzero + right.size) * itemsize + mask_nbytes >= spec.nbytes:
        return None
    stored = [from_float32(np.ascontiguousarray(factor), options.dtype) for factor in (left, right)]
    if not all(has_weights(_part(factor, options.dtype)) for factor in stored):
        return None  # beyond what the factors' type can hold
    encoded = Product().encode(stored[0], stored[1], spec, right.shape[0], options.dtype)
    return branch(Product.id, spec, encoded)


def _low_rank(matrix: F32, part_nbytes: int, options: _Options) -> tuple[F32, F32]:
    if matrix.shape[0] < matrix.shape[1]:
        right, left = _low_rank(np.ascontiguousarray(matrix.T), part_nbytes, options)
        return left.T, right.T
    squares, directions = singular_directions(matrix)
    if options.rank:
        rank = min(options.rank, len(squares))
    elif options.energy:
        rank = rank_for_energy(squares, options.energy)
    else:
        itemsize = DTYPES[options.dtype].nbytes
        rank = int(options.size * part_nbytes / (sum(matrix.shape) * itemsize))
    return truncated(matrix, squares, directions, min(rank, len(squares), MAX_RANK))


def _sparse(matrix: F32, options: _Options) -> tuple[F32, F32]:
    atoms = learn_dictionary(matrix, options.atoms, options.nonzero, _STEPS, options.seed)
    # Coded with the atoms as they will come back.
    return encode_sparse(matrix, atoms, options.nonzero), atoms.astype(np.float32)


def _part(factor: NDArray[np.uint8], dtype: str) -> Part:
    return Part(TensorSpec(dtype, (factor.size // DTYPES[dtype].nbytes,)), factor)
