"""How a share of kept weights falls from step to step."""

from __future__ import annotations

__all__ = ["cubic", "iterative", "one_shot"]


def cubic(step: int, begin: int, end: int, before: float, after: float) -> float:
    """Fast at first, slow where every weight matters (Zhu and Gupta, "To prune, or not to prune", 2017).

    Parameters
    ----------
    step : int
    begin, end : int
        The steps between which the share falls.
    before, after : float
        The shares that are kept at either.
    """
    left = 1 - min(max((step - begin) / (end - begin), 0.0), 1.0)
    return after + (before - after) * left**3


def iterative(step: int, begin: int, end: int, before: float, after: float) -> float:
    """The same share of what is left at each step: prune, retrain, and again (Han et al. 2015)."""
    passed = min(max((step - begin) / (end - begin), 0.0), 1.0)
    # Not by powers at the ends, where they would not be exact.
    return before if passed == 0 else after if passed == 1 else before * (after / before) ** passed


def one_shot(step: int, begin: int, end: int, before: float, after: float) -> float:
    """All at once, at the first step; ``end`` has no say."""
    return before if step <= begin else after
