"""Meeting a budget: steps for all tensors so that the whole file has the size that was asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cmpk.errors import PassError
from cmpk.rate import STEPS, RateCurve, allot

__all__ = ["Budget", "Plan", "Sizes", "meet", "smallest_good"]

_TOLERANCE: Final = 0.01
"""A file may stay below its target by this share, and never above it."""

_AIM: Final = 0.9965
_HEADS: Final = 1.007
"""What tensors take beyond the entropy of their codes, by their estimates (all-MiniLM-L6-v2, 6 to 16 MB)."""

_MAX_ROUNDS: Final = 8
_MAX_TRIALS: Final = 12
_NEAR_ENOUGH: Final = 1.01
"""Where the smallest good file and the largest bad one are as near as that, the search ends."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a file may cost; one of the three is given.

    Attributes
    ----------
    nbytes : int, optional
        Bytes of the whole file.
    bits : float, optional
        Bits of the whole file for each element of its tensors.
    error : float, optional
        Largest relative error of a tensor.

    Raises
    ------
    PassError
        If none or several are given, or one is not positive.
    """

    nbytes: int | None = None
    bits: float | None = None
    error: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.nbytes, self.bits, self.error) if value is not None]
        if len(given) != 1:
            raise PassError("give one of a target size, target bits an element, and a largest error")
        if not (given[0] > 0 and math.isfinite(given[0])):
            raise PassError(f"a target must be a positive number, not {given[0]}")

    def nbytes_for(self, numel: int) -> int:
        """Bytes of a file of so many elements."""
        return self.nbytes if self.nbytes is not None else int((self.bits or 0.0) * numel / 8)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a file takes when it is packed with certain steps.

    Attributes
    ----------
    nbytes : int
        The whole file.
    tensors : mapping of str to int
        Streams of each tensor that has a step.
    """

    nbytes: int
    tensors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps, and the size of the file that they make."""

    steps: Mapping[str, float]
    nbytes: int


def meet(
    curves: Mapping[str, RateCurve],
    others_nbytes: int,
    target: int,
    measure: Callable[[Mapping[str, float]], Sizes],
) -> Plan:
    """Find steps with which the whole file is within 1% of a size, and not above it.

    Bytes are shared out by estimates, the file is measured, the estimates are corrected by what was
    measured, and so on. The file stays further below where even the finest steps take less.

    Parameters
    ----------
    curves : mapping of str to RateCurve
        Of each tensor that is to get a step.
    others_nbytes : int
        Estimate of everything else in the file.
    target : int
        Bytes.
    measure : function
        Packs with steps, and tells the exact sizes.

    Raises
    ------
    PassError
        If even the coarsest steps take more.
    """
    best: Plan | None = None
    goal = _AIM * target
    curves = {name: _corrected(curve, _HEADS) for name, curve in curves.items()}
    aim, before = goal, None
    for _ in range(_MAX_ROUNDS):
        steps = _shared_out(curves, int(aim) - others_nbytes)
        sizes = measure(steps)
        if sizes.nbytes <= target and (best is None or sizes.nbytes > best.nbytes):
            best = Plan(steps, sizes.nbytes)
        if best is not None and best.nbytes >= (1 - _TOLERANCE) * target:
            return best
        if _are_all(steps, float(STEPS[0])) and sizes.nbytes <= target:
            return Plan(steps, sizes.nbytes)
        if _are_all(steps, float(STEPS[-1])) and sizes.nbytes > target:
            raise PassError(
                f"a file of {target} bytes can't be made: with the coarsest steps it takes {sizes.nbytes}"
            )
        if before is None:
            others_nbytes = sizes.nbytes - sum(sizes.tensors.values())
            curves = {
                name: _corrected(curve, sizes.tensors[name] / max(1.0, curve.nbytes(steps[name])))
                for name, curve in curves.items()
            }
        estimate = others_nbytes + sum(curve.nbytes(steps[name]) for name, curve in curves.items())
        aim = _next_aim(goal, (estimate, sizes.nbytes), before)
        before = estimate, sizes.nbytes
    if best is None:
        raise PassError(f"no steps were found with which the file takes at most {target} bytes")
    return best


def _next_aim(goal: float, last: tuple[float, int], before: tuple[float, int] | None) -> float:
    """The estimate whose file would have the size that is wanted, from pairs of estimate and size."""
    slope = 1.0
    if before is not None and last[0] != before[0]:
        slope = math.log(last[1] / before[1]) / math.log(last[0] / before[0])
    return last[0] * math.pow(goal / last[1], 1 / min(max(slope, 0.25), 4.0))


def smallest_good(
    trial: Callable[[int], tuple[int, float]], low: int, high: int, min_score: float
) -> tuple[int, float]:
    """The smallest target whose file is good enough, by bisection on its logarithm.

    Parameters
    ----------
    trial : function
        Packs with a target size; gives the size that was reached, and the score.
    low, high : int
        Targets between which to search; the second must be good.
    min_score : float

    Returns
    -------
    target : int
        The same every time; the file is best made with it once more.
    score : float

    Raises
    ------
    PassError
        If even the largest file scores less.
    """
    nbytes, best_score = trial(high)
    if not best_score >= min_score:  # also where it is no number
        raise PassError(f"a score of {min_score} can't be reached: even {nbytes} bytes score {best_score}")
    best = min(high, nbytes)
    for _ in range(_MAX_TRIALS):
        if best / low <= _NEAR_ENOUGH:
            break
        target = int(math.sqrt(best * low))
        nbytes, score = trial(target)
        if score >= min_score:
            best, best_score = target, score
        else:
            low = target
    return best, best_score


def _shared_out(curves: Mapping[str, RateCurve], nbytes: int) -> dict[str, float]:
    try:
        return allot(curves, nbytes)
    except PassError:
        # Estimates may be too high: the coarsest steps are measured before it is given up.
        return dict.fromkeys(curves, float(STEPS[-1]))


def _are_all(steps: Mapping[str, float], end: float) -> bool:
    return all(math.isclose(step, end) for step in steps.values())


def _corrected(curve: RateCurve, factor: float) -> RateCurve:
    return dataclasses.replace(curve, sizes=curve.sizes * factor)
