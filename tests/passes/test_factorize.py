"""factorize: products of the rank, the energy or the size that was asked for, and as near as can be."""

from __future__ import annotations

import numpy as np
import pytest

from cmpk.errors import RecipeError
from cmpk.passes.base import Part, Split
from cmpk.passes.factorize import Factorize
from tests.passes.samples import NOT_WEIGHTS, Array, decoded, normal, part_of

FACTORIZE = Factorize()


def low_rank(m: int, n: int, rank: int) -> Array:
    return normal(m, rank, seed=1, scale=1) @ normal(rank, n, seed=2, scale=1)


def product(values: Array, dtype: str = "F32", **options: object) -> Split:
    found = FACTORIZE.apply("a", part_of(values, dtype), options)
    assert isinstance(found, Split)
    return found


def error(before: Array, after: Array) -> float:
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


@pytest.mark.parametrize("shape", [(300, 80), (80, 300), (64, 5, 3, 3)])
def test_a_matrix_of_low_rank_comes_back_but_for_rounding(shape: tuple[int, ...]) -> None:
    before = low_rank(shape[0], int(np.prod(shape[1:])), 6).reshape(shape)
    found = product(before, rank=6)
    assert found.params == {"dtype": "F32", "rank": 6}
    assert error(before, decoded(found)) < 1e-5


def test_no_product_of_the_rank_is_nearer() -> None:
    before = normal(200, 60)
    u, s, vt = np.linalg.svd(before.astype(np.float64), full_matrices=False)
    best = error(before, (u[:, :10] * s[:10]) @ vt[:10])
    assert error(before, decoded(product(before, rank=10))) == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("energy", [0.5, 0.9])
def test_the_lowest_rank_that_keeps_the_energy_is_taken(energy: float) -> None:
    before = low_rank(200, 100, 30)
    found = product(before, energy=energy)
    squares = np.linalg.svd(before.astype(np.float64), compute_uv=False) ** 2
    kept = np.cumsum(squares) / squares.sum()
    assert found.params["rank"] == int(np.searchsorted(kept, energy)) + 1
    assert error(before, decoded(found)) ** 2 <= 1 - energy + 1e-5


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_the_factors_take_the_share_that_was_given(dtype: str) -> None:
    part = part_of(normal(400, 200), dtype)
    found = FACTORIZE.apply("a", part, {"size": 0.3})
    assert isinstance(found, Split)
    nbytes = sum(factor.spec.nbytes for factor in found.parts.values() if isinstance(factor, Part))
    assert 0.27 * part.spec.nbytes < nbytes <= 0.3 * part.spec.nbytes


def test_rows_of_few_atoms_are_found_again() -> None:
    rng = np.random.default_rng(0)
    atoms = normal(24, 128, seed=3, scale=1)
    codes = np.zeros((2000, 24), np.float32)
    for row in codes:
        row[rng.choice(24, 2, replace=False)] = rng.normal(size=2)
    before = codes @ atoms
    found = product(before, atoms=32, nonzero=2)
    left = found.parts["left"]
    assert isinstance(left, Part)
    assert (np.count_nonzero(left.data.view(np.float32).reshape(2000, 32), axis=1) <= 2).all()
    assert error(before, decoded(found)) < 0.5


def test_rows_that_are_kept_keep_their_bits() -> None:
    before = low_rank(100, 50, 3)
    after = decoded(product(before, rank=2, keep_rows=[0, 7]))
    assert after[[0, 7]].tobytes() == before[[0, 7]].tobytes()


@pytest.mark.parametrize(
    "values",
    [normal(40, 40), np.zeros((50, 50), np.float32), normal(300), np.float32([[np.nan] * 50] * 50)],
    ids=["full rank", "zeros", "a vector", "nan"],
)
def test_what_does_not_pay_or_is_no_matrix_is_left_alone(values: Array) -> None:
    assert FACTORIZE.apply("a", part_of(values, "F32"), {"rank": 39}) is None


@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_what_are_no_weights_is_left_alone(kind: str) -> None:
    assert FACTORIZE.apply("a", NOT_WEIGHTS[kind], {"rank": 1}) is None


def test_factors_beyond_their_type_are_left_alone() -> None:
    assert (
        FACTORIZE.apply(
            "a", part_of(low_rank(100, 50, 2) * np.float32(1e30), "F32"), {"rank": 2, "dtype": "F16"}
        )
        is None
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank": 2, "energy": 0.5},
        {"rank": 0},
        {"energy": 1.5},
        {"nonzero": 2, "rank": 2},
        {"rank": 2, "dtype": "I8"},
    ],
)
def test_bad_options_are_one_clear_error(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="pass 'factorize'"):
        FACTORIZE.apply("a", part_of(normal(50, 50), "F32"), options)
