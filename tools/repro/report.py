"""What a reproduction ends with: a line of JSON, over several seeds."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Run", "final_line", "say", "summary"]


class Run(NamedTuple):
    """One seed.

    Attributes
    ----------
    seed : int
    baseline_error, error : float
        Percent of the test images.
    nbytes : int
        The whole file.
    ratio : float
        Bytes of the baseline's parameters in single precision, over that.
    """

    seed: int
    baseline_error: float
    error: float
    nbytes: int
    ratio: float


def summary(name: str, runs: Sequence[Run], seconds: float, **others: Any) -> Mapping[str, Any]:
    """Means, and the worst seed: the smallest ratio, the most error over its own baseline."""
    return {
        "name": name,
        "ratio": round(statistics.fmean(run.ratio for run in runs), 2),
        "worst_ratio": round(min(run.ratio for run in runs), 2),
        "baseline_error": round(statistics.fmean(run.baseline_error for run in runs), 3),
        "error": round(statistics.fmean(run.error for run in runs), 3),
        "worst_error_increase": round(max(run.error - run.baseline_error for run in runs), 3),
        "nbytes": [run.nbytes for run in runs],
        "seeds": [run.seed for run in runs],
        "seconds": round(seconds, 1),
        **others,
    }


def say(text: str) -> None:
    """Tell how it goes; at once, whatever stdout is."""
    print(text, flush=True)


def final_line(result: Mapping[str, Any]) -> None:
    """The last line of a reproduction: one JSON object."""
    json.dump(result, sys.stdout)
    print(flush=True)
