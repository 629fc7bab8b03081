"""The best intervals of numbers on a line, against every other choice there is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.kernels import reference
from cmpk.kernels.interface import KernelBackend

Sums = list[np.ndarray[Any, np.dtype[np.float64]]]


def sums_of(values: list[float], weights: list[float]) -> Sums:
    return [
        np.cumsum([0.0, *(w * v**power for v, w in zip(values, weights, strict=True))]) for power in range(3)
    ]


def error(values: list[float], weights: list[float], begins: tuple[int, ...]) -> float:
    total = 0.0
    for begin, end in itertools.pairwise((*begins, len(values))):
        v, w = np.array(values[begin:end]), np.array(weights[begin:end])
        total += float((w * (v - np.average(v, weights=w)) ** 2).sum())
    return total


@given(
    points=st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 9)), min_size=1, max_size=9),
    drawn=st.data(),
)
def test_no_other_intervals_have_less_error(
    backend: KernelBackend, points: list[tuple[int, int]], drawn: st.DataObject
) -> None:
    values, weights = ([float(x) for x in each] for each in zip(*sorted(points), strict=True))
    n_intervals = drawn.draw(st.integers(1, len(values)))
    found = backend.best_intervals(*sums_of(values, weights), n_intervals)
    begins = tuple(found.tolist())
    assert begins[0] == 0
    assert all(a < b for a, b in itertools.pairwise((*begins, len(values))))
    others = itertools.combinations(range(1, len(values)), n_intervals - 1)
    least = min(error(values, weights, (0, *rest)) for rest in others)
    assert error(values, weights, begins) <= least + 1e-6


@pytest.mark.parametrize("n_intervals", [1, 2, 3, 16, 99, 400])
@pytest.mark.parametrize("spread", [0, 30])
def test_large_ones_are_those_of_reference(backend: KernelBackend, n_intervals: int, spread: int) -> None:
    rng = np.random.default_rng(n_intervals)
    # With a spread, most weights are too small to show in the sums.
    weights = np.ldexp(1.0, rng.integers(-2 * spread - 1, 1, 401))
    sums = sums_of(np.sort(rng.standard_normal(401)).tolist(), weights.tolist())
    found = backend.best_intervals(*sums, n_intervals)
    assert found.tolist() == reference.best_intervals(*sums, n_intervals).tolist()


def test_what_only_a_caller_can_get_wrong_is_a_value_error(backend: KernelBackend) -> None:
    sums = sums_of([1.0, 2.0], [1.0, 1.0])
    for n_intervals in (0, -1, 3):
        with pytest.raises(ValueError, match="intervals"):
            backend.best_intervals(*sums, n_intervals)
    with pytest.raises(ValueError, match="places"):
        backend.best_intervals(sums[0], sums[1][:2], sums[2], 1)
