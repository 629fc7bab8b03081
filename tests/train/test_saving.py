"""Trained models in archives: no value changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cmpk.torch
from cmpk import train
from cmpk.dtypes import TensorSpec
from cmpk.encodings import Affine
from cmpk.encodings.base import Part
from cmpk.errors import PassError
from cmpk.passes.base import Planned, branch


class Halves(nn.Module):
    """Rounds to multiples of one half, and says how these are stored; wrongly, with another step."""

    def __init__(self, step: float = 0.5) -> None:
        super().__init__()
        self.step = step

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.round(weight * 2) / 2

    def planned(self, part: Part) -> Planned | None:
        codes = np.rint(part.data.view("<f4") * 2).astype(np.int32).reshape(part.spec.shape)
        scale = np.array([self.step], np.float32)
        encoded = Affine().encode(codes, part.spec, scale, None, axis=-1, group_size=0, scale_dtype="F32")
        return branch(Affine.id, part.spec, encoded)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 10))


def test_a_pruned_and_shared_model_loads_as_it_was_trained(tmp_path: Path) -> None:
    model = network()
    train.prune(model, ratio=0.9)
    train.share(model, 8)
    train.share(model, 16, names=["0.bias"])
    model(torch.randn(4, 64))
    report = train.save(model, tmp_path / "model.cmpk", metadata={"seed": "0"})
    loaded = cmpk.torch.load_model(network, tmp_path / "model.cmpk")
    model.eval()
    loaded.eval()
    inputs = torch.randn(100, 64)
    assert model(inputs).detach().numpy().tobytes() == loaded(inputs).detach().numpy().tobytes()
    assert set(train.trained_state(model)) == set(network().state_dict())
    assert report.nbytes == (tmp_path / "model.cmpk").stat().st_size < 4000
    assert report.notes == []
    with cmpk.open(tmp_path / "model.cmpk") as archive:
        assert archive.entry("0.weight").data.encoding in ("codebook", "gap_index", "bitmask")
        assert archive.metadata == {"seed": "0"}


def test_a_parametrization_says_how_its_tensor_is_stored(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model[0].weight.mul_(300)
    train.attach(model, "0.weight", Halves())
    train.save(model, tmp_path / "model.cmpk")
    with cmpk.open(tmp_path / "model.cmpk") as archive:
        assert archive.entry("0.weight").data.encoding == Affine.id
    found = cmpk.torch.load_file(tmp_path / "model.cmpk")["0.weight"]
    assert torch.equal(found, model[0].weight)


def test_a_file_that_would_change_a_value_is_not_written(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model[0].weight.mul_(300)
    train.attach(model, "0.weight", Halves(step=0.25))
    path = tmp_path / "model.cmpk"
    with pytest.raises(PassError, match="not be stored as it was trained"):
        train.save(model, path)
    with pytest.raises(PassError, match="not be stored as it was trained"):
        train.save(network(), path, recipe="int4")
    assert not path.exists()


def test_saving_leaves_every_module_in_its_mode(tmp_path: Path) -> None:
    model = network()
    model[1].eval()
    train.save(model, tmp_path / "model.cmpk")
    assert [module.training for module in model] == [True, False, True, True]


def test_tensors_tied_by_their_module_stay_tied(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
    model[1].weight = model[0].weight
    train.save(model, tmp_path / "model.cmpk")
    with cmpk.open(tmp_path / "model.cmpk") as archive:
        assert archive.entry("1.weight").data.encoding == "alias"
        assert archive.spec("1.weight") == TensorSpec("F32", (40, 40))
