"""Which rows an index touches: the same as NumPy finds, and no more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices

from cmpk.errors import SourceError
from cmpk.indexing import default_threads, row_range


@st.composite
def shapes_and_indices(draw: st.DrawFn) -> tuple[tuple[int, ...], Any]:
    shape = draw(st.one_of(st.just(()), array_shapes(min_side=0, max_dims=4, max_side=6)))
    index = draw(basic_indices(shape, allow_newaxis=False))
    return shape, index if isinstance(index, tuple) else (index,)


def has_negative_step(index: tuple[Any, ...]) -> bool:
    return any(isinstance(item, slice) and (item.step or 1) < 0 for item in index)


@given(shapes_and_indices())
def test_the_rows_and_the_index_into_them_give_what_the_index_gives(case: tuple[Any, Any]) -> None:
    shape, index = case
    array = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    if has_negative_step(index):
        with pytest.raises(SourceError, match="positive step"):
            row_range(shape, index)
        return
    first, last, inner = row_range(shape, index)
    rows = array[first:last] if shape else array
    np.testing.assert_array_equal(rows[inner], array[index])
    assert 0 <= first <= last <= (shape[0] if shape else 1)


@given(shapes_and_indices())
def test_torch_takes_the_index_into_the_rows(case: tuple[Any, Any]) -> None:
    shape, index = case
    if has_negative_step(index):
        return
    array = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    first, last, inner = row_range(shape, index)
    rows = torch.from_numpy(array)[first:last] if shape else torch.from_numpy(array)
    np.testing.assert_array_equal(rows[inner].numpy(), array[index])


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        ((3,), (3, 4)),
        ((-1,), (9, 10)),
        ((slice(2, 5),), (2, 5)),
        ((slice(-3, None),), (7, 10)),
        ((slice(5, 2),), (5, 5)),
        ((slice(8, 99),), (8, 10)),
        ((slice(2, 9, 3),), (2, 9)),
        ((..., 0), (0, 10)),
        ((4, ...), (4, 5)),
        ((..., 4, 1), (4, 5)),
        ((), (0, 10)),
        ((np.int64(3),), (3, 4)),
        ((np.uint8(3), slice(np.int32(1), None)), (3, 4)),
        ((torch.tensor(3),), (3, 4)),
        ((slice(1, None, 10**30),), (1, 10)),
    ],
)  # fmt: skip
def test_only_the_rows_that_are_touched_are_named(index: tuple[Any, ...], rows: tuple[int, int]) -> None:
    assert row_range((10, 5), index)[:2] == rows


@pytest.mark.parametrize(
    "index",
    [
        (10,), (-11,), (0, 5), (0, -6), (..., 5), (0, 0, 0), (..., ...), (0, ..., 0, 0), (None,), (True,),
        (np.bool_(True),), ("a",), (1.0,), ([1],), (np.array([1, 2]),), (torch.tensor([1, 2]),),
        (slice(None, None, 0),), (slice(None), slice(None, None, 0)), (slice(None, None, -1),),
        (slice(None), slice(None, None, -1)), (slice("a"),), (slice(0.5),), (10**30,),
    ],
)  # fmt: skip
def test_an_index_that_does_not_fit_is_one_clear_error(index: tuple[Any, ...]) -> None:
    with pytest.raises(SourceError):
        row_range((10, 5), index)


@pytest.mark.parametrize("index", [(0,), (slice(None),), (..., 0)])
def test_a_tensor_without_dimensions_has_nothing_to_index(index: tuple[Any, ...]) -> None:
    with pytest.raises(SourceError, match="does not fit the shape"):
        row_range((), index)
    assert row_range((), (...,)) == row_range((), ()) == (0, 1, ())


def test_threads_are_at_least_one() -> None:
    assert default_threads() >= 1
