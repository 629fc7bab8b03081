"""Training goes on from an archive."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import cmpk
import cmpk.torch
from cmpk import train
from cmpk.encodings import Affine, RowGroups
from cmpk.errors import PassError
from cmpk.train import Quantized

NAMES = ["0.weight", "1.weight"]


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(200, 32), nn.Linear(32, 64), nn.LayerNorm(64))
    with torch.no_grad():
        # Rows of so different magnitudes are stored in groups.
        model[0].weight.mul_(torch.logspace(-2, 0, 200)[:, None])
    return model.to(dtype)


def calibrated(model: nn.Sequential) -> cmpk.Calibration:
    return cmpk.calibrate(model, [torch.arange(200).view(8, 25)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("recipe", ["balanced", "int8", "int4", "ternary", "calibrated"])
def test_the_model_is_the_packed_one_and_saves_as_it_was(
    recipe: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    original = network(dtype=dtype)
    path = tmp_path / "model.cmpk"
    calibration = calibrated(original) if recipe == "calibrated" else None
    chosen = "balanced" if calibration else recipe
    cmpk.pack(original.state_dict(), path, recipe=chosen, calibration=calibration)
    with cmpk.open(path) as archive:
        encodings = [archive.entry(name).data.encoding for name in NAMES]
    assert set(encodings) <= {Affine.id, RowGroups.id}
    packed = cmpk.torch.load_file(path)
    for weights in (None, original.state_dict()):
        model = network(seed=1, dtype=dtype)
        assert train.take_up(model, path, weights=weights) == NAMES
        for name, tensor in train.trained_state(model).items():
            assert torch.equal(tensor, packed[name]), name
        data, _ = train.packed(model)
        assert len(data) < 1.1 * path.stat().st_size + 200
        with cmpk.open(data) as archive:
            assert {archive.entry(name).data.encoding for name in NAMES} <= {Affine.id, RowGroups.id}


def test_training_keeps_to_the_grid_of_the_archive_and_lowers_the_loss(tmp_path: Path) -> None:
    teacher = network()
    path = tmp_path / "model.cmpk"
    cmpk.pack(teacher.state_dict(), path, recipe="int4", calibration=calibrated(teacher))
    student = network(seed=1)
    assert train.take_up(student, path, names=["1.weight"], weights=teacher.state_dict()) == ["1.weight"]
    inputs = torch.arange(200)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        loss = train.hidden_loss(student(inputs), teacher(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    steps = train.parametrizations_of(student, "1.weight", Quantized)[0].steps()
    codes = train.trained_state(student)["1.weight"] / steps[:, None]
    torch.testing.assert_close(codes, codes.round())


def test_what_has_no_grid_is_loaded_and_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "model.cmpk"
    cmpk.pack(network().state_dict(), path)
    model = network(seed=1)
    assert train.take_up(model, path) == []
    assert torch.equal(model[1].weight, network()[1].weight)
    with pytest.raises(PassError, match="on no grid"):
        train.take_up(model, path, names=["1.weight"])
    train.quantize(model)
    with pytest.raises(PassError, match="already"):
        train.take_up(model, path)
