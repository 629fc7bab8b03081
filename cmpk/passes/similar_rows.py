"""Rows, or tensors, that are so alike that one can stand for several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cmpk.errors import RecipeError
from cmpk.passes.options import number

__all__ = ["METRICS", "metric_and_threshold", "representatives"]

METRICS: Final = ("euclidean", "cosine")

_BLOCK_ROWS: Final = 256


def metric_and_threshold(pass_id: str, options: Mapping[str, object]) -> tuple[str, float]:
    """Which of `METRICS` a recipe gives, and how near is near enough.

    Raises
    ------
    RecipeError
        If it gives none or both, or a number out of range.
    """
    given = [metric for metric in METRICS if metric in options]
    if len(given) != 1:
        raise RecipeError(f"pass {pass_id!r}: give either euclidean or cosine, not {given or 'none'}")
    low, high = (-1.0, 1.0) if given[0] == "cosine" else (0.0, np.inf)
    return given[0], number(pass_id, options, given[0], 0.0, low, high)


def representatives(
    rows: NDArray[np.float32], metric: str, threshold: float, max_representatives: int
) -> NDArray[np.intp] | None:
    """For each row, the row that stands for it; itself for one that no other can stand for.

    Leader clustering (Hartigan 1975, chapter 3): in order, a row joins the nearest leader that is near
    enough, or becomes a leader itself. So no row is farther from its leader than the threshold says, which
    means of clusters would not promise.

    Parameters
    ----------
    rows : float32 array, shape (n, d)
    metric : str
        ``euclidean``: the distance to the leader is at most ``threshold`` times the row's length.
        ``cosine``: the cosine between them is at least ``threshold``.
    threshold : float
    max_representatives : int
        Give up at more: None.

    Returns
    -------
    intp array, shape (n,), or None
    """
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    is_cosine = metric == "cosine"
    chosen = np.empty(len(rows), np.intp)
    leaders = np.empty(0, np.intp)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = np.arange(start, min(start + _BLOCK_ROWS, len(rows)))
        found = _nearest(rows, lengths, block, leaders, is_cosine)
        near = _near(rows, lengths, block, found, is_cosine, threshold)
        chosen[block[near]] = found[near]
        rest = block[~near]
        added = _lead_among(rows, lengths, rest, is_cosine, threshold, chosen)
        leaders = np.concatenate([leaders, added])
        if len(leaders) > max_representatives:
            return None
    return chosen


def _nearest(
    rows: NDArray[np.float32],
    lengths: NDArray[np.float64],
    wanted: NDArray[np.intp],
    leaders: NDArray[np.intp],
    is_cosine: bool,
) -> NDArray[np.intp]:
    """The leader that is nearest to each row, to the precision of a product of matrices; −1 for none."""
    best = np.full(len(wanted), -1, np.intp)
    score = np.full(len(wanted), -np.inf)
    mine = rows[wanted].astype(np.float64)
    for start in range(0, len(leaders), 4096):
        some = leaders[start : start + 4096]
        products = mine @ rows[some].astype(np.float64).T
        if is_cosine:
            products /= np.maximum(lengths[some], np.finfo(np.float64).tiny)
        else:
            products -= lengths[some] ** 2 / 2  # half of what the distance leaves of the row's own square
        top = products.argmax(axis=1)
        value = products[np.arange(len(wanted)), top]
        better = value > score
        best[better], score[better] = some[top[better]], value[better]
    return best


def _near(
    rows: NDArray[np.float32],
    lengths: NDArray[np.float64],
    wanted: NDArray[np.intp],
    leaders: NDArray[np.intp],
    is_cosine: bool,
    threshold: float,
) -> NDArray[np.bool_]:
    """Whether rows are near enough to these leaders, exactly; not to −1."""
    mine, theirs = rows[wanted].astype(np.float64), rows[leaders].astype(np.float64)
    if is_cosine:
        products = (mine * theirs).sum(axis=1)
        both = lengths[wanted] * lengths[leaders]
        # Two rows of zeros are alike; one and another are not.
        near = np.where(both > 0, products >= threshold * both, lengths[wanted] == lengths[leaders])
    else:
        near = np.linalg.norm(mine - theirs, axis=1) <= threshold * lengths[wanted]
    return np.asarray(near & (leaders >= 0))


def _lead_among(
    rows: NDArray[np.float32],
    lengths: NDArray[np.float64],
    wanted: NDArray[np.intp],
    is_cosine: bool,
    threshold: float,
    chosen: NDArray[np.intp],
) -> NDArray[np.intp]:
    """Leaders among rows that have none yet, one after another; notes in ``chosen`` who follows whom."""
    leaders: list[int] = []
    while len(wanted):
        first = wanted[0]
        leaders.append(int(first))
        near = _near(rows, lengths, wanted, np.full(len(wanted), first), is_cosine, threshold)
        near[0] = True
        chosen[wanted[near]] = first
        wanted = wanted[~near]
    return np.array(leaders, np.intp)
