"""k-means: the best clusters there are in one dimension, and sound ones in more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmpk.passes.kmeans import INITS, Nearest, Points, cluster, points_of
from cmpk.passes.vector_kmeans import cluster_vectors
from tests.passes.samples import Array, normal


def error_of(points: Points, centroids: Array) -> float:
    distance = np.abs(points.values[:, None] - centroids[None]).min(axis=1)
    return float((points.weights * distance**2).sum())


def least_error(points: Points, n_centroids: int) -> float:
    """By trying every interval: O(n² k)."""
    values, weights = points
    sums = [np.concatenate(([0.0], np.cumsum(weights * values**power))) for power in range(3)]
    best = np.full((n_centroids + 1, len(values) + 1), np.inf)
    best[0, 0] = 0
    for k in range(1, n_centroids + 1):
        for end in range(k, len(values) + 1):
            begin = np.arange(k - 1, end)
            mass, moment, square = (total[end] - total[begin] for total in sums)
            best[k, end] = np.min(best[k - 1, begin] + square - moment**2 / mass)
    return float(best[n_centroids, -1])


def counted(*pieces: Array) -> Points:
    return points_of([(piece, None) for piece in pieces], sum(map(len, pieces)))


@st.composite
def weighted_points(draw: st.DrawFn) -> Points:
    values = draw(
        st.lists(st.integers(-100, 100) | st.floats(-5, 5, width=32), min_size=1, max_size=40, unique=True)
    )
    weights = draw(st.lists(st.integers(1, 20), min_size=len(values), max_size=len(values)))
    return Points(np.sort(np.float64(values)), np.float64(weights))


class TestOneDimension:
    @given(points=weighted_points(), n_centroids=st.integers(1, 12))
    def test_no_clusters_are_better(self, points: Points, n_centroids: int) -> None:
        n_centroids = min(n_centroids, len(points.values))
        found = error_of(points, cluster(points, n_centroids))
        assert found <= least_error(points, n_centroids) * (1 + 1e-9) + 1e-9

    @pytest.mark.parametrize("n_centroids", [2, 5, 16])
    @pytest.mark.parametrize("power", [1, 3])
    def test_limited_places_and_bins_cost_less_than_a_thousandth(self, n_centroids: int, power: int) -> None:
        values = np.sort(normal(3000, scale=1) ** power)
        exact = Points(values.astype(np.float64), np.ones(len(values)))
        found = cluster(counted(values), n_centroids)
        assert error_of(exact, found) <= least_error(exact, n_centroids) * 1.001

    @pytest.mark.parametrize(
        ("n_centroids", "error"), [(2, 0.3634), (4, 0.1175), (8, 0.03454), (16, 0.009497), (32, 0.002499)]
    )
    def test_normal_numbers_have_the_error_of_the_best_quantizer_known(
        self, n_centroids: int, error: float
    ) -> None:
        # The table of Max, "Quantizing for minimum distortion", 1960.
        points = counted(*[normal(1 << 17, seed=seed, scale=3) for seed in range(16)])
        found = error_of(points, cluster(points, n_centroids)) / points.weights.sum() / 9
        assert found == pytest.approx(error, rel=0.005)

    @pytest.mark.parametrize("init", INITS)
    @pytest.mark.parametrize("n_centroids", [1, 2, 7, 64, 256])
    @pytest.mark.parametrize("zero", [False, True])
    def test_every_start_gives_ascending_centroids_with_points(
        self, init: str, n_centroids: int, zero: bool
    ) -> None:
        points = counted(normal(5000))
        if zero and n_centroids == 1:
            return
        found = cluster(points, n_centroids, init, 3, zero)
        assert len(found) <= n_centroids
        assert (np.diff(found) > 0).all()
        assert (found == 0).sum() == zero
        assert len(np.unique(Nearest(found, 0)(np.float32(points.values)))) == len(found)
        assert found.tobytes() == cluster(points, n_centroids, init, 3, zero).tobytes()

    def test_the_optimal_start_is_no_worse_than_the_others(self) -> None:
        for n_centroids in (2, 4, 16, 64):
            points = counted(normal(20_000) ** 3)
            errors = [error_of(points, cluster(points, n_centroids, init)) for init in INITS]
            assert errors[0] <= min(errors) * 1.0001

    def test_weights_draw_centroids(self) -> None:
        values = np.float32([1, 2, 10])
        assert cluster(points_of([(values, np.float32([1, 3, 1]))], 3), 2) == pytest.approx(
            [1.75, 10], rel=1e-3
        )
        assert cluster(points_of([(values, np.float32([1, 3, 0]))], 3), 2) == pytest.approx([1, 2], rel=1e-3)

    def test_no_points_but_zeros_make_one_centroid(self) -> None:
        assert cluster(counted(np.zeros(10, np.float32)), 4, zero=True).tolist() == [0]
        assert cluster(counted(np.zeros(10, np.float32)), 4).tolist() == [0]

    def test_bins_are_counted_whatever_the_pieces(self) -> None:
        values = np.concatenate([normal(1000), -normal(500), np.float32([0, -0.0, 1e-45, 3e38, -3e38])])
        whole = counted(values)
        for n_values in (0, 1 << 30):
            halves = points_of([(piece, None) for piece in (values[:7], values[7:])], n_values)
            assert whole.values == pytest.approx(halves.values, rel=1e-12)
            assert whole.weights.tobytes() == halves.weights.tobytes()
        assert whole.weights.sum() == len(values)
        assert (np.diff(whole.values) > 0).all()
        assert whole.values[[0, -1]] == pytest.approx([-3e38, 3e38], rel=1e-3)


class TestNearest:
    @settings(max_examples=20)
    @given(
        centroids=st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=256, unique=True).map(sorted),
        seed=st.integers(0, 1000),
    )
    def test_table_and_search_agree_with_distances(self, centroids: list[float], seed: int) -> None:
        exact = np.float64(centroids)
        middles = (exact[1:] + exact[:-1]) / 2
        numbers: Any = np.random.default_rng(seed).integers(0, 1 << 32, 5000, np.uint32).view(np.float32)
        numbers = np.concatenate([numbers, exact.astype(np.float32), middles.astype(np.float32)])
        numbers = numbers[np.isfinite(numbers)]
        expected = np.searchsorted(middles, numbers.astype(np.float64))
        assert np.array_equal(Nearest(exact, 0)(numbers), expected)
        assert np.array_equal(Nearest(exact, 1 << 30)(numbers), expected)

    def test_bounds_closer_than_a_bin_are_told_apart(self) -> None:
        exact = np.linspace(1, 1.0001, 256)
        numbers = np.linspace(0.9999, 1.0002, 10_000, dtype=np.float32)
        expected = np.searchsorted((exact[1:] + exact[:-1]) / 2, numbers.astype(np.float64))
        assert np.array_equal(Nearest(exact, 1 << 30)(numbers), expected)


class TestVectors:
    @pytest.mark.parametrize("dimensions", [2, 4, 8])
    @pytest.mark.parametrize("zero", [False, True])
    def test_every_vector_has_about_the_nearest_centroid(self, dimensions: int, zero: bool) -> None:
        vectors = normal(4000, dimensions)
        vectors[:100] = 0
        codes, centroids = cluster_vectors(vectors, 64, zero=zero)
        assert centroids.shape == (64, dimensions)
        own = ((vectors - centroids[codes]) ** 2).sum(axis=1)
        least = ((vectors[:, None] - centroids[None]) ** 2).sum(axis=2).min(axis=1)
        assert own.sum() <= least.sum() * 1.02
        assert own.sum() < (vectors**2).sum() * 2.0 ** (-12 / dimensions) * 2
        if zero:
            assert not centroids[0].any()
            assert not codes[:100].any()

    def test_as_many_centroids_as_vectors_are_these(self) -> None:
        vectors = np.float32([[1, 2], [3, 4], [1, 2], [-5, 6]])
        codes, centroids = cluster_vectors(vectors, 8)
        assert len(centroids) == 3
        assert centroids[codes].tolist() == vectors.tolist()

    def test_zeros_alone_are_one_centroid(self) -> None:
        codes, centroids = cluster_vectors(np.zeros((5, 4), np.float32), 16)
        assert codes.tolist() == [0] * 5
        assert centroids.tolist() == [[0] * 4]

    def test_more_dimensions_carry_more_at_the_same_rate(self) -> None:
        weights = normal(1 << 16)
        errors = []
        for dimensions in (1, 2, 4):
            codes, centroids = cluster_vectors(weights.reshape(-1, dimensions), 4**dimensions)
            errors.append(float(((weights.reshape(-1, dimensions) - centroids[codes]) ** 2).mean()))
        assert errors == sorted(errors, reverse=True)
