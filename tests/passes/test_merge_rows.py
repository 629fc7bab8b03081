"""merge_rows: rows that are much alike become one, and no row is farther off than it was allowed."""

from __future__ import annotations

import numpy as np
import pytest

from cmpk.encodings.base import Part
from cmpk.errors import RecipeError
from cmpk.passes.base import Split
from cmpk.passes.merge_rows import MergeRows
from cmpk.passes.similar_rows import representatives
from tests.passes.samples import NOT_WEIGHTS, Array, decoded, normal, part_of

MERGE = MergeRows()


def alike(n_rows: int, n_kinds: int, d: int, noise: float, seed: int = 0) -> Array:
    """Rows of few kinds, each off a little."""
    kinds = normal(n_kinds, d, seed=seed, scale=1)
    which = np.random.default_rng(seed).integers(0, n_kinds, n_rows)
    return kinds[which] + normal(n_rows, d, seed=seed + 1, scale=noise)


def merged(values: Array, dtype: str = "F32", **options: object) -> Array:
    found = MERGE.apply("a", part_of(values, dtype), options)
    assert isinstance(found, Split)
    assert found.params["vector"] == 0
    return decoded(found)


@pytest.mark.parametrize("shape", [(700, 20), (700, 5, 2, 2)])
@pytest.mark.parametrize("dtype", ["F64", "F32"])
def test_rows_are_off_by_their_share_at_most_and_are_rows_that_were_there(
    shape: tuple[int, ...], dtype: str
) -> None:
    before = alike(700, 30, 20, 0.01).reshape(shape)
    after = merged(before, dtype, euclidean=0.1)
    rows, found = before.reshape(700, -1), after.reshape(700, -1)
    assert (np.linalg.norm(found - rows, axis=1) <= 0.1 * np.linalg.norm(rows, axis=1)).all()
    assert {row.tobytes() for row in found} <= {row.tobytes() for row in rows}
    assert 30 <= len(np.unique(found, axis=0)) < 60


def test_the_cosine_to_the_row_that_stands_is_as_asked() -> None:
    before = alike(600, 20, 16, 0.01) * np.random.default_rng(0).uniform(0.5, 2, (600, 1)).astype(np.float32)
    after = merged(before, cosine=0.99)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    assert ((before * after).sum(axis=1) >= 0.99 * lengths * (1 - 1e-6)).all()
    assert len(np.unique(after, axis=0)) < 40


def test_equal_rows_are_stored_once_and_exactly() -> None:
    before = normal(300, 40)[np.random.default_rng(0).integers(0, 50, 300)]
    assert merged(before, euclidean=0).tobytes() == before.tobytes()


def test_rows_of_zeros_stand_for_themselves_only() -> None:
    rows = np.float32([[1, 1], [0, 0], [1, 1.0001], [0, 0], [1e-9, 0]])
    assert representatives(rows, "euclidean", 0.01, 9).tolist() == [0, 1, 0, 1, 4]
    assert representatives(rows, "cosine", 0.99, 9).tolist() == [0, 1, 0, 1, 4]
    assert representatives(rows, "cosine", -1, 9).tolist() == [0, 1, 0, 1, 0]


def test_a_row_joins_the_nearest_that_came_before_it() -> None:
    rows = np.repeat(np.float32([[10, 0], [11, 0]]), 300, axis=0)
    rows = np.concatenate([rows, np.float32([[10.9, 0], [10.1, 0]])])
    found = representatives(rows, "euclidean", 0.05, 600)
    assert found is not None
    assert found[-2:].tolist() == [300, 0]


def test_more_representatives_than_allowed_are_none() -> None:
    assert representatives(normal(1000, 8), "euclidean", 0.01, 999) is None
    assert representatives(normal(1000, 8), "euclidean", 0.01, 1000) is not None


def test_rows_to_keep_neither_change_nor_stand_for_others() -> None:
    before = np.ones((20, 30), np.float32)
    before[3] = 1.001
    after = decoded(MERGE.apply("a", part_of(before), {"euclidean": 0.1, "keep_rows": [0, 3]}))
    assert after.tobytes() == before.tobytes()


@pytest.mark.parametrize("values", [normal(50, 20), normal(50), np.float32(3), np.zeros((1, 5))])
def test_tensors_without_rows_that_are_alike_are_left_alone(values: Array) -> None:
    assert MERGE.apply("a", part_of(values), {"euclidean": 0.01}) is None


@pytest.mark.parametrize("part", NOT_WEIGHTS.values(), ids=NOT_WEIGHTS)
def test_what_has_no_finite_weights_is_left_alone(part: Part) -> None:
    assert MERGE.apply("a", part, {"cosine": -1}) is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"euclidean": 0.1, "cosine": 0.9},
        {"euclidean": -0.1},
        {"cosine": 1.1},
        {"cosine": "0.9"},
        {"manhattan": 1},
        {"euclidean": 0.1, "keep_rows": [None]},
    ],
)
def test_options_that_make_no_sense_are_errors(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        MERGE.apply("a", part_of([1.0]), options)
