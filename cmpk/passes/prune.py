"""Pass prune: sets the weights that matter least to zero, and lets others make up for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES
from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.passes.base import Pass, Statistics
from cmpk.passes.importance import METHODS, ImportanceHistogram, importance_of, input_axis, whole_moment
from cmpk.passes.options import check_known, choice, integer, number, rows
from cmpk.passes.sensitivity import as_matrix, of_matrix
from cmpk.passes.surgeon import made_up
from cmpk.passes.weights import has_rows, has_weights, weights_of
from cmpk.values import from_float32

__all__ = ["Prune", "pruned_by", "without"]

_CRITERIA: Final = ("ratio", "threshold", "mean_abs", "n_of_m")
_STRUCTURES: Final = ("element", "row", "column", "channel")


class _Options(NamedTuple):
    """Options of the pass, checked; see `Prune`."""

    method: str
    structure: str
    scope: str
    ratio: float | None
    threshold: float | None
    mean_abs: float | None
    n_of_m: tuple[int, int] | None
    keep_rows: list[int]
    seed: int


class Prune(Pass):
    """Sets the weights that matter least to zero; all others keep their bits, but for ``surgeon``.

    Options: ``method``, what matters (`importance_of`), and one of

    - ``ratio``: this share of the weights is zeroed, exactly ``floor(ratio * numel)`` of each tensor; with
      ``scope = "global"`` of all tensors together, that many or, within one bin of a histogram, fewer
      (see `settle`),
    - ``threshold``: those whose importance is below it,
    - ``mean_abs``: those whose importance is below this many times the tensor's mean importance (1 is the
      mean-absolute rule),
    - ``n_of_m``: of each m neighbours along the input features the n that matter most are kept
      (``[2, 4]``: Mishra et al. 2021).

    With ``method`` ``surgeon`` what is left of each row makes up for what is gone (`made_up`).

    ``structure`` ``row`` (first axis: output features, filters), ``column`` (last axis) or ``channel``
    (second axis of convolutions) zeroes whole slices by their mean importance (Li et al. 2017);
    ``keep_rows`` are never touched; ``seed`` is that of ``method = "random"``.

    A tensor stays as it is where it has no finite weights, no such axis, no axis that m divides, or
    where calibration is needed and absent.
    """

    id: ClassVar[str] = "prune"

    def apply(
        self, name: str, part: Part, options: Mapping[str, object], statistics: Statistics | None = None
    ) -> Part | None:
        """See `Pass.apply`."""
        chosen = _checked(options)
        if chosen.scope == "global":
            raise RecipeError("pass 'prune': scope 'global' needs a look at the whole model before it")
        weights = weights_of(part)
        if weights is None or not has_rows(part, chosen.keep_rows):
            return None
        importance = importance_of(chosen.method, name, weights, statistics, chosen.seed)
        if importance is None:
            return None
        pruned = _pruned(importance, chosen, input_axis(statistics))
        if pruned is None:
            return None
        if chosen.keep_rows:
            pruned = np.array(np.broadcast_to(pruned, weights.shape))
            pruned[chosen.keep_rows] = False
        unsigned = f"u{DTYPES[part.spec.dtype].nbytes}"
        elements = part.data.view(unsigned).reshape(part.spec.shape)
        # Bits, not numbers: what stays is exact, in F64 too, and what goes is no negative zero.
        kept = np.where(pruned, elements.dtype.type(0), elements)
        if chosen.method == "surgeon":
            changed = without(weights, pruned, statistics)
            bits = from_float32(changed, part.spec.dtype).view(unsigned).reshape(part.spec.shape)
            kept = np.where(pruned | (changed == weights), kept, bits)
        made = Part(part.spec, kept.reshape(-1).view(np.uint8))
        # What makes up for others may be too large for the type.
        return made if chosen.method != "surgeon" or has_weights(made) else None

    def settle(
        self, tensors: Iterable[tuple[str, Part, Statistics | None]], options: Mapping[str, object]
    ) -> Mapping[str, object]:
        """Turn a ratio over the whole model into the threshold that reaches it.

        One pass over the tensors in 8 MB; nothing is read unless ``scope`` is ``global``. The threshold
        compares importances of different tensors with each other (Han et al. 2015 prune by layer; Frankle
        and Carbin 2019 globally), those of slices by their means.
        """
        chosen = _checked(options)
        if chosen.scope != "global":
            return options
        histogram = ImportanceHistogram()
        for name, part, statistics in tensors:
            weights = weights_of(part)
            if weights is None:
                continue
            found = importance_of(chosen.method, name, weights, statistics, chosen.seed)
            axis = None if found is None else _axis(chosen.structure, found.ndim)
            if found is None or (axis is None and chosen.structure != "element"):
                continue
            if axis is not None:
                found = np.broadcast_to(_means(found, axis), found.shape)
            histogram.add(found)
        settled = {key: value for key, value in options.items() if key not in ("ratio", "scope")}
        return {**settled, "threshold": histogram.threshold(chosen.ratio or 0.0)}


def without(
    weights: NDArray[np.float32], pruned: NDArray[np.bool_], statistics: Statistics | None
) -> NDArray[np.float32]:
    """What is left of weights that the surgeon has pruned, and makes up for what is gone.

    Parameters
    ----------
    weights : float32 array
    pruned : bool array that broadcasts against it
    statistics : Statistics
        With the whole second moment of the inputs, as `importance_of` needs it.
    """
    moment = whole_moment(weights, statistics)
    assert moment is not None
    kept = as_matrix(np.broadcast_to(~pruned, weights.shape), statistics)
    found = made_up(as_matrix(weights, statistics), kept, moment)
    return np.ascontiguousarray(of_matrix(found, weights.shape, statistics))


def pruned_by(
    options: Mapping[str, object], importance: NDArray[np.float32], in_axis: int = 1
) -> NDArray[np.bool_] | None:
    """Which weights of one tensor the pass would zero, given how much each matters.

    Parameters
    ----------
    options : mapping
        The pass's; ``scope`` ``global`` is for `Prune.settle` to resolve.
    importance : float32 array
    in_axis : int
        The axis along the input features.

    Returns
    -------
    bool array that broadcasts against ``importance``; None if its shape does not allow it.

    Raises
    ------
    RecipeError
        If an option is unknown or out of range.
    """
    return _pruned(importance, _checked(options), in_axis)


def _checked(options: Mapping[str, object]) -> _Options:
    check_known(Prune.id, options, _Options._fields)
    given = [name for name in _CRITERIA if name in options]
    if len(given) != 1:
        raise RecipeError(
            f"pass 'prune': give one of {', '.join(_CRITERIA)}, not {' and '.join(given) or 'none'}"
        )
    scope = choice(Prune.id, options, "scope", ("tensor", "global"))
    structure = choice(Prune.id, options, "structure", _STRUCTURES)
    if scope == "global" and given != ["ratio"]:
        raise RecipeError(f"pass 'prune': scope 'global' goes with ratio, not with {given[0]}")
    if given == ["n_of_m"] and structure != "element":
        raise RecipeError(f"pass 'prune': n_of_m goes with single elements, not with structure {structure!r}")
    numbers = {
        name: number(Prune.id, options, name, 0.0, 0.0, 1.0 if name == "ratio" else np.inf)
        for name in given
        if name != "n_of_m"
    }
    return _Options(
        method=choice(Prune.id, options, "method", METHODS),
        structure=structure,
        scope=scope,
        ratio=numbers.get("ratio"),
        threshold=numbers.get("threshold"),
        mean_abs=numbers.get("mean_abs"),
        n_of_m=_n_of_m(options["n_of_m"]) if given == ["n_of_m"] else None,
        keep_rows=rows(Prune.id, options, "keep_rows"),
        seed=integer(Prune.id, options, "seed", 0, 0, (1 << 32) - 1),
    )


def _n_of_m(value: object) -> tuple[int, int]:
    match value:
        case [int(n), int(m)] if not isinstance(n, bool) and 1 <= n < m <= 256:
            return n, m
    raise RecipeError(
        f"pass 'prune': n_of_m is {value!r}; give two integers such as [2, 4], the second larger"
    )


def _axis(structure: str, ndim: int) -> int | None:
    """The axis whose slices go together; None if single elements do, or if there is no such axis."""
    if structure == "element" or ndim < (3 if structure == "channel" else 2):
        return None
    return {"row": 0, "column": ndim - 1, "channel": 1}[structure]


def _means(importance: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Mean importance of each slice, in a shape that broadcasts."""
    others = tuple(index for index in range(importance.ndim) if index != axis)
    means: NDArray[np.float32] = importance.mean(axis=others, keepdims=True, dtype=np.float64).astype(
        np.float32
    )
    return means


def _pruned(importance: NDArray[np.float32], options: _Options, in_axis: int) -> NDArray[np.bool_] | None:
    """Which weights go, in a shape that broadcasts; None if the shape does not allow it."""
    if options.n_of_m is not None:
        return _all_but_n_of_m(importance, *options.n_of_m, in_axis)
    if options.structure != "element":
        axis = _axis(options.structure, importance.ndim)
        if axis is None:
            return None
        importance = _means(importance, axis)
    if options.ratio is not None:
        return _lowest(importance, int(options.ratio * importance.size))
    if options.threshold is not None:
        return importance < np.float32(options.threshold)
    assert options.mean_abs is not None
    return importance < np.float32(options.mean_abs * importance.mean(dtype=np.float64))


def _lowest(importance: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """The ``count`` lowest; of equal ones, those that come first."""
    if not count:
        return np.zeros(importance.shape, bool)
    flat = importance.reshape(-1)
    limit = np.partition(flat, count - 1)[count - 1]
    lowest: NDArray[np.bool_] = flat < limit
    ties = np.flatnonzero(flat == limit)
    lowest[ties[: count - int(np.count_nonzero(lowest))]] = True
    return lowest.reshape(importance.shape)


def _all_but_n_of_m(importance: NDArray[np.float32], n: int, m: int, axis: int) -> NDArray[np.bool_] | None:
    if importance.ndim < 2 or importance.shape[axis] % m:
        return None
    last = np.moveaxis(importance, axis, -1)
    order = np.argsort(last.reshape(-1, m), axis=1, kind="stable")
    pruned: NDArray[np.bool_] = np.zeros(order.shape, bool)
    np.put_along_axis(pruned, order[:, : m - n], True, axis=1)
    return np.moveaxis(pruned.reshape(last.shape), -1, axis)
