"""Searching for the coarsest step within an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np

from cmpk.rate import RateCurve

__all__ = ["largest_step"]

T = TypeVar("T")

_MAX_TRIALS: Final = 8
_NEAR_ENOUGH: Final = 0.97
"""Of the error that is allowed, this share is used at least, as a rule."""


def largest_step(trial: Callable[[float], tuple[T, float]], curve: RateCurve, max_error: float) -> T | None:
    """What a trial gives at a step that is nearly as large as a relative error allows.

    Parameters
    ----------
    trial : function
        Gives, for a step, what it makes and its relative error.
    curve : RateCurve
        Data-free: its distortions are squares of relative errors.
    max_error : float

    Returns
    -------
    what the trial gives, or None
        None if even the finest steps exceed the error.
    """
    errors = np.sqrt(np.maximum(curve.distortions, np.finfo(np.float64).tiny))
    low, high = float(curve.steps[0]), float(curve.steps[-1])
    step = float(np.exp(np.interp(math.log(max_error), np.log(errors), np.log(curve.steps))))
    best: tuple[float, T] | None = None
    for _ in range(_MAX_TRIALS):
        found, error = trial(step)
        if error <= max_error:
            if best is None or step > best[0]:
                best = step, found
            low = step
            if error >= _NEAR_ENOUGH * max_error or step >= curve.steps[-1]:
                break
        else:
            high = step
            if step <= curve.steps[0]:
                break
        # Errors grow about as steps do; where that leads out of what is left, halve it.
        aimed = step * (0.5 + _NEAR_ENOUGH / 2) * max_error / error if error else high
        step = aimed if low < aimed < high else min(max(aimed, low), high)
        if best is not None and step == best[0]:
            step = math.sqrt(low * high)
    return None if best is None else best[1]
