"""Matrices as products: the nearest of a rank, and sparse codes into a dictionary."""

from __future__ import annotations

import numpy as np
import pytest

from cmpk.passes.low_rank import (
    encode_sparse,
    learn_dictionary,
    rank_for_energy,
    singular_directions,
    truncated,
)
from tests.passes.samples import Array, normal


def low_rank(m: int, n: int, rank: int, noise: float = 0) -> Array:
    return normal(m, rank, scale=1) @ normal(rank, n, seed=1, scale=1) + normal(m, n, seed=2, scale=noise)


def error(matrix: Array, found: Array) -> float:
    return float(np.linalg.norm(matrix - found) / np.linalg.norm(matrix))


class TestSingularValues:
    @pytest.mark.parametrize("shape", [(1, 1), (9, 1), (40, 40), (500, 30)])
    def test_squares_are_those_of_singular_values(self, shape: tuple[int, int]) -> None:
        matrix = normal(*shape, scale=3)
        squares, _ = singular_directions(matrix)
        exact = np.linalg.svd(matrix.astype(np.float64), compute_uv=False) ** 2
        assert squares == pytest.approx(exact, rel=1e-6, abs=1e-6 * exact[0])

    @pytest.mark.parametrize("rank", [1, 5, 30])
    def test_no_product_of_the_rank_is_nearer(self, rank: int) -> None:
        matrix = low_rank(200, 30, 8, 0.3)
        left, right = truncated(matrix, *singular_directions(matrix), rank)
        assert (left.shape, right.shape) == ((200, rank), (rank, 30))
        values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
        least = np.sqrt((values[rank:] ** 2).sum() / (values**2).sum())
        assert error(matrix, left @ right) <= least * 1.00001 + 1e-6

    def test_a_matrix_of_low_rank_comes_back(self) -> None:
        matrix = low_rank(300, 50, 7)
        squares, directions = singular_directions(matrix)
        assert rank_for_energy(squares, 0.999999) == 7
        left, right = truncated(matrix, squares, directions, 7)
        assert error(matrix, left @ right) < 1e-5

    @pytest.mark.parametrize("energy", [0.0, 0.5, 0.9, 0.99, 1.0])
    def test_the_rank_for_an_energy_is_the_lowest_that_keeps_it(self, energy: float) -> None:
        squares = np.sort(normal(64, scale=1).astype(np.float64) ** 2)[::-1]
        rank = rank_for_energy(squares, energy)
        assert squares[:rank].sum() >= energy * squares.sum() * (1 - 1e-12)
        assert rank == 1 or squares[: rank - 1].sum() < energy * squares.sum()

    def test_zeros_are_a_product_of_rank_one(self) -> None:
        matrix = np.zeros((10, 4), np.float32)
        squares, directions = singular_directions(matrix)
        assert rank_for_energy(squares, 0.9) == 1
        left, right = truncated(matrix, squares, directions, 1)
        assert not (left @ right).any()


class TestDictionary:
    def test_signals_of_few_atoms_get_few_codes(self) -> None:
        rng = np.random.default_rng(0)
        atoms = rng.standard_normal((40, 20))
        atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
        codes = np.zeros((500, 40))
        for row in codes:
            row[rng.choice(40, 2, replace=False)] = rng.standard_normal(2) + 2
        signals = (codes @ atoms).astype(np.float32)
        found = encode_sparse(signals, atoms, 3)
        assert (np.count_nonzero(found, axis=1) <= 3).all()
        assert error(signals, found @ atoms) < 0.15

    def test_more_codes_never_have_a_larger_error(self) -> None:
        signals = normal(300, 16)
        atoms = learn_dictionary(signals, 32, 4, 2, 0)
        errors = [error(signals, encode_sparse(signals, atoms, count) @ atoms) for count in (1, 2, 4, 8, 16)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1e-3

    def test_learning_makes_the_error_smaller(self) -> None:
        signals = low_rank(600, 24, 6, 0.05)
        errors = []
        for steps in (0, 1, 8):
            atoms = learn_dictionary(signals, 48, 3, steps, 0)
            assert np.linalg.norm(atoms, axis=1) == pytest.approx(np.ones(48))
            errors.append(error(signals, encode_sparse(signals, atoms, 3) @ atoms))
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.8 * errors[0]

    def test_signals_that_are_all_the_same_are_coded_by_one_atom(self) -> None:
        signals = np.tile(np.float32([[1, -2, 3]]), (20, 1))
        atoms = learn_dictionary(signals, 5, 1, 3, 0)
        assert error(signals, encode_sparse(signals, atoms, 1) @ atoms) < 1e-6
