"""Inputs of layers, rounded."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cmpk import train
from cmpk.errors import PassError, SourceError
from cmpk.passes.clipping import CLIPS
from cmpk.train import QuantizedInput


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))


@pytest.mark.parametrize("clip", CLIPS)
def test_inputs_are_watched_first_and_rounded_afterwards(clip: str) -> None:
    quantizer = QuantizedInput(4, clip=clip, n_observed=3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = torch.randn(64, 50, generator=generator)
        assert torch.equal(quantizer(x), x)
    rounded = quantizer(x).detach()
    assert len(rounded.unique()) <= 16
    assert float((rounded - x).square().mean()) < 0.1
    assert torch.equal(quantizer.eval()(x), rounded)


def test_the_range_is_that_of_all_batches() -> None:
    quantizer = QuantizedInput(8, n_observed=2)
    quantizer(torch.tensor([-1.0, 0.5]))
    quantizer(torch.tensor([0.0, 3.0]))
    assert quantizer.range.tolist() == [-1.0, 3.0]
    error = (quantizer(torch.linspace(-1, 3, 100)) - torch.linspace(-1, 3, 100)).abs().max()
    assert float(error.detach()) <= 4 / 255 * 0.5001 + 1e-6


def test_what_is_never_negative_has_levels_that_never_are() -> None:
    quantizer = QuantizedInput(2, n_observed=1)
    quantizer(torch.tensor([0.0, 3.0]))
    assert quantizer(torch.tensor([-5.0, 0.0, 0.9, 2.1, 9.0])).tolist() == [0, 0, 1, 2, 3]


def test_scales_are_trained_and_travel_in_the_state_dict() -> None:
    model = network()
    train.quantize_inputs(model, bits=3, n_observed=1)
    inputs = torch.randn(128, 20)
    model(inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model[2].input_quantizer.scale.item()
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), inputs[:, :5].argmax(1)).backward()
        optimizer.step()
    assert model[2].input_quantizer.scale.item() != before
    other = network()
    train.quantize_inputs(other, bits=3, n_observed=1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(inputs), model.eval()(inputs))
    assert torch.equal(copy.deepcopy(model)(inputs), model(inputs))


def test_inputs_are_rounded_once_and_of_layers_that_are_there() -> None:
    model = network()
    train.quantize_inputs(model, modules=["0"])
    with pytest.raises(PassError, match="rounded already"):
        train.quantize_inputs(model, modules=["0"])
    with pytest.raises(SourceError, match="no module"):
        train.quantize_inputs(model, modules=["5"])
