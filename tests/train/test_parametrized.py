"""Parametrized tensors by their names."""

from __future__ import annotations

import copy

import torch
from torch import nn

from cmpk import train
from cmpk.train import Mask


def test_weights_are_those_of_linear_layers_and_convolutions() -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Conv1d(3, 5, 1), nn.LayerNorm(7), nn.Linear(7, 2))
    assert train.weight_names(model) == ["1.weight", "3.weight"]
    assert train.weight_names(model[3]) == ["weight"]


def test_what_is_attached_to_a_copy_leaves_the_original_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(8, 4))
    train.prune(model, ratio=0.5)
    other = copy.deepcopy(model)
    train.share(other, 2, names=["0.bias"], keep_zeros=False)
    assert len(other[0].bias.unique()) == 2
    assert len(model[0].bias.unique()) == 4
    inputs = torch.randn(3, 8)
    assert model(inputs).shape == other(inputs).shape == (3, 4)


def test_the_state_is_that_of_a_module_without_parametrizations() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    plain = copy.deepcopy(model)
    train.prune(model, ratio=0.5)
    train.share(model, 3)
    plain.load_state_dict(train.trained_state(model))
    assert torch.equal(plain[0].weight, model[0].weight)
    assert [type(each) for each in train.parametrizations_of(model, "0.weight", Mask)] == [Mask]
    assert train.parametrizations_of(model, "0.bias", Mask) == []
