"""What nvCOMP is given to compress, and that its absence is told."""

from __future__ import annotations

import sys

import pytest
import torch

from tools.gpu.peers import nvcomp_rates, planes_of


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_first_plane_is_the_exponents(dtype: torch.dtype) -> None:
    exponents, *rest = planes_of(torch.tensor([1.0, -1.0, 0.5, 2.0, -0.0], dtype=dtype))
    assert exponents.tolist() == [127, 127, 126, 128, 0]
    assert rest[-1].tolist() == [0, 1, 0, 0, 1]
    assert len(rest) == dtype.itemsize - 1


def test_other_types_are_their_bytes() -> None:
    assert [plane.tolist() for plane in planes_of(torch.tensor([258, 3], dtype=torch.int16))] == [
        [1, 0],
        [2, 3],
    ]


def test_where_nvcomp_is_missing_that_is_what_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.nvcomp", None)
    found = nvcomp_rates({"a": torch.zeros(3)}, lambda _: 1.0)
    assert list(found) == ["nvCOMP"]
    assert found["nvCOMP"].startswith("NOT MEASURED")
