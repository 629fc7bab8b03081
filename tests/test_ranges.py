"""Ranges of numbers, from a histogram and from the numbers themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cmpk.ranges import RANGES, Histogram


def ranges_of(*pieces: torch.Tensor) -> NDArray[np.float32]:
    histogram = Histogram()
    for piece in pieces:
        histogram.add(piece)
    found = histogram.ranges()
    assert found is not None
    return found


def sample(kind: str, n: int = 200_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, generator=generator)
    return {"normal": x, "heavy": x**3, "positive": x.relu(), "shifted": x + 20, "tiny": x * 1e-30}[kind]


def square_error(x: torch.Tensor, low: float, high: float) -> float:
    """Mean square error of rounding to 256 levels of a range."""
    x = x.double()
    step = max((high - low) / 255, 1e-300)
    return float((((x - low) / step).round().clamp(0, 255) * step + low - x).square().mean())


KINDS = ["normal", "heavy", "positive", "shifted", "tiny"]


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_is_exact_and_the_others_lie_within_but_for_half_a_step(kind: str) -> None:
    x = sample(kind)
    found = ranges_of(*x.split(60_001))
    assert found.shape == (len(RANGES), 2)
    assert found[0].tolist() == [float(x.min()), float(x.max())]
    half_a_step = (found[0, 1] - found[0, 0]) / 510
    assert (found[:, 0] >= found[0, 0] - half_a_step).all()
    assert (found[:, 1] <= found[0, 1] + half_a_step).all()
    assert (found[:, 0] < found[:, 1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_percentile_leaves_one_in_ten_thousand_out(kind: str) -> None:
    x = sample(kind)
    low, high = ranges_of(x)[RANGES.index("percentile")]
    # A bin is up to a 128th of its value wide, and the numbers lie that far apart out there.
    slack = 2**-6 * max(abs(low), abs(high))
    assert abs(torch.quantile(x.double(), 5e-5) - low) <= slack
    assert abs(torch.quantile(x.double(), 1 - 5e-5) - high) <= slack


@pytest.mark.parametrize("kind", KINDS)
def test_no_range_is_much_better_than_that_of_least_squares(kind: str) -> None:
    x = sample(kind, 20_000)
    low, high = map(float, ranges_of(x)[RANGES.index("mse")])
    least = square_error(x, low, high)
    ends = torch.linspace(0, 0.7, 15).tolist()
    middle = float(x.median())
    lows = [float(x.min()) + (middle - float(x.min())) * end for end in ends]
    highs = [float(x.max()) + (middle - float(x.max())) * end for end in ends]
    assert least <= 1.07 * min(square_error(x, a, b) for a in lows for b in highs)


def test_one_number_among_millions_is_clipped_where_that_makes_the_steps_smaller() -> None:
    histogram = Histogram()
    histogram.add(sample("normal", 5000), 1000)
    histogram.add(torch.tensor([100.0]))
    found = histogram.ranges()
    assert found is not None
    assert found[RANGES.index("minmax"), 1] == 100
    assert found[RANGES.index("mse"), 1] < 5


def test_one_value_is_a_range_of_its_own() -> None:
    assert ranges_of(torch.full((5,), 0.3)).tolist() == [[np.float32(0.3)] * 2] * 3
    assert ranges_of(torch.zeros(())).tolist() == [[0, 0]] * 3


def test_what_is_not_finite_is_passed_over() -> None:
    x = torch.tensor([float("nan"), float("inf"), -1.0, 2.0, -float("inf")])
    assert ranges_of(x)[0].tolist() == [-1, 2]
    histogram = Histogram()
    histogram.add(x[:2])
    assert histogram.ranges() is None
    most = torch.tensor([torch.finfo(torch.float32).max, -1.0])  # rounds to infinity as bfloat16
    assert ranges_of(most)[0].tolist() == [-1, float(most[0])]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_may_be_of_any_type_and_count_several_times(dtype: torch.dtype) -> None:
    x = sample("normal", 1000).to(dtype)
    twice = Histogram()
    twice.add(x, 2)
    assert np.array_equal(twice.ranges(), ranges_of(x, x))  # type: ignore[arg-type]
