"""Comparing two models: in any form and order, and to the last bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cmpk
import cmpk.numpy
from cmpk.comparison import Comparison, compare
from cmpk.errors import FormatError, SourceError

RNG = np.random.default_rng(5)
TENSORS = {
    "w": RNG.standard_normal((32, 64)).astype(np.float32),
    "b": RNG.standard_normal(32).astype(np.float32),
    "ids": np.arange(8),
}
FORMS = ["archive", "safetensors", "directory", "checkpoint"]


def written(folder: Path, form: str, tensors: Mapping[str, Any] = TENSORS) -> Path:
    """A model in one of the forms."""
    folder.mkdir(exist_ok=True)
    if form == "checkpoint":
        torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, folder / "m.pt")
        return folder / "m.pt"
    cmpk.numpy.save_file(dict(tensors), folder / "m.cmpk")
    if form == "archive":
        return folder / "m.cmpk"
    (folder / "model").mkdir(exist_ok=True)
    cmpk.unpack(folder / "m.cmpk", folder / "model", force=True)
    return folder / "model" if form == "directory" else folder / "model" / "model.safetensors"


def statuses(found: Comparison) -> dict[str, str]:
    return {tensor.name: tensor.status for tensor in found.tensors}


@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", FORMS)
def test_a_model_is_identical_to_itself_in_any_form(first: str, second: str, tmp_path: Path) -> None:
    found = compare(written(tmp_path / "a", first), written(tmp_path / "b", second))
    assert found.is_identical
    assert set(statuses(found)) == set(TENSORS)
    assert found.total.error == 0


@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", FORMS)
def test_every_difference_has_a_name_whatever_the_order(first: str, second: str, tmp_path: Path) -> None:
    other = {
        "new": np.ones(3, np.float32),
        "ids": np.arange(8).reshape(2, 4),
        "b": TENSORS["b"].astype(np.float16),
        "w": TENSORS["w"] * np.float32(1.5),
    }
    ours = TENSORS | {"gone": np.zeros(2, np.float32)}
    found = compare(written(tmp_path / "a", first, ours), written(tmp_path / "b", second, other))
    assert not found.is_identical
    assert statuses(found) == {
        "w": "values",
        "b": "dtype",
        "ids": "shape",
        "gone": "missing",
        "new": "extra",
    }
    by_name = {tensor.name: tensor for tensor in found.tensors}
    w, b = by_name["w"].deviation, by_name["b"].deviation
    assert w is not None
    assert b is not None
    assert w.error == pytest.approx(0.5, rel=1e-6)
    assert w.cosine == pytest.approx(1)
    assert 0 < b.error < 1e-3
    assert [by_name[name].deviation for name in ("ids", "gone", "new")] == [None] * 3


def test_a_single_bit_is_a_difference_even_where_values_are_equal(tmp_path: Path) -> None:
    zeros = {"w": np.zeros(4, np.float32)}
    negative = {"w": np.array([0, -0.0, 0, 0], np.float32)}
    found = compare(written(tmp_path / "a", "archive", zeros), written(tmp_path / "b", "archive", negative))
    assert statuses(found) == {"w": "values"}
    assert found.total.error == 0


def test_tensors_that_are_not_numbers_are_compared_by_their_bytes(tmp_path: Path) -> None:
    for name, bits in (("a", 0), ("b", 1)):
        header = json.dumps({"w": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}).encode()
        data = len(header).to_bytes(8, "little") + header + bytes([0, bits])
        (tmp_path / f"{name}.safetensors").write_bytes(data)
    found = compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert statuses(found) == {"w": "values"}
    assert found.tensors[0].deviation is None
    assert compare(tmp_path / "a.safetensors", tmp_path / "a.safetensors").is_identical


def test_what_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, "archive")
    with pytest.raises(SourceError, match="does not exist"):
        compare(path, tmp_path / "nothing")
    (tmp_path / "text.txt").write_text("no model")
    with pytest.raises(SourceError, match="in no form"):
        compare(tmp_path / "text.txt", path)
    (tmp_path / "cut.cmpk").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError):
        compare(path, tmp_path / "cut.cmpk")


def test_progress_grows_to_the_whole(tmp_path: Path) -> None:
    path = written(tmp_path, "archive")
    calls: list[tuple[int, int]] = []
    compare(path, path, progress=lambda done, total: calls.append((done, total)))
    total = sum(value.nbytes for value in TENSORS.values())
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)
