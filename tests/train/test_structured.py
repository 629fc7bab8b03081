"""Whole neurons and channels, removed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import cmpk.torch
from cmpk import train
from cmpk.errors import PassError

pytest.importorskip("torch_pruning")

INPUTS = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3),
        nn.Flatten(),
        nn.Linear(144, 20),
        nn.ReLU(),
        nn.Linear(20, 5),
    )


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_smaller_module_is_left_that_runs_and_packs(scope: str, tmp_path: Path) -> None:
    model = network()
    smaller = train.prune_structure(model, INPUTS, 0.5, keep=["8"], scope=scope)
    assert smaller(INPUTS).shape == (8, 5)
    sizes = [sum(p.numel() for p in each.parameters()) for each in (model, smaller)]
    assert sizes[1] < sizes[0]
    if scope == "layer":
        assert sizes[1] < 0.6 * sizes[0]
        assert [smaller[i].weight.shape[0] for i in (0, 4, 6, 8)] == [4, 8, 10, 5]
        assert smaller[6].weight.shape[1] == 72
    train.prune(smaller, ratio=0.5)
    train.save(smaller, tmp_path / "smaller.cmpk")
    state = cmpk.torch.load_file(tmp_path / "smaller.cmpk")
    assert state["6.weight"].shape == smaller[6].weight.shape


def test_what_stays_are_the_neurons_that_matter_most() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([5.0, 1, 4, 2, 6, 3])[:, None].expand(6, 4))
    smaller = train.prune_structure(model, torch.randn(1, 4), 0.5, keep=["2"])
    assert smaller[0].weight[:, 0].tolist() == [5.0, 4.0, 6.0]
    assert torch.equal(smaller[2].weight, model[2].weight[:, [0, 2, 4]])


def test_criteria_come_from_calibration() -> None:
    model = network()
    with pytest.raises(PassError, match="needs a calibration"):
        train.prune_structure(model, INPUTS, 0.5, keep=["8"], method="activation")
    calibration = cmpk.calibrate(model, [(INPUTS,)])
    smaller = train.prune_structure(
        model, INPUTS, 0.5, keep=["8"], method="activation", calibration=calibration
    )
    assert smaller(INPUTS).shape == (8, 5)


def test_what_can_not_be_pruned_so_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    with pytest.raises(PassError, match="ratio is 1"):
        train.prune_structure(model, INPUTS, 1.0)
    with pytest.raises(PassError, match="no module 'head'"):
        train.prune_structure(model, INPUTS, 0.5, keep=["head"])
    train.prune(model, ratio=0.5)
    with pytest.raises(PassError, match="has parametrizations"):
        train.prune_structure(model, INPUTS, 0.5)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(PassError, match=r"pip install 'cmpk\[structured\]'"):
        train.prune_structure(network(), INPUTS, 0.5)
